"""Losses on pixels: cross-entropy where there are labels, sharpness of the prediction where there are none.

They see logits at the size of the labels or image (`upsample` brings them there) and compute in float32, under autocast
too. They know no network, method or data set.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lsr_infer.labelspace import IGNORE_INDEX
from lsr_train.distributed import all_reduce_sum

__all__ = ["cross_entropy", "entropy_loss", "max_square_loss", "upsample"]


def upsample(logits: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bring logits to image size as DeepLabV2 does: bilinear, with the corner pixels' centres aligned.

    Args:
        logits: [B,C,h,w], any floating type; differentiated.
        size: (H, W).

    Returns:
        [B,C,H,W] in float32 (float64 for float64 input).
    """
    with torch.autocast(logits.device.type, enabled=False):
        return F.interpolate(_lift(logits), size=tuple(size), mode="bilinear", align_corners=True)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Average the cross-entropy over all pixels that have a class.

    Args:
        logits: [B,C,H,W], any floating type; differentiated.
        labels: [B,H,W] int64, 0..C-1 or 255 for void. Values are not checked here.

    Returns:
        Scalar in float32 (float64 for float64 input): the sum over pixels divided by their number, both over all ranks.
        0, and still part of the graph, where every pixel is void.

    Raises:
        ValueError: shapes disagree or `labels` is not int64.
    """
    _check(logits, None)
    if labels.dtype != torch.int64 or labels.shape != logits[:, 0].shape:
        raise ValueError(f"labels are {labels.dtype} {tuple(labels.shape)}; needed: int64 {tuple(logits[:, 0].shape)}")
    with torch.autocast(logits.device.type, enabled=False):
        total = F.cross_entropy(_lift(logits), labels, ignore_index=IGNORE_INDEX, reduction="sum")
        return _ratio(total, (labels != IGNORE_INDEX).sum())


def max_square_loss(logits: Tensor, ratio: float = 0.2, *, mask: Tensor | None = None) -> Tensor:
    """Sharpen predictions without letting frequent classes dominate (MaxSquare, image-wise: Chen et al. 2019).

    Each pixel is weighted by 1 / max(n^ratio * N^(1 - ratio), 1), where n is how many pixels of its image share its
    predicted class and N how many the image has; the weight is a constant.

    Args:
        logits: [B,C,H,W], any floating type; differentiated.
        ratio: alpha in [0, 1]; 0 weights all pixels alike.
        mask: [B,H,W] bool, true where a pixel counts; None means everywhere.

    Returns:
        Scalar <= 0 in float32 (float64 for float64 input): minus the weighted sum of squared probabilities over B and
        C. Ranks with equal batches need no message: DDP's mean of it is the loss of the whole batch.

    Raises:
        ValueError: shapes or types disagree.
    """
    _check(logits, mask)
    B, C, H, W = logits.shape
    with torch.autocast(logits.device.type, enabled=False):
        probabilities = _lift(logits).softmax(dim=1)
        with torch.no_grad():
            bins = logits.argmax(dim=1)  # [B,H,W]
            if mask is not None:
                bins = torch.where(mask, bins, C)
            bins = bins.flatten(1)
            counts = probabilities.new_zeros(B, C + 1)
            counts.scatter_add_(1, bins, torch.ones_like(bins, dtype=counts.dtype))
            pixels = counts[:, :C].sum(dim=1, keepdim=True)
            weights = 1 / (counts**ratio * pixels ** (1 - ratio)).clamp(min=1)
            weights[:, C] = 0
            weights = weights.gather(1, bins).view(B, H, W)
        return -(probabilities.square().sum(dim=1) * weights).sum() / (B * C)


def entropy_loss(logits: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Sharpen predictions by their mean entropy as a share of the largest possible (MinEnt: Vu et al. 2019).

    Args:
        logits: [B,C,H,W], any floating type; differentiated.
        mask: [B,H,W] bool, true where a pixel counts; None means everywhere.

    Returns:
        Scalar in [0, 1] in float32 (float64 for float64 input): the mean over the pixels of all ranks of
        -sum p log2(p + 1e-30) / log2 C. 0 where no pixel counts.

    Raises:
        ValueError: shapes or types disagree.
    """
    _check(logits, mask)
    with torch.autocast(logits.device.type, enabled=False):
        probabilities = _lift(logits).softmax(dim=1)
        entropy = -(probabilities * (probabilities + 1e-30).log2()).sum(dim=1) / math.log2(max(logits.shape[1], 2))
        if mask is None:
            mask = torch.ones_like(entropy, dtype=torch.bool)
        return _ratio(torch.where(mask, entropy, 0).sum(), mask.sum())


def _ratio(total: Tensor, count: Tensor) -> Tensor:
    """Divide a sum by a count, both over all ranks; 0 where the count is 0."""
    sums = all_reduce_sum(torch.stack([total, count.to(total.dtype)]))
    return sums[0] / sums[1].detach().clamp(min=1)


def _lift(logits: Tensor) -> Tensor:
    """Return logits in float32, or float64 where they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _check(logits: Tensor, mask: Tensor | None) -> None:
    """Raise ValueError unless logits are floating [B,C,H,W] and the mask bool [B,H,W]."""
    if logits.ndim != 4 or not logits.is_floating_point():
        raise ValueError(f"logits are {logits.dtype} {tuple(logits.shape)}; needed: floating [B,C,H,W]")
    if mask is not None and (mask.shape != logits[:, 0].shape or mask.dtype != torch.bool):
        raise ValueError(f"mask is {mask.dtype} {tuple(mask.shape)}; needed: bool {tuple(logits[:, 0].shape)}")
