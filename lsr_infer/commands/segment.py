"""`lsr-infer SOURCE…`: segment images, videos and live sources with an exported model.

Nothing heavy is imported before the command line is understood, so `--help` answers at once.
"""

import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lsr_infer.errors import InputError, LsrError, UsageError
from lsr_infer.io.paths import check_place, look, refuse_existing
from lsr_infer.pipeline.options import Options, read_options
from lsr_infer.pipeline.report import Tally

if TYPE_CHECKING:
    from lsr_infer.io.sources import Found, Source
    from lsr_infer.pipeline.apply import Inference
    from lsr_infer.pipeline.outputs import Outputs
    from lsr_infer.pipeline.run import Job
    from lsr_infer.pipeline.task import Task
    from lsr_infer.render.window import Display
    from lsr_infer.segmenter import Segmenter
    from lsr_infer.video.live import LiveReader

__all__ = ["Options", "main", "read_options"]

logger = logging.getLogger(__name__)


def main(words: Sequence[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    _segment(read_options(words))
    return None


def _segment(options: Options) -> None:
    """Segment everything; device and input are checked before the output is."""
    from lsr_infer.io.sources import find_sources
    from lsr_infer.pipeline.run import Run

    found = find_sources(options.sources, without=options.output)
    with ExitStack() as stack:
        display = _display(stack) if options.show else None
        task = _task(options, stack)
        if display is not None:
            task = replace(task, show=display.show)
        tally = Tally(found.sources, len(found.left_out), len(found.passed_over), len(found.unsearched))
        segmenter = task.inference.segmenter
        logger.info(
            "%s on %s (%s, %s), %d classes, sources: %d",
            segmenter.path.name,
            segmenter.device,
            segmenter.backend,
            segmenter.precision,
            segmenter.label_space.num_classes,
            len(found.sources),
        )
        _say_missing(found, options.output)
        jobs = _jobs(options, task, tally, stack)
        if options.output is not None and jobs:
            check_place(next(place for place in (options.output, *options.output.absolute().parents) if look(place)))
        broken_place = Run(jobs, task, tally, display).wait()
        if options.json:
            text = json.dumps(tally.document(segmenter), indent=2, ensure_ascii=False)
            # A file's name may hold bytes that are no UTF-8; they become JSON's own escapes.
            text = text.encode("utf-8", "backslashreplace").decode("utf-8")
            print(text)  # noqa: T201 - the one result on stdout
    tally.conclude(f"in {options.output}" if options.output is not None else "shown", broken_place)


def _say_missing(found: "Found", output: Path | None) -> None:
    """Say what was not looked at, and is no source that could fail."""
    for message in found.unsearched:
        logger.error("failed: %s", message)
    if found.passed_over:
        logger.warning(
            "%d images and videos in %s are taken for earlier results and passed over. To segment them, choose an "
            "--output outside what is searched.", len(found.passed_over), output,
        )  # fmt: skip


def _display(stack: ExitStack) -> "Display":
    from lsr_infer.render.window import Display

    return stack.enter_context(Display())


def _task(options: Options, stack: ExitStack) -> "Task":
    """Open the models and gather what is done with every source."""
    from lsr_infer.io.images import read_mask
    from lsr_infer.pipeline.apply import Inference
    from lsr_infer.pipeline.task import Task
    from lsr_infer.render.draw import Drawing
    from lsr_infer.render.mask_ids import MaskIds

    ignored = None if options.ignore_mask is None else read_mask(options.ignore_mask)
    segmenter = stack.enter_context(_open(options.model, options))
    other = None
    if options.other is not None:  # where the first one is, however that was chosen
        other = stack.enter_context(_open(options.other, replace(options, device=segmenter.device)))
    inference = Inference(segmenter, other, options.working)
    _check_saves(options, inference)
    drawing = Drawing(
        ids=MaskIds.of(options.mask_ids, segmenter.label_space),
        save=options.save,
        alpha=options.alpha,
        captions=(other.path.name if other else "frame", segmenter.path.name) if options.compare else None,
        lossless=options.lossless,
        ignored=ignored,
    )
    return Task(
        inference=inference,
        drawing=drawing,
        selection=options.selection,
        overwrite=options.overwrite,
        timeout_seconds=options.timeout,
    )


def _open(model: Path | None, options: Options) -> "Segmenter":
    from lsr_infer.segmenter import Segmenter

    return Segmenter(
        model,
        device=options.device,
        backend=options.backend,
        threads=options.threads,
        precision=options.precision,
        allow_unverified=options.allow_unverified,
    )


def _check_saves(options: Options, inference: "Inference") -> None:
    if "confidence" in options.save and inference.segmenter.manifest.output != "logits":
        raise UsageError(
            f"--save confidence: {inference.segmenter.path.name} gives classes and no logits. Export it with logits."
        )


def _jobs(options: Options, task: "Task", tally: Tally, stack: ExitStack) -> "list[Job]":
    """Connect to the live sources and name all results.

    Raises:
        UsageError: a result exists and may not be replaced, of a source that could be read; or it would take the
            place of what is read.
    """
    from lsr_infer.pipeline.outputs import plan_all
    from lsr_infer.pipeline.run import Job

    plans = plan_all(tally.sources, options.output, task.drawing, inputs=_inputs(options, task))
    readers = {source: _reader(source, options, task) for source in tally.sources if source.live}
    for reader in readers.values():
        reader.connect()  # all at once, so that waiting for a dead one holds up none
    jobs = []
    for source in tally.sources:
        if source.live:
            try:
                stack.enter_context(readers[source])
            except InputError as error:
                tally.failed(source, str(error))
                continue
            source = source.opened(finite=readers[source].info.finite)
            if not source.live:
                readers.pop(source).stop()  # a recording: it is read again, frame by frame
        outputs = plans[source]
        refusal = _refusal(outputs, overwrite=options.overwrite)
        if not source.live and (len(tally.sources) == 1 or refusal is not None):
            problem = _problem(source, task)  # the input is checked before the output is
            if problem is not None:
                tally.failed(source, problem)
                continue
        if refusal is not None:
            raise refusal
        jobs.append(Job(source, outputs, readers.get(source)))
    return jobs


def _inputs(options: Options, task: "Task") -> list[Path]:
    """Return the files that are read besides the sources."""
    models = [task.inference.segmenter, *([task.inference.other] if task.inference.other else [])]
    return [*(model.path for model in models), *([options.ignore_mask] if options.ignore_mask else [])]


def _refusal(outputs: "Outputs", *, overwrite: bool) -> LsrError | None:
    """Return why a source's results cannot take their places, None where they can."""
    from lsr_infer.pipeline.sinks import FRAME_FILES

    try:
        for path in outputs.values():
            refuse_existing(path, overwrite=overwrite, own=FRAME_FILES)
    except LsrError as error:
        return error
    return None


def _reader(source: "Source", options: Options, task: "Task") -> "LiveReader":
    from lsr_infer.video.cameras import camera_pictures
    from lsr_infer.video.live import LiveOptions, LiveReader, stream_pictures

    if isinstance(source.place, int):
        connect = partial(camera_pictures, source.place)
    else:
        connect = partial(stream_pictures, str(source.place))
    patience = LiveOptions(timeout_seconds=options.timeout, reconnects=options.reconnects)
    keep = task.selection.picker() if task.selection.thins else None
    return LiveReader(source.label, connect, patience, keep=keep, halt=task.stop)


def _problem(source: "Source", task: "Task") -> str | None:
    """Return why a file cannot be read, None where it can."""
    from lsr_infer.io.images import read_image
    from lsr_infer.video.reader import probe

    assert not isinstance(source.place, int)
    try:
        if source.kind == "image":
            read_image(Path(source.place))
        else:
            probe(source.place, timeout_seconds=task.timeout_seconds)
    except InputError as error:
        return str(error)
    return None
