"""The latent regularizer as a configuration asks for it: shared by the methods built on it, not a method."""

from lsr_train.config import Config
from lsr_train.latent import LatentRegularizer

__all__ = ["build_regularizer", "latent_weights"]


def latent_weights(config: Config) -> dict[str, float]:
    """Return the weight of each latent term (paper, Eq. 4); source and target share lambda_C and lambda_N."""
    weights = config.weights
    return {
        "cluster_source": weights.cluster,
        "cluster_target": weights.cluster,
        "perpendicularity": weights.perpendicularity,
        "norm_source": weights.norm,
        "norm_target": weights.norm,
    }


def build_regularizer(config: Config, num_classes: int, channels: int) -> LatentRegularizer:
    """Build the regularizer; terms of weight 0 are left out of the computation."""
    return LatentRegularizer(
        num_classes,
        channels,
        decay=config.prototypes.decay,
        init=config.prototypes.init,
        threshold=config.histogram.threshold,
        confidence=config.pseudo_labels.confidence,
        delta=config.norm.delta,
        labels=config.histogram.mode,
        clustering=config.clustering.distance,
        norm=config.norm.variant,
        terms=frozenset(name for name, weight in latent_weights(config).items() if weight > 0),
    )
