"""Runs the networks on frames: at a working size, whole or in overlapping tiles, one model or two.

The weights of a tile fall linearly to its borders inside the image and add up to one everywhere, so that no seam shows.
Tiles are blended in bands of rows: memory grows with the width of an image and not with its height.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer.labelspace import LabelSpace
from lsr_infer.pipeline.options import Tiling, WorkingSize
from lsr_infer.render.masks import interpolate
from lsr_infer.render.segmentation import Segmentation
from lsr_infer.segmenter import Segmenter
from lsr_infer.system.threads import FairLock

__all__ = ["Inference", "blend", "places", "segment_tiles", "weights"]


def places(length: int, tile: int, overlap: float) -> list[int]:
    """Return where tiles begin along a side: evenly spread, from one end to the other; `overlap` is the least."""
    if length <= tile:
        return [0]
    step = max(1, int(tile * (1 - overlap)))
    count = -(-(length - tile) // step) + 1
    return [round(n * (length - tile) / (count - 1)) for n in range(count)]


def weights(starts: list[int], tile: int, length: int) -> NDArray[np.float32]:
    """Return the weight [tiles, tile] float32 of every tile at every pixel of it; at each pixel they add up to 1."""
    place = np.arange(tile, dtype=np.float64) + 0.5
    result = np.ones((len(starts), tile), dtype=np.float64)
    for n in range(1, len(starts)):
        shared = starts[n - 1] + tile - starts[n]
        result[n] = np.minimum(result[n], place / max(shared, 1))
        result[n - 1] = np.minimum(result[n - 1], (tile - place) / max(shared, 1))
    total = np.zeros(max(length, tile), dtype=np.float64)
    for n, start in enumerate(starts):
        total[start : start + tile] += result[n]
    for n, start in enumerate(starts):
        result[n] /= total[start : start + tile]
    return result.astype(np.float32)


def segment_tiles(network: Segmenter, frame: NDArray[np.uint8], tiling: Tiling) -> Segmentation:
    """Segment a frame tile by tile; there is a confidence where the network gives logits.

    The tiles of a network that gives classes alone vote with their weights; of equal classes the lower one wins.
    """
    height, width = frame.shape[:2]
    below, right = max(0, tiling.height - height), max(0, tiling.width - width)
    border = cv2.BORDER_REFLECT_101 if min(height, width) > 1 else cv2.BORDER_REPLICATE
    padded = np.asarray(cv2.copyMakeBorder(frame, 0, below, 0, right, border), dtype=np.uint8)
    classes = np.empty((height, width), dtype=np.uint8)
    peaks: NDArray[np.float32] | None = None
    for top, logits in blend(network, padded, tiling):
        rows = slice(top, min(top + logits.shape[1], height))
        if rows.start >= height:
            break
        part = logits[:, : rows.stop - top, :width]
        best = part.argmax(axis=0)
        classes[rows] = best
        if part.dtype == np.float32:
            peaks = np.empty((height, width), dtype=np.float32) if peaks is None else peaks
            highest = np.take_along_axis(part, best[None], axis=0)
            peaks[rows] = 1 / np.exp(part - highest).sum(axis=0)
    found = Segmentation(network.label_space, (height, width), classes=classes)
    if peaks is not None:
        found.confidence = peaks  # what the cached property would have computed from logits
    return found


def blend(network: Segmenter, frame: NDArray[np.uint8], tiling: Tiling) -> Iterator[tuple[int, NDArray[np.floating]]]:
    """Yield the first row and the blended logits [C,rows,W] float32 of each band from top to bottom.

    Of a network that gives classes they are votes, float16.
    """
    height, width = frame.shape[:2]
    tops, lefts = places(height, tiling.height, tiling.overlap), places(width, tiling.width, tiling.overlap)
    down, across = weights(tops, tiling.height, height), weights(lefts, tiling.width, width)
    band: NDArray[np.floating] | None = None
    for row, top in enumerate(tops):
        current: NDArray[np.floating] | None = None
        for column, left in enumerate(lefts):
            tile = np.ascontiguousarray(frame[top : top + tiling.height, left : left + tiling.width])
            values = _values(network, tile)
            if current is None:
                current = np.zeros((len(values), tiling.height, width), dtype=values.dtype)
            weight = (down[row][:, None] * across[column]).astype(values.dtype)
            current[:, :, left : left + tiling.width] += values * weight
        assert current is not None
        if band is not None:
            kept = tops[row - 1] + tiling.height - top  # rows of this tile that the one above shares
            current[:, :kept] += band
        ends = tops[row + 1] - top if row + 1 < len(tops) else tiling.height
        yield top, current[:, :ends]
        band = current[:, ends:]


def _values(network: Segmenter, tile: NDArray[np.uint8]) -> NDArray[np.floating]:
    """Return a tile's logits [C,H,W] float32, or a vote of 1 for each pixel's class, float16."""
    height, width = tile.shape[:2]
    found = network(tile, size=(height, width))
    if found.logits is not None:
        return interpolate(found.logits, height, width)
    votes = np.zeros((network.label_space.num_classes, height, width), dtype=np.float16)
    np.put_along_axis(votes, found.classes[None].astype(np.intp), 1, axis=0)
    return votes


@dataclass(frozen=True)
class Inference:
    """The model of a run, and a second one to compare it with, at a working size.

    Sources may ask from several threads; the network runs on one frame at a time, in the order of asking.
    """

    segmenter: Segmenter
    other: Segmenter | None = None
    working: WorkingSize = field(default_factory=WorkingSize)
    _turns: FairLock = field(default_factory=FairLock, repr=False, compare=False)

    def __post_init__(self) -> None:
        for segmenter in filter(None, (self.segmenter, self.other)):
            self.working.check(segmenter.manifest)

    @property
    def label_space(self) -> LabelSpace:
        """The classes of the model."""
        return self.segmenter.label_space

    def __call__(self, frame: NDArray[np.uint8]) -> tuple[Segmentation, Segmentation | None]:
        """Segment a frame with both; `InputError` where a model fails or takes no such frame at this stride."""
        with self._turns:
            return self._one(self.segmenter, frame), None if self.other is None else self._one(self.other, frame)

    def _one(self, segmenter: Segmenter, frame: NDArray[np.uint8]) -> Segmentation:
        tiling = self.working.tiling(segmenter.manifest)
        if tiling is not None:
            return segment_tiles(segmenter, frame, tiling)
        return segmenter(frame, size=self.working.of(segmenter.manifest, frame.shape[0], frame.shape[1]))
