"""A worker process seen from the page's side: it is given requests, watched, and killed where it must be.

A hostile file can make a decoder hang, crash or fill the memory; then the process is killed, the job ends with a
sentence, and a new process takes the next one. A cancelled job is first asked to end, which keeps the process and its
opened models; one that does not end in time is killed too.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lsr_infer.errors import InputError
from lsr_infer.web.limits import Limits
from lsr_infer.web.requests import Request, StopRequest

__all__ = ["CancelledError", "WorkerProcess"]

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
_STOP_SECONDS = 0.5
"""How long a cancelled job has to end by itself."""
_MEMORY_EVERY_SECONDS = 0.25
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class CancelledError(Exception):
    """Nobody wants the result any more."""


class WorkerProcess:
    """One process; one thread at a time may use it.

    Args:
        limits: of memory.
        seconds: that one request may take.
    """

    def __init__(self, limits: Limits, seconds: float) -> None:
        self._limits = limits
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, None while there is none."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process unless it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        ours, theirs = Pipe()
        command = [sys.executable, "-m", "lsr_infer.web.worker", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,  # its lifeline: nothing is ever written
                start_new_session=True,  # a terminal's Ctrl-C is the page's business, which ends its processes itself
            )  # fmt: skip
        self._connection = ours

    def stop(self) -> None:
        """Kill the process, if there is one, and wait until it is gone."""
        if self._process is not None:  # before its pipe is closed, which it would complain about
            self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def run(
        self, request: Request, *, on_progress: Callable[[dict[str, Any]], None], cancelled: Callable[[], bool]
    ) -> dict[str, Any]:
        """Let the process do something.

        Args:
            request: what.
            on_progress: told what is done.
            cancelled: asked often; once it is true the work ends, and after a moment the process.

        Raises:
            CancelledError: it was cancelled.
            InputError: it failed, took too long or too much memory, or the process died of it.
        """
        self.start()
        assert self._connection is not None
        try:
            result = self._answer(request, self._connection, on_progress, cancelled)
        except InputError as error:
            if cancelled():  # whatever came of it, nobody wants to know
                raise CancelledError from error
            raise
        except BaseException:
            self.stop()  # what it still says would be taken for the answer to the next request
            raise
        if cancelled():
            raise CancelledError
        return result

    def _answer(
        self,
        request: Request,
        connection: Connection,
        on_progress: Callable[[dict[str, Any]], None],
        cancelled: Callable[[], bool],
    ) -> dict[str, Any]:
        """Send a request and wait for what comes of it; the process may die of it."""
        try:
            connection.send(request)
            return self._watch(connection, on_progress, cancelled)
        except (EOFError, ConnectionError) as error:
            code = None if self._process is None else self._process.wait()
            self.stop()
            logger.warning("a worker process ended by itself (%s)", _ending(code))
            raise InputError("The server could not cope with this file. Send another one.") from error

    def _watch(
        self,
        connection: Connection,
        on_progress: Callable[[dict[str, Any]], None],
        cancelled: Callable[[], bool],
    ) -> dict[str, Any]:
        """Wait for an answer, and end the work or the process where it goes beyond what it may."""
        deadline = time.monotonic() + self._seconds
        look, asked = 0.0, False
        while True:
            if connection.poll(_POLL_SECONDS):
                kind, content = connection.recv()
                if kind == "progress":
                    on_progress(content)
                elif kind == "done":
                    return dict(content)
                else:
                    raise InputError(content)
            now = time.monotonic()
            if not asked and cancelled():
                connection.send(StopRequest())
                asked, deadline = True, min(deadline, now + _STOP_SECONDS)
            if now > deadline:
                self.stop()
                raise InputError(f"This took longer than {self._seconds:g} s, so it was stopped. Send less.")
            if now >= look:
                look = now + _MEMORY_EVERY_SECONDS
                if self._bytes() > self._limits.job_bytes:
                    self.stop()
                    raise InputError("This needs more memory than one job may take. Send something smaller.")

    def _bytes(self) -> int:
        """Return the memory the process holds, 0 where the system does not tell."""
        try:
            fields = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()
        except OSError:
            return 0
        return int(fields[1]) * _PAGE_BYTES


def _ending(code: int | None) -> str:
    """Say how a process ended."""
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
