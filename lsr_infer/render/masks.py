"""Computes the class of every pixel from logits at feature size, exactly and without upsampling everything.

The interpolation is bilinear with align_corners=True in float32: a convex combination, so where all four corners of a
feature cell agree on the class, every pixel between them does too, and a class that stays below another's lowest corner
can win nowhere in the cell. What is left is interpolated for real. Both shortcuts keep a margin of a few float32 steps,
so that the result equals the argmax of the whole interpolation bit by bit, ties included (the lower class wins).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["interpolate", "peak_probability", "upsample_argmax"]

_CHUNK = 1 << 18
"""Interpolated values held at a time: 1 MB, which stays in a core's cache."""


@dataclass(frozen=True)
class _Axis:
    """Where the pixels of one axis lie between its cells."""

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    first: NDArray[np.intp]
    count: NDArray[np.intp]


def _axis(cells: int, pixels: int) -> _Axis:
    """Place `pixels` between `cells`, pixel y at y*(cells-1)/(pixels-1); computed in float32 as torch does."""
    scale = np.float32(cells - 1) / np.float32(pixels - 1) if pixels > 1 else np.float32(0)
    place = np.arange(pixels, dtype=np.float32) * scale
    low = np.minimum(place.astype(np.intp), cells - 1)
    after = np.clip(place - low.astype(np.float32), 0, 1).astype(np.float32)
    count = np.bincount(low, minlength=cells)
    high = np.minimum(low + 1, cells - 1)
    return _Axis(low, high, before=np.float32(1) - after, after=after, first=np.cumsum(count) - count, count=count)


def _check(logits: NDArray[np.float32], height: int, width: int) -> None:
    if logits.ndim != 3 or logits.dtype != np.float32 or 0 in logits.shape:
        raise ValueError(f"logits are {logits.dtype} {list(logits.shape)}; needed: float32 [C,h,w] with nothing empty")
    if height < 1 or width < 1:
        raise ValueError(f"a mask of {height}x{width} has no pixel")


def interpolate(logits: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Upsample logits [C,h,w] float32 in full, to [C,height,width]: the definition that the shortcuts here equal.

    Along the width first, then along the height, as torch does. `ValueError` for other types and empty sizes.
    """
    _check(logits, height, width)
    rows, columns = _axis(logits.shape[1], height), _axis(logits.shape[2], width)
    wide = logits[:, :, columns.low] * columns.before + logits[:, :, columns.high] * columns.after  # [C,h,width]
    upper, lower = rows.before[:, None], rows.after[:, None]
    return np.asarray(wide[:, rows.low] * upper + wide[:, rows.high] * lower, dtype=np.float32)


def upsample_argmax(logits: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
    """Return the class of every pixel: `interpolate(logits, height, width).argmax(0)` as uint8, computed sparsely.

    There are at most 255 classes; `ValueError` where logits are not finite.
    """
    _check(logits, height, width)
    if logits.shape[0] > 255:
        raise ValueError(f"{logits.shape[0]} classes do not fit into a uint8 mask; allowed: 255")
    cells = np.ascontiguousarray(logits.transpose(1, 2, 0))  # [h,w,C]
    peak = float(np.abs(cells).max())
    if not np.isfinite(peak):
        raise ValueError("the logits hold values that are not finite")
    # Each of the seven roundings of one interpolated value is at most half a step of the largest magnitude.
    margin = np.float32(16 * np.finfo(np.float32).eps * peak)
    rows, columns = _axis(cells.shape[0], height), _axis(cells.shape[1], width)
    winner, mixed = _classify_cells(cells, margin)
    mask = np.repeat(np.repeat(winner, columns.count, axis=1), rows.count, axis=0)  # [height,width]
    mixed &= (rows.count > 0)[:, None] & (columns.count > 0)
    places = np.nonzero(mixed)
    if places[0].size:
        _fill_mixed(mask, cells, places, margin, rows, columns)
    return mask


def _classify_cells(cells: NDArray[np.float32], margin: np.float32) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the winner at each cell's first corner, and which cells are mixed."""
    best = cells.argmax(axis=2)  # [h,w]
    top = np.take_along_axis(cells, best[:, :, None], axis=2)  # [h,w,1]
    close = (cells > top - margin).sum(axis=2, dtype=np.uint8) > 1  # the winner alone is within the margin of itself
    winner = best.astype(np.uint8)
    mixed = close.copy()
    mixed[:-1] |= close[1:] | (winner[:-1] != winner[1:])
    differs = np.zeros_like(mixed)
    differs[:, :-1] = winner[:, :-1] != winner[:, 1:]
    beside = mixed.copy()  # along the height; what follows joins the column to the right
    mixed |= differs
    mixed[:, :-1] |= beside[:, 1:]
    return winner, mixed


def _fill_mixed(
    mask: NDArray[np.uint8],
    cells: NDArray[np.float32],
    places: tuple[NDArray[np.intp], ...],
    margin: np.float32,
    rows: _Axis,
    columns: _Axis,
) -> None:
    """Interpolate the classes that can win inside the given cells and write the winners."""
    y, x = places
    below, right = np.minimum(y + 1, cells.shape[0] - 1), np.minimum(x + 1, cells.shape[1] - 1)
    corners = np.stack([cells[y, x], cells[y, right], cells[below, x], cells[below, right]])  # [4,n,C]
    bound = corners.min(axis=0).max(axis=1, keepdims=True) - margin
    candidate = corners.max(axis=0) >= bound  # [n,C]
    count = candidate.sum(axis=1)
    tall, broad = int(rows.count.max()), int(columns.count.max())
    for k in np.unique(count):
        group = np.flatnonzero(count == k)
        step = max(1, _CHUNK // (tall * broad))
        for start in range(0, group.size, step):
            part = group[start : start + step]
            classes = np.nonzero(candidate[part])[1].reshape(part.size, k)  # ascending, so the first of equals wins
            values = np.take_along_axis(corners[:, part], classes[None], axis=2)  # [4,m,k]
            ys, xs = _pixels(rows, y[part], tall), _pixels(columns, x[part], broad)  # [m,tall], [m,broad]
            block = _block_winner(values, classes.astype(np.uint8), rows, columns, ys, xs)
            mask[ys[:, :, None], xs[:, None, :]] = block


def _pixels(axis: _Axis, cell: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    """Return the pixels of each cell, the last one repeated up to `length`."""
    offset = np.minimum(np.arange(length), axis.count[cell][:, None] - 1)
    return axis.first[cell][:, None] + offset


def _block_winner(
    values: NDArray[np.float32],
    classes: NDArray[np.uint8],
    rows: _Axis,
    columns: _Axis,
    ys: NDArray[np.intp],
    xs: NDArray[np.intp],
) -> NDArray[np.uint8]:
    """Interpolate [4,m,k] corner values over blocks of pixels and return the winning class [m,tall,broad]."""
    before, after = columns.before[xs][:, None], columns.after[xs][:, None]  # [m,1,broad]
    upper = values[0][:, :, None] * before + values[1][:, :, None] * after  # [m,k,broad]
    lower = values[2][:, :, None] * before + values[3][:, :, None] * after
    above, beneath = rows.before[ys][:, :, None], rows.after[ys][:, :, None]  # [m,tall,1]
    best = upper[:, None, 0] * above + lower[:, None, 0] * beneath  # [m,tall,broad]
    winner = np.broadcast_to(classes[:, 0, None, None], best.shape).copy()
    for k in range(1, classes.shape[1]):
        value = upper[:, None, k] * above + lower[:, None, k] * beneath
        np.copyto(winner, classes[:, k, None, None], where=value > best)
        if k + 1 < classes.shape[1]:
            np.maximum(best, value, out=best)
    return winner


def peak_probability(logits: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return the softmax probability [height,width] in (0, 1] of the winning class of the interpolated logits."""
    _check(logits, height, width)
    rows, columns = _axis(logits.shape[1], height), _axis(logits.shape[2], width)
    wide = logits[:, :, columns.low] * columns.before + logits[:, :, columns.high] * columns.after  # [C,h,width]
    result = np.empty((height, width), dtype=np.float32)
    step = max(1, _CHUNK // (logits.shape[0] * width))
    for start in range(0, height, step):
        band = slice(start, start + step)
        full = wide[:, rows.low[band]] * rows.before[band, None] + wide[:, rows.high[band]] * rows.after[band, None]
        full -= full.max(axis=0)
        result[band] = 1 / np.exp(full, out=full).sum(axis=0)
    return result
