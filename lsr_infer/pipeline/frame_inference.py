"""Runs the networks on frames: at a working size, whole or in overlapping tiles, one model or two.

The weights of a tile fall linearly to its borders inside the image and add up to one everywhere, so that no seam shows.
Tiles are blended in bands of rows: memory grows with the width of an image and not with its height.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer.labelspace import LabelSpace
from lsr_infer.pipeline.options import Tiling, WorkingSize
from lsr_infer.render.masks import interpolate
from lsr_infer.render.segmentation import Segmentation
from lsr_infer.segmenter import Segmenter
from lsr_infer.system.threads import FairLock

__all__ = ["Inference", "TiledSegmentation", "blend", "places", "segment_tiles", "weights"]


class _Network(Protocol):
    """What segments one tile at its own size."""

    label_space: LabelSpace

    def __call__(self, frame: NDArray[np.uint8], *, size: tuple[int, int] | None = None) -> Segmentation: ...


class TiledSegmentation(Segmentation):
    """The segmentation of a tiled frame: classes [H,W], and their probabilities [H,W] where the model gives logits."""

    def __init__(self, label_space: LabelSpace, classes: NDArray[np.uint8], peaks: NDArray[np.float32] | None) -> None:
        super().__init__(label_space, (classes.shape[0], classes.shape[1]), classes=classes)
        if peaks is not None:
            self.__dict__["confidence"] = peaks  # what the cached property would have computed from logits


def places(length: int, tile: int, overlap: float) -> list[int]:
    """Return where tiles begin along a side: evenly spread, from one end to the other; `overlap` is the least."""
    if length <= tile:
        return [0]
    step = max(1, int(tile * (1 - overlap)))
    count = -(-(length - tile) // step) + 1
    return [round(n * (length - tile) / (count - 1)) for n in range(count)]


def weights(starts: list[int], tile: int, length: int) -> NDArray[np.float32]:
    """Return the weight [tiles, tile] float32 of every tile at every pixel of it along one side.

    At every pixel of the side the weights of the tiles that cover it add up to 1.
    """
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


def segment_tiles(network: _Network, frame: NDArray[np.uint8], tiling: Tiling) -> Segmentation:
    """Segment a frame tile by tile.

    Returns:
        Classes, and for a network with logits their confidence, at the frame's size. The tiles of a network that gives
        classes alone vote with their weights: a pixel gets the class with the largest sum, the lower one of equals.
    """
    height, width = frame.shape[:2]
    padded = _mirrored(frame, tiling)
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
    return TiledSegmentation(network.label_space, classes, peaks)


def blend(network: _Network, frame: NDArray[np.uint8], tiling: Tiling) -> Iterator[tuple[int, NDArray[np.floating]]]:
    """Yield blended logits in bands from top to bottom.

    Yields:
        The first row of a band and its logits [C,rows,W], float32; of a network that gives classes the votes, float16.
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


def _values(network: _Network, tile: NDArray[np.uint8]) -> NDArray[np.floating]:
    """Return a tile's logits [C,H,W] float32, or a vote of 1 for each pixel's class, float16."""
    height, width = tile.shape[:2]
    found = network(tile, size=(height, width))
    if found.logits is not None:
        return interpolate(found.logits, height, width)
    votes = np.zeros((network.label_space.num_classes, height, width), dtype=np.float16)
    np.put_along_axis(votes, found.classes[None].astype(np.intp), 1, axis=0)
    return votes


def _mirrored(frame: NDArray[np.uint8], tiling: Tiling) -> NDArray[np.uint8]:
    """Bring sides that are shorter than a tile to its length."""
    below, right = max(0, tiling.height - frame.shape[0]), max(0, tiling.width - frame.shape[1])
    if not below and not right:
        return frame
    border = cv2.BORDER_REFLECT_101 if min(frame.shape[:2]) > 1 else cv2.BORDER_REPLICATE
    return np.asarray(cv2.copyMakeBorder(frame, 0, below, 0, right, border), dtype=np.uint8)


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
        self.working.check(self.segmenter.manifest)
        if self.other is not None:
            self.working.check(self.other.manifest)

    @property
    def label_space(self) -> LabelSpace:
        """The classes of the model."""
        return self.segmenter.label_space

    def __call__(self, frame: NDArray[np.uint8]) -> tuple[Segmentation, Segmentation | None]:
        """Segment a frame with the model, and with the other one where there is one.

        Raises:
            InputError: a model failed, or does not take a frame of this size at the stride that was asked for.
        """
        with self._turns:
            return self._one(self.segmenter, frame), None if self.other is None else self._one(self.other, frame)

    def _one(self, segmenter: Segmenter, frame: NDArray[np.uint8]) -> Segmentation:
        tiling = self.working.tiling(segmenter.manifest)
        if tiling is not None:
            return segment_tiles(segmenter, frame, tiling)
        return segmenter(frame, size=self.working.of(segmenter.manifest, frame.shape[0], frame.shape[1]))
