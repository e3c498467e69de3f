"""Pixel labels that a teacher gives: its argmax, and how much each pixel shall count."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lsr_train.losses import upsample
from lsr_train.softmax import peaks

__all__ = ["PixelLabels", "Weighting", "teacher_labels"]

Weighting = Literal["fraction", "confident", "all"]


class PixelLabels(NamedTuple):
    """Labels and weights of the pixels of a batch.

    Args:
        labels: [B,H,W] int64, 0..C-1 or 255.
        weight: [B,H,W] float32 in [0, 1], 0 where a pixel does not count.
        probability: [B,H,W] float32, the teacher's of that label; 0 where a pixel does not count.
    """

    labels: Tensor
    weight: Tensor
    probability: Tensor


@torch.no_grad()
def teacher_labels(
    logits: Tensor,
    size: tuple[int, int],
    threshold: float = 0.968,
    *,
    weighting: Weighting = "fraction",
    ignore_top: float = 0.0,
    ignore_bottom: float = 0.0,
    mask: Tensor | None = None,
) -> PixelLabels:
    """Label every pixel with the teacher's argmax.

    Args:
        logits: the teacher's, corrected or not, [B,C,h,w], any floating type.
        size: (H, W) of the image.
        threshold: a pixel is confident where its peak probability is above it.
        weighting: `fraction` gives every pixel of an image the share of its confident ones (DACS, Tranheden et al.
            2021), `confident` 1 to the confident ones and 0 to the others, `all` 1 to every pixel.
        ignore_top: share of the rows at the upper border that never count, in [0, 1): rectification's black rim.
        ignore_bottom: the same at the lower border: the car's own hood.
        mask: [B,H,W] bool, true where a pixel counts; None means everywhere.

    Raises:
        ValueError: an option is unknown or out of range.
    """
    if weighting not in ("fraction", "confident", "all"):
        raise ValueError(f"weighting is {weighting!r}; allowed: fraction, confident, all")
    if not (0 <= ignore_top < 1 and 0 <= ignore_bottom < 1 and ignore_top + ignore_bottom < 1):
        raise ValueError(f"ignore_top {ignore_top} and ignore_bottom {ignore_bottom} must leave rows between them")
    labels, probability, _, _ = peaks(upsample(logits, size))  # [B,H,W] both
    rows = torch.arange(size[0], device=logits.device)
    top, bottom = round(ignore_top * size[0]), size[0] - round(ignore_bottom * size[0])
    counts = ((rows >= top) & (rows < bottom))[:, None].expand(labels.shape)
    counts = counts if mask is None else counts & mask
    probability = torch.where(counts, probability, 0)
    confident = probability > threshold
    if weighting == "confident":
        weight = confident.float()
    elif weighting == "all":
        weight = counts.float()
    else:
        total = counts.sum(dim=(1, 2), keepdim=True).clamp(min=1)
        weight = counts * (confident.sum(dim=(1, 2), keepdim=True) / total)
    return PixelLabels(torch.where(counts, labels, 255), weight, probability)
