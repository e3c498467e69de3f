"""The two batch types that flow from the loader to a method.

An `UnlabelledBatch` has no label field: that a method never sees a target label is a type, not a promise.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LabelledBatch", "UnlabelledBatch"]


@dataclass(frozen=True, kw_only=True)
class LabelledBatch:
    """Images of one domain with their labels.

    Args:
        image: normalised network input [B,3,H,W], float32.
        labels: [B,H,W] int64, 0..C-1 or 255 for void.
        files: the file or frame each image came from, for messages.
    """

    image: Tensor
    labels: Tensor
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class UnlabelledBatch:
    """Images of the target domain.

    Args:
        image: normalised network input [B,3,H,W], float32.
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
