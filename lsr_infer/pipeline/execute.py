"""Runs `lsr-infer SOURCE…`: opens the models, connects the sources, and segments them on threads.

Ctrl-C and windows belong to the main thread; the others are told by an event, so that they end between two frames.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path

from lsr_infer.errors import InputError, LsrError, UsageError
from lsr_infer.io.files import OutputPathError, check_output_folder, file_status
from lsr_infer.io.images import read_mask
from lsr_infer.io.label_images import labels_left_out
from lsr_infer.io.sources import Source, find_sources
from lsr_infer.io.store_cache import local_path
from lsr_infer.io.temporary import sweep
from lsr_infer.pipeline.destination import Destination, open_destination
from lsr_infer.pipeline.frame_inference import Inference
from lsr_infer.pipeline.options import SegmentOptions
from lsr_infer.pipeline.outputs import Outputs, plan_all
from lsr_infer.pipeline.run_report import Display, RunReport
from lsr_infer.pipeline.task import SourceResult, Task, read_source_image, segment_images, segment_video
from lsr_infer.render.draw import DrawingOptions, MaskIds
from lsr_infer.segmenter import Segmenter
from lsr_infer.system.process import Trimmer
from lsr_infer.system.progress import Progress
from lsr_infer.text import printable_json
from lsr_infer.video.containers import VideoInfo
from lsr_infer.video.live import LiveOptions, LiveReader, camera_pictures, stream_pictures
from lsr_infer.video.reader import probe

__all__ = ["PlannedSource", "SourceThreads", "open_task", "segment_sources"]

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_WINDOW_SECONDS = 0.02
_PATIENCE_SECONDS = 5.0
"""How long after a first Ctrl-C a further one is taken for impatience; stopping takes less than a second."""


@dataclass(frozen=True)
class PlannedSource:
    """A source, where its results go, for a live source its entered reader, and what is known of a video already."""

    source: Source
    outputs: Outputs
    reader: LiveReader | None = None
    info: VideoInfo | None = None


class SourceThreads:
    """The threads of a run: one for the files, one for each live source; `report` is told how each source ended."""

    def __init__(
        self,
        planned: Sequence[PlannedSource],
        task: Task,
        report: RunReport,
        display: Display | None,
        destination: Destination,
    ) -> None:
        self._task = task
        self._destination = destination
        self._report = report
        self._display = display
        self._asked = 0.0  # when Ctrl-C came first
        self._errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._one_ended = threading.Event()
        files = [plan for plan in planned if plan.reader is None]
        live = [plan for plan in planned if plan.reader is not None]
        works: list[Callable[[], None]] = [partial(self._files, files)] if files else []
        works += [partial(self._video, plan, row) for row, plan in enumerate(live, start=1 if files else 0)]
        self._trim = Trimmer()
        self._running = len(works)
        self._threads = [threading.Thread(target=self._guard, args=(work,), daemon=True) for work in works]

    def wait(self) -> InputError | None:
        """Run everything to its end; return why nothing more could be written, where that ended it."""
        for thread in self._threads:
            thread.start()
        # Threads hand nothing over by a queue: an interruption could lose the item, which would be waited for for ever.
        # No thread is joined either: Python takes it for ended where `join` is interrupted.
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
            if not isinstance(error, OutputPathError):
                raise error
        return next((error for error in self._errors if isinstance(error, OutputPathError)), None)

    def _interrupt(self) -> None:
        """Begin to stop; asked again after a while in vain, end the process."""
        if not self._report.interrupted:
            self._stop()
            logger.info("stopping; what was done is being kept")
        elif time.monotonic() - self._asked > _PATIENCE_SECONDS:
            logger.warning("ended at once; a hidden .part file of what was not finished may be left")
            # Threads are not told: one that computes in a library cannot be ended and would abort the process.
            os._exit(128 + signal.SIGINT)

    def _stop(self) -> None:
        self._task.stop.set()
        self._asked = time.monotonic()
        self._report.interrupted = True  # last: what an interruption cuts short is done again

    def _attend(self) -> bool:
        """Keep the windows alive and wait briefly for a thread to end; return whether one still runs."""
        if self._display is not None and self._display.refresh() and not self._report.interrupted:
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

    def _files(self, planned: Sequence[PlannedSource]) -> None:
        for image, group in groupby(planned, key=lambda plan: plan.source.kind == "image"):
            plans = list(group)
            for plan in plans[:1] if image else plans:
                if self._task.stop.is_set():
                    return
                if image:
                    self._images(plans)
                else:
                    self._video(plan, 0)

    def _images(self, planned: Sequence[PlannedSource]) -> None:
        outputs = {plan.source: plan.outputs for plan in planned}
        with Progress("images", len(planned), unit="image") as progress:

            def done(source: Source, outcome: SourceResult | LsrError) -> None:
                try:
                    if isinstance(outcome, LsrError):
                        raise outcome
                    self._report.done(source, self._destination.deliver(outputs[source]), outcome)
                except LsrError as error:
                    self._report.failed(source, str(error), type(error))
                source.release()
                progress.step()

            segment_images([(plan.source, plan.outputs) for plan in planned], self._task, done)

    def _video(self, plan: PlannedSource, row: int) -> None:
        """Segment one video or live source; a bad one does not stop the others."""
        source = plan.source
        try:
            info = plan.info or probe(source.file, timeout_seconds=self._task.timeout_seconds)
            expected = self._task.selection.max_frames if source.live else self._task.selection.expected(info)
            with Progress(Path(source.label).name, expected, row=row) as progress:
                outcome = segment_video(
                    source, plan.outputs, self._task, reader=plan.reader, info=info, on_frame=progress.step
                )
            self._report.done(source, self._destination.deliver(plan.outputs), outcome)
        except (InputError, UsageError) as error:
            self._report.failed(source, str(error), type(error))
            if isinstance(error, OutputPathError):
                raise
        except KeyboardInterrupt:
            self._report.failed(source, "interrupted")
        finally:
            source.release()


def segment_sources(options: SegmentOptions) -> None:
    """Segment everything; device and input are checked before the output is."""
    found = find_sources(options.sources, without=options.output)
    with ExitStack() as stack:
        destination = stack.enter_context(open_destination(options.output))
        options = replace(options, output=destination.folder)
        display = stack.enter_context(Display()) if options.show else None
        task = open_task(options, stack, display)
        left_out = len(found.left_out) + len(found.labels)
        report = RunReport(found.sources, left_out, len(found.passed_over), len(found.unsearched))
        segmenter = task.inference.segmenter
        logger.info(
            "%s on %s (%s, %s), %d classes, sources: %d", segmenter.path.name, segmenter.device, segmenter.backend,
            segmenter.precision, segmenter.label_space.num_classes, len(found.sources),
        )  # fmt: skip
        for message in found.unsearched:
            logger.error("failed: %s", message)
        if found.labels:
            logger.warning("%s", labels_left_out(found.labels))
        if found.passed_over:
            logger.warning(
                "%d images and videos in %s are taken for earlier results and passed over. To segment them, choose an "
                "--output outside what is searched.", len(found.passed_over), destination,
            )  # fmt: skip
        planned = _plan_sources(options, task, report, stack, destination)
        if destination.folder is not None and planned:
            folders = (destination.folder, *destination.folder.absolute().parents)
            check_output_folder(next(place for place in folders if file_status(place)))
        for folder in {path.parent for plan in planned for path in plan.outputs.values()}:
            sweep(folder)
        broken_place = SourceThreads(planned, task, report, display, destination).wait()
        if options.json:
            print(printable_json(report.document(segmenter), indent=2, ensure_ascii=False))  # noqa: T201 - the one result on stdout
    report.conclude("shown" if destination.folder is None else f"in {destination}", broken_place)


def open_task(options: SegmentOptions, stack: ExitStack, display: Display | None = None) -> Task:
    """Open the models and gather what is done with every source."""
    ignored = None if options.ignore_mask is None else read_mask(local_path(options.ignore_mask))
    segmenter = stack.enter_context(_open(options.model, options))
    other = None
    if options.other is not None:  # where the first one is, however that was chosen
        other = stack.enter_context(_open(options.other, replace(options, device=segmenter.device)))
    if "confidence" in options.save and segmenter.manifest.output != "logits":
        raise UsageError(
            f"--save confidence: {segmenter.path.name} gives classes and no logits. Export it with logits."
        )
    drawing = DrawingOptions(
        ids=MaskIds.of(options.mask_ids, segmenter.label_space),
        save=options.save,
        alpha=options.alpha,
        captions=(other.path.name if other else "frame", segmenter.path.name) if options.compare else None,
        legend=options.legend,
        lossless=options.lossless,
        ignored=ignored,
    )
    return Task(
        inference=Inference(segmenter, other, options.working), drawing=drawing, selection=options.selection,
        overwrite=options.overwrite, timeout_seconds=options.timeout, show=None if display is None else display.show,
    )  # fmt: skip


def _open(model: Path | str | None, options: SegmentOptions) -> Segmenter:
    with Progress("opening the network", unit=""):
        return Segmenter(
            model, options.device, options.backend, threads=options.threads, precision=options.precision,
            allow_unverified=options.allow_unverified,
        )  # fmt: skip


def _plan_sources(
    options: SegmentOptions, task: Task, report: RunReport, stack: ExitStack, destination: Destination
) -> list[PlannedSource]:
    """Connect to the live sources and name all results."""
    models = (task.inference.segmenter, task.inference.other)
    masks = [options.ignore_mask] if isinstance(options.ignore_mask, Path) else []
    inputs = [*(model.path for model in models if model), *masks]
    plans = plan_all(report.sources, destination.folder, task.drawing, inputs=inputs)
    readers = {source: _reader(source, options, task) for source in report.sources if source.live}
    for reader in readers.values():
        reader.connect()  # all at once, so that waiting for a dead one holds up none
    planned = []
    for source in report.sources:
        if source.live:
            try:
                stack.enter_context(readers[source])
            except InputError as error:
                report.failed(source, str(error))
                continue
            source = source.opened(finite=readers[source].info.finite)
            if not source.live:
                readers.pop(source).stop()  # a recording: it is read again, frame by frame
        outputs, refusal = plans[source], None
        info = readers[source].info if source in readers else None
        try:
            for path in outputs.values():
                destination.refuse_existing(path, overwrite=options.overwrite)
        except LsrError as error:
            refusal = error
        if not source.live and (len(report.sources) == 1 or refusal is not None):
            try:  # the input is checked before the output is
                if source.kind == "image":
                    read_source_image(source, task.timeout_seconds)
                else:
                    info = probe(source.file, timeout_seconds=task.timeout_seconds)
            except InputError as error:
                report.failed(source, str(error))
                continue
        if refusal is not None:
            raise refusal
        planned.append(PlannedSource(source, outputs, readers.get(source), info))
    return planned


def _reader(source: Source, options: SegmentOptions, task: Task) -> LiveReader:
    if isinstance(source.place, int):
        connect = partial(camera_pictures, source.place)
    else:
        connect = partial(stream_pictures, str(source.place))
    patience = LiveOptions(timeout_seconds=options.timeout, reconnects=options.reconnects)
    keep = task.selection.picker() if task.selection.thins else None
    return LiveReader(source.label, connect, patience, keep=keep, halt=task.stop)
