"""Downsamples labels to the feature grid by histograms (paper, Sec. 3), and plainly for its ablation."""

import torch
from torch import Tensor

from lsr_infer.labelspace import IGNORE_INDEX
from lsr_train.latent.cells import cell_indices, void_last


def histogram_downsample(labels: Tensor, size: tuple[int, int], num_classes: int, threshold: float = 0.5) -> Tensor:
    """Give each feature cell the class that clearly dominates its pixels (paper, Sec. 3).

    Args:
        labels: [B,H,W] integers, 0..C-1; others (255) are void and do not vote.
        size: (h, w) of the features.
        num_classes: C.
        threshold: T_h. The second count must be strictly below this share of the first.

    Returns:
        Cell labels [B,h,w] int64; 255 where no class dominates or no pixel votes.

    Raises:
        ValueError: `labels` is not a [B,H,W] integer tensor, or `size` is empty.
    """
    counts = cell_histogram(labels, size, num_classes)  # [B,C,h,w]
    first, dominant = counts.max(dim=1)  # [B,h,w] both
    others = counts.scatter(1, dominant[:, None], -1)
    second = others.amax(dim=1).clamp(min=0)
    clear = (second.double() < threshold * first.double()) & (first > 0)
    return torch.where(clear, dominant, IGNORE_INDEX)


def nearest_downsample(labels: Tensor, size: tuple[int, int], num_classes: int, threshold: float = 0.5) -> Tensor:
    """Give each feature cell the label of the pixel at its centre: the subsampling that the paper's ablation compares.

    Args:
        labels: [B,H,W] integers, 0..C-1; others are void.
        size: (h, w) of the features.
        num_classes: C.
        threshold: not used; here so that either function can take the other's place.

    Returns:
        Cell labels [B,h,w] int64, 255 for void.

    Raises:
        ValueError: `labels` is not a [B,H,W] integer tensor, or `size` is empty.
    """
    _check(labels, size)
    rows = cell_indices(size[0], labels.shape[-2], device=labels.device)  # the pixel nearest to each cell's centre
    columns = cell_indices(size[1], labels.shape[-1], device=labels.device)
    cells = labels[:, rows[:, None], columns].long()  # [B,h,w]
    return torch.where((cells >= 0) & (cells < num_classes), cells, IGNORE_INDEX)


def cell_histogram(labels: Tensor, size: tuple[int, int], num_classes: int) -> Tensor:
    """Count the pixels of each class in each of (h, w) cells, [B,C,h,w] int32; labels outside 0..C-1 count nowhere."""
    _check(labels, size)
    batch, cells = labels.shape[0], size[0] * size[1]
    rows = cell_indices(labels.shape[-2], size[0], device=labels.device)
    columns = cell_indices(labels.shape[-1], size[1], device=labels.device)
    places = rows[:, None] * size[1] + columns  # [H,W] in 0..h*w-1
    bins = (void_last(labels.long(), num_classes) * cells + places).flatten(1)  # [B,H*W]; void has a bin of its own
    counts = torch.zeros(batch, (num_classes + 1) * cells, dtype=torch.int32, device=labels.device)
    counts.scatter_add_(1, bins, torch.ones((), dtype=torch.int32, device=labels.device).expand_as(bins))
    return counts.view(batch, num_classes + 1, *size)[:, :num_classes]


def _check(labels: Tensor, size: tuple[int, int]) -> None:
    """Raise unless labels are [B,H,W] integers and the size holds a cell."""
    if labels.ndim != 3 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels are {labels.dtype} {tuple(labels.shape)}; needed: integers [B,H,W]")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size is {tuple(size)}; needed: (h, w) of at least one cell")
