"""Defines the sample and the batch of each domain, and is the one place where samples become batches on a device.

The way of the data: file -> sample -> batch -> network. What is unlabelled has no label field: that a method never sees
a target label is a type, not a promise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["LabelledBatch", "LabelledSample", "UnlabelledBatch", "UnlabelledSample"]


@dataclass(frozen=True, kw_only=True)
class LabelledSample:
    """An image with its labels; the arrays are not to be changed.

    Args:
        frame: uint8 [H,W,3], BGR.
        labels: uint8 [H,W], 0..C-1 or 255 for void.
        file: the file or scene it is from, for messages.
    """

    frame: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    file: str


@dataclass(frozen=True, kw_only=True)
class UnlabelledSample:
    """An image of the target camera; the arrays are not to be changed.

    Args:
        frame: uint8 [H,W,3], BGR.
        mask: bool [H,W], true where a pixel counts; None means everywhere.
        file: the file, scene or moment of a video it is from, for messages.
    """

    frame: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None = None
    file: str


@dataclass(frozen=True, kw_only=True)
class LabelledBatch:
    """Images of one domain with their labels.

    Args:
        image: normalised network input [B,3,H,W], float32; before `on`, frames uint8 [B,H,W,3].
        labels: [B,H,W] int64, 0..C-1 or 255 for void; before `on`, uint8.
        files: the file or frame each image came from, for messages.
    """

    image: Tensor
    labels: Tensor
    files: tuple[str, ...] = ()

    @classmethod
    def collate(cls, samples: Sequence[LabelledSample]) -> "LabelledBatch":
        """Stack samples of one size on the CPU."""
        return cls(
            image=_stack([sample.frame for sample in samples]),
            labels=_stack([sample.labels for sample in samples]),
            files=tuple(sample.file for sample in samples),
        )

    def pin_memory(self) -> "LabelledBatch":
        """Return the batch in page-locked memory; torch's loader calls this."""
        return replace(self, image=self.image.pin_memory(), labels=self.labels.pin_memory())

    def on(
        self, device: torch.device, normalize: Callable[[Tensor], Tensor], *, channels_last: bool = False
    ) -> "LabelledBatch":
        """Return the batch on a device, its images normalised there.

        Args:
            device: where to.
            normalize: the network's, from frames uint8 [B,H,W,3] to image [B,3,H,W].
            channels_last: the memory format of the image.
        """
        image = _place(self.image, device, normalize, channels_last)
        return LabelledBatch(image=image, labels=self.labels.to(device, non_blocking=True).long(), files=self.files)


@dataclass(frozen=True, kw_only=True)
class UnlabelledBatch:
    """Images of the target domain.

    Args:
        image: normalised network input [B,3,H,W], float32; before `on`, frames uint8 [B,H,W,3].
        mask: [B,H,W] bool, true where a pixel counts (not in the ignore mask, nor in ignored rows); None means
            everywhere.
        files: the file or frame each image came from, for messages.
    """

    image: Tensor
    mask: Tensor | None = None
    files: tuple[str, ...] = ()

    @property
    def counts(self) -> Tensor:
        """Which pixels count, [B,H,W] bool."""
        if self.mask is not None:
            return self.mask
        B, _, H, W = self.image.shape
        return torch.ones(B, H, W, dtype=torch.bool, device=self.image.device)

    @classmethod
    def collate(cls, samples: Sequence[UnlabelledSample]) -> "UnlabelledBatch":
        """Stack samples of one size on the CPU; all of them have a mask, or none has."""
        masks = [sample.mask for sample in samples if sample.mask is not None]
        return cls(
            image=_stack([sample.frame for sample in samples]),
            mask=_stack(masks) if masks else None,
            files=tuple(sample.file for sample in samples),
        )

    def pin_memory(self) -> "UnlabelledBatch":
        """Return the batch in page-locked memory; torch's loader calls this."""
        return replace(self, image=self.image.pin_memory(), mask=None if self.mask is None else self.mask.pin_memory())

    def on(
        self, device: torch.device, normalize: Callable[[Tensor], Tensor], *, channels_last: bool = False
    ) -> "UnlabelledBatch":
        """Return the batch on a device, its images normalised there; as `LabelledBatch.on`."""
        image = _place(self.image, device, normalize, channels_last)
        mask = None if self.mask is None else self.mask.to(device, non_blocking=True)
        return UnlabelledBatch(image=image, mask=mask, files=self.files)


def _stack(arrays: Sequence[NDArray[np.uint8]] | Sequence[NDArray[np.bool_]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _place(frames: Tensor, device: torch.device, normalize: Callable[[Tensor], Tensor], channels_last: bool) -> Tensor:
    image = normalize(frames.to(device, non_blocking=True))
    return image.contiguous(memory_format=torch.channels_last) if channels_last else image
