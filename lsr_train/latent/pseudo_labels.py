"""Labels target cells with the network's own predictions where its pixels are sure and agree (paper, Sec. 3)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lsr_infer.labelspace import IGNORE_INDEX
from lsr_train.latent.cells import cell_sums, check_logits, compute_dtype
from lsr_train.latent.histogram import histogram_downsample

Downsample = Callable[[Tensor, tuple[int, int], int, float], Tensor]


@torch.no_grad()
def pseudo_labels(
    logits: Tensor,
    size: tuple[int, int],
    threshold: float = 0.5,
    confidence: float = 0.5,
    *,
    mask: Tensor | None = None,
    downsample: Downsample = histogram_downsample,
) -> Tensor:
    """Label feature cells with the network's own predictions (paper, Sec. 3).

    Args:
        logits: [B,C,H,W], any floating type; not differentiated.
        size: (h, w) of the features.
        threshold: T_h of the histogram.
        confidence: T_p. The mean over a cell's pixels of the peak softmax probability must be strictly above it.
        mask: [B,H,W] bool, true where a pixel counts; pixels outside neither vote nor enter the mean. None: all count.
        downsample: how per-pixel classes become cell labels.

    Returns:
        [B,h,w] int64, 255 where the pixels do not agree or are not sure.

    Raises:
        ValueError: shapes or types disagree.
    """
    check_logits(logits, mask)
    labels, probability = peaks(logits)  # [B,H,W] both
    if mask is not None:
        labels = torch.where(mask, labels, IGNORE_INDEX)
    cells = downsample(labels, size, logits.shape[1], threshold)
    return confident_cells(cells, probability, confidence, mask=mask)


class Peaks(NamedTuple):
    """The most probable class of each pixel, [B,H,W] int64, and its probability [B,H,W]."""

    labels: Tensor
    probability: Tensor


@torch.no_grad()
def peaks(logits: Tensor) -> Peaks:
    """Return the most probable class of each pixel of logits [B,C,H,W], without a graph."""
    logits = logits.to(compute_dtype(logits.dtype))
    highest, labels = logits.max(dim=1)  # several times as fast as argmax on a CPU
    return Peaks(labels, (highest - logits.logsumexp(dim=1)).exp())


@torch.no_grad()
def confident_cells(
    cells: Tensor, probability: Tensor, confidence: float = 0.5, *, mask: Tensor | None = None
) -> Tensor:
    """Keep the labels of the cells whose pixels are sure (the second half of `pseudo_labels`).

    Args:
        cells: [B,h,w] int64, labels of cells.
        probability: [B,H,W], of each pixel's label.
        confidence: T_p. The mean of `probability` over a cell's pixels must be strictly above it.
        mask: [B,H,W] bool, true where a pixel counts; the others do not enter the mean. None: all count.

    Returns:
        [B,h,w] int64, 255 where the pixels are not sure or none counts.
    """
    size = (cells.shape[-2], cells.shape[-1])
    if mask is not None:
        probability = torch.where(mask, probability, 0)
    counts = cell_sums(torch.ones_like(probability[:1]) if mask is None else mask, size)  # [1 or B,h,w]
    sure = cell_sums(probability, size) > confidence * counts
    return torch.where(sure & (counts > 0), cells, IGNORE_INDEX)
