"""Computes the paper's constraints on directions alone: cosines averaged over the classes that are present.

Ours, not the paper's. Eq. 5 grows with the square of the features' norm, so its weight has to be found again for every
network, and the norms can shrink to please it. Here a feature counts by its direction, and a mean is taken over the
classes (or pairs of classes) there are, so that values do not depend on K, C or the norm.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lsr_train.distributed import all_reduce_sum
from lsr_train.latent.cells import check_features, check_prototyped, compute_dtype, one_hot
from lsr_train.latent.perpendicularity import cosine_perpendicularity_loss
from lsr_train.latent.prototypes import Prototypes, means_over_ranks


def _inverse_norms(features: Tensor) -> Tensor:
    """Return 1 / |f| of every feature, [B,1,h,w]; 0, with gradient 0, where the feature is 0."""
    squares = features.square().sum(dim=1, keepdim=True)
    there = squares > 0
    return torch.where(there, torch.where(there, squares, 1).rsqrt(), 0)


def prototype_cosines(features: Tensor, prototypes: Tensor) -> Tensor:
    """Return the cosine [B,C,h,w] of every feature [B,K,h,w] to every prototype [C,K]; 0 where either is 0.

    Features are differentiated, prototypes are constants of any length. ValueError where shapes disagree.
    """
    check_features(features, prototypes.shape[1])
    with torch.autocast(features.device.type, enabled=False):
        features = features.to(compute_dtype(features.dtype))
        directions = F.normalize(prototypes.detach().to(features.dtype), dim=1)
        dots = torch.einsum("ck,bkhw->bchw", directions, features)
        return dots * _inverse_norms(features)


def mean_directions(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Average the unit features of each class over all ranks: Eq. 2 where every feature counts the same.

    Returns:
        Means [C,K], of length at most 1, 0 for classes without a cell; and which classes have one, [C] bool.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features.to(compute_dtype(features.dtype))
        members = one_hot(labels, num_classes, features.dtype)  # [B,C,h,w]
        sums = torch.einsum("bchw,bkhw->ck", members * _inverse_norms(features), features)
        return means_over_ranks(sums, members.sum(dim=(0, 2, 3)))


def class_shares(labels: Tensor, num_classes: int, seen: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return the weight of each cell in a mean within each class and then over the classes there are (and are `seen`).

    Returns:
        [B,C,h,w], 0 but at a cell's own class; they sum to 1 over all ranks, or to 0 where nothing is labelled.
    """
    members = one_hot(labels, num_classes, dtype)
    counts = all_reduce_sum(members.sum(dim=(0, 2, 3)))
    taking = counts > 0 if seen is None else (counts > 0) & seen
    share = torch.where(taking, 1 / counts.clamp(min=1), 0) / taking.sum().clamp(min=1)
    return members * share[:, None, None]


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


COSINE_TERMS = ("cluster_source", "cluster_target", "perpendicularity", "prototype_source", "prototype_target")
"""Keys of what the regularizer returns."""


class CosineRegularizer(nn.Module):
    """Clustering, perpendicularity and prototype cross-entropy on directions.

    State lives in the buffers of `prototypes`: mean directions of the source features, smoothed by Eq. 3. It moves with
    each call in training mode and stays in `eval()`.

    Args:
        num_classes: C.
        channels: K.
        decay: eta of Eq. 3.
        temperature: of the prototype cross-entropy.
        terms: names of the losses that are computed and returned; None means all of `COSINE_TERMS`.

    Raises:
        ValueError: a term is unknown, or a number is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        *,
        decay: float = 0.8,
        temperature: float = 0.1,
        terms: frozenset[str] | None = None,
    ) -> None:
        super().__init__()
        unknown = sorted((terms or frozenset()) - set(COSINE_TERMS))
        if unknown:
            raise ValueError(f"terms: {', '.join(unknown)} unknown; allowed: {', '.join(COSINE_TERMS)}")
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; allowed: above 0")
        self.terms = frozenset(COSINE_TERMS if terms is None else terms)
        self.temperature = temperature
        self.prototypes = Prototypes(num_classes, channels, decay)
        self._diagnostics: dict[str, Tensor] = {}

    def forward(
        self, source_features: Tensor, source_cells: Tensor, target_features: Tensor, target_cells: Tensor
    ) -> dict[str, Tensor]:
        """Compute the unweighted terms of one batch and move the prototypes.

        Args:
            source_features: [B,K,h,w], any floating type; differentiated.
            source_cells: cell labels [B,h,w] int64, 255 for void.
            target_features: [B,K,h,w]; differentiated.
            target_cells: cell labels [B,h,w] int64, 255 for void.

        Returns:
            Scalars by name, those of `terms` in the order of `COSINE_TERMS`.

        Raises:
            ValueError: shapes, types or devices disagree.
        """
        if not self.terms:
            return {}
        means, present = mean_directions(source_features, source_cells, self.prototypes.mean.shape[0])
        self.prototypes.move(means, present)
        directions, seen = self.prototypes.mean, self.prototypes.seen
        self._diagnostics = {"prototype_cosine": cosine_perpendicularity_loss(directions, seen)}
        values: dict[str, Tensor] = {}
        if "perpendicularity" in self.terms:
            values["perpendicularity"] = cosine_perpendicularity_loss(means, present)
        for domain, features, cells in (
            ("source", source_features, source_cells), ("target", target_features, target_cells),
        ):  # fmt: skip
            if f"cluster_{domain}" in self.terms:
                values[f"cluster_{domain}"] = cosine_clustering_loss(features, cells, directions, seen)
            if f"prototype_{domain}" in self.terms:
                values[f"prototype_{domain}"] = prototype_cross_entropy(
                    features, cells, directions, seen, temperature=self.temperature
                )
        return {name: values[name] for name in COSINE_TERMS if name in values}

    def diagnostics(self) -> dict[str, Tensor]:
        """Return `prototype_cosine` of the last call, the mean over pairs of seen prototypes; nothing before it."""
        return dict(self._diagnostics)
