"""Pseudo-labels of target cells: what the network says, where it is sure and its pixels agree (paper, Sec. 3)."""

from collections.abc import Callable

import torch
from torch import Tensor

from lsr_infer.labelspace import IGNORE_INDEX
from lsr_train.latent.cells import cell_sums
from lsr_train.latent.histogram import histogram_downsample
from lsr_train.softmax import peaks

__all__ = ["pseudo_labels"]

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
        labels, peak = torch.where(mask, labels, IGNORE_INDEX), torch.where(mask, peak, 0)
    counts = cell_sums(torch.ones_like(peak[:1]) if mask is None else mask, size)  # [1 or B,h,w]
    sure = cell_sums(peak, size) > confidence * counts
    cells = downsample(labels, size, logits.shape[1], threshold)
    return torch.where(sure & (counts > 0), cells, IGNORE_INDEX)
