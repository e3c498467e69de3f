"""Computes the three constraints of UDA-OCE on encoder features (Toldo et al. 2021).

They share centroids, the `lsr_train.latent.prototypes.class_means` of both domains' features together, with gradient
and never smoothed. They know no network and no method.
"""

import torch
from torch import Tensor

from lsr_train.distributed import all_reduce_sum, world_size
from lsr_train.latent.directional import class_shares


def centroid_clustering_loss(features: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    """Average the distance of a domain's features to their centroids (Toldo et al. 2021, the pull of Eq. 2).

    Args:
        features: [B,K,h,w] of one domain; differentiated.
        labels: cell labels [B,h,w] int64, 0..C-1; others are void.
        centroids: [C,K]; differentiated.

    Returns:
        Scalar >= 0: the absolute difference, averaged over K, within a class, and over the domain's classes.
    """
    shares = class_shares(labels, len(centroids), None, centroids.dtype).sum(dim=1)  # [B,h,w]
    own = centroids[labels.where(shares > 0, 0)].movedim(-1, 1)  # [B,K,h,w]
    return all_reduce_sum((shares * (features.to(centroids.dtype) - own).abs().mean(dim=1)).sum())


def centroid_distance(centroids: Tensor, present: Tensor) -> Tensor:
    """Average the distance between centroids over the pairs of present classes (Toldo et al. 2021, the push of Eq. 2).

    Args:
        centroids: [C,K]; differentiated.
        present: [C] bool.

    Returns:
        Scalar >= 0: the absolute difference, averaged over K and pairs; 0 where there is no pair.
    """
    pairs = (present[:, None] & present).triu(diagonal=1)
    distances = (centroids[:, None] - centroids).abs().mean(dim=2)  # [C,C]
    return torch.where(pairs, distances, 0).sum() / pairs.sum().clamp(min=1)


def orthogonality_loss(features: Tensor, centroids: Tensor, present: Tensor) -> Tensor:
    """Let a feature resemble one centroid alone, by the entropy of its dot products (Toldo et al. 2021, Eq. 4 and 5).

    It is a constraint on single features, without a label; LSR's perpendicularity (`perpendicularity_loss`) is one on
    the angles between class means.

    Args:
        features: [B,K,h,w]; differentiated.
        centroids: [C,K]; differentiated.
        present: [C] bool; the others have no centroid, and no share.

    Returns:
        Scalar >= 0: -mean(s log s) over the cells of all ranks, which have equally many, and the present classes, as in
            the released code; s is the softmax over them of F mu^T. 0 where no class is present.
    """
    products = torch.einsum("bkhw,ck->bchw", features.to(centroids.dtype), centroids)
    absent = ~present[:, None, None]
    logs = products.masked_fill(absent & present.any(), -torch.inf).log_softmax(dim=1).masked_fill(absent, 0)
    entropies = -(torch.where(absent, 0, logs.exp()) * logs)
    of_present = entropies.sum(dim=1) / present.sum().clamp(min=1)  # [B,h,w]
    return all_reduce_sum(of_present.mean()) / world_size()


def sparsity_loss(centroids: Tensor, present: Tensor) -> Tensor:
    """Drive each channel of a centroid to 0 or to its largest value (Toldo et al. 2021, Eq. 6).

    Args:
        centroids: [C,K] of features >= 0; differentiated.
        present: [C] bool.

    Returns:
        Scalar in [-1/4, 0]: minus the mean over present classes and channels of (mu / max mu - 1/2)^2. 0 where no class
        is present.
    """
    largest = centroids.amax(dim=1, keepdim=True)
    scaled = centroids / largest.clamp(min=torch.finfo(centroids.dtype).tiny)
    of_class = (scaled - 0.5).square().mean(dim=1)
    return -torch.where(present, of_class, 0).sum() / present.sum().clamp(min=1)
