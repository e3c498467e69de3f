"""Videos in a worker process: what `lsr-infer` does with a file, written so that a page can play it while it grows.

The video is written in pieces (fragmented MP4), which a browser plays from the first piece on, and rewritten with its
index in front once it is whole; no frame is encoded twice.
"""

import csv
import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from lsr_infer.errors import InputError
from lsr_infer.io.image_headers import walk_pictures
from lsr_infer.io.sources import Source
from lsr_infer.labelspace import LabelSpace
from lsr_infer.pipeline.frame_inference import Inference
from lsr_infer.pipeline.options import Selection
from lsr_infer.pipeline.outputs import FrameFormat
from lsr_infer.pipeline.task import SourceResult, Task, segment_video
from lsr_infer.render.draw import Drawer, DrawingOptions, DrawnFrame, MaskIds, SegmentedFrame
from lsr_infer.segmenter import Segmentation
from lsr_infer.video.containers import VideoInfo, open_container
from lsr_infer.video.reader import picture_stream, probe
from lsr_infer.web.limits import Limits
from lsr_infer.web.requests import ClipRequest
from lsr_infer.web.stills import Open, classes_document

__all__ = ["growing_video", "segment_clip"]

_ANIMATIONS = (b"GIF8", b"\x89PNG", b"RIFF")
_JPEG = b"\xff\xd8\xff"
_REPORT_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class _Shares:
    """How much of each frame every class takes, in the order of the frames.

    Args:
        spaces: the classes of each layer.
        times: of the frames, in seconds.
        layers: for each layer, [C] float shares of every frame.
    """

    spaces: tuple[LabelSpace, ...]
    times: list[float] = field(default_factory=list)
    layers: tuple[list[NDArray[np.float64]], ...] = ()

    def add(self, result: SegmentedFrame) -> None:
        """Count the classes of a frame."""
        found: list[Segmentation] = [result.found] if result.other is None else [result.other, result.found]
        self.times.append(result.time)
        for counts, segmentation, space in zip(self.layers, found, self.spaces, strict=True):
            counted = np.bincount(segmentation.classes.ravel(), minlength=space.num_classes)
            counts.append(counted / counted.sum())


class _CountingDrawer(Drawer):
    """Draws as its base does, and counts the classes on the way, where both class maps are at hand anyway."""

    def __init__(self, drawing: DrawingOptions, space: LabelSpace, shares: _Shares) -> None:
        super().__init__(drawing, space)
        self._shares = shares

    def __call__(self, result: SegmentedFrame) -> DrawnFrame:
        drawn = super().__call__(result)
        self._shares.add(result)
        return drawn


@dataclass(frozen=True, kw_only=True)
class _ClipTask(Task):
    """The task of `lsr-infer`, with the video in pieces and the classes counted."""

    shares: _Shares

    def drawer(self) -> Drawer:
        """Return what draws the results of one source."""
        return _CountingDrawer(self.drawing, self.inference.label_space, self.shares)

    def frame(self, source: Source, height: int, width: int, info: VideoInfo | None = None) -> FrameFormat:
        """Describe a source's frames to the sinks."""
        return replace(super().frame(source, height, width, info), live=True)


def segment_clip(
    request: ClipRequest,
    segmenters: Open,
    report: Callable[[dict[str, Any]], None],
    heed: Callable[[], None],
) -> dict[str, Any]:
    """Segment an uploaded video.

    Writes `video.mp4` (two pictures side by side), `masks.zip`, `shares.json` and `shares.csv`. While it runs,
    `growing_video` gives what there is of the video.

    Args:
        request: what is asked for.
        segmenters: gives the loaded models.
        report: told a few times a second what is done: `frames`, `total` (None where unknown), `seconds`, and at the
            beginning `width`, `height`, `gap` and `titles` of the two pictures.
        heed: called after each frame; what it raises ends the job, and no video is left.

    Raises:
        InputError: the file is no video, or more than the limits allow; or a model failed.
        Exception: whatever `heed` raises.
    """
    info, reduced = _checked(request)
    opened = [segmenters(choice) for choice in request.models]
    titles = ("Original", request.models[0].title) if len(opened) == 1 else tuple(one.title for one in request.models)
    spaces = tuple(one.label_space for one in opened)
    drawing = DrawingOptions(
        ids=MaskIds.of("train", opened[-1].label_space),
        save=frozenset({"overlay", "mask"}),
        alpha=request.alpha,
        captions=("", ""),  # the page writes its own, which stay readable wherever the divider stands
    )
    task = _ClipTask(
        inference=Inference(opened[-1], opened[0] if len(opened) == 2 else None),
        drawing=drawing,
        selection=Selection(
            every=request.every, max_frames=request.limits.frames + 1, duration=request.limits.seconds + 1
        ),
        shares=_Shares(spaces=spaces, layers=tuple([] for _ in spaces)),
    )
    source = Source(request.path, "video", Path("clip"))
    outputs = {"overlay": request.folder / "pieces.mp4", "mask": request.folder / "masks"}
    progress = _Progress(report, task.selection.expected(info))
    gap = drawing.width(info.width) - 2 * info.width
    begin = {"width": info.width, "height": info.height, "gap": gap, "titles": list(titles), "total": progress.total}
    report({"frames": 0, "seconds": 0.0, **begin})

    def step() -> None:
        progress.step()
        heed()

    outcome = segment_video(source, outputs, task, info=info, on_frame=step)
    # Some files do not say how long they are, and some say less than they are.
    request.limits.check_length(request.name, task.shares.times[-1], outcome.frames)
    return _finished(request, task, info, outcome, begin, progress.seconds, reduced=reduced)


def growing_video(folder: Path) -> Path | None:
    """Return the video of a job that still runs, None while there is nothing to be played."""
    for path in folder.glob(".pieces.*.part.mp4"):
        try:
            if path.stat().st_size:
                return path
        except OSError:
            continue
    return None


class _Progress:
    """Counts frames, and says so a few times a second."""

    def __init__(self, report: Callable[[dict[str, Any]], None], total: int | None) -> None:
        self.total = total
        self._report = report
        self._frames = 0
        self._begin = self._last = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begin

    def step(self) -> None:
        """Count a frame."""
        self._frames += 1
        now = time.monotonic()
        if now - self._last >= _REPORT_SECONDS:
            self._last = now
            self._report({"frames": self._frames, "seconds": now - self._begin, "total": self.total})


def _checked(request: ClipRequest) -> tuple[VideoInfo, bool]:
    """Return how a video is shown, and whether that is reduced, after looking at what it claims before decoding it."""
    limits, name = request.limits, request.name
    _check_animation(request.path, name, limits)
    try:
        with open_container(request.path) as container:
            context = picture_stream(container, name).codec_context
            limits.check_pixels(name, context.height, context.width)
        info = probe(request.path)
    except FFmpegError as error:
        raise InputError(f"{name} cannot be read as a video. Send another file, or encode it anew.") from error
    limits.check_length(name, info.duration, info.frames)
    scale = min(1.0, limits.shown_width / info.width)
    if scale == 1.0:
        return info, False
    height, width = (max(2, 2 * round(side * scale / 2)) for side in (info.height, info.width))
    return replace(info, height=height, width=width), True


def _check_animation(path: Path, name: str, limits: Limits) -> None:
    """Count the pictures of an animation, which says nothing about its length; a single one is refused."""
    single = InputError(f"{name} is a picture, not a video. Send it on the tab Picture.")
    with path.open("rb") as file:
        begin = file.read(4)
    if begin.startswith(_JPEG) and path.suffix.lower() in (".jpg", ".jpeg"):  # Motion JPEG begins like it
        raise single
    if not begin.startswith(_ANIMATIONS):
        return
    data = path.read_bytes()
    if data.startswith(b"RIFF") and data[8:12] != b"WEBP":
        return
    pictures = walk_pictures(data).count
    limits.check_length(name, None, pictures)
    if pictures == 1:
        raise single


def _finished(
    request: ClipRequest,
    task: _ClipTask,
    info: VideoInfo,
    outcome: SourceResult,
    begin: dict[str, Any],
    seconds: float,
    *,
    reduced: bool,
) -> dict[str, Any]:
    """Bring the results into the forms in which they are handed out, and describe them."""
    folder, shares = request.folder, task.shares
    try:
        _rewrite(folder / "pieces.mp4", folder / "video.mp4")
        _zip(folder / "masks", folder / "masks.zip")
        _write_shares(folder, begin["titles"][-len(shares.layers) :], shares)
    except (OSError, FFmpegError) as error:
        raise InputError("The server has no room for results at the moment. Try again later.") from error
    return {
        **begin,
        "name": request.name,
        "fps": float(task.selection.rate(info.fps)),
        "duration": (shares.times[-1] if shares.times else 0.0) + 1 / float(task.selection.rate(info.fps)),
        "frames": outcome.frames,
        "seconds": round(seconds, 3),
        "note": _note(info, outcome, reduced=reduced),
    }


def _note(info: VideoInfo, outcome: SourceResult, *, reduced: bool) -> str | None:
    """Say what the user would not expect."""
    parts = []
    if outcome.broken is not None:
        parts.append(f"The file is damaged: what follows frame {outcome.frames} could not be read.")
    if reduced:
        parts.append(f"Pictures and masks are reduced to {info.width} x {info.height} pixels.")
    return " ".join(parts) or None


def _rewrite(pieces: Path, whole: Path) -> None:
    """Copy a video with its index in front, so that a browser can jump to any place at once."""
    with (
        av.open(f"file:{pieces}") as source,
        av.open(f"file:{whole}", "w", format="mp4", options={"movflags": "+faststart"}) as target,
    ):
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    pieces.unlink()


def _zip(folder: Path, path: Path) -> None:
    """Put the masks into one file; they are compressed already."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for mask in sorted(folder.iterdir()):
            archive.write(mask, mask.name)
            mask.unlink()
    folder.rmdir()


def _write_shares(folder: Path, titles: list[str], shares: _Shares) -> None:
    """Write the class shares for the chart (JSON) and for people (CSV)."""
    layers = [
        {"title": title, "classes": classes_document(space), "shares": np.round(counts, 5).tolist()}
        for title, space, counts in zip(titles, shares.spaces, shares.layers, strict=True)
    ]
    document = {"classes": layers[-1]["classes"], "times": [round(time, 4) for time in shares.times], "layers": layers}
    (folder / "shares.json").write_text(json.dumps(document, allow_nan=False), encoding="utf-8")
    with (folder / "shares.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["frame", "time", *_columns(titles, shares.spaces)])
        for number, time_of_frame in enumerate(shares.times):
            values = [f"{share:.5f}" for counts in shares.layers for share in counts[number]]
            writer.writerow([number, f"{time_of_frame:.4f}", *values])


def _columns(titles: list[str], spaces: tuple[LabelSpace, ...]) -> list[str]:
    """Return a column's name for each class of each layer."""
    if len(spaces) == 1:
        return list(spaces[0].names)
    return [f"{title}: {name}" for title, space in zip(titles, spaces, strict=True) for name in space.names]
