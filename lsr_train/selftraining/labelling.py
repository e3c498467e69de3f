"""Pixel labels that a teacher gives: its argmax, and how much each pixel shall count."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lsr_infer.labelspace import IGNORE_INDEX
from lsr_train.distributed import all_reduce_sum
from lsr_train.losses.pixel import upsample
from lsr_train.losses.softmax import peaks

__all__ = ["PixelLabels", "Weighting", "figures", "teacher_labels"]

Weighting = Literal["fraction", "confident", "all"]


class PixelLabels(NamedTuple):
    """Labels and weights of the pixels of a batch.

    Args:
        labels: [B,H,W] int64, 0..C-1, or 255 where a pixel does not count.
        weight: [B,H,W] float32 in [0, 1], 0 where a pixel does not count.
        probability: [B,H,W] float32, the teacher's of that label; 0 where a pixel does not count.
    """

    labels: Tensor
    weight: Tensor
    probability: Tensor

    @property
    def counts(self) -> Tensor:
        """Which pixels count, [B,H,W] bool."""
        return self.labels != IGNORE_INDEX


@torch.no_grad()
def teacher_labels(
    logits: Tensor,
    size: tuple[int, int],
    threshold: float = 0.968,
    *,
    weighting: Weighting = "fraction",
    mask: Tensor | None = None,
) -> PixelLabels:
    """Label every pixel with the teacher's argmax.

    Args:
        logits: the teacher's, corrected or not, [B,C,h,w], any floating type.
        size: (H, W) of the image.
        threshold: a pixel is confident where its peak probability is above it.
        weighting: `fraction` gives every pixel of an image the share of its confident ones (as DACS, Tranheden et al.
            2021), `confident` 1 to the confident ones and 0 to the others, `all` 1 to every pixel.
        mask: [B,H,W] bool, true where a pixel counts; None means everywhere.

    Raises:
        ValueError: the weighting is unknown.
    """
    if weighting not in ("fraction", "confident", "all"):
        raise ValueError(f"weighting is {weighting!r}; allowed: fraction, confident, all")
    labels, probability, _, _ = peaks(upsample(logits, size))  # [B,H,W] both
    counts = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask
    probability = torch.where(counts, probability, 0)
    confident = probability > threshold
    if weighting == "confident":
        weight = confident.float()
    elif weighting == "all":
        weight = counts.float()
    else:
        total = counts.sum(dim=(1, 2), keepdim=True).clamp(min=1)
        weight = counts * (confident.sum(dim=(1, 2), keepdim=True) / total)
    return PixelLabels(torch.where(counts, labels, IGNORE_INDEX), weight, probability)


@torch.no_grad()
def figures(**maps: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Average maps over pixels of all ranks, in one message.

    Args:
        maps: by name, values [B,H,W], 0 where they do not count, and [B,H,W] bool, true where they do.

    Returns:
        Scalars in float64 by name, equal on every rank; 0 where no pixel counts.
    """
    sums = [[part.sum(dtype=torch.float64) for part in pair] for pair in maps.values()]
    values, pixels = all_reduce_sum(torch.stack([torch.stack(pair, dim=0) for pair in sums], dim=1))
    return dict(zip(maps, values / pixels.clamp(min=1), strict=True))
