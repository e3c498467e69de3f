"""Computes L_N, which draws feature norms of both domains to one slowly growing value (paper, Eq. 7 and 8)."""

from typing import Literal

import torch
from torch import Tensor

from lsr_train.distributed import all_reduce_sum
from lsr_train.latent.cells import check_features, compute_dtype

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
    return align_norms(feature_norms(features), reference, delta, domain, mask=mask)


def align_norms(
    norms: Tensor, reference: Tensor | float, delta: float, domain: Domain, *, mask: Tensor | None = None
) -> Tensor:
    """Compute `norm_alignment_loss` from the norms [B,h,w] of the features."""
    if domain not in ("source", "target"):
        raise ValueError(f"domain is {domain!r}; allowed: source, target")
    if isinstance(reference, Tensor):
        reference = reference.detach()
    shortfall = reference + delta - norms
    return mean_over_cells(shortfall.abs() if domain == "source" else shortfall.clamp(min=0), mask)


def feature_norms(features: Tensor) -> Tensor:
    """Return the L2 norm of every feature, [B,h,w]; its gradient at 0 is 0."""
    check_features(features)
    norms: Tensor = torch.linalg.vector_norm(features, dim=1, dtype=compute_dtype(features.dtype))
    return norms


def mean_over_cells(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Average a map [B,h,w] over the cells that count, of all ranks; 0 where none does."""
    if mask is None:
        mask = torch.ones_like(values, dtype=torch.bool)
    elif mask.shape != values.shape or mask.dtype != torch.bool:
        raise ValueError(f"mask is {mask.dtype} {tuple(mask.shape)}; needed: bool {tuple(values.shape)}")
    total, count = all_reduce_sum(torch.stack([torch.where(mask, values, 0).sum(), mask.sum().to(values.dtype)]))
    mean: Tensor = total / count.detach().clamp(min=1)
    return mean
