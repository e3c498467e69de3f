"""Orders the images: the n-th sample is a pure function of the seed and n, so that resuming needs nothing but n."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lsr_train.randomness import Stream, generator

__all__ = ["EpochOrder", "Order", "RareClassOrder", "class_probabilities"]


class Order(Protocol):
    """From a sample number to an image."""

    def __call__(self, n: int) -> int:
        """Return the index of the image that sample `n` is, for any n >= 0."""


class EpochOrder:
    """Every image once in each pass, shuffled anew for each.

    Args:
        seed: of the run.
        stream: which domain's order this is.
        count: number of images, at least 1.
    """

    def __init__(self, seed: int, stream: Stream, count: int) -> None:
        self.seed, self.stream, self.count = seed, stream, count
        self._epoch, self._permutation = -1, np.empty(0, dtype=np.int64)

    def __call__(self, n: int) -> int:
        """Return the index of sample `n`."""
        epoch, place = divmod(n, self.count)
        if epoch != self._epoch:
            self._permutation = generator(self.seed, self.stream, epoch).permutation(self.count)
            self._epoch = epoch
        return int(self._permutation[place])


def class_probabilities(counts: NDArray[np.int64], temperature: float) -> NDArray[np.float64]:
    """Return how often each class is drawn: softmax((1 - frequency) / T) over the classes there are (DAFormer).

    Args:
        counts: pixels of each class [C].
        temperature: T > 0; small values prefer rare classes strongly.

    Returns:
        float64 [C], summing to 1; 0 for a class without a pixel.
    """
    there = counts > 0
    frequency = counts / max(int(counts.sum()), 1)
    scores = np.where(there, (1 - frequency) / temperature, -np.inf)
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())


class RareClassOrder:
    """Draw a class first, rare ones more often, then an image that shows it.

    An image shows a class where at least a thousandth of its labelled pixels have it; where no image reaches that, one
    pixel is enough. (The share is ours: it keeps a sliver of a class from standing for it.)

    Args:
        seed: of the run.
        stream: which domain's order this is.
        counts: pixels of each class in each image [N,C]; at least one is not 0.
        temperature: T > 0, see `class_probabilities`.
    """

    MINIMUM_SHARE = 1e-3

    def __init__(self, seed: int, stream: Stream, counts: NDArray[np.int64], temperature: float) -> None:
        self.seed, self.stream = seed, stream
        self.probabilities = class_probabilities(counts.sum(axis=0), temperature)
        self._cumulative = np.cumsum(self.probabilities)
        enough = counts >= np.maximum(counts.sum(axis=1, keepdims=True) * self.MINIMUM_SHARE, 1)
        enough = np.where(enough.any(axis=0), enough, counts > 0)
        self._images = [np.flatnonzero(column) for column in enough.T]

    def __call__(self, n: int) -> int:
        """Return the index of sample `n`."""
        rng = generator(self.seed, self.stream, n)
        drawn = np.searchsorted(self._cumulative, rng.random() * self._cumulative[-1], side="right")
        images = self._images[int(drawn)]
        return int(images[rng.integers(len(images))])
