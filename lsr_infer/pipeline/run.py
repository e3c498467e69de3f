"""The threads of an `lsr-infer` run: one for all files, one for each live source, and the main one that waits.

Live sources run at once, files one after another beside them. On the main thread Ctrl-C arrives and windows live; the
others are told by an event, so that nothing is torn apart in the middle of a frame.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from lsr_infer.errors import InputError, LsrError, UsageError
from lsr_infer.io.paths import PlaceError
from lsr_infer.io.sources import Source
from lsr_infer.pipeline.outputs import Outputs
from lsr_infer.pipeline.report import Progress, Tally
from lsr_infer.pipeline.task import Outcome, Task, segment_images, segment_video
from lsr_infer.render.window import Display
from lsr_infer.system.memory import Trimmer
from lsr_infer.video.live import LiveReader
from lsr_infer.video.reader import probe

__all__ = ["Job", "Run"]

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_WINDOW_SECONDS = 0.02
_PATIENCE_SECONDS = 5.0
"""How long after a first Ctrl-C a further one is taken for impatience; stopping takes less than a second."""


@dataclass(frozen=True)
class Job:
    """A source, where its results go, and for a live source its entered reader."""

    source: Source
    outputs: Outputs
    reader: LiveReader | None = None


class Run:
    """The threads of a run: one for the files, one for each live source.

    Args:
        jobs: what is to be done.
        task: what is done with each.
        tally: told how each ended.
        display: a window to keep alive, or None.
    """

    def __init__(self, jobs: Sequence[Job], task: Task, tally: Tally, display: Display | None) -> None:
        self._task = task
        self._tally = tally
        self._display = display
        self._asked = 0.0  # when Ctrl-C came first
        self._errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._one_ended = threading.Event()
        files = [job for job in jobs if job.reader is None]
        live = [job for job in jobs if job.reader is not None]
        works: list[Callable[[], None]] = [partial(self._files, files)] if files else []
        works += [partial(self._video, job, row) for row, job in enumerate(live, start=1 if files else 0)]
        self._trim = Trimmer()
        self._running = len(works)
        self._threads = [threading.Thread(target=self._guard, args=(work,), daemon=True) for work in works]

    def wait(self) -> InputError | None:
        """Run everything to its end; return why nothing more could be written, where that ended it.

        Raises:
            Exception: an error that is none of a source.
        """
        for thread in self._threads:
            thread.start()
        # What the threads say stays where it is: an interruption could tear what is handed over out of the hand, and it
        # would be waited for ever. No thread is joined either: Python takes it for ended where `join` is interrupted.
        running, asked = True, False
        while running:
            try:
                if asked:
                    self._interrupt()
                    asked = False
                running = self._attend()
            except KeyboardInterrupt:
                asked = True
        for error in self._errors:
            if not isinstance(error, PlaceError):
                raise error
        return next((error for error in self._errors if isinstance(error, PlaceError)), None)

    def _interrupt(self) -> None:
        """Begin to stop; asked again after a while in vain, end the process."""
        if not self._tally.interrupted:
            self._stop()
            logger.info("stopping; what was done is being kept")
        elif time.monotonic() - self._asked > _PATIENCE_SECONDS:
            logger.warning("ended at once; a hidden .part file of what was not finished may be left")
            # Without a word to the threads: one that computes in a library cannot be ended and would abort the process.
            os._exit(128 + signal.SIGINT)

    def _stop(self) -> None:
        self._task.stop.set()
        self._asked = time.monotonic()
        self._tally.interrupted = True  # last: what an interruption cuts short is done again

    def _attend(self) -> bool:
        """Keep the windows alive and wait a while for a thread to end; return whether one still runs."""
        if self._display is not None and self._display.refresh() and not self._tally.interrupted:
            self._stop()
        self._trim()
        if self._running == 0:
            return False
        self._one_ended.wait(_POLL_SECONDS if self._display is None else _WINDOW_SECONDS)
        self._one_ended.clear()
        return self._running > 0

    def _guard(self, work: Callable[[], None]) -> None:
        """Run a thread's work and keep what ended it; a place that cannot be written ends all of them."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again on the main thread
            self._errors.append(error)
            self._task.stop.set()
        finally:
            with self._lock:
                self._running -= 1
            self._one_ended.set()

    def _files(self, jobs: Sequence[Job]) -> None:
        for image, group in groupby(jobs, key=lambda job: job.source.kind == "image"):
            if self._task.stop.is_set():
                return
            if image:
                self._images(list(group))
            else:
                self._videos(group)

    def _images(self, jobs: Sequence[Job]) -> None:
        outputs = {job.source: job.outputs for job in jobs}
        with Progress("images", len(jobs), unit="image") as progress:

            def done(source: Source, outcome: Outcome | LsrError) -> None:
                if isinstance(outcome, LsrError):
                    self._tally.failed(source, str(outcome), type(outcome))
                else:
                    self._tally.done(source, outputs[source], outcome)
                progress.step()

            segment_images([(job.source, job.outputs) for job in jobs], self._task, done)

    def _videos(self, jobs: Iterator[Job]) -> None:
        for job in jobs:
            if self._task.stop.is_set():
                return
            self._video(job, 0)

    def _video(self, job: Job, row: int) -> None:
        """Segment one video or live source; a bad one does not stop the others."""
        source = job.source
        try:
            timeout = self._task.timeout_seconds
            info = job.reader.info if job.reader is not None else probe(_file(source), timeout_seconds=timeout)
            expected = self._task.selection.max_frames if source.live else self._task.selection.expected(info)
            with Progress(Path(source.label).name, expected, row=row) as progress:
                outcome = segment_video(
                    source, job.outputs, self._task, reader=job.reader, info=info, on_frame=progress.step
                )
        except (InputError, UsageError) as error:
            self._tally.failed(source, str(error), type(error))
            if isinstance(error, PlaceError):
                raise
        except KeyboardInterrupt:
            self._tally.failed(source, "interrupted")
        else:
            self._tally.done(source, job.outputs, outcome)


def _file(source: Source) -> Path | str:
    assert not isinstance(source.place, int)
    return source.place
