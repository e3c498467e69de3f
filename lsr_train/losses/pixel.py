"""Computes the losses on pixels: cross-entropy, distillation, and entropy minimisation.

They see logits at the size of the labels or image (`upsample` brings them there) and compute in float32, under autocast
too. They know no network, method or data set.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lsr_infer.labelspace import IGNORE_INDEX
from lsr_train.distributed import all_reduce_sum
from lsr_train.latent.cells import check_logits, compute_dtype


def upsample(logits: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bring logits to image size as DeepLabV2 does: bilinear, with the corner pixels' centres aligned.

    Args:
        logits: [B,C,h,w], any floating type; differentiated.
        size: (H, W).

    Returns:
        [B,C,H,W] in float32 (float64 for float64 input), contiguous.

    Raises:
        ValueError: the logits are not floating [B,C,h,w].
    """
    logits = _checked(logits).contiguous()
    if logits.shape[-2:] == tuple(size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=True)


def cross_entropy(logits: Tensor, labels: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Average the cross-entropy over all pixels that have a class.

    Args:
        logits: [B,C,H,W], any floating type; differentiated.
        labels: [B,H,W] int64, 0..C-1 or 255 for void. Values are not checked here.
        weight: [B,H,W] >= 0, factor of each pixel's share, a constant; the pixels are counted without it, so that
            unsure labels weaken the term. None means 1.

    Returns:
        Scalar in float32 (float64 for float64 input): the sum over pixels divided by their number, both over all ranks.
        0, and still part of the graph, where every pixel is void.

    Raises:
        ValueError: shapes disagree or `labels` is not int64.
    """
    logits = _checked(logits)
    if weight is not None and weight.shape != labels.shape:
        raise ValueError(f"weight is {tuple(weight.shape)}; needed: {tuple(labels.shape)}, as the labels")
    if labels.dtype != torch.int64 or labels.shape != logits[:, 0].shape:
        raise ValueError(f"labels are {labels.dtype} {tuple(labels.shape)}; needed: int64 {tuple(logits[:, 0].shape)}")
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none")  # [B,H,W], 0 where void
    if weight is not None:
        losses = torch.where(weight > 0, weight.detach() * losses, 0)
    return _ratio(losses.sum(), (labels != IGNORE_INDEX).sum())


def distillation_loss(
    logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, *, mask: Tensor | None = None
) -> Tensor:
    """Draw predictions to a teacher's by the divergence between their softened softmaxes (Hinton et al. 2015).

    Args:
        logits: the student's, [B,C,H,W], any floating type; differentiated.
        teacher_logits: the teacher's, [B,C,H,W], any floating type, finite; constants.
        temperature: T, above 0, divides both.
        mask: [B,H,W] bool, true where a pixel counts; None means everywhere.

    Returns:
        Scalar >= 0 in float32 (float64 for float64 input): the mean over the pixels of all ranks of
        T^2 KL(softmax(teacher / T) || softmax(student / T)); T^2 keeps the gradient's size at every T. 0, and still
        part of the graph, where no pixel counts.

    Raises:
        ValueError: shapes or types disagree, or T is not above 0.
    """
    logits, teacher_logits = _checked(logits, mask), _checked(teacher_logits).detach()
    if teacher_logits.shape != logits.shape:
        raise ValueError(f"the teacher's logits are {tuple(teacher_logits.shape)}; needed: {tuple(logits.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; allowed: above 0")
    student = (logits / temperature).log_softmax(dim=1)
    teacher = (teacher_logits.to(logits.dtype) / temperature).log_softmax(dim=1)
    divergence = F.kl_div(student, teacher, log_target=True, reduction="none").sum(dim=1)  # [B,H,W]
    total, count = _counted(divergence, mask)
    return temperature**2 * _ratio(total, count)


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
    logits = _checked(logits, mask)
    probabilities, (B, C, H, W) = logits.softmax(dim=1), logits.shape
    labels = logits.detach().max(dim=1).indices  # several times as fast as argmax on a CPU
    bins = (labels if mask is None else torch.where(mask, labels, C)).flatten(1)  # [B,H*W]
    counts = probabilities.new_zeros(B, C + 1).scatter_add(1, bins, torch.ones_like(bins, dtype=probabilities.dtype))
    pixels = counts[:, :C].sum(dim=1, keepdim=True)
    weights = 1 / (counts**ratio * pixels ** (1 - ratio)).clamp(min=1)
    weights = F.pad(weights[:, :C], (0, 1)).gather(1, bins).view(B, H, W)
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
    probabilities = _checked(logits, mask).softmax(dim=1)
    entropy = -(probabilities * (probabilities + 1e-30).log2()).sum(dim=1) / math.log2(max(logits.shape[1], 2))
    return _ratio(*_counted(entropy, mask))


def _counted(values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the sum of a map [B,H,W] over the pixels that count, and their number."""
    mask = torch.ones_like(values, dtype=torch.bool) if mask is None else mask
    return torch.where(mask, values, 0).sum(), mask.sum()


def _ratio(total: Tensor, count: Tensor) -> Tensor:
    """Divide a sum by a count, both over all ranks; 0 where the count is 0."""
    sums = all_reduce_sum(torch.stack([total, count.to(total.dtype)]))
    return sums[0] / sums[1].detach().clamp(min=1)


def _checked(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return logits in float32 (float64 where they are); raise ValueError unless shapes and types fit."""
    check_logits(logits, mask)
    return logits.to(compute_dtype(logits.dtype))
