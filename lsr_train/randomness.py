"""Draws random numbers as pure functions of the seed, a stream and a sample's number, so that a run can resume.

Every stream has its own number here, so that no two of them share draws.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

__all__ = ["ImageDraws", "Stream", "generator", "to_device", "uniform"]


class Stream(IntEnum):
    """What a random generator is for."""

    SOURCE_ORDER = 0
    SOURCE_AUGMENTATION = 1
    TARGET_ORDER = 2
    TARGET_AUGMENTATION = 3
    MIX = 4
    STRONG = 5
    MASK = 6
    STRONG_SOURCE = 7
    STRONG_MASKED = 8
    SOURCE_MIX = 9
    LABELLED_ORDER = 10
    LABELLED_AUGMENTATION = 11


def generator(seed: int, stream: Stream, n: int, part: int = 0) -> np.random.Generator:
    """Return the generator of sample `n`, of data set `part`, the same in whatever process it is asked for."""
    return np.random.default_rng([seed, int(stream), n, *((part,) if part else ())])


def uniform(seed: int, stream: Stream, samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Draw numbers [len(samples),*shape] in [0, 1) in float64 on the CPU, by the samples' numbers.

    Those of a sample are the same in whatever batch or process it is.
    """
    return torch.from_numpy(np.stack([generator(seed, stream, n).random(shape) for n in samples]))


class ImageDraws:
    """Random numbers for the images of a run's micro-batches, by the images' numbers."""

    def __init__(self, seed: int) -> None:
        self._seed, self._first = seed, 0

    def begin(self, sample: int) -> None:
        """Learn the number of the next micro-batch's first image on this process."""
        self._first = sample

    def __call__(self, stream: Stream, image: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Draw numbers in [0, 1) for each image of the micro-batch [B,...], [B,*shape], float64 on the CPU."""
        return uniform(self._seed, stream, range(self._first, self._first + image.shape[0]), shape)


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy a CPU tensor to a device, in order with what runs there, while the host continues (from pinned memory)."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.to(dtype or tensor.dtype).pin_memory()
    return tensor.to(device, dtype or tensor.dtype, non_blocking=True)
