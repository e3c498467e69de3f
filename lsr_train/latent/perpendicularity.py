"""L_P: prototypes of different classes are pushed to be perpendicular (paper, Eq. 6)."""

import torch
from torch import Tensor

from lsr_train.latent.fused import lifted

__all__ = ["cosines", "perpendicularity_loss"]


def perpendicularity_loss(batch_mean: Tensor, present: Tensor) -> Tensor:
    """Sum the cosines between the per-batch prototypes of all pairs of classes (paper, Eq. 6).

    This constrains one vector a class. UDA-OCE's orthogonality (the paper's reference [42]), with which it shares its
    aim, acts on every feature by itself and without labels.

    Args:
        batch_mean: per-batch source prototypes [C,K] (Eq. 2); differentiated, on both sides of each pair.
        present: [C] bool, classes of this batch; pairs with another take no part.

    Returns:
        Scalar in float32 (float64 for float64 input): the sum over ordered pairs divided by C(C-1), with C all classes.
        0 with fewer than two classes present. A prototype of norm 0 has cosine and gradient 0.

    Raises:
        ValueError: shapes, types or devices disagree.
    """
    if batch_mean.ndim != 2 or not batch_mean.is_floating_point():
        raise ValueError(f"batch_mean is {batch_mean.dtype} {tuple(batch_mean.shape)}; needed: floating [C,K]")
    if present.shape != batch_mean.shape[:1] or present.dtype != torch.bool:
        raise ValueError(f"present is {present.dtype} {tuple(present.shape)}; needed: bool [{batch_mean.shape[0]}]")
    if present.device != batch_mean.device:
        raise ValueError(f"present is on {present.device}, batch_mean on {batch_mean.device}")
    num_classes = batch_mean.shape[0]
    return cosines(batch_mean, present).sum() / max(num_classes * (num_classes - 1), 1)


def cosines(prototypes: Tensor, present: Tensor) -> Tensor:
    """Return the cosine of every pair of present classes, [C,C]; 0 on the diagonal and for the others."""
    with torch.autocast(prototypes.device.type, enabled=False):
        prototypes = prototypes.to(lifted(prototypes.dtype))
        norms = torch.linalg.vector_norm(prototypes, dim=1, keepdim=True)  # [C,1]
        usable = present[:, None] & (norms > 0)
        units = prototypes * torch.where(usable, 1 / torch.where(usable, norms, 1), 0)
        return (units @ units.T) * ~torch.eye(units.shape[0], dtype=torch.bool, device=units.device)
