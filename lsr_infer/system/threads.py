"""Runs work on other threads: prefetching a producer, handing results to a background writer, a fair lock.

Queues are bounded, an exception on a thread is raised again on the caller's side, and whoever stops early stops the
other end too: nothing waits for ever.
"""

import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

__all__ = ["BackgroundWriter", "FairLock", "prefetch"]

Item = TypeVar("Item")
_POLL_SECONDS = 0.1
_JOIN_SECONDS = 2.0


@dataclass(frozen=True)
class _End:
    """The last entry of a queue, with what ended it."""

    error: BaseException | None


def prefetch(
    items: Iterable[Item], depth: int = 4, stop: threading.Event | None = None, timeout_seconds: float = math.inf
) -> Generator[Item, None, None]:
    """Yield `items` while a thread already produces the next ones.

    A producer that waits for something outside when the consumer leaves is waited for only a moment: its thread ends
    by itself once it gets what it waits for, and closes it.

    Args:
        items: iterated on the thread; a generator is closed there too. What it raises is raised again here.
        depth: largest number of items produced and not yet taken.
        stop: once it is set, no further item is waited for.
        timeout_seconds: longest wait for an item, else `TimeoutError`.
    """
    slots: queue.Queue[Item | _End] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(entry: Item | _End) -> bool:
        while not stopped.is_set():
            try:
                slots.put(entry, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            with ExitStack() as stack:
                iterator = iter(items)
                stack.callback(getattr(iterator, "close", lambda: None))
                for item in iterator:
                    if not put(item):
                        break
            put(_End(None))
        except BaseException as raised:  # noqa: BLE001 - it is raised again in the consumer
            put(_End(raised))

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        asked = time.monotonic()
        while True:
            try:
                entry = slots.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if stop is not None and stop.is_set():
                    return
                if time.monotonic() - asked > timeout_seconds:
                    raise TimeoutError from None
                continue
            if isinstance(entry, _End) and entry.error is not None:
                raise entry.error
            if isinstance(entry, _End):
                return
            yield entry
            asked = time.monotonic()
    finally:
        stopped.set()
        thread.join(_JOIN_SECONDS)


class BackgroundWriter(Generic[Item]):
    """Hand items to a function that runs on a thread; leaving the block waits for the last one.

    Args:
        work: called on the thread with each item, in order.
        depth: largest number of items handed over and not yet started; `put` then waits.
    """

    def __init__(self, work: Callable[[Item], None], depth: int = 4) -> None:
        self._work = work
        self._slots: queue.Queue[Item | None] = queue.Queue(maxsize=depth)
        self._error: BaseException | None = None
        self._failed = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="background writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def put(self, item: Item) -> None:
        """Hand over an item, or raise what an earlier one raised on the thread."""
        while not self._failed.is_set():
            try:
                self._slots.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return
        if self._error is not None:
            raise self._error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._closed.set()
            with suppress(queue.Full):  # a full queue wakes the thread as well
                self._slots.put_nowait(None)
        finally:
            self._closed.set()  # once more, where an interruption came first
            self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        try:
            while not (self._closed.is_set() and self._slots.empty()):
                try:
                    item = self._slots.get(timeout=_POLL_SECONDS)
                except queue.Empty:
                    continue
                if item is not None:
                    self._work(item)
        except BaseException as raised:  # noqa: BLE001 - it is raised again in the caller
            self._error = raised
            self._failed.set()


class FairLock:
    """A lock that is given in the order in which it was asked for, so that no stream starves another."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = self._serving = 0

    def __enter__(self) -> Self:
        with self._changed:
            ticket = self._next
            self._next += 1
            self._changed.wait_for(lambda: self._serving == ticket)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._serving += 1
            self._changed.notify_all()
