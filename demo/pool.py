"""Runs tasks in worker processes that are killed when they hang, take too much memory or are no longer wanted.

A task whose process is killed ends with a sentence, and a new process takes the next one.
"""

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from lsr_infer import InputError

__all__ = ["WorkerProcess"]

logger = logging.getLogger("demo.pool")

_POLL_SECONDS = 0.01


class WorkerProcess:
    """One process, which does one task at a time, for at most `seconds` and with at most `memory` bytes."""

    def __init__(self, seconds: float, memory: int) -> None:
        self._seconds, self._memory = seconds, memory
        self._turn = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Number of the process, None where there is none."""
        return None if self._process is None else self._process.pid

    @property
    def busy(self) -> bool:
        """Whether a task runs."""
        return self._turn.locked()

    def start(self) -> None:
        """Start the process, unless it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        ours, theirs = Pipe()
        script = Path(__file__).with_name("worker.py")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(script), str(theirs.fileno())], pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,  # nothing is written: its end tells the process that the page is gone
                start_new_session=True,  # Ctrl-C is for the page, which ends its processes itself
            )  # fmt: skip
        self._connection = ours

    def stop(self) -> None:
        """Kill the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None

    async def run(self, task: str, on_progress: Callable[[Any], None] = lambda news: None, **options: Any) -> Any:
        """Let the process do one of `worker.TASKS`; where the caller is cancelled, the process is killed.

        Raises:
            InputError: the task failed, took too long or too much memory, or the process died.
        """
        async with self._turn:
            self.start()
            assert self._connection is not None
            answered = False
            try:
                self._connection.send((task, options))
                kind, content = await self._answer(self._connection, on_progress)
                answered = True
            except (EOFError, ConnectionError, psutil.NoSuchProcess) as error:
                logger.warning("a worker process ended by itself during %s", task)
                raise InputError("The server could not process this file. Send another one.") from error
            finally:
                if not answered:
                    self.stop()
                    self.start()
            if kind == "failed":
                raise InputError(content)
            return content

    async def _answer(self, connection: Connection, on_progress: Callable[[Any], None]) -> tuple[str, Any]:
        """Wait for the end of a task, within time and memory."""
        deadline, watched = time.monotonic() + self._seconds, psutil.Process(self.pid)
        while True:
            while connection.poll():
                kind, content = connection.recv()
                if kind != "progress":
                    return kind, content
                on_progress(content)
            if time.monotonic() > deadline:
                raise InputError(f"This took longer than {self._seconds:g} s and was stopped. Send less.")
            if watched.memory_info().rss > self._memory:
                raise InputError("This needs more memory than one request may take. Send something smaller.")
            await asyncio.sleep(_POLL_SECONDS)
