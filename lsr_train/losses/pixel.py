"""Losses on pixels: cross-entropy where there are labels, a teacher's opinion or sharpness where there are none.

They see logits at the size of the labels or image (`upsample` brings them there) and compute in float32, under autocast
too. They know no network, method or data set.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lsr_infer.labelspace import IGNORE_INDEX
from lsr_train.distributed import all_reduce_sum
from lsr_train.losses.softmax import log_normalizer, peaks, row_pieces

__all__ = ["cross_entropy", "distillation_loss", "entropy_loss", "max_square_loss", "upsample"]


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
    _check(logits, None)
    if logits.shape[-2:] == tuple(size):
        return _lift(logits).contiguous()
    with torch.autocast(logits.device.type, enabled=False):
        upsampled: Tensor = _Upsample.apply(_lift(logits), tuple(size))  # type: ignore[no-untyped-call]  # torch's
        return upsampled


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
    _check(logits, None)
    if weight is not None and weight.shape != labels.shape:
        raise ValueError(f"weight is {tuple(weight.shape)}; needed: {tuple(labels.shape)}, as the labels")
    if labels.dtype != torch.int64 or labels.shape != logits[:, 0].shape:
        raise ValueError(f"labels are {labels.dtype} {tuple(labels.shape)}; needed: int64 {tuple(logits[:, 0].shape)}")
    with torch.autocast(logits.device.type, enabled=False):
        total: Tensor = _CrossEntropySum.apply(_lift(logits), labels, weight)  # type: ignore[no-untyped-call]  # torch's
        return _ratio(total, (labels != IGNORE_INDEX).sum())


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
        T^2 KL(softmax(teacher / T) || softmax(student / T)); T^2 keeps the gradient's size whatever T is. 0, and still
        part of the graph, where no pixel counts.

    Raises:
        ValueError: shapes or types disagree, or T is not above 0.
    """
    _check(logits, mask)
    _check(teacher_logits, None)
    if teacher_logits.shape != logits.shape:
        raise ValueError(f"the teacher's logits are {tuple(teacher_logits.shape)}; needed: {tuple(logits.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; allowed: above 0")
    with torch.autocast(logits.device.type, enabled=False):
        counted = torch.ones_like(logits[:, 0], dtype=torch.bool) if mask is None else mask
        student = _lift(logits)
        teacher = teacher_logits.detach().to(student.dtype)
        total: Tensor = _DivergenceSum.apply(student, teacher, temperature, counted)  # type: ignore[no-untyped-call]  # torch's
        return _ratio(total, counted.sum())


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
    with torch.autocast(logits.device.type, enabled=False):
        loss: Tensor = _MaxSquare.apply(_lift(logits), ratio, mask)  # type: ignore[no-untyped-call]  # torch's
        return loss


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


class _Upsample(torch.autograd.Function):
    """Bilinear interpolation; its gradient as two matrix products.

    That is a quarter of the time of torch's own backward on a CPU, and needs no atomic additions on a GPU.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.shape = logits.shape[-2:]
        return F.interpolate(logits.contiguous(), size=size, mode="bilinear", align_corners=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        with torch.autocast(gradient.device.type, enabled=False):
            rows = _interpolation(ctx.shape[0], gradient.shape[-2], gradient)  # [h,H]
            columns = _interpolation(ctx.shape[1], gradient.shape[-1], gradient)  # [w,W]
            return rows @ gradient @ columns.T, None


def _interpolation(cells: int, pixels: int, like: Tensor) -> Tensor:
    """Return the share of each cell in each pixel along one side, [cells,pixels]."""
    unit = torch.eye(cells, dtype=like.dtype, device=like.device)[None]
    return F.interpolate(unit, size=pixels, mode="linear", align_corners=True)[0]


class _CrossEntropySum(torch.autograd.Function):
    """Sum of the cross-entropy over pixels with a class; keeps one number a pixel instead of all probabilities."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
        labelled = (labels != IGNORE_INDEX).to(logits.dtype)
        labels = torch.where(labels != IGNORE_INDEX, labels, 0)[:, None]  # [B,1,H,W]
        weight = labelled if weight is None else labelled * weight.detach()
        normalizer = log_normalizer(logits)  # [B,H,W]
        ctx.save_for_backward(logits, labels, weight, normalizer)
        return torch.where(weight > 0, weight * (normalizer - logits.gather(1, labels)[:, 0]), 0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, labels, weight, normalizer = ctx.saved_tensors
        weight = (gradient * weight)[:, None]  # [B,1,H,W]
        result = torch.empty_like(logits)
        for rows in row_pieces(logits):
            out = result[:, :, rows]
            torch.sub(logits[:, :, rows], normalizer[:, None, rows], out=out)
            out.exp_().mul_(weight[:, :, rows])
        return result.scatter_add_(1, labels, -weight), None, None


class _DivergenceSum(torch.autograd.Function):
    """Sum of T^2 KL(teacher || student) over counted pixels; keeps two numbers a pixel beside what came in."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, teacher: Tensor, temperature: float, mask: Tensor) -> Tensor:
        normalizers = torch.empty(2, *mask.shape, dtype=logits.dtype, device=logits.device)
        divergence = torch.empty_like(normalizers[0])
        for rows in row_pieces(logits):
            own, other = logits[:, :, rows] / temperature, teacher[:, :, rows] / temperature
            normalizers[0, :, rows], normalizers[1, :, rows] = own.logsumexp(dim=1), other.logsumexp(dim=1)
            own = own - normalizers[0, :, None, rows]
            other = other - normalizers[1, :, None, rows]
            divergence[:, rows] = (other.exp() * (other - own)).sum(dim=1)
        ctx.temperature = temperature
        ctx.save_for_backward(logits, teacher, mask, normalizers)
        return temperature**2 * torch.where(mask, divergence, 0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        logits, teacher, mask, normalizers = ctx.saved_tensors
        weight = torch.where(mask, gradient * ctx.temperature, 0)
        result = torch.empty_like(logits)
        for rows in row_pieces(logits):
            own = (logits[:, :, rows] / ctx.temperature).sub_(normalizers[0, :, None, rows]).exp_()
            other = (teacher[:, :, rows] / ctx.temperature).sub_(normalizers[1, :, None, rows]).exp_()
            torch.mul(own.sub_(other), weight[:, None, rows], out=result[:, :, rows])
        return result, None, None, None


class _MaxSquare(torch.autograd.Function):
    """The loss of `max_square_loss`; keeps three numbers a pixel instead of all probabilities."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ratio: float, mask: Tensor | None) -> Tensor:
        B, C, H, W = logits.shape
        labels, _, normalizer, squares = peaks(logits, squares=True)
        assert squares is not None
        bins = (labels if mask is None else torch.where(mask, labels, C)).flatten(1)
        counts = logits.new_zeros(B, C + 1)
        counts.scatter_add_(1, bins, torch.ones_like(bins, dtype=counts.dtype))
        pixels = counts[:, :C].sum(dim=1, keepdim=True)
        weights = 1 / (counts**ratio * pixels ** (1 - ratio)).clamp(min=1) / (B * C)
        weights[:, C] = 0
        weights = weights.gather(1, bins).view(B, H, W)
        ctx.save_for_backward(logits, normalizer, squares, weights)
        return -(squares * weights).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, normalizer, squares, weights = ctx.saved_tensors
        weight = -2 * gradient * weights  # [B,H,W]
        result = torch.empty_like(logits)
        for rows in row_pieces(logits):
            out = result[:, :, rows]
            torch.sub(logits[:, :, rows], normalizer[:, None, rows], out=out)
            out.exp_()
            out.mul_((out - squares[:, None, rows]).mul_(weight[:, None, rows]))
        return result, None, None


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
