"""Histograms and ranges against counting all values at once, and against the entropy method written as loops."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from lsr_train.exporting.calibration import CALIBRATIONS, ValueHistogram, gather
from lsr_train.exporting.graph import SAMPLED


def spread_of(*frames: np.ndarray) -> ValueHistogram:
    spread = ValueHistogram()
    for frame in frames:
        spread.add(float(frame.min()), float(frame.max()), frame.astype(np.float32))
    return spread


def frames(seed: int, *, positive: bool) -> list[np.ndarray]:
    """Maps whose reach grows, so that the histogram has to double."""
    rng = np.random.default_rng(seed)
    made = [rng.normal(scale=scale, size=(3, 20, 30)) for scale in (0.5, 3, 1, 20)]
    return [np.maximum(one, 0) if positive else one for one in made]


@pytest.mark.parametrize("positive", [True, False])
def test_the_histogram_holds_every_value_of_every_frame(positive: bool) -> None:
    values = frames(0, positive=positive)
    spread = spread_of(*values)
    flat = np.abs(np.concatenate([one.ravel() for one in values]).astype(np.float32))
    assert spread.counts.sum() == flat.size
    assert spread.width >= flat.max() > spread.width / 2
    expected, _ = np.histogram(flat, bins=2048, range=(0, spread.width))
    assert np.abs(np.cumsum(expected) - np.cumsum(spread.counts)).max() <= 2  # values on an edge of float32
    assert CALIBRATIONS["minmax"](spread) == (min(v.min() for v in values), max(v.max() for v in values))


@pytest.mark.parametrize(("name", "share"), [("percentile", 0.9999), ("percentile-99.9", 0.999)])
def test_a_percentile_clips_what_lies_beyond_it(name: str, share: float) -> None:
    values = frames(1, positive=False)
    low, high = CALIBRATIONS[name](spread_of(*values))
    flat = np.abs(np.concatenate([one.ravel() for one in values]))
    width = spread_of(*values).width / 2048
    reach = max(-low, high)
    least, largest = CALIBRATIONS["minmax"](spread_of(*values))
    assert (low, high) == (max(least, -reach), min(largest, reach))
    assert (flat <= reach).mean() >= share
    assert (flat <= reach - 2 * width).mean() < share


def entropy_oracle(counts: list[float], bins: int) -> float:
    """The divergence of one threshold, value by value."""
    levels: list[list[int]] = [[] for _ in range(128)]
    for n in range(bins):
        levels[n * 128 // bins].append(n)
    clipped = list(counts[:bins])
    clipped[-1] += sum(counts[bins:])
    quantised = [0.0] * bins
    for level in levels:
        filled = [n for n in level if counts[n] > 0]
        for n in filled:
            quantised[n] = sum(counts[m] for m in level) / len(filled)
    if not sum(quantised):
        return np.inf
    total = 0.0
    for one, other in zip(clipped, quantised, strict=True):
        if one > 0:
            if other == 0:
                return np.inf
            total += one / sum(clipped) * np.log(one / sum(clipped) / (other / sum(quantised)))
    return total


def test_entropy_finds_the_threshold_of_least_divergence() -> None:
    rng = np.random.default_rng(2)
    values = np.maximum(rng.normal(size=(1, 40, 50)), 0)
    values[0, 0, 0] = 30.0  # an outlier that a range should not follow
    spread = spread_of(values)
    counts = spread.counts.astype(float).tolist()
    counts[0] = 0.0
    tried = list(range(128, 2049, 16))
    best = min(tried, key=lambda bins: entropy_oracle(counts, bins))
    low, high = CALIBRATIONS["entropy"](spread)
    assert (low, high) == (0.0, pytest.approx(min(30.0, spread.width * best / 2048)))
    assert high < 15


def test_dead_maps_have_ranges_and_broken_ones_are_refused() -> None:
    for choose in CALIBRATIONS.values():
        assert choose(spread_of(np.zeros((2, 3, 4)))) == (0, 0)
    with pytest.raises(ValueError, match="not finite"):
        spread_of(np.array([[np.nan, 1.0]]))


def test_what_is_gathered_is_what_flows_inside(traced: Any, images: list[np.ndarray]) -> None:
    tensors = ["backbone.layer1.0.conv1", "relu_3"]
    found = gather(traced, tensors, images[:2])
    shown = onnx.ModelProto()
    shown.CopyFrom(traced)
    for tensor in tensors:
        shown.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    maps = [session.run(tensors, {"image": image}) for image in images[:2]]
    for n, tensor in enumerate(tensors):
        assert found[tensor].least == pytest.approx(min(one[n].min() for one in maps), rel=1e-4, abs=1e-6)
        assert found[tensor].largest == pytest.approx(max(one[n].max() for one in maps), rel=1e-4)
        assert found[tensor].counts.sum() == sum(one[n][:, :, ::SAMPLED, ::SAMPLED].size for one in maps)
