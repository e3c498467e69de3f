"""Features as directions: what the scale-free terms need of a map, without a normalised copy of it.

A cosine is a dot product over a norm, so one product with the unit prototypes and one reading of the norms give the
cosines of every cell to every class. Nothing here knows a loss.
"""

import torch
from torch import Tensor

from lsr_train.distributed import all_reduce_sum
from lsr_train.latent.arguments import check_features
from lsr_train.latent.moments import lifted

__all__ = ["class_shares", "inverse_norms", "mean_directions", "prototype_cosines", "unit"]


def unit(vectors: Tensor) -> Tensor:
    """Return vectors [C,K] at length 1; one of length 0 stays 0, with gradient 0."""
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors * torch.where(norms > 0, 1 / torch.where(norms > 0, norms, 1), 0)


def inverse_norms(features: Tensor) -> Tensor:
    """Return 1 / |f| of every feature, [B,1,h,w]; 0, with gradient 0, where the feature is 0.

    Args:
        features: [B,K,h,w] in float32 or float64; differentiated.
    """
    squares = features.square().sum(dim=1, keepdim=True)
    there = squares > 0
    return torch.where(there, torch.where(there, squares, 1).rsqrt(), 0)


def prototype_cosines(features: Tensor, prototypes: Tensor) -> Tensor:
    """Return the cosine of every feature to every prototype.

    Args:
        features: [B,K,h,w], any floating type; differentiated.
        prototypes: [C,K]; constants, of any length.

    Returns:
        [B,C,h,w] in float32 (float64 for float64 features); 0 where either is 0.

    Raises:
        ValueError: shapes disagree.
    """
    check_features(features, prototypes.shape[1])
    with torch.autocast(features.device.type, enabled=False):
        features = features.to(lifted(features.dtype))
        directions = unit(prototypes.detach().to(features.dtype))
        dots = torch.einsum("ck,bkhw->bchw", directions, features)
        return dots * inverse_norms(features)


def mean_directions(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Average the unit features of each class over all ranks: Eq. 2 where every feature has the same say.

    Args:
        features: [B,K,h,w], any floating type; differentiated.
        labels: cell labels [B,h,w], 0..C-1; whatever else is void. Values are not checked.
        num_classes: C.

    Returns:
        Means [C,K], of length at most 1, 0 for classes without a cell; and which classes have one, [C] bool.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features.to(lifted(features.dtype))
        members = _members(labels, num_classes, features.dtype)  # [B,C,h,w]
        sums = torch.einsum("bchw,bkhw->ck", members * inverse_norms(features), features)
        counts = members.sum(dim=(0, 2, 3))
        totals = all_reduce_sum(torch.cat([sums, counts[:, None]], dim=1))  # one message
        counts = totals[:, -1].detach()
        return totals[:, :-1] / counts.clamp(min=1)[:, None], counts > 0


def class_shares(labels: Tensor, num_classes: int, seen: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return the weight of each cell in a mean within each class and then over the classes there are.

    Args:
        labels: cell labels [B,h,w], 0..C-1; whatever else is void.
        num_classes: C.
        seen: [C] bool, classes that take part; None means all.
        dtype: of the result.

    Returns:
        [B,C,h,w], 0 but at a cell's own class; they sum to 1 over all ranks, or to 0 where nothing is labelled.
    """
    members = _members(labels, num_classes, dtype)
    counts = all_reduce_sum(members.sum(dim=(0, 2, 3)))
    taking = counts > 0 if seen is None else (counts > 0) & seen
    share = torch.where(taking, 1 / counts.clamp(min=1), 0) / taking.sum().clamp(min=1)
    return members * share[:, None, None]


def _members(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Return [B,C,h,w], 1 where a cell has the class."""
    classes = torch.arange(num_classes, device=labels.device)
    return (labels[:, None] == classes[:, None, None]).to(dtype)
