"""Draws what is written and shown: masks' numbers, overlays, one picture beside another."""

import logging
import threading
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import UsageError
from lsr_infer.io.images import fit_mask, stretch_of
from lsr_infer.labelspace import IGNORE_INDEX, LabelSpace
from lsr_infer.render.overlay import captioned, legend, overlay, overlay_planes, side_by_side
from lsr_infer.render.segmentation import Segmentation
from lsr_infer.video.containers import ColorTags, VideoFrame
from lsr_infer.video.display import shown_colors
from lsr_infer.video.planes import plane_palette

__all__ = ["CITYSCAPES_NAMES", "Drawer", "DrawingOptions", "MaskIds", "SegmentedFrame"]

logger = logging.getLogger(__name__)

_CITYSCAPES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
_CITYSCAPES_UNLABELED = 0

CITYSCAPES_NAMES = tuple(_CITYSCAPES)
"""Cityscapes' 19 classes in the order of their train ids."""


@dataclass(frozen=True, eq=False)
class MaskIds:
    """How class maps become the numbers in a file.

    `palette` [256,3] is red, green, blue by number, `table` [256] the number by class index, None the indices.
    """

    palette: NDArray[np.uint8]
    table: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, kind: str, space: LabelSpace) -> "MaskIds":
        """Return the numbers, `train` or `cityscapes`, of a network's classes; `UsageError` where one has none."""
        if kind == "train":
            return cls(space.palette())
        unknown = [name for name in space.names if name not in _CITYSCAPES]
        if unknown:
            raise UsageError(
                f"--mask-ids cityscapes: this model's classes ({space.name}) include {unknown[0]}, which is none of "
                "Cityscapes'. Take --mask-ids train."
            )
        table = np.full(256, _CITYSCAPES_UNLABELED, dtype=np.uint8)
        palette = np.zeros((256, 3), dtype=np.uint8)
        for index, (name, color) in enumerate(zip(space.names, space.colors, strict=True)):
            table[index] = _CITYSCAPES[name]
            palette[_CITYSCAPES[name]] = color
        return cls(palette, table)

    def numbers(self, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the numbers of a class map [H,W]."""
        return classes if self.table is None else self.table[classes]


_GAP = 4
_STRETCH = 0.01
"""A mask whose shape differs by less from the frames' was rounded; one that differs more is of another camera."""


@dataclass(frozen=True, kw_only=True)
class DrawingOptions:
    """How results look, and which of `lsr_infer.pipeline.options.KINDS` are kept.

    `captions` are those of two pictures side by side, left the frame (or another model's overlay) and right the
    overlay. `legend` puts the classes' names below: `auto` below pictures, and below videos side by side. `ignored`
    [H,W] is true where nothing is shown and the mask is void; it is resized to each frame.
    """

    ids: MaskIds
    save: frozenset[str] = frozenset({"overlay"})
    alpha: float = 0.5
    captions: tuple[str, str] | None = None
    legend: Literal["auto", "on", "off"] = "auto"
    lossless: bool = False
    ignored: NDArray[np.bool_] | None = field(default=None, compare=False)
    _stretched: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    def ignored_at(self, height: int, width: int) -> NDArray[np.bool_] | None:
        """Return what is ignored of a frame of a size; warns once where that stretches the mask."""
        mask = self.ignored
        if mask is not None and stretch_of(mask.shape, (height, width)) > _STRETCH and not self._stretched.is_set():
            self._stretched.set()
            logger.warning(
                "the ignore mask is %dx%d and is stretched to frames of %dx%d. Draw one for frames of that shape.",
                *mask.shape[::-1], width, height,
            )  # fmt: skip
        return fit_mask(mask, height, width)

    def has_legend(self, *, video: bool) -> bool:
        """Whether the classes' names stand below what is drawn of a picture, or of a video."""
        return self.legend == "on" or (self.legend == "auto" and (self.captions is not None or not video))


@dataclass(frozen=True)
class SegmentedFrame:
    """A frame, its number and time in seconds among the results, and the segmentations of one or two models."""

    item: VideoFrame
    index: int
    time: float
    found: Segmentation
    other: Segmentation | None


@dataclass(frozen=True)
class DrawnFrame:
    """One frame's results, ready to be written: its number and time among them, from 0, and its time at the source.

    `classes` [H,W] are 255 where ignored; `picture` [H,W',3] BGR is what an overlay shows, or `planes` [H*3/2,W], in
    yuv420p as the source has it; `confidence` [H,W] is the probability of the class times 255, 0 where ignored. None
    stands for what nothing asks for.
    """

    index: int
    time: float
    source_time: float
    classes: NDArray[np.uint8]
    picture: NDArray[np.uint8] | None
    confidence: NDArray[np.uint8] | None
    planes: NDArray[np.uint8] | None = None


class Drawer:
    """Draws the results of one source, on one thread; `shown` draws pictures even where none is kept.

    Below a `video` all classes are named, so that its pictures are of one size; else those that are there. With the
    `color` that a video is to have, plain overlays are drawn in the planes of frames that are stored so: they need no
    conversion, which takes longer than the drawing.
    """

    def __init__(
        self,
        drawing: DrawingOptions,
        space: LabelSpace,
        *,
        shown: bool = False,
        video: bool = False,
        color: ColorTags | None = None,
    ) -> None:
        self._drawing, self._space, self._video = drawing, space, video
        plain = (
            not shown and drawing.captions is None and drawing.ignored is None and not drawing.has_legend(video=video)
        )
        self._color = color if plain else None
        self._plane_palette = None if self._color is None else plane_palette(space.palette(), self._color)
        self._legend: NDArray[np.uint8] | None = None
        self._pictures = shown or "overlay" in drawing.save
        self._fitted: NDArray[np.bool_] | None = None

    def __call__(self, result: SegmentedFrame) -> DrawnFrame:
        """Draw one frame."""
        size = result.found.size
        if self._drawing.ignored is not None and (self._fitted is None or self._fitted.shape != size):
            self._fitted = self._drawing.ignored_at(*size)
        ignored = self._fitted
        classes = self._classes(result.found, ignored)
        confidence = None
        if "confidence" in self._drawing.save:
            confidence = np.rint(result.found.confidence * 255).astype(np.uint8)
            if ignored is not None:
                confidence[ignored] = 0
        picture = planes = None
        if self._pictures:
            planes = self._planes(result.item, classes)
            picture = self._picture(result, classes, ignored) if planes is None else None
        return DrawnFrame(result.index, result.time, result.item.time, classes, picture, confidence, planes)

    def _planes(self, item: VideoFrame, classes: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Draw over the planes of a frame; None where they are not those of the video, or not of even sides."""
        stored, (height, width) = item.stored, classes.shape
        if self._plane_palette is None or stored is None or shown_colors(stored) != self._color or (height | width) % 2:
            return None
        planes = np.asarray(stored.to_ndarray(), dtype=np.uint8)
        return overlay_planes(planes, classes, self._plane_palette, self._drawing.alpha)

    @staticmethod
    def _classes(found: Segmentation, ignored: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
        return found.classes if ignored is None else np.where(ignored, np.uint8(IGNORE_INDEX), found.classes)

    def _picture(
        self, result: SegmentedFrame, classes: NDArray[np.uint8], ignored: NDArray[np.bool_] | None
    ) -> NDArray[np.uint8]:
        frame = result.item.frame
        painted = overlay(frame, classes, self._space, self._drawing.alpha)
        if self._drawing.captions is None:
            return self._with_legend(painted, frame.shape[0], classes)
        before, shown = frame, classes
        if result.other is not None:
            labels = self._classes(result.other, ignored)
            before = overlay(frame, labels, result.other.label_space, self._drawing.alpha)
            if result.other.label_space == self._space:
                shown = np.concatenate([classes, labels])
        left, right = self._drawing.captions
        both = side_by_side(captioned(before, left), captioned(painted, right), gap=_GAP)
        return self._with_legend(both, frame.shape[0], shown)

    def _with_legend(self, picture: NDArray[np.uint8], height: int, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if not self._drawing.has_legend(video=self._video):
            return picture
        if self._legend is None or self._legend.shape[1] != picture.shape[1] or not self._video:
            self._legend = legend(self._space, height, picture.shape[1], None if self._video else classes)
        return np.concatenate([picture, self._legend])

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of each picture of a video, whose frames have so many."""
        if self._drawing.captions is not None:
            width = 2 * width + _GAP
        if self._drawing.has_legend(video=True):
            height += legend(self._space, height, width).shape[0]
        return height, width
