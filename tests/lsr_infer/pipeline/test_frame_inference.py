"""Tiles of a large image: weights that add up to one, no seam, and what one pass over the whole image says."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsr_infer.errors import InputError
from lsr_infer.labelspace import LabelSpace
from lsr_infer.pipeline.frame_inference import blend, places, segment_tiles, weights
from lsr_infer.pipeline.options import Tiling
from lsr_infer.segmenter import Segmentation

SPACE = LabelSpace(name="two", names=("left", "right"), colors=((1, 2, 3), (4, 5, 6)))


class Ramp:
    """A network whose logits follow the brightness, off by another amount in every tile."""

    label_space = SPACE

    def __init__(self, *, shift: float = 0.0, classes: bool = False) -> None:
        self.calls = 0
        self._shift = shift
        self._classes = classes

    def __call__(self, frame: np.ndarray, *, size: tuple[int, int] | None = None) -> Segmentation:
        assert size == frame.shape[:2]
        self.calls += 1
        level = frame[:, :, 0].astype(np.float32) + (self._shift if self.calls % 2 else -self._shift)
        logits = np.stack([128 - level, level - 128])
        if self._classes:
            return Segmentation(SPACE, size, classes=logits.argmax(0).astype(np.uint8))
        return Segmentation(SPACE, size, logits=logits)


def slope(height: int, width: int) -> np.ndarray:
    """A frame that brightens evenly to the right."""
    columns = np.linspace(0, 255, width).astype(np.uint8)
    return np.repeat(np.broadcast_to(columns, (height, width))[:, :, None], 3, axis=2).copy()


@given(st.integers(1, 400), st.integers(1, 90), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7]))
def test_tiles_cover_a_side_and_their_weights_add_up_to_one(length: int, tile: int, overlap: float) -> None:
    starts = places(length, tile, overlap)
    total = np.zeros(max(length, tile))
    for start, weight in zip(starts, weights(starts, tile, length), strict=True):
        assert start + tile <= max(length, tile)
        assert (weight > 0).all()
        total[start : start + tile] += weight
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert all(after - before <= max(1, tile * (1 - overlap)) + 1 for before, after in pairwise(starts))


@pytest.mark.parametrize("size", [(64, 96), (100, 230), (40, 50), (65, 97), (150, 40)])
def test_equal_tiles_give_what_the_whole_gives(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    found = segment_tiles(Ramp(), frame, Tiling(64, 96))
    expected = Ramp()(frame, size=size)
    assert found.size == size
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-4)


def test_no_seam_shows_where_tiles_disagree() -> None:
    """The tiles differ by 40 levels; blended, two neighbouring pixels differ by no more than the ramp's slope."""
    frame = slope(200, 640)
    height, width = frame.shape[:2]
    logits = np.concatenate([band for _, band in blend(Ramp(shift=20), frame, Tiling(64, 96))], axis=1)
    assert logits.shape == (2, height, width)
    jumps = np.abs(np.diff(logits[0], axis=1)).max(), np.abs(np.diff(logits[0], axis=0)).max()
    overlap = 0.25 * 64
    assert max(jumps) < 40 / overlap + 2  # a hard seam jumps by 40
    hard = np.concatenate([band for _, band in blend(Ramp(shift=20), frame, Tiling(64, 96, overlap=0.0))], axis=1)
    assert np.abs(np.diff(hard[0], axis=1)).max() > 2 * max(jumps)  # so the test can tell


class Numbered:
    """A network of classes alone that gives every tile a class by its turn."""

    label_space = LabelSpace(name="five", names=tuple("abcde"), colors=((0, 0, 0),) * 5)

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, frame: np.ndarray, *, size: tuple[int, int] | None = None) -> Segmentation:
        self.calls += 1
        classes = np.full(frame.shape[:2], self.given(self.calls - 1), np.uint8)
        return Segmentation(self.label_space, classes.shape, classes=classes)

    @staticmethod
    def given(call: int) -> int:
        return (7 * call + call // 3) % 5


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_classes_alone_are_voted_on_with_the_weights_of_the_tiles(overlap: float) -> None:
    height, width = 150, 250
    found = segment_tiles(Numbered(), np.zeros((height, width, 3), np.uint8), Tiling(64, 96, overlap=overlap))
    votes, call = np.zeros((5, height, width)), 0
    tops, lefts = places(height, 64, overlap), places(width, 96, overlap)
    down, across = weights(tops, 64, height), weights(lefts, 96, width)
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            votes[Numbered.given(call), top : top + 64, left : left + 96] += np.outer(down[row], across[column])
            call += 1
    best = np.sort(votes, axis=0)
    clear = best[-1] - best[-2] > 0.01  # votes are counted in half precision
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found.classes[clear], votes.argmax(axis=0)[clear])
    assert len(np.unique(found.classes)) == 5
    with pytest.raises(InputError, match="no confidence"):
        _ = found.confidence


def test_bands_come_in_order_and_cover_the_image() -> None:
    network = Ramp()
    row = 0
    for top, band in blend(network, slope(500, 100), Tiling(64, 96)):
        assert top == row
        row += band.shape[1]
    assert row == 500
    assert network.calls == len(places(500, 64, 0.25)) * 2
