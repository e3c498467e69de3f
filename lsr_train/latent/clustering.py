"""Computes L_C, which pulls features towards the prototype of their class (paper, Eq. 5)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lsr_train.distributed import all_reduce_sum
from lsr_train.latent.cells import check_prototyped, compute_dtype, void_last


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
    features = features.to(compute_dtype(features.dtype))
    classes = void_last(labels, len(prototypes)).flatten()  # [B*h*w], 0..C
    columns = F.pad(prototypes.detach().to(features.dtype).T, (0, 1))  # [K,C+1], 0 for void
    own = columns.index_select(1, classes).view(-1, *labels.shape).transpose(0, 1)  # [B,K,h,w]
    distances = F.mse_loss(features, own, reduction="none").sum(dim=1)  # [B,h,w], squared L2 norms
    sums = distances.new_zeros(columns.shape[1], dtype=torch.float64)
    sums = sums.scatter_add(0, classes, distances.flatten().double())
    counts = torch.zeros_like(sums).scatter_add(0, classes, torch.ones_like(classes, dtype=sums.dtype))
    return class_average(sums[:-1], counts[:-1], seen).to(features.dtype)


def class_average(sums: Tensor, counts: Tensor, seen: Tensor | None = None) -> Tensor:
    """Turn this rank's sums [C] over each class's cells, and their counts [C], into Eq. 5.

    That is the mean within a class over all ranks, summed over the classes `seen` and divided by C; absent ones add 0.
    """
    sums, counts = all_reduce_sum(torch.stack([sums, counts.to(sums.dtype)]))
    means = sums / counts.detach().clamp(min=1)
    if seen is not None:
        means = torch.where(seen, means, 0)
    return means.sum() / len(means)
