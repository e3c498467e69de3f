"""Draws class maps: colours blended over the frame, a plain colour picture, two pictures side by side.

Colours come from the label space alone; void stays as the frame shows it.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer.labelspace import LabelSpace

__all__ = ["captioned", "colorize", "overlay", "side_by_side"]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_CAPTION_ROWS = 30
"""Of so many rows of a picture, one is a caption's height; at least 12 pixels."""


def colorize(classes: NDArray[np.integer], space: LabelSpace) -> NDArray[np.uint8]:
    """Paint a class map [H,W] as [H,W,3] uint8 BGR; what is no class up to 255 is void and becomes black."""
    return space.palette()[:, ::-1][_as_labels(classes)]


def overlay(
    frame: NDArray[np.uint8], classes: NDArray[np.integer], space: LabelSpace, alpha: float = 0.5
) -> NDArray[np.uint8]:
    """Blend the colours of the classes [H,W] over a frame [H,W,3] uint8 BGR, which is not changed.

    Every label from C to 255 is void, where the frame shows unblended. `alpha` is the colour's share, 0 to 1.
    """
    if frame.shape[:2] != classes.shape or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"frame {list(frame.shape)} and classes {list(classes.shape)} do not fit together")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; allowed: 0 to 1")
    labels = _as_labels(classes)
    paint = cv2.cvtColor(labels, cv2.COLOR_GRAY2BGR)
    table = np.ascontiguousarray(space.palette()[:, ::-1]).reshape(1, 256, 3)
    painted = cv2.addWeighted(frame, 1 - alpha, cv2.LUT(paint, table), alpha, 0)
    void = labels >= space.num_classes
    if void.any():
        painted = np.where(void[:, :, None], frame, painted)
    return np.asarray(painted, dtype=np.uint8)


def captioned(picture: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """Write a caption into the upper left corner of a copy of a picture [H,W,3] uint8, white on black.

    ASCII is drawn, other characters become question marks; what is too wide is cut off.
    """
    if not text:
        return picture.copy()
    rows = max(12, picture.shape[0] // _CAPTION_ROWS)
    scale = cv2.getFontScaleFromHeight(_FONT, rows // 2)
    (width, _), _ = cv2.getTextSize(text, _FONT, scale, 1)
    result = picture.copy()
    result[:rows, : width + rows] = 0
    place = (rows // 2, rows * 3 // 4)
    cv2.putText(result, text, place, _FONT, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return result


def side_by_side(*frames: NDArray[np.uint8], gap: int = 4) -> NDArray[np.uint8]:
    """Put pictures [H,W,3] uint8 of one height next to each other, with black columns between them."""
    if not frames or len({frame.shape[0] for frame in frames}) != 1:
        raise ValueError(f"frames of heights {[frame.shape[0] for frame in frames]} cannot stand side by side")
    bar = np.zeros((frames[0].shape[0], gap, 3), dtype=np.uint8)
    parts = [part for frame in frames for part in (bar, frame)][1:]
    return np.concatenate(parts, axis=1)


def _as_labels(classes: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return the labels as contiguous uint8, refusing what would wrap around."""
    if classes.dtype == np.uint8:
        return np.ascontiguousarray(classes).view(np.uint8)
    if classes.size and (classes.min() < 0 or classes.max() > 255):
        raise ValueError(f"labels reach from {classes.min()} to {classes.max()}; allowed: 0 to 255")
    return classes.astype(np.uint8)
