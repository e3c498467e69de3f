"""What the methods with the paper's terms on the latent space share; not a method itself."""

from typing import ClassVar, Literal

from torch import Tensor

from lsr_train.config.run import Config
from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from lsr_train.latent import LatentRegularizer, ScaleFreeRegularizer
from lsr_train.losses.pixel import cross_entropy
from lsr_train.methods.method import DomainOutputs, Method, Network

__all__ = ["LatentMethod", "build_regularizer", "latent_weights"]


class LatentMethod(Method):
    """L_CE + lambda_C L_C + lambda_P L_P + lambda_N L_N (paper, Eq. 4), and what a method adds to them."""

    uses_target: ClassVar[bool] = True

    def __init__(self, config: Config, num_classes: int, channels: int) -> None:
        super().__init__(config, num_classes, channels)
        self.regularizer = build_regularizer(config, num_classes, channels)

    def terms(self, network: Network, source: LabelledBatch, target: UnlabelledBatch | None) -> dict[str, Tensor]:
        """Return `cross_entropy`, the method's further terms, and the latent terms whose weight is not 0."""
        assert target is not None
        outputs = self.both_domains(network, source, target)
        return {
            "cross_entropy": cross_entropy(outputs.source_logits, source.labels),
            **self.further_terms(outputs, target),
            **self.regularizer(
                outputs.source_features, source.labels, outputs.target_features, outputs.target_logits, target.mask
            ),
        }

    def further_terms(self, outputs: DomainOutputs, target: UnlabelledBatch) -> dict[str, Tensor]:
        """Compute unweighted terms besides those of Eq. 4.

        Args:
            outputs: of both domains, logits at image size.
            target: the unlabelled images.
        """
        return {}

    def term_weights(self) -> dict[str, float]:
        """Return the lambdas of the latent terms."""
        return latent_weights(self.config)

    def diagnostics(self) -> dict[str, Tensor]:
        """Return norms of both domains, the prototypes' mean cosine and the labelled share of target cells."""
        return self.regularizer.diagnostics()


def latent_weights(config: Config, form: Literal["printed", "scale-free"] = "printed") -> dict[str, float]:
    """Return the weight of each latent term of a form (paper, Eq. 4); source and target share a lambda."""
    weights = config.weights
    last = {"printed": "norm", "scale-free": "prototype"}[form]
    return {
        "cluster_source": weights.cluster,
        "cluster_target": weights.cluster,
        "perpendicularity": weights.perpendicularity,
        f"{last}_source": getattr(weights, last),
        f"{last}_target": getattr(weights, last),
    }


def build_regularizer(
    config: Config, num_classes: int, channels: int, form: Literal["printed", "scale-free"] = "printed"
) -> LatentRegularizer | ScaleFreeRegularizer:
    """Build the regularizer of a form; terms of weight 0 are left out of the computation."""
    terms = frozenset(name for name, weight in latent_weights(config, form).items() if weight > 0)
    if form == "scale-free":
        decay, temperature = config.prototypes.decay, config.latent.temperature
        return ScaleFreeRegularizer(num_classes, channels, decay=decay, temperature=temperature, terms=terms)
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
        terms=terms,
    )
