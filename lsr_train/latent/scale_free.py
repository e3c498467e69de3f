"""The paper's constraints without its scale: on directions alone, averaged over what is there.

Ours, not the paper's. Eq. 5 grows with the square of the features' norm, so its weight has to be found anew for every
network, and the norms can shrink to please it. Here a feature counts by its direction, and a mean is taken over the
classes (or pairs of classes) there are, so that values do not depend on K, C or the norm.
"""

import math

import torch
from torch import Tensor

from lsr_train.distributed import all_reduce_sum
from lsr_train.latent.arguments import check_prototyped
from lsr_train.latent.directions import class_shares, prototype_cosines
from lsr_train.latent.perpendicularity import cosines

__all__ = ["cosine_clustering_loss", "cosine_perpendicularity_loss", "prototype_cross_entropy"]


def cosine_clustering_loss(features: Tensor, labels: Tensor, prototypes: Tensor, seen: Tensor | None = None) -> Tensor:
    """Turn every labelled feature towards the prototype of its class (Eq. 5 on directions).

    Args:
        features: encoder output [B,K,h,w], any floating type; differentiated.
        labels: cell labels [B,h,w], int64, 0..C-1 or 255 for void. Values are not checked here.
        prototypes: smoothed prototypes [C,K], of any length; constants.
        seen: [C] bool, classes that have a prototype; None means all.

    Returns:
        Scalar in [0, 2] in float32 (float64 for float64 input): 1 - cosine, averaged within a class, then over the
        classes with a labelled cell. 0 where nothing is labelled.

    Raises:
        ValueError: shapes or devices disagree, or `labels` is not int64.
    """
    check_prototyped(features, labels, prototypes, seen)
    angles = prototype_cosines(features, prototypes)  # [B,C,h,w]
    shares = class_shares(labels, prototypes.shape[0], seen, angles.dtype)
    return all_reduce_sum((shares * (1 - angles)).sum())


def cosine_perpendicularity_loss(batch_mean: Tensor, present: Tensor) -> Tensor:
    """Average the cosines between the batch prototypes of the pairs of classes there are (Eq. 6 over present pairs).

    Args:
        batch_mean: per-batch prototypes [C,K], such as `mean_directions`; differentiated, both sides of each pair.
        present: [C] bool, classes of this batch.

    Returns:
        Scalar in [-1, 1] in float32 (float64 for float64 input). 0 with fewer than two classes present.

    Raises:
        ValueError: shapes or types disagree.
    """
    if batch_mean.ndim != 2 or present.shape != batch_mean.shape[:1] or present.dtype != torch.bool:
        raise ValueError(f"batch_mean is {tuple(batch_mean.shape)}, present {tuple(present.shape)}; needed: [C,K], [C]")
    count = present.sum()
    return cosines(batch_mean, present).sum() / (count * (count - 1)).clamp(min=1)


def prototype_cross_entropy(
    features: Tensor, labels: Tensor, prototypes: Tensor, seen: Tensor | None = None, *, temperature: float = 0.1
) -> Tensor:
    """Let the prototypes classify every labelled feature: near its own and away from all others at once.

    Args:
        features: encoder output [B,K,h,w], any floating type; differentiated.
        labels: cell labels [B,h,w], int64, 0..C-1 or 255 for void. Values are not checked here.
        prototypes: smoothed prototypes [C,K], of any length; constants.
        seen: [C] bool, classes that have a prototype, the only ones that compete; None means all.
        temperature: divides the cosines, above 0.

    Returns:
        Scalar >= 0 in float32 (float64 for float64 input): cross-entropy of the softmax over cosine / temperature,
        averaged within a class, then over the classes with a labelled cell. 0 where nothing is labelled.

    Raises:
        ValueError: shapes or devices disagree, `labels` is not int64, or the temperature is not above 0.
    """
    check_prototyped(features, labels, prototypes, seen)
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; allowed: above 0")
    scores = prototype_cosines(features, prototypes) / temperature  # [B,C,h,w]
    if seen is not None:
        # as good as -inf for a softmax of scores within 1 / temperature, and finite where no class is seen
        nothing = -2 / temperature + math.log(torch.finfo(scores.dtype).tiny)
        scores = torch.where(seen[:, None, None], scores, nothing)
    shares = class_shares(labels, prototypes.shape[0], seen, scores.dtype)
    return all_reduce_sum((shares * (scores.logsumexp(dim=1, keepdim=True) - scores)).sum())
