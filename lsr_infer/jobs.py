"""Segment images and videos into files: decoding ahead, drawing and encoding behind, the network in between.

Every result appears under its final name only when it is whole. A source that breaks in the middle leaves what was good
of it, and says how much that is; Ctrl-C does the same.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError
from lsr_infer.files import place_error, refuse_existing, whole_folder, write_bytes
from lsr_infer.images import fit_mask, read_image
from lsr_infer.labelspace import IGNORE_INDEX
from lsr_infer.overlay import overlay, side_by_side
from lsr_infer.pipeline import Behind, ahead
from lsr_infer.png import palette_png
from lsr_infer.segmenter import Segmentation, Segmenter
from lsr_infer.sources import Source
from lsr_infer.video import VideoInfo, VideoWriter, probe, read_frames

__all__ = ["Drawing", "Outcome", "Outputs", "plan_outputs", "segment_image", "segment_video"]

_JPEG_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How results look.

    Args:
        save: which of `overlay` and `mask` are written.
        alpha: share of the colour in an overlay, 0 to 1.
        compare: whether an overlay stands beside the frame (or beside another model's overlay).
        ignored: [H,W] bool, true where nothing is shown and the mask is void; resized to each frame. None: nowhere.
    """

    save: frozenset[str] = frozenset({"overlay"})
    alpha: float = 0.5
    compare: bool = False
    ignored: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Outputs:
    """Where the results of one source go; None where a kind is not written."""

    overlay: Path | None
    mask: Path | None

    def paths(self) -> list[Path]:
        """Return the places that are written."""
        return [path for path in (self.overlay, self.mask) if path is not None]


@dataclass(frozen=True)
class Outcome:
    """How one source ended.

    Args:
        frames: frames that are in the results.
        broken: why the source broke off after them; None where it was read to its end.
        interrupted: the user stopped it after them.
    """

    frames: int
    broken: str | None = None
    interrupted: bool = False


@dataclass(frozen=True)
class _Result:
    """A frame and what one or two models say about it."""

    frame: NDArray[np.uint8]
    time: float
    index: int
    found: Segmentation
    other: Segmentation | None


def plan_outputs(source: Source, folder: Path, drawing: Drawing, *, overwrite: bool) -> Outputs:
    """Name the results of a source.

    Raises:
        UsageError: one of them exists and `overwrite` is false.
    """
    what = "side_by_side" if drawing.compare else "overlay"
    base = folder / source.name
    video = source.kind == "video"
    outputs = Outputs(
        overlay=base.with_name(f"{base.name}_{what}{'.mp4' if video else '.jpg'}")
        if "overlay" in drawing.save
        else None,
        mask=base.with_name(f"{base.name}_mask{'' if video else '.png'}") if "mask" in drawing.save else None,
    )
    for path in outputs.paths():
        refuse_existing(path, overwrite=overwrite)
    return outputs


def segment_image(
    source: Source, outputs: Outputs, segmenter: Segmenter, other: Segmenter | None, drawing: Drawing
) -> Outcome:
    """Segment one image.

    Raises:
        InputError: the image is broken, the model failed, or the place cannot be written.
    """
    frame = read_image(source.path)
    result = _Result(frame, 0.0, 0, segmenter(frame), other(frame) if other is not None else None)
    classes = _classes(result.found, drawing)
    if outputs.mask is not None:
        _make_folder(outputs.mask.parent)
        write_bytes(outputs.mask, palette_png(classes, segmenter.label_space.palette()))
    if outputs.overlay is not None:
        _make_folder(outputs.overlay.parent)
        picture = _picture(result, classes, drawing)
        encoded, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        if not encoded:
            raise InputError(f"{outputs.overlay}: {picture.shape[1]}x{picture.shape[0]} pixels do not fit into a JPEG.")
        write_bytes(outputs.overlay, data.tobytes())
    return Outcome(frames=1)


def segment_video(
    source: Source,
    outputs: Outputs,
    segmenter: Segmenter,
    other: Segmenter | None,
    drawing: Drawing,
    *,
    max_frames: int | None = None,
    overwrite: bool = False,
    on_frame: Callable[[], object] | None = None,
    info: VideoInfo | None = None,
) -> Outcome:
    """Segment a video; its first good frames are kept where it breaks or the user interrupts.

    Args:
        source: the video.
        outputs: where the results go.
        segmenter: the model.
        other: a second model to compare with, or None.
        drawing: how the results look.
        max_frames: stop after this many frames.
        overwrite: replace existing results.
        on_frame: called after each frame that went through the model.
        info: what `probe` said, where that is known.

    Raises:
        InputError: not one frame could be read, the model failed, or the place cannot be written.
    """
    described = info or probe(source.path)
    frames = read_frames(source.path)
    count = 0
    broken: str | None = None
    interrupted = False
    with ExitStack() as stack:
        draw = _drawer(stack, outputs, segmenter, drawing, described, overwrite)
        behind = stack.enter_context(Behind(draw))
        reader = ahead(frames)
        stack.callback(reader.close)
        try:
            while max_frames is None or count < max_frames:
                try:
                    item = next(reader, None)
                except InputError as error:
                    if count == 0:
                        raise
                    broken = str(error)
                    break
                if item is None:
                    break
                second = other(item.frame) if other is not None else None
                behind.put(_Result(item.frame, item.time, item.index, segmenter(item.frame), second))
                count += 1
                if on_frame is not None:
                    on_frame()
        except KeyboardInterrupt:
            if count == 0:
                raise
            interrupted = True
    return Outcome(count, broken, interrupted)


def _drawer(
    stack: ExitStack,
    outputs: Outputs,
    segmenter: Segmenter,
    drawing: Drawing,
    info: VideoInfo,
    overwrite: bool,
) -> Callable[[_Result], None]:
    """Open the results of a video and return what writes one frame to them; runs on the thread behind."""
    writer: VideoWriter | None = None
    masks: Path | None = None
    palette = segmenter.label_space.palette()
    if outputs.mask is not None:
        _make_folder(outputs.mask.parent)
        masks = stack.enter_context(whole_folder(outputs.mask))

    def draw(result: _Result) -> None:
        nonlocal writer
        classes = _classes(result.found, drawing)
        if masks is not None:
            _write(masks / f"{result.index:06d}.png", palette_png(classes, palette))
        if outputs.overlay is not None:
            picture = _picture(result, classes, drawing)
            if writer is None:
                raise AssertionError("the writer is opened before the first frame")
            writer.write(picture, result.time)

    if outputs.overlay is not None:
        _make_folder(outputs.overlay.parent)
        width = 2 * info.width + _gap(drawing) if drawing.compare else info.width
        writer = stack.enter_context(
            VideoWriter(outputs.overlay, width=width, height=info.height, fps=info.fps, like=info, overwrite=overwrite)
        )
    return draw


def _gap(drawing: Drawing) -> int:
    """Return the width of the bar between two pictures."""
    return 4 if drawing.compare else 0


def _classes(found: Segmentation, drawing: Drawing) -> NDArray[np.uint8]:
    """Return the class map with the ignored part void."""
    ignored = fit_mask(drawing.ignored, *found.size)
    if ignored is None:
        return found.classes
    return np.where(ignored, np.uint8(IGNORE_INDEX), found.classes)


def _picture(result: _Result, classes: NDArray[np.uint8], drawing: Drawing) -> NDArray[np.uint8]:
    """Draw one frame."""
    painted = overlay(result.frame, classes, result.found.label_space, drawing.alpha)
    if not drawing.compare:
        return painted
    before = result.frame
    if result.other is not None:
        before = overlay(result.frame, _classes(result.other, drawing), result.other.label_space, drawing.alpha)
    return side_by_side(before, painted, gap=_gap(drawing))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise place_error(folder, error) from error


def _write(path: Path, data: bytes) -> None:
    """Write a file into a folder that is not finished itself."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise place_error(path, error) from error
