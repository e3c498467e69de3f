"""Builds the latent regulariser that a configuration describes, and the weights of its terms; shared by methods."""

from typing import Literal

from lsr_train.config.run import Config
from lsr_train.latent import CosineRegularizer, LatentRegularizer


def latent_weights(config: Config, form: Literal["paper", "cosine"] = "paper") -> dict[str, float]:
    """Return the weight of each latent term of a form (paper, Eq. 4); source and target share a lambda."""
    weights = config.weights
    last, weight = {"paper": ("norm", weights.norm), "cosine": ("prototype", weights.prototype)}[form]
    return {
        "cluster_source": weights.cluster,
        "cluster_target": weights.cluster,
        "perpendicularity": weights.perpendicularity,
        f"{last}_source": weight,
        f"{last}_target": weight,
    }


def build_regularizer(
    config: Config, num_classes: int, channels: int, form: Literal["paper", "cosine"] = "paper"
) -> LatentRegularizer | CosineRegularizer:
    """Build the regularizer of a form; terms of weight 0 are left out of the computation."""
    terms = frozenset(name for name, weight in latent_weights(config, form).items() if weight > 0)
    decay = config.prototypes.decay
    if form == "cosine":
        return CosineRegularizer(num_classes, channels, decay=decay, temperature=config.latent.temperature, terms=terms)
    return LatentRegularizer(
        num_classes, channels, decay, config.prototypes.init, config.histogram.threshold,
        config.pseudo_labels.confidence, config.norm.delta, labels=config.histogram.mode, terms=terms,
    )  # fmt: skip
