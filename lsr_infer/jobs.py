"""Segment images, videos and live sources into files: decoding ahead, drawing and encoding behind, the network between.

Every result appears under its final name only when it is whole. A source that breaks in the middle leaves what was good
of it, and says how much that is; stopping does the same. Queues are bounded: a slow encoder slows a file down, and
makes a live source drop frames.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lsr_infer.audio import AudioSource
from lsr_infer.drawing import Drawer, Drawing, Result
from lsr_infer.errors import InputError
from lsr_infer.files import PlaceError
from lsr_infer.images import extra_pictures, read_image, resize_frame
from lsr_infer.inference import Inference
from lsr_infer.live import LiveReader
from lsr_infer.pipeline import Behind, ahead
from lsr_infer.results import Drawn, Frame, Sink, open_sink
from lsr_infer.selection import Selection
from lsr_infer.sources import Source
from lsr_infer.video import probe, read_frames
from lsr_infer.videoinfo import VideoFrame, VideoInfo

__all__ = ["Outcome", "Outputs", "Task", "plan_outputs", "segment_images", "segment_video"]

logger = logging.getLogger(__name__)

Outputs = Mapping[str, Path]
"""Where the results of one source go, by kind."""

_DEPTH = 2
"""Frames that wait before drawing and before encoding; more would only cost memory, since the slowest stage rules."""


@dataclass(frozen=True)
class Outcome:
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
        stop: set from outside to end early; what was done is kept.
        show: called with a source's label and each picture, None where nobody looks.
    """

    inference: Inference
    drawing: Drawing
    selection: Selection = field(default_factory=Selection)
    overwrite: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    show: Callable[[str, NDArray[np.uint8]], None] | None = None

    def drawer(self) -> Drawer:
        """Return what draws the results of one source."""
        return Drawer(self.drawing, self.inference.label_space, shown=self.show is not None)

    def frame(self, source: Source, height: int, width: int, info: VideoInfo | None = None) -> Frame:
        """Describe a source's frames to the sinks."""
        audio = None
        if source.kind == "video" and not isinstance(source.place, int):
            audio = AudioSource(place=source.place, start=self.selection.start or 0.0, duration=self.selection.duration)
        return Frame(
            source=source.label,
            info=info,
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


def plan_outputs(source: Source, folder: Path | None, drawing: Drawing) -> Outputs:
    """Name the results of a source; without a folder there are none."""
    if folder is None:
        return {}
    base = folder / source.name
    image = source.kind == "image"
    endings = {
        "overlay": f"_{'side_by_side' if drawing.compare else 'overlay'}{'.jpg' if image else '.mp4'}",
        "mask": "_mask.png" if image else "_mask.mkv" if drawing.lossless else "_mask",
        "confidence": "_confidence.png" if image else "_confidence",
        "json": "_classes.jsonl",
    }
    return {kind: base.with_name(f"{base.name}{endings[kind]}") for kind in endings if kind in drawing.save}


def segment_images(
    jobs: Sequence[tuple[Source, Outputs]], task: Task, done: Callable[[Source, Outcome | InputError], None]
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

    def write(item: tuple[Source, Outputs, Result]) -> None:
        source, outputs, result = item
        try:
            drawn = drawer(result)
            if task.show is not None and drawn.picture is not None:
                task.show(source.label, drawn.picture)
            frame = task.frame(source, *drawn.classes.shape)
            for kind, path in outputs.items():
                with open_sink(kind, path, frame) as sink:
                    sink(drawn)
        except InputError as error:
            done(source, error)
            if isinstance(error, PlaceError):
                raise
        else:
            done(source, Outcome(1, extra=_extra(source)))

    reader = ahead(_read_images(jobs, task.stop), _DEPTH)
    with ExitStack() as stack:
        behind = stack.enter_context(Behind(write, _DEPTH))
        stack.callback(reader.close)
        for source, outputs, frame in reader:
            if task.stop.is_set():
                break
            try:
                if isinstance(frame, InputError):
                    raise frame
                found, other = task.inference(frame)
            except InputError as error:
                done(source, error)
            else:
                behind.put((source, outputs, Result(VideoFrame(frame, 0.0, 0), 0, 0.0, found, other)))


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


def _extra(source: Source) -> int:
    """Say and return how many further pictures of a file were left out."""
    extra = extra_pictures(Path(str(source.place)))
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
    on_frame: Callable[[], object] | None = None,
) -> Outcome:
    """Segment a video, stream or camera; its first good frames are kept where it breaks or the task is stopped.

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
    """
    if info is None:
        info = reader.info if reader is not None else probe(_file_of(source))
    frame = task.frame(source, info.height, info.width, info)
    progress = _Progress()
    with ExitStack() as stack:
        sinks = [stack.enter_context(open_sink(kind, path, frame)) for kind, path in outputs.items()]
        encode = stack.enter_context(Behind[Drawn](lambda drawn: _write(drawn, sinks), _DEPTH))
        drawer, show = task.drawer(), task.show

        def draw(result: Result) -> None:
            drawn = drawer(result)
            if show is not None and drawn.picture is not None:
                show(source.label, drawn.picture)
            encode.put(drawn)

        behind = stack.enter_context(Behind(draw, _DEPTH))
        frames = _taken(source, task, reader)
        stack.callback(frames.close)
        try:
            for item in _of_one_size(frames, (info.height, info.width), source.label):
                if task.stop.is_set():
                    break
                found, other = task.inference(item.frame)
                time = item.time - (task.selection.start or 0.0)
                behind.put(Result(item, progress.frames, time, found, other))
                progress.frames += 1
                if on_frame is not None:
                    on_frame()
                if progress.frames == task.selection.max_frames:
                    break
        except _SourceError as error:
            if not progress.frames:
                raise InputError(str(error)) from error
            progress.broken = str(error)
        progress.interrupted = task.stop.is_set()
        if not progress.frames:
            if progress.interrupted:
                raise KeyboardInterrupt
            raise InputError(f"{source.label}: ended before a frame was taken. Choose an earlier --start.")
        ends_early = progress.broken or progress.interrupted or progress.frames == task.selection.max_frames
        if frame.audio is not None and ends_early:
            frame.audio.cut.set()
    counts = {} if reader is None else {"dropped": reader.dropped, "reconnects": reader.reconnects}
    return Outcome(progress.frames, progress.broken, progress.interrupted, **counts)


@dataclass
class _Progress:
    """How far one source is."""

    frames: int = 0
    broken: str | None = None
    interrupted: bool = False


class _SourceError(InputError):
    """A source broke, which leaves good frames; what else fails leaves none."""


def _file_of(source: Source) -> Path | str:
    assert not isinstance(source.place, int)
    return source.place


def _taken(source: Source, task: Task, reader: LiveReader | None) -> "_Frames":
    """Return the frames of a source that are taken, from a thread of their own."""
    selection = task.selection
    if reader is not None:
        return _Frames(_live(reader, selection))
    keep = selection.picker() if selection.thins else None
    frames = ahead(
        read_frames(_file_of(source), start=selection.start, duration=selection.duration, keep=keep), 2 * _DEPTH
    )
    return _Frames(frames, frames.close)


class _Frames:
    """Frames whose own errors are told apart from all others.

    Args:
        frames: the frames.
        close: ends them early.
    """

    def __init__(self, frames: Iterator[VideoFrame], close: Callable[[], None] | None = None) -> None:
        self._frames = frames
        self.close: Callable[[], None] = close or (lambda: None)

    def __iter__(self) -> Iterator[VideoFrame]:
        try:
            yield from self._frames
        except InputError as error:
            raise _SourceError(str(error)) from error


def _live(reader: LiveReader, selection: Selection) -> Iterator[VideoFrame]:
    """Yield a live source's frames between start and end."""
    begin = selection.start or 0.0
    for item in reader.frames():
        if item.time < begin:
            continue
        if selection.duration is not None and item.time >= begin + selection.duration:
            return
        yield item


def _of_one_size(frames: Iterable[VideoFrame], size: tuple[int, int], label: str) -> Iterator[VideoFrame]:
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


def _write(drawn: Drawn, sinks: Sequence[Sink]) -> None:
    for sink in sinks:
        sink(drawn)
