"""Pseudo-labels of target cells: what the network says, where it is sure and its pixels agree (paper, Sec. 3)."""

from collections.abc import Callable

import torch
from torch import Tensor

from lsr_infer.labelspace import IGNORE_INDEX
from lsr_train.latent.cells import cell_sums
from lsr_train.latent.histogram import histogram_downsample
from lsr_train.losses.softmax import peaks

__all__ = ["confident_cells", "pseudo_labels"]

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
    if logits.ndim != 4 or not logits.is_floating_point():
        raise ValueError(f"logits are {logits.dtype} {tuple(logits.shape)}; needed: floating [B,C,H,W]")
    if mask is not None and (mask.shape != logits[:, 0].shape or mask.dtype != torch.bool):
        raise ValueError(f"mask is {mask.dtype} {tuple(mask.shape)}; needed: bool {tuple(logits[:, 0].shape)}")
    labels, peak, _, _ = peaks(logits)  # [B,H,W] both
    if mask is not None:
        labels = torch.where(mask, labels, IGNORE_INDEX)
    cells = downsample(labels, size, logits.shape[1], threshold)
    return confident_cells(cells, peak, confidence, mask=mask)


@torch.no_grad()
def confident_cells(cells: Tensor, peak: Tensor, confidence: float = 0.5, *, mask: Tensor | None = None) -> Tensor:
    """Keep the labels of the cells whose pixels are sure (the second half of `pseudo_labels`).

    Args:
        cells: [B,h,w] int64, labels of cells.
        peak: [B,H,W], how probable each pixel's label is.
        confidence: T_p. The mean of `peak` over a cell's pixels must be strictly above it.
        mask: [B,H,W] bool, true where a pixel counts; the others do not enter the mean. None: all count.

    Returns:
        [B,h,w] int64, 255 where the pixels are not sure or none counts.
    """
    size = (cells.shape[-2], cells.shape[-1])
    if mask is not None:
        peak = torch.where(mask, peak, 0)
    counts = cell_sums(torch.ones_like(peak[:1]) if mask is None else mask, size)  # [1 or B,h,w]
    sure = cell_sums(peak, size) > confidence * counts
    return torch.where(sure & (counts > 0), cells, IGNORE_INDEX)
