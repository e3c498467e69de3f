"""Ranges of tensors for INT8, from frames: what flows inside is gathered once, three ways choose a range from it.

For each tensor there is its least and largest value and a histogram of magnitudes. The histogram doubles its width when
a value lies beyond it, so that every frame is looked at once and then let go.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_train.exporting.graph import Watched

__all__ = ["CALIBRATIONS", "Range", "Spread", "gather"]

Range = tuple[float, float]
"""Least and largest value that a quantised tensor represents."""

_BINS = 2048
_LEVELS = 128
_ENTROPY_STEP = 16
"""Bins between two thresholds that are tried: the divergence is smooth, and each one costs a pass over 2048 bins."""


@dataclass
class Spread:
    """How the values of one tensor are spread.

    Args:
        least: smallest value seen.
        largest: largest value seen.
        width: magnitude at which the histogram ends.
        counts: values by magnitude [2048], sampled.
    """

    least: float = np.inf
    largest: float = -np.inf
    width: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def add(self, least: float, largest: float, sample: NDArray[np.float32]) -> None:
        """Add a frame: the extremes of the whole map, and a sample of its values.

        Raises:
            ValueError: a value is not finite.
        """
        if not (np.isfinite(least) and np.isfinite(largest)):
            raise ValueError("a value is not finite")
        self.least, self.largest = min(self.least, least), max(self.largest, largest)
        reach = max(abs(least), abs(largest))
        if self.width == 0.0:
            self.width = reach
        while self.width < reach:
            self.counts[: _BINS // 2] = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[_BINS // 2 :] = 0
            self.width *= 2
        if self.width == 0.0:
            self.counts[0] += sample.size
            return
        bins = (np.abs(sample).ravel() * (_BINS / self.width)).astype(np.int64)
        self.counts += np.bincount(np.minimum(bins, _BINS - 1), minlength=_BINS)

    def within(self, bins: int) -> Range:
        """Return the range that ends with the first `bins` of the histogram, or where the values end."""
        reach = self.width * bins / _BINS
        return max(self.least, -reach), min(self.largest, reach)


def gather(model: Any, tensors: Sequence[str], images: Iterable[NDArray[np.uint8]]) -> dict[str, Spread]:
    """Run frames through a float32 graph, one at a time, and note how the values of tensors are spread.

    Args:
        model: the graph, an `onnx.ModelProto`.
        tensors: floating tensors [N,C,h,w] of it.
        images: uint8 [1,H,W,3] each, at a size the graph takes.

    Raises:
        ValueError: a value is not finite.
    """
    watched = Watched(model, tensors)
    spreads = {tensor: Spread() for tensor in tensors}
    for image in images:
        for tensor, (least, largest, sample) in watched.run(image)[0].items():
            spreads[tensor].add(least, largest, sample)
    return spreads


def _min_max(spread: Spread) -> Range:
    """Everything that was seen."""
    return spread.least, spread.largest


def _percentile(share: float) -> Callable[[Spread], Range]:
    """The range that holds a share of the magnitudes."""

    def choose(spread: Spread) -> Range:
        total = np.cumsum(spread.counts)
        return spread.within(1 + int(np.searchsorted(total, share * total[-1])))

    return choose


def _entropy(spread: Spread) -> Range:
    """The range whose quantised histogram diverges least from the histogram (Migacz, GTC 2017: TensorRT's method).

    Zeros, which a ReLU leaves plenty of and every scale represents exactly, are not counted.
    """
    counts = spread.counts.astype(np.float64)
    counts[0] = 0
    if not counts.any():
        return _min_max(spread)
    tried = range(_LEVELS, _BINS + 1, _ENTROPY_STEP)
    divergences = [_divergence(counts, bins) for bins in tried]
    return spread.within(tried[int(np.argmin(divergences))])


def _divergence(counts: NDArray[np.float64], bins: int) -> float:
    """Return the Kullback-Leibler divergence of the first `bins` in 128 levels from the clipped histogram."""
    inside = counts[:bins]
    clipped = inside.copy()
    clipped[-1] += counts[bins:].sum()
    level = np.arange(bins) * _LEVELS // bins
    filled = inside > 0
    share = np.bincount(level, inside, _LEVELS) / np.maximum(np.bincount(level, filled, _LEVELS), 1)
    quantised = np.where(filled, share[level], 0.0)
    if not quantised.any():
        return np.inf
    one, other = clipped / clipped.sum(), quantised / quantised.sum()
    if ((one > 0) & (other == 0)).any():
        return np.inf  # the clipped tail lands where nothing else is
    kept = one > 0
    return float((one[kept] * np.log(one[kept] / other[kept])).sum())


CALIBRATIONS: Mapping[str, Callable[[Spread], Range]] = {
    "minmax": _min_max,
    "entropy": _entropy,
    "percentile": _percentile(0.9999),
    "percentile-99.9": _percentile(0.999),
}
"""How a range is chosen, by name. All are tried, what agrees best with the float file on held-out frames is kept."""
