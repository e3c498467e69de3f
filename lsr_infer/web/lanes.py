"""A queue that is fair to sessions: whoever has waited longest for a turn is next, however many jobs others have sent.

A lane has a few worker processes, each with a thread that gives it one job after the other. Knows nothing of what the
jobs are or of the page.
"""

import asyncio
import logging
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, Literal

from lsr_infer.errors import LsrError, UsageError
from lsr_infer.web.limits import Limits
from lsr_infer.web.processes import CancelledError, WorkerProcess
from lsr_infer.web.requests import Request

__all__ = ["BusyError", "Job", "Lane", "State"]

logger = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "failed", "cancelled"]
_OVER = ("done", "failed", "cancelled")
_REPORT_SECONDS = 0.1
_RETRY_SECONDS = 1.0


class BusyError(UsageError):
    """There is no room in the queue."""


class Job:
    """One request on its way. Any thread may look at it.

    Args:
        owner: whose turn it takes: a session's secret.
        request: what is to be done.

    Attributes:
        id: how the page calls it.
        state: where it is.
        progress: what was last said about it.
        result: what came of it, None until it is done.
        error: the sentence in which it failed.
    """

    def __init__(self, owner: str, request: Request) -> None:
        self.id = secrets.token_urlsafe(16)
        self.owner = owner
        self.request = request
        self.state: State = "waiting"
        self.progress: dict[str, Any] = {}
        self.result: dict[str, Any] | None = None
        self.error = ""
        self._cancelled = threading.Event()
        self._listeners: set[Callable[[], None]] = set()
        self._last: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in _OVER

    @property
    def cancelled(self) -> bool:
        """Whether somebody has cancelled it."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask for its end, which comes within a moment if it runs; `Lane.cancel` takes it out of the queue, too."""
        self._cancelled.set()
        self._tell()

    def begin(self) -> None:
        """Note that a worker has it."""
        self._become("running")

    def advance(self, progress: dict[str, Any]) -> None:
        """Note what is done of it."""
        self.progress = {**self.progress, **progress}
        self._tell()

    def finish(self, state: State, *, result: dict[str, Any] | None = None, error: str = "") -> None:
        """Note how it ended."""
        self.result, self.error = result, error
        self._become(state)

    async def changes(self) -> AsyncGenerator["Job", None]:
        """Yield the job at once, after each change but not more than ten times a second, and last when it is over."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def listener() -> None:
            with suppress(RuntimeError):  # the page has gone, and its loop with it
                loop.call_soon_threadsafe(changed.set)

        with self._lock:
            self._listeners.add(listener)
        try:
            while not self.over:
                changed.clear()
                yield self
                begin = time.monotonic()
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), 1.0)  # places in the queue change without the job's doing
                while not self.over and time.monotonic() - begin < _REPORT_SECONDS:
                    changed.clear()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), _REPORT_SECONDS)
            yield self
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def when_over(self, then: Callable[[], None]) -> None:
        """Call a function once it is over, at once where it is over already.

        Args:
            then: called on whichever thread ends the job, so it may take no time and raise nothing.
        """
        with self._lock:
            if not self.over:
                self._last.append(then)
                return
        then()

    async def over_soon(self) -> "Job":
        """Wait until it is over."""
        async for _ in self.changes():
            pass
        return self

    def _become(self, state: State) -> None:
        with self._lock:
            self.state = state
            last, self._last = (self._last, []) if self.over else ([], self._last)
        self._tell()
        for then in last:
            then()

    def _tell(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener()


class Lane:
    """Worker processes with one fair queue before them.

    Args:
        name: for threads and the log.
        workers: how many jobs run at once.
        limits: how many may wait.
        seconds: that one job may take.
    """

    def __init__(self, name: str, workers: int, limits: Limits, seconds: float) -> None:
        self._limits = limits
        self._changed = threading.Condition()
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()
        self._running: set[Job] = set()
        self._closed = False
        self.processes = [WorkerProcess(limits, seconds) for _ in range(workers)]
        self._threads = [
            threading.Thread(target=self._serve, args=(process,), name=f"{name}-{number}", daemon=True)
            for number, process in enumerate(self.processes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether every worker is there to take a job."""
        return not self._closed and all(thread.is_alive() for thread in self._threads)

    def submit(self, job: Job, most: int | None = None) -> None:
        """Put a job into the queue.

        Args:
            job: it.
            most: how many jobs its owner may have here; None takes the limit of a session.

        Raises:
            BusyError: the queue is full, or the owner has enough jobs in it.
        """
        with self._changed:
            if self._closed:
                raise BusyError("The server is being stopped. Try again later.")
            if sum(map(len, self._waiting.values())) >= self._limits.queue:
                raise BusyError(f"{self._limits.queue} jobs are waiting already. Try again in a minute.")
            own = len(self._waiting.get(job.owner, ())) + sum(one.owner == job.owner for one in self._running)
            if own >= (most or self._limits.session_jobs):
                raise BusyError(f"You have {own} jobs under way already. Wait for one of them, or cancel it.")
            self._waiting.setdefault(job.owner, deque()).append(job)
            self._changed.notify()

    def position(self, job: Job) -> int:
        """Return how many jobs will be begun before a waiting one."""
        with self._changed:
            own = self._waiting.get(job.owner)
            if own is None or job not in own:
                return 0
            turn, ahead, passed = own.index(job), own.index(job), False
            for owner, jobs in self._waiting.items():
                if owner == job.owner:
                    passed = True
                else:
                    ahead += min(len(jobs), turn if passed else turn + 1)
            return ahead

    def cancel_all(self, owner: str) -> list[Job]:
        """Cancel every job of an owner, and return them."""
        with self._changed:
            jobs = [*self._waiting.get(owner, ()), *(job for job in self._running if job.owner == owner)]
        for job in jobs:
            self.cancel(job)
        return jobs

    def cancel(self, job: Job) -> None:
        """Cancel a job; one that waits leaves the queue at once."""
        job.cancel()
        with self._changed:
            own = self._waiting.get(job.owner)
            if own is None or job not in own:
                return
            own.remove(job)
            if not own:
                del self._waiting[job.owner]
        job.finish("cancelled")

    def close(self) -> None:
        """Stop all jobs and end the processes."""
        with self._changed:
            self._closed = True
            jobs = [job for own in self._waiting.values() for job in own] + list(self._running)
            self._changed.notify_all()
        for job in jobs:
            self.cancel(job)
        for thread in self._threads:
            thread.join()

    def _serve(self, process: WorkerProcess) -> None:
        """Give jobs to a process until the lane is closed."""
        self._started(process)
        while (job := self._next()) is not None:
            try:
                self._do(job, process)
            finally:
                with self._changed:
                    self._running.discard(job)
            self._started(process)  # where it was killed, the next job shall not wait for the imports
        process.stop()

    def _started(self, process: WorkerProcess) -> None:
        """Start a process, again and again where the system has no room for one."""
        while not self._closed:
            try:
                process.start()
            except OSError as error:
                logger.warning("a worker process cannot be started (%s); trying again", error)
                time.sleep(_RETRY_SECONDS)
            else:
                return

    def _next(self) -> Job | None:
        """Return the next job: the first of the owner who has waited longest for a turn, who then goes to the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting)
            if self._closed:
                return None
            owner, jobs = next(iter(self._waiting.items()))
            job = jobs.popleft()
            self._waiting.move_to_end(owner)
            if not jobs:
                del self._waiting[owner]
            self._running.add(job)
            return job

    def _do(self, job: Job, process: WorkerProcess) -> None:
        if job.cancelled:  # between leaving the queue and this line
            job.finish("cancelled")
            return
        job.begin()
        try:
            result = process.run(job.request, on_progress=job.advance, cancelled=lambda: job.cancelled)
        except CancelledError:
            job.finish("cancelled")
        except LsrError as error:
            job.finish("failed", error=str(error))
        except Exception:
            logger.exception("a job failed")
            job.finish("failed", error="Something went wrong on the server, and its log says what. Try again.")
        else:
            job.finish("done", result=result)
