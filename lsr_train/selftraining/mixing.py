"""Mixes images by class (ClassMix), and hides blocks of them.

Pure functions: what is random comes in as numbers that the caller has drawn.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lsr_train.latent.cells import void_last
from lsr_train.randomness import to_device


@torch.no_grad()
def class_mix_mask(labels: Tensor, draws: Tensor) -> Tensor:
    """Choose half of each image's classes, rounded up (ClassMix, Olsson et al. 2021).

    Args:
        labels: [B,H,W] int64, 0..C-1; others are void and never chosen.
        draws: [B,C] uniform in [0, 1), on any device; the classes with the lowest are chosen.

    Returns:
        [B,H,W] bool, true where the pixel's class is chosen.
    """
    B, num_classes = draws.shape
    bins = void_last(labels, num_classes)
    there = torch.zeros(B, num_classes + 1, dtype=torch.bool, device=labels.device)
    there = there.scatter(1, bins.flatten(1), True)[:, :num_classes]
    draws = to_device(draws, labels.device)
    order = torch.where(there, draws, 2).argsort(dim=1).argsort(dim=1)  # place among the classes there are
    chosen = there & (order < (there.sum(dim=1, keepdim=True) + 1) // 2)
    chosen = F.pad(chosen, (0, 1))  # void
    return chosen.gather(1, bins.flatten(1)).view(labels.shape)


def paste(mask: Tensor, above: Tensor, below: Tensor) -> Tensor:
    """Return `above` ([B,H,W] or [B,C,H,W]) where the mask [B,H,W] is true, else `below`."""
    return torch.where(mask if above.ndim == 3 else mask[:, None], above, below)


def visible_blocks(size: tuple[int, int], block: int, ratio: float, draws: Tensor) -> Tensor:
    """Choose the square blocks of images that stay visible (MIC, Hoyer et al. 2023).

    Args:
        size: (H, W).
        block: side of a block in pixels; those at the right and lower border may be smaller.
        ratio: probability that a block is hidden, in [0, 1].
        draws: [B,ceil(H/block),ceil(W/block)] uniform in [0, 1), on the device of the result.

    Returns:
        [B,H,W] bool, true where visible.
    """
    if block < 1 or not 0 <= ratio <= 1:
        raise ValueError(f"block is {block}, allowed: at least 1; ratio is {ratio}, allowed: [0, 1]")
    H, W = size
    if draws.shape[1:] != (-(-H // block), -(-W // block)):
        raise ValueError(f"draws are {tuple(draws.shape)}; needed: [B,{-(-H // block)},{-(-W // block)}]")
    visible = (draws >= ratio).repeat_interleave(block, dim=1).repeat_interleave(block, dim=2)
    return visible[:, :H, :W]
