"""What a softmax over classes says of each pixel, without ever holding all probabilities.

Shared by the losses on pixels and the pseudo-labels. Everything is computed from the logits in pieces of rows.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lsr_train.losses.chunks import pieces

__all__ = ["Peaks", "log_normalizer", "peaks", "row_pieces"]

TYPICAL_CLASSES = 19


class Peaks(NamedTuple):
    """The most probable class of each pixel.

    Args:
        labels: [B,H,W] int64.
        probability: [B,H,W], of that class.
        log_normalizer: [B,H,W], log of the sum of the exponentials.
        squares: [B,H,W], sum of the squared probabilities of all classes; None where not asked for.
    """

    labels: Tensor
    probability: Tensor
    log_normalizer: Tensor
    squares: Tensor | None


def row_pieces(logits: Tensor) -> list[slice]:
    """Cut the rows of a [B,C,H,W] map into pieces, whose number does not depend on C."""
    B, _, H, W = logits.shape
    return list(pieces(H, B * TYPICAL_CLASSES * W, logits.device))


def log_normalizer(logits: Tensor) -> Tensor:
    """Return the log of the sum of the exponentials over classes, [B,H,W], of logits in float32 or float64."""
    total = torch.empty_like(logits[:, 0], memory_format=torch.contiguous_format)
    for rows in row_pieces(logits):
        total[:, rows] = logits[:, :, rows].logsumexp(dim=1)
    return total


def peaks(logits: Tensor, *, squares: bool = False) -> Peaks:
    """Return the most probable class of each pixel and its probability, without a graph.

    Args:
        logits: [B,C,H,W], any floating type; computed in float32 (float64 for float64).
        squares: also sum the squared probabilities.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    shape = logits[:, 0].shape
    labels = torch.empty(shape, dtype=torch.int64, device=logits.device)
    probability, normalizer = (torch.empty(shape, dtype=dtype, device=logits.device) for _ in range(2))
    squared = torch.empty_like(probability) if squares else None
    for rows in row_pieces(logits):
        x = logits[:, :, rows].detach().to(dtype)  # [B,C,r,W]
        highest, labels[:, rows] = x.max(dim=1)
        exponentials = (x - highest[:, None]).exp_()
        total = exponentials.sum(dim=1)
        probability[:, rows] = total.reciprocal()
        normalizer[:, rows] = highest + total.log()
        if squared is not None:
            squared[:, rows] = exponentials.square_().sum(dim=1) / total.square()
    return Peaks(labels, probability, normalizer, squared)
