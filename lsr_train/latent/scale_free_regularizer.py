"""The scale-free constraints on both domains behind one call, with their prototypes.

The counterpart of `LatentRegularizer` for `lsr_train.latent.scale_free`. Labels come from outside, on the feature grid.
"""

import torch
from torch import Tensor, nn

from lsr_train.latent.directions import mean_directions
from lsr_train.latent.perpendicularity import cosines
from lsr_train.latent.prototypes import Prototypes
from lsr_train.latent.scale_free import cosine_clustering_loss, cosine_perpendicularity_loss, prototype_cross_entropy

__all__ = ["SCALE_FREE_TERMS", "ScaleFreeRegularizer"]

SCALE_FREE_TERMS = ("cluster_source", "cluster_target", "perpendicularity", "prototype_source", "prototype_target")
"""Keys of what the regularizer returns."""


class ScaleFreeRegularizer(nn.Module):
    """Clustering, perpendicularity and prototype cross-entropy on directions.

    State lives in the buffers of `prototypes`: mean directions of the source features, smoothed by Eq. 3. It moves with
    each call in training mode and stays in `eval()`.

    Args:
        num_classes: C.
        channels: K.
        decay: eta of Eq. 3.
        temperature: of the prototype cross-entropy.
        terms: names of the losses that are computed and returned; None means all of `SCALE_FREE_TERMS`.

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
        unknown = sorted((terms or frozenset()) - set(SCALE_FREE_TERMS))
        if unknown:
            raise ValueError(f"terms: {', '.join(unknown)} unknown; allowed: {', '.join(SCALE_FREE_TERMS)}")
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; allowed: above 0")
        self.terms = frozenset(SCALE_FREE_TERMS if terms is None else terms)
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
            Scalars by name, those of `terms` in the order of `SCALE_FREE_TERMS`.

        Raises:
            ValueError: shapes, types or devices disagree.
        """
        if not self.terms:
            return {}
        means, present = mean_directions(source_features, source_cells, self.prototypes.mean.shape[0])
        self.prototypes.move(means, present)
        directions, seen = self.prototypes.mean, self.prototypes.seen
        with torch.no_grad():
            count = seen.sum()
            self._diagnostics = {
                "prototype_cosine": cosines(directions, seen).sum() / (count * (count - 1)).clamp(min=1)
            }
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
        return {name: values[name] for name in SCALE_FREE_TERMS if name in values}

    def diagnostics(self) -> dict[str, Tensor]:
        """Return `prototype_cosine` of the last call, the mean over pairs of seen prototypes; nothing before it."""
        return dict(self._diagnostics)
