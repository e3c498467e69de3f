"""From a segmentation to what is written and shown: ignored parts, numbers, overlays, one picture beside another."""

import logging
import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lsr_infer.io.images import fit_mask, stretch_of
from lsr_infer.labelspace import IGNORE_INDEX, LabelSpace
from lsr_infer.pipeline.sinks import Drawn
from lsr_infer.render.mask_ids import MaskIds
from lsr_infer.render.overlay import captioned, overlay, side_by_side
from lsr_infer.segmenter import Segmentation
from lsr_infer.video.info import VideoFrame

__all__ = ["Drawer", "Drawing", "Result"]

logger = logging.getLogger(__name__)

_GAP = 4
_STRETCH = 0.01
"""A mask whose shape differs by less from the frames' was rounded; one that differs more is of another camera."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How results look, and which are kept.

    Args:
        ids: the numbers in masks.
        save: kinds of `lsr_infer.pipeline.kinds.KINDS`.
        alpha: share of the colour in an overlay, 0 to 1.
        captions: of two pictures that stand side by side, left the frame (or another model's overlay) and right the
            overlay; None draws the overlay alone.
        lossless: masks of a video become one FFV1 file instead of a folder.
        ignored: [H,W] bool, true where nothing is shown and the mask is void; resized to each frame. None: nowhere.
    """

    ids: MaskIds
    save: frozenset[str] = frozenset({"overlay"})
    alpha: float = 0.5
    captions: tuple[str, str] | None = None
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

    def width(self, width: int) -> int:
        """Return the columns of a picture made of a frame of so many."""
        return 2 * width + _GAP if self.captions else width


@dataclass(frozen=True)
class Result:
    """A frame and what one or two models say about it.

    Args:
        item: the frame.
        index: its number among the results, from 0.
        time: its time in the results, in seconds.
        found: what the model says.
        other: what the second model says, None where there is none.
    """

    item: VideoFrame
    index: int
    time: float
    found: Segmentation
    other: Segmentation | None


class Drawer:
    """Draws the results of one source, on one thread.

    Args:
        drawing: how they look.
        space: the classes.
        shown: somebody looks, so that pictures are drawn even where none is kept.
    """

    def __init__(self, drawing: Drawing, space: LabelSpace, *, shown: bool = False) -> None:
        self._drawing = drawing
        self._space = space
        self._pictures = shown or "overlay" in drawing.save
        self._fitted: NDArray[np.bool_] | None = None

    def __call__(self, result: Result) -> Drawn:
        """Draw one frame."""
        ignored = self._ignored(result.found.size)
        classes = self._classes(result.found, ignored)
        confidence = None
        if "confidence" in self._drawing.save:
            confidence = np.rint(result.found.confidence * 255).astype(np.uint8)
            if ignored is not None:
                confidence[ignored] = 0
        picture = self._picture(result, classes, ignored) if self._pictures else None
        return Drawn(result.index, result.time, result.item.time, classes, picture, confidence)

    def _ignored(self, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Return the ignored part at a frame's size."""
        if self._drawing.ignored is not None and (self._fitted is None or self._fitted.shape != size):
            self._fitted = self._drawing.ignored_at(*size)
        return self._fitted

    @staticmethod
    def _classes(found: Segmentation, ignored: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
        if ignored is None:
            return found.classes
        return np.where(ignored, np.uint8(IGNORE_INDEX), found.classes)

    def _picture(
        self, result: Result, classes: NDArray[np.uint8], ignored: NDArray[np.bool_] | None
    ) -> NDArray[np.uint8]:
        frame = result.item.frame
        painted = overlay(frame, classes, self._space, self._drawing.alpha)
        if self._drawing.captions is None:
            return painted
        before = frame
        if result.other is not None:
            labels = self._classes(result.other, ignored)
            before = overlay(frame, labels, result.other.label_space, self._drawing.alpha)
        left, right = self._drawing.captions
        return side_by_side(captioned(before, left), captioned(painted, right), gap=_GAP)
