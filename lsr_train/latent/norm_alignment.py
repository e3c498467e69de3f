"""L_N: feature norms of both domains are drawn to one slowly growing value (paper, Eq. 7 and 8)."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lsr_train.distributed import all_reduce_sum
from lsr_train.latent.cells import check_features
from lsr_train.latent.fused import lifted

__all__ = [
    "active_norms",
    "feature_norms",
    "mean_over_cells",
    "norm_alignment_loss",
    "relative_norm_alignment_loss",
    "source_excess",
    "target_shortfall",
]

Domain = Literal["source", "target"]


def norm_alignment_loss(
    features: Tensor,
    reference: Tensor | float,
    delta: float = 0.002,
    domain: Domain = "source",
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Draw feature norms to the source's mean norm of the previous step, and a little beyond (paper, Eq. 7 and 8).

    Args:
        features: encoder output [B,K,h,w], any floating type; differentiated. Void cells count too.
        reference: mean norm of the source features of the previous step, a scalar; a constant.
        delta: the enhancement step, in units of the norm.
        domain: `source` is drawn from both sides (Eq. 7), `target` only from below (Eq. 8).
        mask: [B,h,w] bool, true for cells that count; None means all.

    Returns:
        Scalar >= 0 in float32 (float64 for float64 input): the mean over cells. 0 where no cell counts.

    Raises:
        ValueError: shapes or types disagree, or the domain is unknown.
    """
    deviation = _choose(domain)
    norms = feature_norms(features)
    return mean_over_cells(deviation(norms, _constant(reference), delta), mask)


def relative_norm_alignment_loss(
    features: Tensor,
    reference: Tensor | float,
    delta: float = 0.1,
    domain: Domain = "source",
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Draw norms to the source's mean as a share of it: the form of the authors' released code, not the paper's.

    Activations below their location's mean over channels are left out of the norm (`active_norms`), and both domains
    are drawn from both sides. Takes up to two further copies of the features while it runs.

    Args:
        features: encoder output [B,K,h,w], any floating type; differentiated.
        reference: mean active norm of the source features of this batch, a scalar; a constant.
        delta: the margin as a share of the reference.
        domain: checked, but both domains are treated alike.
        mask: [B,h,w] bool, true for cells that count; None means all.

    Returns:
        Scalar >= 0: mean over cells of |1 + delta - norm / reference|. 0 where the reference is 0 or no cell counts.

    Raises:
        ValueError: shapes or types disagree, or the domain is unknown.
    """
    _choose(domain)
    norms = active_norms(features)
    reference = norms.new_zeros(()) + _constant(reference)
    usable = reference > 0
    ratio = norms / torch.where(usable, reference, 1)
    return mean_over_cells((1 + delta - ratio).abs() * usable, mask)


def feature_norms(features: Tensor) -> Tensor:
    """Return the L2 norm of every feature, [B,h,w]; its gradient at 0 is 0."""
    check_features(features)
    norms: Tensor = torch.linalg.vector_norm(features, dim=1, dtype=lifted(features.dtype))
    return norms


def active_norms(features: Tensor) -> Tensor:
    """Return the norm of every feature over the channels that are at least its mean over channels, [B,h,w]."""
    check_features(features)
    features = features.to(lifted(features.dtype))
    active = features >= features.detach().mean(dim=1, keepdim=True)
    norms: Tensor = torch.linalg.vector_norm(torch.where(active, features, 0), dim=1)
    return norms


def source_excess(norms: Tensor, reference: Tensor | float, delta: float) -> Tensor:
    """Return |reference + delta - norm| (the summand of Eq. 7)."""
    return (reference + delta - norms).abs()


def target_shortfall(norms: Tensor, reference: Tensor | float, delta: float) -> Tensor:
    """Return max(0, reference + delta - norm) (the summand of Eq. 8)."""
    return (reference + delta - norms).clamp(min=0)


def mean_over_cells(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Average a map [B,h,w] over the cells that count, of all ranks; 0 where none does."""
    if mask is None:
        mask = torch.ones_like(values, dtype=torch.bool)
    elif mask.shape != values.shape or mask.dtype != torch.bool:
        raise ValueError(f"mask is {mask.dtype} {tuple(mask.shape)}; needed: bool {tuple(values.shape)}")
    sums = all_reduce_sum(torch.stack([torch.where(mask, values, 0).sum(), mask.sum().to(values.dtype)]))
    return sums[0] / sums[1].detach().clamp(min=1)


def _constant(reference: Tensor | float) -> Tensor | float:
    """Return the reference without its graph."""
    return reference.detach() if isinstance(reference, Tensor) else reference


def _choose(domain: str) -> Callable[[Tensor, Tensor | float, float], Tensor]:
    """Return the summand of a domain."""
    if domain not in SUMMANDS:
        raise ValueError(f"domain is {domain!r}; allowed: {', '.join(SUMMANDS)}")
    return SUMMANDS[domain]


SUMMANDS = {"source": source_excess, "target": target_shortfall}
