"""Everything the latent losses need of a feature map, in one reading; their gradient in one writing.

Every latent loss depends on a feature only through its norm, the sum of its class and its squared distance to a
constant vector of its class. So the gradient on a feature is always `a * feature + b`, with one number `a` a cell and
one vector `b` a class, and the whole stack needs no copy of the features. The map is worked on in pieces that stay in
the processor's cache, along channels or along cells as it lies in memory. Nothing here knows a loss.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lsr_train.losses.chunks import pieces

__all__ = ["Moments", "class_moments", "lifted", "one_member"]


class Moments(NamedTuple):
    """What a feature map says of its classes.

    Args:
        counts: [C], cells of each class; constants.
        sums: [C,K], sum over the class's cells of feature minus `shift`; differentiable. None where not asked for.
        squares: [C] float64, sum over the class's cells of the squared distance to `shift`; differentiable.
        norms: [B,h,w], norm of every feature, void cells too; differentiable, with gradient 0 where it is 0.
        shift: [C,K], the constants.
    """

    counts: Tensor
    sums: Tensor | None
    squares: Tensor
    norms: Tensor
    shift: Tensor


def lifted(dtype: torch.dtype) -> torch.dtype:
    """Return the type to compute in: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def class_moments(features: Tensor, labels: Tensor, shift: Tensor, *, with_sums: bool = True) -> Moments:
    """Read a feature map once.

    Args:
        features: [B,K,h,w], any floating type; differentiated once (no second derivative).
        labels: cell labels [B,h,w], 0..C-1; whatever else is void. Values are not checked.
        shift: [C,K]; constants near the class's features keep the squares free of cancellation.
        with_sums: also sum the features, which distances to `shift` alone do not need.

    Returns:
        The moments in float32 (float64 for float64 features).
    """
    num_classes = shift.shape[0]
    dtype = lifted(features.dtype)
    shift = shift.detach().to(dtype)
    classes = torch.arange(num_classes, device=labels.device)
    one_hot = (labels.flatten(1)[:, None] == classes[:, None]).to(dtype)  # [B,C,n]
    sums, squares, norms = _Moments.apply(features, labels, one_hot, shift, with_sums)  # type: ignore[no-untyped-call]  # torch's
    return Moments(one_hot.sum(dim=(0, 2)), sums if with_sums else None, squares, norms, shift)


def one_member(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return one feature of each class, a constant; 0 for classes without a cell.

    Distances from a member of the class are of the size of the class's spread, however large the features are.

    Args:
        features: [B,K,h,w].
        labels: cell labels [B,h,w].
        num_classes: C.

    Returns:
        [C,K] in float32 (float64 for float64 features).
    """
    _, _, height, width = features.shape
    flat = labels.flatten()
    flat = torch.where((flat >= 0) & (flat < num_classes), flat, num_classes)
    places = torch.full((num_classes + 1,), -1, dtype=torch.int64, device=labels.device)
    places.scatter_reduce_(0, flat, torch.arange(flat.shape[0], device=flat.device), "amax")
    places, present = places[:num_classes].clamp(min=0), places[:num_classes] >= 0
    image, cell = places // (height * width), places % (height * width)
    members = features.detach().permute(0, 2, 3, 1)[image, cell // width, cell % width]  # [C,K]
    return torch.where(present[:, None], members.to(lifted(features.dtype)), 0)


class _Moments(torch.autograd.Function):
    """The reading and the writing."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, labels: Tensor, one_hot: Tensor, shift: Tensor, with_sums: bool
    ) -> tuple[Tensor, ...]:
        with torch.autocast(features.device.type, enabled=False):
            read = _read_rows if _is_rows(features) else _read_planes
            sums, distances, norms = read(features, one_hot, shift, with_sums)  # [C,K], [B,n], [B,n]
            norms = norms.sqrt_()
            bins = _void_last(labels, shift.shape[0]).flatten()
            squares = torch.zeros(shift.shape[0] + 1, dtype=torch.float64, device=shift.device)
            squares.scatter_add_(0, bins, distances.flatten().double())
        ctx.save_for_backward(features, labels, one_hot, shift, norms)
        return sums, squares[:-1], norms.view(labels.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, sums: Tensor, squares: Tensor, norms: Tensor) -> tuple[Tensor | None, ...]:
        features, labels, one_hot, shift, lengths = ctx.saved_tensors
        with torch.autocast(features.device.type, enabled=False):
            inverse = torch.where(lengths > 0, lengths.reciprocal(), 0)  # the gradient of a norm at 0 is 0
            squares = 2 * squares.to(shift.dtype)  # [C]
            per_cell = torch.cat([squares, squares.new_zeros(1)])[_void_last(labels, shift.shape[0]).flatten(1)]
            scale = per_cell + norms.flatten(1) * inverse  # [B,n]
            offset = sums - squares[:, None] * shift  # [C,K]
            write = _write_rows if _is_rows(features) else _write_planes
            return write(features, one_hot, scale, offset), None, None, None, None


def _void_last(labels: Tensor, num_classes: int) -> Tensor:
    """Return labels with everything that is no class as C."""
    return torch.where((labels >= 0) & (labels < num_classes), labels, num_classes)


def _is_rows(features: Tensor) -> bool:
    """Whether a feature's channels lie side by side in memory (channels-last)."""
    return features.is_contiguous(memory_format=torch.channels_last) and not features.is_contiguous()


def _read_planes(features: Tensor, one_hot: Tensor, shift: Tensor, with_sums: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Read a map whose channels are planes, some channels at a time."""
    B, K, h, w = features.shape
    slices = list(pieces(K, B * h * w, features.device))
    away = shift.new_empty(B, slices[0].stop, h * w)
    norms, distances = torch.zeros_like(away), torch.zeros_like(away)
    sums = torch.zeros_like(shift)
    for piece in slices:
        x = features[:, piece].flatten(2).to(shift.dtype)  # [B,k,n]
        k = x.shape[1]
        d = away[:, :k]
        torch.baddbmm(x, shift[:, piece].T.expand(B, -1, -1), one_hot, alpha=-1, out=d)
        if with_sums:
            sums[:, piece] = torch.bmm(one_hot, d.mT).sum(dim=0)
        norms[:, :k].addcmul_(x, x)
        distances[:, :k].addcmul_(d, d)
    return sums, distances.sum(dim=1), norms.sum(dim=1)


def _write_planes(features: Tensor, one_hot: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Write scale * feature + offset of the cell's class, some channels at a time."""
    B, K, h, w = features.shape
    gradient = torch.empty_like(features, memory_format=torch.contiguous_format)
    for piece in pieces(K, B * h * w, features.device):
        out = gradient[:, piece].flatten(2)  # [B,k,n]
        x = out if gradient.dtype == offset.dtype else torch.empty_like(out, dtype=offset.dtype)
        torch.mul(features[:, piece].flatten(2), scale[:, None], out=x)
        x.baddbmm_(offset[:, piece].T.expand(B, -1, -1), one_hot)
        if x is not out:
            out.copy_(x)
    return gradient


def _rows(features: Tensor) -> Tensor:
    """Return a channels-last map as a view [B*n,K]."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def _read_rows(features: Tensor, one_hot: Tensor, shift: Tensor, with_sums: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Read a channels-last map, some cells at a time."""
    B, K = features.shape[:2]
    rows, members = _rows(features), one_hot.mT.flatten(0, 1)  # [B*n,K], [B*n,C]
    sums = torch.zeros_like(shift)
    norms, distances = (shift.new_empty(rows.shape[0]) for _ in range(2))
    for piece in pieces(rows.shape[0], K, features.device):
        x = rows[piece].to(shift.dtype)  # [m,K]
        d = torch.addmm(x, members[piece], shift, alpha=-1)
        if with_sums:
            sums.addmm_(members[piece].T, d)
        norms[piece] = (x * x).sum(dim=1)
        distances[piece] = (d * d).sum(dim=1)
    return sums, distances.view(B, -1), norms.view(B, -1)


def _write_rows(features: Tensor, one_hot: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Write scale * feature + offset of the cell's class into a channels-last map, some cells at a time."""
    rows, members = _rows(features), one_hot.mT.flatten(0, 1)
    gradient = torch.empty_like(features, memory_format=torch.channels_last)
    out, scale = _rows(gradient), scale.flatten()
    for piece in pieces(rows.shape[0], features.shape[1], features.device):
        x = out[piece] if out.dtype == offset.dtype else torch.empty_like(out[piece], dtype=offset.dtype)
        torch.mul(rows[piece], scale[piece, None], out=x)
        x.addmm_(members[piece], offset)
        if out.dtype != offset.dtype:
            out[piece] = x
    return gradient
