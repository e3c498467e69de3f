"""Defines the sections of the configuration about loss terms: their weights, the paper's options and the critic."""

from dataclasses import dataclass, fields
from typing import Literal

from lsr_train.config.checks import in_range, one_of

__all__ = [
    "CriticConfig",
    "HistogramConfig",
    "NormConfig",
    "PrototypesConfig",
    "PseudoLabelsConfig",
    "WeightsConfig",
]


@dataclass(frozen=True, kw_only=True)
class HistogramConfig:
    """Labels on the feature grid (paper, Sec. 3).

    Args:
        threshold: T_h, in (0, 1]. A cell is labelled if its second count is below this share of its first.
        mode: `histogram` (the paper's) or `nearest` (the plain subsampling of its ablation).
    """

    threshold: float = 0.5
    mode: Literal["histogram", "nearest"] = "histogram"

    def __post_init__(self) -> None:
        in_range("histogram.threshold", self.threshold, 0, 1, open_low=True)
        one_of("histogram.mode", self.mode, ("histogram", "nearest"))


@dataclass(frozen=True, kw_only=True)
class PseudoLabelsConfig:
    """Labels of target cells (paper, Sec. 3).

    Args:
        confidence: T_p, in [0, 1). A cell keeps its label if the mean of its pixels' peak probability is above it.
    """

    confidence: float = 0.5

    def __post_init__(self) -> None:
        in_range("pseudo_labels.confidence", self.confidence, 0, 1)


@dataclass(frozen=True, kw_only=True)
class PrototypesConfig:
    """Smoothed class means (paper, Eq. 2 and 3).

    Args:
        decay: eta, share of the previous estimate.
        init: `zero` (the paper) or `first` (the first observation replaces the zero).
    """

    decay: float = 0.8
    init: Literal["first", "zero"] = "first"

    def __post_init__(self) -> None:
        in_range("prototypes.decay", self.decay, 0, 0.999999)
        one_of("prototypes.init", self.init, ("first", "zero"))


@dataclass(frozen=True, kw_only=True)
class NormConfig:
    """L_N (paper, Eq. 7 and 8).

    Args:
        delta: the enhancement step, in units of the norm.
    """

    delta: float = 0.002

    def __post_init__(self) -> None:
        in_range("norm.delta", self.delta, 0)


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """Weights of the loss terms; cross-entropy has weight 1 (paper, Eq. 4). 0 leaves a term out altogether.

    Args:
        cluster: lambda_C, of source and target clustering each; of OCE both together.
        perpendicularity: lambda_P.
        norm: lambda_N, of source and target each.
        entropy: lambda_EM.
        entropy_ratio: alpha of the image-wise weighting of MaxSquare.
        prototype: of the prototype cross-entropy of source and target each (`latent.form cosine` alone).
        self_training: of the cross-entropy on mixed images with the teacher's labels.
        masked: of the cross-entropy on target images with hidden blocks.
        distance: of the feature distance to the starting backbone.
        distill: of the divergence from the teacher's predictions, of source and target each.
        adversarial: of what trains the encoder against a critic.
        orthogonality: of OCE's entropy of dot products.
        sparsity: of OCE's two-valued channels.
    """

    cluster: float = 0.0
    perpendicularity: float = 0.0
    norm: float = 0.0
    entropy: float = 0.0
    entropy_ratio: float = 0.2
    prototype: float = 0.0
    self_training: float = 0.0
    masked: float = 0.0
    distance: float = 0.0
    distill: float = 0.0
    adversarial: float = 0.0
    orthogonality: float = 0.0
    sparsity: float = 0.0

    def __post_init__(self) -> None:
        for item in fields(self):
            in_range(f"weights.{item.name}", getattr(self, item.name), 0)
        in_range("weights.entropy_ratio", self.entropy_ratio, 0, 1)


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """The optimiser of a method's critic.

    Args:
        lr: base learning rate of its Adam; it decays as that of the network, without warm-up.
    """

    lr: float = 1e-4

    def __post_init__(self) -> None:
        in_range("critic.lr", self.lr, 0, 1, open_low=True)
