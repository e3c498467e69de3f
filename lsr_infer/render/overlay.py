"""Draws class maps: colours blended over the frame, two pictures side by side, captions, and what the colours mean.

Colours come from the label space alone; void stays as the frame shows it.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer.labelspace import LabelSpace

__all__ = ["captioned", "colorize", "explained", "legend", "overlay", "overlay_planes", "side_by_side"]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_CAPTION_ROWS, _LEAST_ROWS, _LETTERS = 14, 16, 0.7
"""Of so many rows of a picture one is a caption's bar, rows of a bar at the least, and the share of it that is letters:
capitals have over 3 % of the height of a picture and the legend below it."""
_LEGEND_COLUMNS = 18
"""Of so many columns a row of the legend has one at the most: below an upright picture it would be higher than that."""


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


def overlay_planes(
    planes: NDArray[np.uint8], classes: NDArray[np.uint8], table: NDArray[np.uint8], alpha: float = 0.5
) -> NDArray[np.uint8]:
    """Blend colours over a picture in yuv420p of even sides, which is not changed.

    A picture's format is linear in its colours, so that this is `overlay` of what it shows, but for rounding, and for
    chroma, which is neither enlarged nor reduced: each sample takes the mean of the colours of its four pixels.

    Args:
        planes: [H*3/2,W]: H rows of luma, then both chromas [H/2,W/2], row by row.
        classes: [H,W], none of them void.
        table: luma and both chromas of each class [3,256], as `plane_palette` gives them.
        alpha: the colour's share, 0 to 1.
    """
    height, width = classes.shape
    half, area = (width // 2, height // 2), height * width
    labels, source = _as_labels(classes), planes.reshape(-1)
    result = np.empty_like(source)
    luma = cv2.addWeighted(source[:area], 1 - alpha, cv2.LUT(labels, table[0]).reshape(-1), alpha, 0)
    result[:area] = luma.reshape(-1)
    for begin, colors in ((area, table[1]), (area * 5 // 4, table[2])):
        chroma = slice(begin, begin + area // 4)
        paint = cv2.resize(cv2.LUT(labels, colors), half, interpolation=cv2.INTER_AREA)
        result[chroma] = cv2.addWeighted(source[chroma], 1 - alpha, paint.reshape(-1), alpha, 0).reshape(-1)
    return result.reshape(planes.shape)


def captioned(picture: NDArray[np.uint8], text: str, height: int = 0) -> NDArray[np.uint8]:
    """Write a caption into the upper left corner of a copy of a picture [H,W,3] uint8, white on black.

    ASCII is drawn, other characters become question marks; what is too wide is cut off. `height` is that of the whole
    where the picture is one of several below each other.
    """
    if not text:
        return picture.copy()
    rows = _bar_rows(height or picture.shape[0])
    result = picture.copy()
    result[:rows, : _text_width(text, rows) + rows] = 0
    _write(result, text, rows // 2, 0, rows)
    return result


def _bar_rows(height: int) -> int:
    return max(_LEAST_ROWS, height // _CAPTION_ROWS)


def _scale(rows: int) -> float:
    """Return the size of letters in a bar of so many rows, as OpenCV takes it."""
    return float(cv2.getFontScaleFromHeight(_FONT, int(_LETTERS * rows)))


def _text_width(text: str, rows: int) -> int:
    (width, _), _ = cv2.getTextSize(text, _FONT, _scale(rows), 1)
    return int(width)


def _write(picture: NDArray[np.uint8], text: str, left: int, top: int, rows: int) -> None:
    """Write white letters into a bar of so many rows."""
    cv2.putText(picture, text, (left, top + rows * 3 // 4), _FONT, _scale(rows), (255, 255, 255), 1, cv2.LINE_AA)


def legend(space: LabelSpace, height: int, width: int, classes: NDArray[np.integer] | None = None) -> NDArray[np.uint8]:
    """Return what is put below a picture of a size, uint8 [H',width,3] BGR: the names of classes beside their colours.

    Class maps `classes` show which are named, in the order of the label space; None names all. H' is even; names are
    written as captions are, smaller below upright pictures, and what is too wide is cut off.
    """
    rows = _bar_rows(min(height, width * _CAPTION_ROWS // _LEGEND_COLUMNS))
    present = range(space.num_classes) if classes is None else [n for n in np.unique(classes) if n < space.num_classes]
    places, left, top = list[tuple[int, int, int]](), 0, 0
    for number in present:
        room = 2 * rows + _text_width(space.names[number], rows)
        if left and left + room > width:
            left, top = 0, top + rows
        places.append((int(number), left, top))
        left += room
    strip = np.zeros((-(-(top + rows) // 2) * 2, width, 3), dtype=np.uint8)
    for number, left, top in places:
        margin = rows // 4
        strip[top + margin : top + rows - margin, left + margin : left + rows] = space.colors[number][::-1]
        _write(strip, space.names[number], left + rows * 5 // 4, top, rows)
    return strip


def side_by_side(*frames: NDArray[np.uint8], gap: int = 4) -> NDArray[np.uint8]:
    """Put pictures [H,W,3] uint8 of one height next to each other, with black columns between them."""
    if not frames or len({frame.shape[0] for frame in frames}) != 1:
        raise ValueError(f"frames of heights {[frame.shape[0] for frame in frames]} cannot stand side by side")
    bar = np.zeros((frames[0].shape[0], gap, 3), dtype=np.uint8)
    parts = [part for frame in frames for part in (bar, frame)][1:]
    return np.concatenate(parts, axis=1)


def explained(
    pictures: Sequence[NDArray[np.uint8]],
    captions: Sequence[str],
    space: LabelSpace,
    classes: NDArray[np.integer],
    columns: int = 0,
) -> NDArray[np.uint8]:
    """Put pictures of one size in rows of so many, all in one by default, and the names of `classes` below.

    Each has its caption, which may be empty.
    """
    columns = columns or len(pictures)
    starts = range(0, len(pictures), columns)
    height = len(starts) * pictures[0].shape[0]
    named = [captioned(picture, text, height) for picture, text in zip(pictures, captions, strict=True)]
    named += [np.zeros_like(pictures[0])] * (-len(pictures) % columns)
    grid = np.concatenate([side_by_side(*named[start : start + columns]) for start in starts])
    return np.concatenate([grid, legend(space, grid.shape[0], grid.shape[1], classes)])


def _as_labels(classes: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return the labels as contiguous uint8, refusing what would wrap around."""
    if classes.dtype == np.uint8:
        return np.ascontiguousarray(classes).view(np.uint8)
    if classes.size and (classes.min() < 0 or classes.max() > 255):
        raise ValueError(f"labels reach from {classes.min()} to {classes.max()}; allowed: 0 to 255")
    return classes.astype(np.uint8)
