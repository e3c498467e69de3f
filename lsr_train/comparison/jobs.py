"""Work that is shared out over devices: one piece at a time on each, each as soon as what it waits for is done.

A piece runs in a process of its own. Whatever it ends in, the others go on; an interruption asks every process to stop
and waits for it.
"""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lsr_infer.errors import UsageError
from lsr_infer.io.paths import place_error
from lsr_train.runs.environment import available_cores

__all__ = ["Busy", "Children", "Job", "Slot", "run_jobs", "slots_of"]

logger = logging.getLogger(__name__)

INTERRUPTED = 130
_RETRY = 1.0
"""Seconds after which a piece that another process is at is looked at again."""


class Busy(Exception):  # noqa: N818 - no error: the piece is in good hands
    """Another process is at a piece of work."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A place where one piece of work runs at a time.

    Args:
        device: `auto`, `cpu` or `cuda`, as `train.device` calls it.
        environment: of the processes that run there.
    """

    device: str
    environment: Mapping[str, str] = field(default_factory=dict)


def slots_of(devices: Sequence[str], environment: Mapping[str, str]) -> list[Slot]:
    """Turn names of devices into places to run at.

    Args:
        devices: `auto`, `cpu`, `cuda` or `cuda:N` each; a name that comes twice takes two pieces at a time.
        environment: of this process: which GPUs it sees, and how many threads it is told to use.

    Returns:
        As many places. Several on the CPU divide its cores among themselves.

    Raises:
        UsageError: a name is none of these, or there is none.
    """
    if not devices:
        raise UsageError("devices is empty; allowed: auto, cpu, cuda, cuda:N. Set --devices.")
    cpus = sum(name == "cpu" for name in devices)
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    slots = []
    for name in devices:
        kind, colon, number = name.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and number.isdecimal())):
            raise UsageError(f"devices has {name!r}; allowed: auto, cpu, cuda, cuda:N. Set --devices.")
        if colon and visible and int(number) >= len(visible):
            raise UsageError(f"devices has {name}, and CUDA_VISIBLE_DEVICES shows {len(visible)}. Set --devices.")
        own: dict[str, str] = {}
        if colon:
            own["CUDA_VISIBLE_DEVICES"] = visible[int(number)] if visible else number
        elif kind == "cpu" and cpus > 1:
            threads = str(max(1, available_cores() // cpus))
            own = {name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name not in environment}
        slots.append(Slot(device=kind, environment=own))
    return slots


class Children:
    """The processes that are running, so that all of them can be asked to stop."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.stopping = False

    def run(self, commands: Sequence[Sequence[str]], slot: Slot, log: Path) -> int:
        """Run commands of `lsr_train` one after the other in one process.

        Args:
            commands: words of each, from the command's name on.
            slot: where.
            log: takes what they say, after what is there.

        Returns:
            The exit code of the first that failed, or of all.

        Raises:
            InputError: the log cannot be written.
        """
        try:
            file = log.open("a", encoding="utf-8")
        except OSError as error:
            raise place_error(log, error) from error
        with file:
            for words in commands:
                file.write(f"$ python -m lsr_train {' '.join(words)}\n")
            file.flush()
            with self._lock:
                if self.stopping:
                    return INTERRUPTED
                # in a group of its own: Ctrl-C reaches this process, which asks once; a second signal would kill it
                process = subprocess.Popen(
                    [sys.executable, "-m", "lsr_train.commands.child"],
                    stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True,
                    env={**os.environ, **slot.environment},
                )  # fmt: skip
                self._running.add(process)
            assert process.stdin is not None
            try:
                with suppress(BrokenPipeError):  # it ended at once; its code says why
                    process.stdin.write(json.dumps([list(words) for words in commands]).encode() + b"\n")
                    process.stdin.flush()
                return process.wait()
            finally:
                with self._lock:
                    self._running.discard(process)
                with suppress(BrokenPipeError):
                    process.stdin.close()

    def stop(self) -> None:
        """Ask every process to stop after its step, and let none begin."""
        with self._lock:
            self.stopping = True
            for process in self._running:
                process.terminate()  # SIGINT may be one that this process was told to ignore, and its children with it


@dataclass(eq=False, kw_only=True)
class Job:
    """A piece of work.

    Args:
        name: for people.
        work: does it at a slot; what it raises is its failure, but for `Busy`, after which it is tried again.
        after: what has to be done before, None for nothing.
        state: what became of it.
        not_before: on the monotonic clock; set where another process was at it.
    """

    name: str
    work: Callable[[Slot], object]
    after: "Job | None" = None
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    not_before: float = 0.0

    @property
    def hopeless(self) -> bool:
        """Whether what it waits for has failed."""
        return self.after is not None and self.after.state == "failed"

    @property
    def ready(self) -> bool:
        """Whether it can begin."""
        return self.state == "waiting" and (self.after is None or self.after.state == "done")


def run_jobs(
    jobs: Sequence[Job], slots: Sequence[Slot], children: Children, failed: Callable[[Job, Exception | None], None]
) -> None:
    """Do all work, in its order where nothing has to wait.

    Args:
        jobs: what is to be done.
        slots: where; one piece at a time each.
        children: asked to stop where this is interrupted.
        failed: told of every piece that failed, with what it raised; None where what it waits for has failed.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after every process has stopped.
    """
    changed = threading.Condition()

    def settle(job: Job, error: Exception | None) -> None:
        job.state = "failed"
        failed(job, error)

    def take() -> Job | None:
        """Wait for a piece that can begin; None where there will be none any more."""
        with changed:
            while True:
                for job in jobs:
                    if job.state == "waiting" and job.hopeless:
                        settle(job, None)
                now = time.monotonic()
                found = next((job for job in jobs if job.ready and job.not_before <= now), None)
                if children.stopping or (found is None and all(job.state != "waiting" for job in jobs)):
                    return None
                if found is not None:
                    found.state = "running"
                    return found
                changed.wait(_RETRY if any(job.ready for job in jobs) else None)

    def serve(slot: Slot) -> None:
        """Do one piece after the other at a place."""
        while (job := take()) is not None:
            error: Exception | None = None
            try:
                job.work(slot)
            except Busy:
                with changed:
                    if not job.not_before:
                        logger.info("%s: another process is at it", job.name)
                    job.state, job.not_before = "waiting", time.monotonic() + _RETRY
                    changed.notify_all()
                continue
            except Exception as caught:  # noqa: BLE001 - whatever a piece raises is its own failure, and is reported
                error = caught
            with changed:
                if error is None:
                    job.state = "done"
                else:
                    settle(job, error)
                changed.notify_all()

    threads = [threading.Thread(target=serve, args=(slot,), daemon=True) for slot in slots]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(timeout=0.5)  # a join without end would not be woken by a signal
    except KeyboardInterrupt:
        children.stop()
        with changed:
            changed.notify_all()
        for thread in threads:
            thread.join()
        raise
