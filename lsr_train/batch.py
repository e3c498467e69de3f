"""The two batch types that flow from the loader to a method.

An `UnlabelledBatch` has no label field: that a method never sees a target label is a type, not a promise.
"""

from dataclasses import dataclass

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
        mask: [B,H,W] bool, true where a pixel counts (outside the ignore mask); None means everywhere.
        files: the file or frame each image came from, for messages.
    """

    image: Tensor
    mask: Tensor | None = None
    files: tuple[str, ...] = ()
