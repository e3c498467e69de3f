"""Computes the latent losses in one reading of a feature map and their gradient in one writing.

Every latent loss depends on a feature only through its norm, the sum of its class and its squared distance to a
constant vector of its class. So the gradient on a feature is always `a * feature + b`, with one number `a` a cell and
one vector `b` a class, and the whole stack needs no copy of the features. The map is worked on in chunks that stay in
the processor's cache, along channels or along cells as it lies in memory. `LatentRegularizer` trains through it; the
plain equations beside it give the same values and gradients, and tests hold both equal.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lsr_train.latent.cells import compute_dtype, one_hot, void_last
from lsr_train.latent.clustering import class_average
from lsr_train.latent.prototypes import means_over_ranks

CPU_NUMBERS = 2**20
"""Numbers in a chunk on a CPU: 4 MiB of float32. Measured from 2^16 to 2^22 with one thread: 2^16 is a third slower,
2^18 to 2^21 are within a tenth; larger chunks wait less often for the other threads where a core is shared."""
OTHER_NUMBERS = 2**24
"""Numbers in a chunk elsewhere: few launches, and still no second copy of a feature map."""


class Moments(NamedTuple):
    """Sums over the classes of a feature map, and what the plain equations compute from the map itself.

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

    def class_means(self) -> tuple[Tensor, Tensor]:
        """Return what `class_means` returns: means [C,K] over all ranks and the classes present [C]."""
        assert self.sums is not None
        return means_over_ranks(self.sums + self.counts[:, None] * self.shift, self.counts)

    def clustering_loss(self, prototypes: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return what `clustering_loss` returns (Eq. 5); without sums the prototypes are those of `shift`.

        |f - p|^2 summed is the spread about the mean plus the mean's own distance, n times: neither part cancels where
        the moments were taken about a member of the class.
        """
        squares = self.squares
        if self.sums is not None:
            sums, counts = self.sums.double(), self.counts.double()
            mean = sums / counts.clamp(min=1)[:, None]  # [C,K], about the shift
            distance = (mean + self.shift.double() - prototypes.detach().double()).square().sum(dim=1)
            squares = (squares - (mean * sums).sum(dim=1) + counts * distance).clamp(min=0)
        return class_average(squares, self.counts, seen).to(self.norms.dtype)


def class_moments(features: Tensor, labels: Tensor, shift: Tensor, *, with_sums: bool = True) -> Moments:
    """Read a feature map [B,K,h,w] once, with cell labels [B,h,w]; there is no second derivative.

    Constants `shift` [C,K] near the class's features keep the squares free of cancellation. Distances to them alone do
    not need sums.
    """
    dtype = compute_dtype(features.dtype)
    shift = shift.detach().to(dtype)
    members = one_hot(labels, len(shift), dtype).flatten(2)  # [B,C,n]
    sums, squares, norms = _Moments.apply(features, labels, members, shift, with_sums)  # type: ignore[no-untyped-call]  # torch's
    return Moments(members.sum(dim=(0, 2)), sums if with_sums else None, squares, norms, shift)


def one_member(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return one feature of each class [C,K], a constant; 0 for classes without a cell.

    Distances from a member of the class are of the size of the class's spread, however large the features are.
    """
    _, _, height, width = features.shape
    flat = void_last(labels, num_classes).flatten()
    places = torch.full((num_classes + 1,), -1, dtype=torch.int64, device=labels.device)
    places.scatter_reduce_(0, flat, torch.arange(flat.shape[0], device=flat.device), "amax")
    places, present = places[:num_classes].clamp(min=0), places[:num_classes] >= 0
    image, cell = places // (height * width), places % (height * width)
    members = features.detach().permute(0, 2, 3, 1)[image, cell // width, cell % width]  # [C,K]
    return torch.where(present[:, None], members.to(compute_dtype(features.dtype)), 0)


def chunks(length: int, cost: int, device: torch.device) -> Iterator[slice]:
    """Cut `length` elements of `cost` numbers each into slices of a chunk; a compiler gets one and fuses by itself."""
    step = max(1, (CPU_NUMBERS if device.type == "cpu" else OTHER_NUMBERS) // max(cost, 1))
    if torch.compiler.is_compiling():
        step = length
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


class _Moments(torch.autograd.Function):
    """The reading and the writing."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, labels: Tensor, members: Tensor, shift: Tensor, with_sums: bool
    ) -> tuple[Tensor, ...]:
        with torch.autocast(features.device.type, enabled=False):
            read = _read_rows if _is_rows(features) else _read_planes
            sums, distances, norms = read(features, members, shift, with_sums)  # [C,K], [B,n], [B,n]
            norms = norms.sqrt_()
            bins = void_last(labels, shift.shape[0]).flatten()
            squares = torch.zeros(shift.shape[0] + 1, dtype=torch.float64, device=shift.device)
            squares.scatter_add_(0, bins, distances.flatten().double())
        ctx.save_for_backward(features, labels, members, shift, norms)
        return sums, squares[:-1], norms.view(labels.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, sums: Tensor, squares: Tensor, norms: Tensor) -> tuple[Tensor | None, ...]:
        features, labels, members, shift, lengths = ctx.saved_tensors
        with torch.autocast(features.device.type, enabled=False):
            inverse = torch.where(lengths > 0, lengths.reciprocal(), 0)  # the gradient of a norm at 0 is 0
            squares = 2 * squares.to(shift.dtype)  # [C]
            per_cell = torch.cat([squares, squares.new_zeros(1)])[void_last(labels, shift.shape[0]).flatten(1)]
            scale = per_cell + norms.flatten(1) * inverse  # [B,n]
            offset = sums - squares[:, None] * shift  # [C,K]
            write = _write_rows if _is_rows(features) else _write_planes
            return write(features, members, scale, offset), None, None, None, None


def _is_rows(features: Tensor) -> bool:
    """Whether a feature's channels lie side by side in memory (channels-last)."""
    return features.is_contiguous(memory_format=torch.channels_last) and not features.is_contiguous()


def _read_planes(features: Tensor, members: Tensor, shift: Tensor, with_sums: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Read a map whose channels are planes, some channels at a time."""
    B, K, h, w = features.shape
    slices = list(chunks(K, B * h * w, features.device))
    away = shift.new_empty(B, slices[0].stop, h * w)
    norms, distances = torch.zeros_like(away), torch.zeros_like(away)
    sums = torch.zeros_like(shift)
    for chunk in slices:
        x = features[:, chunk].flatten(2).to(shift.dtype)  # [B,k,n]
        k = x.shape[1]
        d = away[:, :k]
        torch.baddbmm(x, shift[:, chunk].T.expand(B, -1, -1), members, alpha=-1, out=d)
        if with_sums:
            sums[:, chunk] = torch.bmm(members, d.mT).sum(dim=0)
        norms[:, :k].addcmul_(x, x)
        distances[:, :k].addcmul_(d, d)
    return sums, distances.sum(dim=1), norms.sum(dim=1)


def _write_planes(features: Tensor, members: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Write scale * feature + offset of the cell's class, some channels at a time."""
    B, K, h, w = features.shape
    gradient = torch.empty_like(features, memory_format=torch.contiguous_format)
    for chunk in chunks(K, B * h * w, features.device):
        out = gradient[:, chunk].flatten(2)  # [B,k,n]
        x = out if gradient.dtype == offset.dtype else torch.empty_like(out, dtype=offset.dtype)
        torch.mul(features[:, chunk].flatten(2), scale[:, None], out=x)
        x.baddbmm_(offset[:, chunk].T.expand(B, -1, -1), members)
        if x is not out:
            out.copy_(x)
    return gradient


def _rows(features: Tensor) -> Tensor:
    """Return a channels-last map as a view [B*n,K]."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def _read_rows(features: Tensor, members: Tensor, shift: Tensor, with_sums: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Read a channels-last map, some cells at a time."""
    B, K = features.shape[:2]
    rows, members = _rows(features), members.mT.flatten(0, 1)  # [B*n,K], [B*n,C]
    sums = torch.zeros_like(shift)
    norms, distances = (shift.new_empty(rows.shape[0]) for _ in range(2))
    for chunk in chunks(rows.shape[0], K, features.device):
        x = rows[chunk].to(shift.dtype)  # [m,K]
        d = torch.addmm(x, members[chunk], shift, alpha=-1)
        if with_sums:
            sums.addmm_(members[chunk].T, d)
        norms[chunk] = (x * x).sum(dim=1)
        distances[chunk] = (d * d).sum(dim=1)
    return sums, distances.view(B, -1), norms.view(B, -1)


def _write_rows(features: Tensor, members: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Write scale * feature + offset of the cell's class into a channels-last map, some cells at a time."""
    rows, members = _rows(features), members.mT.flatten(0, 1)
    gradient = torch.empty_like(features, memory_format=torch.channels_last)
    out, scale = _rows(gradient), scale.flatten()
    for chunk in chunks(rows.shape[0], features.shape[1], features.device):
        x = out[chunk] if out.dtype == offset.dtype else torch.empty_like(out[chunk], dtype=offset.dtype)
        torch.mul(rows[chunk], scale[chunk, None], out=x)
        x.addmm_(members[chunk], offset)
        if out.dtype != offset.dtype:
            out[chunk] = x
    return gradient
