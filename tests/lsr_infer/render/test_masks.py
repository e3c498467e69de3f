"""The sparse mask against the argmax of the whole interpolation, bit by bit, and against torch."""

from collections.abc import Callable
from pathlib import Path

import cv2
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsr_infer.render.masks import interpolate, peak_probability, upsample_argmax


def interpolation_oracle(logits: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, align_corners=True, pixel by pixel in float64."""
    c, h, w = logits.shape
    result = np.empty((c, height, width))
    for y in range(height):
        for x in range(width):
            row = y * (h - 1) / (height - 1) if height > 1 else 0.0
            column = x * (w - 1) / (width - 1) if width > 1 else 0.0
            i, j = min(int(row), h - 1), min(int(column), w - 1)
            a, b = row - i, column - j
            k, m = min(i + 1, h - 1), min(j + 1, w - 1)
            wide = logits.astype(np.float64)
            result[:, y, x] = (1 - a) * ((1 - b) * wide[:, i, j] + b * wide[:, i, m]) + a * (
                (1 - b) * wide[:, k, j] + b * wide[:, k, m]
            )
    return result


SIZES = [
    (1, 1, 1, 1),
    (1, 5, 4, 9),
    (5, 1, 9, 4),
    (1, 1, 6, 7),
    (3, 4, 3, 4),
    (6, 7, 3, 4),
    (2, 2, 33, 17),
    (5, 9, 40, 72),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("classes", [1, 2, 19])
def test_the_named_interpolation_is_the_formula(size: tuple[int, int, int, int], classes: int) -> None:
    h, w, height, width = size
    logits = np.random.default_rng(7).normal(scale=5, size=(classes, h, w)).astype(np.float32)
    full = interpolate(logits, height, width)
    np.testing.assert_allclose(full, interpolation_oracle(logits, height, width), atol=2e-5)
    np.testing.assert_array_equal(upsample_argmax(logits, height, width), full.argmax(0))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_mask_is_the_argmax_of_the_interpolation_ties_included(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.integers(1, high)) for high in (6, 5, 5))
    elements = data.draw(
        st.sampled_from(
            [
                st.integers(-2, 2).map(float),  # ties at corners and in between
                st.floats(-30, 30, width=32),
                st.sampled_from(
                    [1.0, 1 + 2.0**-23, 1 - 2.0**-24, 2.0**-100, -(2.0**-100), 0.0, -0.0]
                ),  # ties made by rounding
                st.floats(-(2.0**100), 2.0**100, width=32),
            ]
        )
    )
    logits = data.draw(arrays.arrays(np.float32, shape, elements=elements))
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    np.testing.assert_array_equal(upsample_argmax(logits, height, width), interpolate(logits, height, width).argmax(0))


def test_rounding_that_makes_two_classes_equal_is_followed() -> None:
    """Class 1 is one float32 step above class 0 at every corner; between them rounding often makes both equal."""
    lower = np.random.default_rng(2).uniform(1, 2, size=(12, 15)).astype(np.float32)
    logits = np.stack([lower, np.nextafter(lower, np.float32(3))])
    expected = interpolate(logits, 90, 100).argmax(0)
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(upsample_argmax(logits, 90, 100), expected)


def smooth(rng: np.random.Generator, classes: int, h: int, w: int, coarse: int) -> np.ndarray:
    """Logits with regions and borders, as a network gives them."""
    blobs = rng.normal(scale=5, size=(classes, max(2, h // coarse), max(2, w // coarse))).astype(np.float32)
    return np.stack([cv2.resize(blob, (w, h), interpolation=cv2.INTER_CUBIC) for blob in blobs])


@pytest.mark.parametrize("seed", range(12))
def test_the_mask_at_real_sizes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    h, w = int(rng.integers(8, 70)), int(rng.integers(8, 130))
    logits = smooth(rng, int(rng.integers(2, 20)), h, w, int(rng.integers(1, 9)))
    height, width = int(h * rng.uniform(1, 9)), int(w * rng.uniform(1, 9))
    mask = upsample_argmax(logits, height, width)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, interpolate(logits, height, width).argmax(0))


def test_torch_differs_only_where_two_classes_tie() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: no second implementation to compare with")
    logits = smooth(np.random.default_rng(3), 19, 65, 129, 5)
    full = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], size=(512, 1024), mode="bilinear", align_corners=True
    )[0]
    np.testing.assert_allclose(interpolate(logits, 512, 1024), full.numpy(), atol=1e-5)
    mask = upsample_argmax(logits, 512, 1024)
    top = full.topk(2, dim=0).values
    clear = (top[0] - top[1]).numpy() > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(mask[clear], full.argmax(0).numpy()[clear])


def test_real_frames_as_logits(shared: Callable[[str], Path]) -> None:
    """The colours of real frames taken as three logits have many borders and exact ties."""
    from lsr_infer.video.reader import read_frames

    for item in read_frames(shared("data/clips/udacity_test_video.mp4"), duration=0.2):
        small = cv2.resize(item.frame, (129, 65), interpolation=cv2.INTER_AREA)
        logits = np.ascontiguousarray(small.transpose(2, 0, 1)).astype(np.float32)
        np.testing.assert_array_equal(upsample_argmax(logits, 360, 640), interpolate(logits, 360, 640).argmax(0))


def test_peak_probability_is_that_of_the_interpolated_logits() -> None:
    logits = smooth(np.random.default_rng(1), 11, 20, 30, 3)
    full = interpolate(logits, 90, 130).astype(np.float64)
    exponent = np.exp(full - full.max(axis=0))
    expected = exponent.max(axis=0) / exponent.sum(axis=0)
    peak = peak_probability(logits, 90, 130)
    assert peak.dtype == np.float32
    np.testing.assert_allclose(peak, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "logits",
    [
        np.zeros((3, 4), dtype=np.float32),
        np.zeros((3, 4, 4)),
        np.zeros((0, 4, 4), dtype=np.float32),
        np.zeros((256, 2, 2), dtype=np.float32),
        np.full((3, 4, 4), np.nan, dtype=np.float32),
        np.full((3, 4, 4), np.inf, dtype=np.float32),
    ],
)
def test_what_is_no_logits_is_refused(logits: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"logits|classes"):
        upsample_argmax(logits, 8, 8)
    with pytest.raises(ValueError, match="no pixel"):
        upsample_argmax(np.zeros((3, 4, 4), dtype=np.float32), 0, 8)
