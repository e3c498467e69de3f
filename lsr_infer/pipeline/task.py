"""Segments images, videos and live sources into files; decoding, the network, drawing and encoding overlap.

A source that breaks in the middle keeps its good frames, and so does one that is stopped. Queues are bounded: a slow
encoder slows a file down, and makes a live source drop frames.
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
from lsr_infer.io.download import download
from lsr_infer.io.files import AtomicOutputs, OutputPathError
from lsr_infer.io.images import decode_image, extra_pictures, read_image, resize_frame
from lsr_infer.io.sources import Source
from lsr_infer.pipeline.frame_inference import Inference
from lsr_infer.pipeline.options import Selection
from lsr_infer.pipeline.outputs import FrameFormat, Outputs, Sink, open_sink
from lsr_infer.render.draw import Drawer, DrawingOptions, DrawnFrame, SegmentedFrame
from lsr_infer.render.segmentation import Segmentation
from lsr_infer.system.threads import BackgroundWriter, prefetch
from lsr_infer.video.containers import TIMEOUT_SECONDS, ColorTags, VideoFrame, VideoInfo
from lsr_infer.video.live import LiveReader
from lsr_infer.video.reader import probe, read_frames
from lsr_infer.video.writer import AudioSource

__all__ = ["SourceResult", "Task", "of_one_size", "read_source_image", "segment_images", "segment_video"]

logger = logging.getLogger(__name__)

_DEPTH = 2
"""Frames that wait before drawing and before encoding; more would only cost memory, since the slowest stage rules."""


@dataclass(frozen=True)
class SourceResult:
    """How one source ended: frames in its results, why it broke off, frames dropped, further pictures of its file."""

    frames: int
    broken: str | None = None
    interrupted: bool = False
    dropped: int = 0
    reconnects: int = 0
    extra: int = 0


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is done with every source of a run.

    Setting `stop` ends it early and keeps what was done; `show` is called with a source's label and each picture.
    `is_range`: the frames that are taken are a range that is joined with others, see `lsr_infer.archive.ranges`. Their
    times count from the video's beginning, those within a result video from the range's, and no sound is copied.
    """

    inference: Inference
    drawing: DrawingOptions
    selection: Selection = field(default_factory=Selection)
    overwrite: bool = False
    timeout_seconds: float = TIMEOUT_SECONDS
    stop: threading.Event = field(default_factory=threading.Event)
    show: Callable[[str, NDArray[np.uint8]], None] | None = None
    is_range: bool = False

    def drawer(self, *, video: bool, color: ColorTags | None = None) -> Drawer:
        """Return what draws the results of one source, `color` that of its video."""
        shown = self.show is not None
        return Drawer(self.drawing, self.inference.label_space, shown=shown, video=video, color=color)

    def frame(
        self, source: Source, height: int, width: int, info: VideoInfo | None = None, *, start: float = 0.0
    ) -> FrameFormat:
        """Describe a source's frames to the sinks; its sound begins at `start`, with the first frame that is taken."""
        audio, left = None, self.selection.duration
        if source.kind == "video" and not isinstance(source.place, int) and not self.is_range:
            if left is not None:  # the sound ends where it was to end
                left += (self.selection.start or 0.0) - start
            audio = AudioSource(place=source.file, start=start, duration=left, timeout_seconds=self.timeout_seconds)
        return FrameFormat(
            source=source.label, info=None if info is None else replace(info, fps=self.selection.rate(info.fps)),
            height=height, width=width,
            picture_size=(0, 0) if info is None else self.drawer(video=True).size(height, width),
            label_space=self.inference.label_space, ids=self.drawing.ids, live=source.live,
            model=self.inference.segmenter.path.name, audio=audio, overwrite=self.overwrite,
            begin=(self.selection.start or 0.0) if self.is_range else 0.0,
        )  # fmt: skip


def segment_images(
    planned: Sequence[tuple[Source, Outputs]], task: Task, done: Callable[[Source, SourceResult | LsrError], None]
) -> None:
    """Segment images: the next ones are read and the last ones written while the network works.

    `done` is told how each that was started ended, on any thread. `OutputPathError` where a place cannot be written.
    """
    drawer = task.drawer(video=False)

    def write(item: tuple[Source, Outputs, SegmentedFrame]) -> None:
        source, outputs, result = item
        try:
            drawn = drawer(result)
            if task.show is not None and drawn.picture is not None:
                task.show(source.label, drawn.picture)
            with _opened(outputs, task.frame(source, *drawn.classes.shape)) as save:
                save(drawn)
        except (InputError, UsageError) as error:
            done(source, error)
            if isinstance(error, OutputPathError):
                raise
        else:
            done(source, SourceResult(1, extra=_extra(source)))

    reader = prefetch(_read_images(planned, task.timeout_seconds, task.stop), _DEPTH)
    with ExitStack() as stack:
        writer = stack.enter_context(BackgroundWriter(write, _DEPTH))
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
                writer.put((source, outputs, SegmentedFrame(VideoFrame(frame, 0.0, 0), 0, 0.0, found, other)))


def read_source_image(source: Source, timeout_seconds: float) -> NDArray[np.uint8]:
    """Read an image, a file or the address of one; raises `InputError`."""
    if isinstance(source.file, Path):
        return read_image(source.file, source.bits)
    return decode_image(download(source.file, timeout_seconds), source.label)


def _read_images(
    planned: Iterable[tuple[Source, Outputs]], timeout_seconds: float, stop: threading.Event
) -> Iterator[tuple[Source, Outputs, NDArray[np.uint8] | InputError]]:
    for source, outputs in planned:
        if stop.is_set():
            return
        try:
            frame: NDArray[np.uint8] | InputError = read_source_image(source, timeout_seconds)
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
    """Return how many further pictures of a file were left out, and warn about them."""
    file = source.file
    if not isinstance(file, Path):
        return 0
    try:
        extra = extra_pictures(file)
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

    Times in the results count from the source's beginning, whatever its own clock shows there; with a start, from the
    first frame that is taken. Raises `KeyboardInterrupt` where the task was stopped before that one, `InputError` where
    none could be read, the network failed or the place cannot be written.
    """
    if info is None:
        info = reader.info if reader is not None else probe(source.file, timeout_seconds=task.timeout_seconds)
    with closing(_taken(source, task, reader)) as taken:
        frames = of_one_size(taken, (info.height, info.width), source.label)
        first = next(frames, None)
        if task.stop.is_set():
            raise KeyboardInterrupt
        if first is None:
            raise InputError(f"{source.label}: ended before a frame was taken. Choose an earlier --start.")
        origin = info.origin if reader is None else 0.0
        begin = first.time if task.selection.start and not task.is_range else origin
        frame = task.frame(source, info.height, info.width, info, start=begin - origin)
        with _background_drawing(source, outputs, task, frame) as put:
            outcome = _feed(source, chain([first], frames), task, begin, put, on_frame)
            early = outcome.broken or outcome.interrupted or outcome.frames == task.selection.max_frames
            if frame.audio is not None and early:
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
    except _SourceError as error:
        broken = str(error)
    return SourceResult(count, broken, interrupted=task.stop.is_set())


@contextmanager
def _background_drawing(
    source: Source, outputs: Outputs, task: Task, frame: FrameFormat
) -> Iterator[Callable[[SegmentedFrame], None]]:
    """Give what takes a video's results: they are drawn on one thread and encoded on another."""
    drawer = task.drawer(video=True, color=None if frame.info is None else frame.info.color)
    show = task.show
    with _opened(outputs, frame) as save, BackgroundWriter(save, _DEPTH) as encoder:

        def draw(result: SegmentedFrame) -> None:
            drawn = drawer(result)
            if show is not None and drawn.picture is not None:
                show(source.label, drawn.picture)
            encoder.put(drawn)

        with BackgroundWriter(draw, _DEPTH) as writer:
            yield writer.put


@contextmanager
def _opened(outputs: Outputs, frame: FrameFormat) -> Iterator[Sink]:
    """Open all results of a source as one sink; they appear together once all are whole."""
    with AtomicOutputs() as results, ExitStack() as stack:  # the sinks end before the results appear
        sinks = [stack.enter_context(open_sink(kind, path, frame, results)) for kind, path in outputs.items()]

        def save(drawn: DrawnFrame) -> None:
            for sink in sinks:
                sink(drawn)

        yield save


class _SourceError(InputError):
    """A source broke, which leaves good frames; what else fails leaves none."""


def _taken(source: Source, task: Task, reader: LiveReader | None) -> Generator[VideoFrame, None, None]:
    """Yield the frames of a source that are taken; those of a file are read ahead."""
    selection = task.selection
    if reader is not None:
        frames = _live(reader, selection)
    else:
        keep = selection.picker() if selection.thins else None
        file = read_frames(
            source.file, start=selection.start, duration=selection.duration, keep=keep, most=selection.max_frames,
            timeout_seconds=task.timeout_seconds,
        )  # fmt: skip
        frames = prefetch(file, 2 * _DEPTH, task.stop)
    with closing(frames):
        try:
            yield from frames
        except InputError as error:
            raise _SourceError(str(error)) from error


def _live(reader: LiveReader, selection: Selection) -> Generator[VideoFrame, None, None]:
    """Yield a live source's frames between start and end."""
    begin, count = selection.start or 0.0, 0
    for item in reader.frames():
        if item.time < begin:
            continue
        if selection.duration is not None and item.time >= begin + selection.duration:
            return
        yield item
        count += 1
        if count == selection.max_frames:
            return


def of_one_size(frames: Iterable[VideoFrame], size: tuple[int, int], label: str) -> Iterator[VideoFrame]:
    """Bring frames of another size to that of the first, since one file holds one size, and warn once."""
    warned = False
    for item in frames:
        if item.frame.shape[:2] != size:
            if not warned:
                found = item.frame.shape[1::-1]
                logger.warning("%s: its frames change to %dx%d; all are kept as %dx%d", label, *found, *size[::-1])
            warned = True
            item = VideoFrame(resize_frame(item.frame, *size), item.time, item.index)
        yield item
