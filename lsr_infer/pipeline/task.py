"""Segment images, videos and live sources into files: decoding ahead, drawing and encoding behind, the network between.

The results of a source appear together under their final names once all are whole. A source that breaks in the middle
leaves what was good of it, and says how much that is; stopping does the same. Queues are bounded: a slow encoder slows
a file down, and makes a live source drop frames.
"""

import logging
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError, LsrError, UsageError
from lsr_infer.io.atomic import AtomicOutputs
from lsr_infer.io.images import extra_pictures, read_image, resize_frame
from lsr_infer.io.paths import PlaceError
from lsr_infer.io.sources import Source
from lsr_infer.pipeline.frame_inference import Inference
from lsr_infer.pipeline.options import Selection
from lsr_infer.pipeline.outputs import FrameFormat, Outputs, Sink, open_sink
from lsr_infer.render.draw import Drawer, DrawingOptions, DrawnFrame, SegmentedFrame
from lsr_infer.render.segmentation import Segmentation
from lsr_infer.system.threads import BackgroundWriter, prefetch
from lsr_infer.video.containers import TIMEOUT_SECONDS, VideoFrame, VideoInfo
from lsr_infer.video.live import LiveReader
from lsr_infer.video.reader import probe, read_frames
from lsr_infer.video.writer import AudioSource

__all__ = ["SourceResult", "Task", "of_one_size", "segment_images", "segment_video"]

logger = logging.getLogger(__name__)

_DEPTH = 2
"""Frames that wait before drawing and before encoding; more would only cost memory, since the slowest stage rules."""


@dataclass(frozen=True)
class SourceResult:
    """How one source ended.

    Args:
        frames: frames that are in the results.
        broken: why the source broke off after them; None where it was read to its end.
        interrupted: the user stopped it after them.
        dropped: frames of a live source that came too fast.
        reconnects: how often a live source was lost and came back.
        extra: further pictures of an image file, which were left out.
    """

    frames: int
    broken: str | None = None
    interrupted: bool = False
    dropped: int = 0
    reconnects: int = 0
    extra: int = 0


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is done with every source of a run.

    Args:
        inference: the models.
        drawing: how results look and which are kept.
        selection: which frames of videos and streams are taken.
        overwrite: replace existing results.
        timeout_seconds: an address that sends nothing for so long is lost.
        stop: set from outside to end early; what was done is kept.
        show: called with a source's label and each picture, None where nobody looks.
    """

    inference: Inference
    drawing: DrawingOptions
    selection: Selection = field(default_factory=Selection)
    overwrite: bool = False
    timeout_seconds: float = TIMEOUT_SECONDS
    stop: threading.Event = field(default_factory=threading.Event)
    show: Callable[[str, NDArray[np.uint8]], None] | None = None

    def drawer(self) -> Drawer:
        """Return what draws the results of one source."""
        return Drawer(self.drawing, self.inference.label_space, shown=self.show is not None)

    def frame(self, source: Source, height: int, width: int, info: VideoInfo | None = None) -> FrameFormat:
        """Describe a source's frames to the sinks."""
        audio = None
        if source.kind == "video" and not isinstance(source.place, int):
            audio = AudioSource(
                place=source.place,
                start=self.selection.start or 0.0,
                duration=self.selection.duration,
                timeout_seconds=self.timeout_seconds,
            )
        return FrameFormat(
            source=source.label,
            info=None if info is None else replace(info, fps=self.selection.rate(info.fps)),
            height=height,
            width=width,
            picture_width=self.drawing.width(width),
            label_space=self.inference.label_space,
            ids=self.drawing.ids,
            live=source.live,
            model=self.inference.segmenter.path.name,
            audio=audio,
            overwrite=self.overwrite,
        )


def segment_images(
    jobs: Sequence[tuple[Source, Outputs]], task: Task, done: Callable[[Source, SourceResult | LsrError], None]
) -> None:
    """Segment images: the next ones are read and the last ones written while the network works.

    Args:
        jobs: the images and where their results go.
        task: what is done with them.
        done: told how each ended, from whichever thread that happens on; not told about images that were not begun.

    Raises:
        PlaceError: results cannot be written.
    """
    drawer = task.drawer()

    def write(item: tuple[Source, Outputs, SegmentedFrame]) -> None:
        source, outputs, result = item
        try:
            drawn = drawer(result)
            if task.show is not None and drawn.picture is not None:
                task.show(source.label, drawn.picture)
            with _opened(outputs, task.frame(source, *drawn.classes.shape)) as sinks:
                _write(drawn, sinks)
        except (InputError, UsageError) as error:
            done(source, error)
            if isinstance(error, PlaceError):
                raise
        else:
            done(source, SourceResult(1, extra=_extra(source)))

    reader = prefetch(_read_images(jobs, task.stop), _DEPTH)
    with ExitStack() as stack:
        behind = stack.enter_context(BackgroundWriter(write, _DEPTH))
        stack.callback(reader.close)
        for source, outputs, frame in reader:
            if task.stop.is_set():
                break
            try:
                if isinstance(frame, InputError):
                    raise frame
                found, other = _inferred(source, frame, task)
            except InputError as error:
                done(source, error)
            else:
                behind.put((source, outputs, SegmentedFrame(VideoFrame(frame, 0.0, 0), 0, 0.0, found, other)))


def _read_images(
    jobs: Iterable[tuple[Source, Outputs]], stop: threading.Event
) -> Iterator[tuple[Source, Outputs, NDArray[np.uint8] | InputError]]:
    for source, outputs in jobs:
        if stop.is_set():
            return
        try:
            frame: NDArray[np.uint8] | InputError = read_image(Path(str(source.place)))
        except InputError as error:
            frame = error
        yield source, outputs, frame


def _inferred(source: Source, frame: NDArray[np.uint8], task: Task) -> tuple[Segmentation, Segmentation | None]:
    """Ask the models about a frame; what is wrong with it, such as its shape at this stride, is its source's error."""
    try:
        return task.inference(frame)
    except (InputError, UsageError) as error:
        raise InputError(f"{source.label}: {error}") from error


def _extra(source: Source) -> int:
    """Say and return how many further pictures of a file were left out."""
    try:
        extra = extra_pictures(Path(str(source.place)))
    except InputError as error:  # the picture itself was read before, and its results are there
        logger.warning("%s; whether it holds further pictures is unknown", str(error).rstrip("."))
        return 0
    if extra:
        logger.warning(
            "%s: holds %d pictures; the first is segmented, the others are left out", source.label, extra + 1
        )
    return extra


def segment_video(
    source: Source,
    outputs: Outputs,
    task: Task,
    *,
    reader: LiveReader | None = None,
    info: VideoInfo | None = None,
    on_frame: Callable[[], object] = lambda: None,
) -> SourceResult:
    """Segment a video, stream or camera; its first good frames are kept where it breaks or the task is stopped.

    Times in the results count from the source's beginning, whatever its own clock says there; with a start, from the
    first frame that is taken.

    Args:
        source: what is segmented.
        outputs: where the results go.
        task: what is done with it.
        reader: an entered reader of a live source; None reads a file.
        info: what `probe` or the reader says, where that is known.
        on_frame: called after each frame that went through the network.

    Raises:
        KeyboardInterrupt: the task was stopped before the first frame.
        InputError: not one frame could be read, the network failed, or the place cannot be written.
        UsageError: a result appeared meanwhile and may not be replaced.
    """
    if info is None:
        info = reader.info if reader is not None else probe(_file_of(source), timeout_seconds=task.timeout_seconds)
    with closing(_taken(source, task, reader)) as taken:
        frames = of_one_size(taken, (info.height, info.width), source.label)
        first = next(frames, None)
        if task.stop.is_set():
            raise KeyboardInterrupt
        if first is None:
            raise InputError(f"{source.label}: ended before a frame was taken. Choose an earlier --start.")
        origin = info.origin if reader is None else 0.0
        begin = first.time if task.selection.start else origin
        frame = task.frame(source, info.height, info.width, info)
        frame = replace(frame, audio=_heard(frame.audio, begin - origin))
        with _drawn_behind(source, outputs, task, frame) as put:
            outcome = _feed(source, chain([first], frames), task, begin, put, on_frame)
            if frame.audio is not None and (outcome.broken or outcome.interrupted or _enough(outcome.frames, task)):
                frame.audio.cut.set()
    return outcome if reader is None else replace(outcome, dropped=reader.dropped, reconnects=reader.reconnects)


def _feed(
    source: Source,
    frames: Iterable[VideoFrame],
    task: Task,
    begin: float,
    put: Callable[[SegmentedFrame], None],
    on_frame: Callable[[], object],
) -> SourceResult:
    """Take frames, of which there is one at least, through the network until they end, break or are enough."""
    count, broken = 0, None
    try:
        for item in frames:
            if count and task.stop.is_set():
                break
            found, other = _inferred(source, item.frame, task)
            put(SegmentedFrame(item, count, item.time - begin, found, other))
            count += 1
            on_frame()
            if _enough(count, task):
                break
    except _SourceError as error:
        broken = str(error)
    return SourceResult(count, broken, interrupted=task.stop.is_set())


def _enough(count: int, task: Task) -> bool:
    return count == task.selection.max_frames


def _heard(audio: AudioSource | None, start: float) -> AudioSource | None:
    """Let the sound begin with the first frame that is taken, and end where it was to end."""
    if audio is None or start == audio.start:
        return audio
    left = None if audio.duration is None else audio.start + audio.duration - start
    return replace(audio, start=start, duration=left)


@contextmanager
def _drawn_behind(
    source: Source, outputs: Outputs, task: Task, frame: FrameFormat
) -> Iterator[Callable[[SegmentedFrame], None]]:
    """Give what takes a video's results: drawing and encoding run behind it, each on a thread of its own."""
    drawer, show = task.drawer(), task.show
    with (
        _opened(outputs, frame) as sinks,
        BackgroundWriter[DrawnFrame](lambda drawn: _write(drawn, sinks), _DEPTH) as encode,
    ):

        def draw(result: SegmentedFrame) -> None:
            drawn = drawer(result)
            if show is not None and drawn.picture is not None:
                show(source.label, drawn.picture)
            encode.put(drawn)

        with BackgroundWriter(draw, _DEPTH) as behind:
            yield behind.put


@contextmanager
def _opened(outputs: Outputs, frame: FrameFormat) -> Iterator[list[Sink]]:
    """Open all results of a source; they appear together once all are whole."""
    with AtomicOutputs() as results, ExitStack() as stack:  # the sinks end before the results appear
        yield [stack.enter_context(open_sink(kind, path, frame, results)) for kind, path in outputs.items()]


def _write(drawn: DrawnFrame, sinks: Sequence[Sink]) -> None:
    for sink in sinks:
        sink(drawn)


class _SourceError(InputError):
    """A source broke, which leaves good frames; what else fails leaves none."""


def _file_of(source: Source) -> Path | str:
    assert not isinstance(source.place, int)
    return source.place


def _taken(source: Source, task: Task, reader: LiveReader | None) -> Generator[VideoFrame, None, None]:
    """Yield the frames of a source that are taken; those of a file are read ahead.

    Raises:
        _SourceError: the source breaks.
    """
    selection = task.selection
    if reader is not None:
        frames = _live(reader, selection)
    else:
        keep = selection.picker() if selection.thins else None
        file = read_frames(
            _file_of(source),
            start=selection.start,
            duration=selection.duration,
            keep=keep,
            timeout_seconds=task.timeout_seconds,
        )
        frames = prefetch(file, 2 * _DEPTH, task.stop)
    with closing(frames):
        try:
            yield from frames
        except InputError as error:
            raise _SourceError(str(error)) from error


def _live(reader: LiveReader, selection: Selection) -> Generator[VideoFrame, None, None]:
    """Yield a live source's frames between start and end."""
    begin = selection.start or 0.0
    for item in reader.frames():
        if item.time < begin:
            continue
        if selection.duration is not None and item.time >= begin + selection.duration:
            return
        yield item


def of_one_size(frames: Iterable[VideoFrame], size: tuple[int, int], label: str) -> Iterator[VideoFrame]:
    """Bring frames of another size to that of the first, since one file holds one size, and say so once."""
    said = False
    for item in frames:
        if item.frame.shape[:2] == size:
            yield item
            continue
        if not said:
            said = True
            height, width = item.frame.shape[:2]
            logger.warning("%s: its frames change to %dx%d; all are kept as %dx%d", label, width, height, *size[::-1])
        yield VideoFrame(resize_frame(item.frame, *size), item.time, item.index)
