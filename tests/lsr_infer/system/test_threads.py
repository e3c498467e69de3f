"""Prefetching and background writing: order, bounds, and that nobody waits for ever."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lsr_infer.system.threads import BackgroundWriter, prefetch

PATIENCE_SECONDS = 20.0


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name in ("prefetch", "background writer")}


def test_prefetching_keeps_the_order_and_stays_within_its_bound() -> None:
    made = 0
    largest = 0

    def produce() -> Iterator[int]:
        nonlocal made
        for n in range(200):
            made += 1
            yield n

    taken = 0
    for item in prefetch(produce(), depth=3):
        assert item == taken
        taken += 1
        largest = max(largest, made - taken)
    assert taken == 200
    assert largest <= 3 + 1  # the queue, and the one waiting to enter it
    assert not threads()


def test_prefetching_raises_what_the_producer_raised_after_its_items() -> None:
    def produce() -> Iterator[int]:
        yield from range(5)
        raise KeyError("lost")

    seen: list[int] = []
    with pytest.raises(KeyError, match="lost"):
        seen.extend(prefetch(produce(), depth=2))
    assert not threads()


def test_a_consumer_that_stops_early_ends_the_producer_and_closes_it() -> None:
    closed = threading.Event()

    def produce() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.set()

    items = prefetch(produce(), depth=2)
    assert next(items) == 0
    items.close()
    assert closed.wait(PATIENCE_SECONDS)
    assert not threads()


def test_a_producer_that_hangs_is_left_once_it_is_stopped() -> None:
    stop, answer = threading.Event(), threading.Event()

    def produce() -> Iterator[int]:
        yield 0
        assert answer.wait(PATIENCE_SECONDS)
        yield 1

    items = prefetch(produce(), stop=stop)
    assert next(items) == 0
    stop.set()
    assert within_patience(lambda: list(items)) == []
    assert threads() == {"prefetch"}  # it ends by itself
    answer.set()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while threads():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_behind_does_everything_in_order_before_it_ends() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        time.sleep(0.001)
        done.append(item)

    with BackgroundWriter(work, depth=2) as writer:
        for n in range(50):
            writer.put(n)
    assert done == list(range(50))
    assert not threads()


def put_many(writer: BackgroundWriter[int], count: int) -> None:
    for n in range(count):
        writer.put(n)


def test_a_worker_that_fails_stops_its_feeder() -> None:
    def work(item: int) -> None:
        if item == 3:
            raise OSError("full")

    with pytest.raises(OSError, match="full"), BackgroundWriter(work, depth=1) as writer:
        put_many(writer, 10**6)
    assert not threads()


def test_a_worker_that_fails_on_the_last_item_is_heard() -> None:
    def work(item: int) -> None:
        time.sleep(0.05)
        raise OSError("full")

    with pytest.raises(OSError, match="full"), BackgroundWriter(work) as writer:
        writer.put(1)


def put_and_fail(writer: BackgroundWriter[int]) -> None:
    writer.put(1)
    raise ZeroDivisionError


def test_the_feeders_own_error_comes_first_and_what_was_handed_over_is_done() -> None:
    done: list[int] = []
    with pytest.raises(ZeroDivisionError), BackgroundWriter(done.append) as writer:
        put_and_fail(writer)
    assert done == [1]
    assert not threads()


def within_patience(work: Callable[[], object]) -> list[BaseException]:
    """Run something that must not wait for ever; return what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - looked at by the caller
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive(), "it waits for ever"
    return raised


def test_an_interruption_while_the_end_is_handed_over_waits_for_nobody() -> None:
    done: list[int] = []

    def interrupted(*words: object, **options: object) -> None:
        raise KeyboardInterrupt

    def work() -> None:
        with BackgroundWriter(done.append, depth=2) as writer:
            writer.put(1)
            writer._slots.put = interrupted  # type: ignore[method-assign]  # Ctrl-C, exactly there

    (error,) = within_patience(work)
    assert isinstance(error, KeyboardInterrupt)
    assert done == [1]
    assert not threads()


def test_a_producer_that_fails_while_it_is_closed_is_heard() -> None:
    class Source:
        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            raise StopIteration

        def close(self) -> None:
            raise OSError("cannot be closed")

    (error,) = within_patience(lambda: list(prefetch(Source())))
    assert str(error) == "cannot be closed"
    assert not threads()
