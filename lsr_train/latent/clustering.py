"""L_C: features are pulled towards the prototype of their class (paper, Eq. 5)."""

import torch
from torch import Tensor

from lsr_train.distributed import all_reduce_sum
from lsr_train.latent.cells import check_prototyped
from lsr_train.latent.fused import Moments, class_moments, lifted

__all__ = ["absolute_clustering_loss", "class_average", "clustering_loss", "squared_distances"]


def clustering_loss(features: Tensor, labels: Tensor, prototypes: Tensor, seen: Tensor | None = None) -> Tensor:
    """Pull every labelled feature towards the prototype of its class (paper, Eq. 5).

    Args:
        features: encoder output [B,K,h,w], any floating type; differentiated.
        labels: cell labels [B,h,w], int64, 0..C-1 or 255 for void. Values are not checked here.
        prototypes: smoothed prototypes [C,K]; constants.
        seen: [C] bool, classes that have a prototype; None means all.

    Returns:
        Scalar >= 0 in float32 (float64 for float64 input): squared L2 distance summed over K, averaged
        within a class, summed over classes, divided by C. 0 where nothing is labelled.

    Raises:
        ValueError: shapes or devices disagree, or `labels` is not int64.
    """
    check_prototyped(features, labels, prototypes, seen)
    moments = class_moments(features, labels, prototypes, with_sums=False)
    return class_average(moments.squares, moments.counts, seen).to(lifted(features.dtype))


def absolute_clustering_loss(
    features: Tensor, labels: Tensor, prototypes: Tensor, seen: Tensor | None = None
) -> Tensor:
    """Pull features with the mean absolute error over channels: the authors' released code, not the paper.

    It takes up to three further copies of the features while it runs.

    Args:
        features: encoder output [B,K,h,w], any floating type; differentiated.
        labels: cell labels [B,h,w], int64, 0..C-1 or 255 for void.
        prototypes: smoothed prototypes [C,K]; constants.
        seen: [C] bool, classes that have a prototype; None means all.

    Returns:
        Scalar >= 0, as `clustering_loss` with the absolute difference averaged over K in place of the squared norm.

    Raises:
        ValueError: shapes or devices disagree, or `labels` is not int64.
    """
    check_prototyped(features, labels, prototypes, seen)
    num_classes, dtype = prototypes.shape[0], lifted(features.dtype)
    bins = torch.where((labels >= 0) & (labels < num_classes), labels, num_classes)  # [B,h,w]
    own = torch.cat([prototypes.detach().to(dtype), prototypes.new_zeros(1, prototypes.shape[1], dtype=dtype)])[bins]
    distances = (features.to(dtype) - own.movedim(-1, 1)).abs().mean(dim=1)  # [B,h,w]
    sums = torch.zeros(num_classes + 1, dtype=torch.float64, device=features.device)
    sums = sums.scatter_add(0, bins.flatten(), distances.flatten().double())
    counts = torch.zeros_like(sums).scatter_add(0, bins.flatten(), torch.ones_like(bins.flatten(), dtype=sums.dtype))
    return class_average(sums[:-1], counts[:-1], seen).to(dtype)


def squared_distances(moments: Moments, prototypes: Tensor) -> Tensor:
    """Return the sum over each class's cells of the squared distance to its prototype, from the moments.

    |f - p|^2 summed is the spread about the mean plus the mean's own distance, n times: neither part cancels where the
    moments were taken about a member of the class.

    Args:
        moments: of the features, about any constants; without sums, about the prototypes themselves.
        prototypes: [C,K]; constants.

    Returns:
        [C] float64, differentiated through the moments.
    """
    if moments.sums is None:
        return moments.squares
    counts = moments.counts.double()
    sums = moments.sums.double()
    mean = sums / counts.clamp(min=1)[:, None]  # [C,K], about the shift
    spread = moments.squares - (mean * sums).sum(dim=1)
    distance = (mean + moments.shift.double() - prototypes.detach().double()).square().sum(dim=1)
    return (spread + counts * distance).clamp(min=0)


def class_average(sums: Tensor, counts: Tensor, seen: Tensor | None = None) -> Tensor:
    """Turn sums over each class's cells into Eq. 5: mean within a class over all ranks, summed, divided by C.

    Args:
        sums: [C] of this rank; differentiated.
        counts: [C] cells of this rank.
        seen: [C] bool, classes that take part; None means all.

    Returns:
        Scalar; absent classes add 0.
    """
    sums, counts = all_reduce_sum(torch.stack([sums, counts.to(sums.dtype)]))
    means = sums / counts.detach().clamp(min=1)
    if seen is not None:
        means = torch.where(seen, means, 0)
    return means.sum() / means.shape[0]
