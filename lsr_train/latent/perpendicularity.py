"""Computes L_P, which pushes prototypes of different classes to be perpendicular (paper, Eq. 6)."""

import torch
from torch import Tensor

from lsr_train.latent.cells import compute_dtype


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
    num_classes = len(batch_mean)
    return cosines(batch_mean, present).sum() / max(num_classes * (num_classes - 1), 1)


def cosine_perpendicularity_loss(batch_mean: Tensor, present: Tensor) -> Tensor:
    """Average the cosines between the prototypes of the pairs of classes that are present (ours: Eq. 6 over them).

    Args:
        batch_mean: per-batch prototypes [C,K], such as `mean_directions`; differentiated, both sides of each pair.
        present: [C] bool, classes of this batch.

    Returns:
        Scalar in [-1, 1] in float32 (float64 for float64 input). 0 with fewer than two classes present.

    Raises:
        ValueError: shapes, types or devices disagree.
    """
    count = present.sum()
    return cosines(batch_mean, present).sum() / (count * (count - 1)).clamp(min=1)


def cosines(prototypes: Tensor, present: Tensor) -> Tensor:
    """Return the cosine of every pair of present classes, [C,C]; 0 on the diagonal and for the others."""
    if prototypes.ndim != 2 or not prototypes.is_floating_point():
        raise ValueError(f"batch_mean is {prototypes.dtype} {tuple(prototypes.shape)}; needed: floating [C,K]")
    if present.shape != prototypes.shape[:1] or present.dtype != torch.bool:
        raise ValueError(f"present is {present.dtype} {tuple(present.shape)}; needed: bool [{len(prototypes)}]")
    if present.device != prototypes.device:
        raise ValueError(f"present is on {present.device}, batch_mean on {prototypes.device}")
    with torch.autocast(prototypes.device.type, enabled=False):
        prototypes = prototypes.to(compute_dtype(prototypes.dtype))
        norms = torch.linalg.vector_norm(prototypes, dim=1, keepdim=True)  # [C,1]
        usable = present[:, None] & (norms > 0)
        units = prototypes * torch.where(usable, 1 / torch.where(usable, norms, 1), 0)
        return (units @ units.T) * ~torch.eye(len(units), dtype=torch.bool, device=units.device)
