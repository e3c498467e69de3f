"""Trains LSR and LSR+: the paper's three constraints, without and with entropy minimisation (Eq. 4)."""

from typing import ClassVar

from torch import Tensor

from lsr_train.config.run import Config
from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from lsr_train.losses.pixel import cross_entropy, max_square_loss
from lsr_train.methods.latent_terms import build_regularizer, latent_weights
from lsr_train.methods.method import Method, Network


class LSR(Method):
    """L = L_CE + lambda_C L_C + lambda_P L_P + lambda_N L_N (paper, Eq. 4)."""

    uses_target: ClassVar[bool] = True
    minimises_entropy: ClassVar[bool] = False

    def __init__(self, config: Config, num_classes: int, channels: int) -> None:
        super().__init__(config, num_classes, channels)
        self.regularizer = build_regularizer(config, num_classes, channels)

    def terms(self, network: Network, source: LabelledBatch, target: UnlabelledBatch | None) -> dict[str, Tensor]:
        """Return `cross_entropy`, and `entropy` (LSR+) and the latent terms where their weight is not 0."""
        assert target is not None
        weights, outputs = self.config.weights, self.both_domains(network, source, target)
        values = {"cross_entropy": cross_entropy(outputs.source_logits, source.labels)}
        if self.minimises_entropy and weights.entropy:
            values["entropy"] = max_square_loss(outputs.target_logits, weights.entropy_ratio, mask=target.mask)
        latent: dict[str, Tensor] = self.regularizer(
            outputs.source_features, source.labels, outputs.target_features, outputs.target_logits, target.mask
        )
        return values | latent

    def term_weights(self) -> dict[str, float]:
        """Return the lambdas."""
        weights = latent_weights(self.config)
        return weights | {"entropy": self.config.weights.entropy} if self.minimises_entropy else weights

    def diagnostics(self) -> dict[str, Tensor]:
        """Return norms of both domains, the prototypes' mean cosine and the labelled share of target cells."""
        return self.regularizer.diagnostics()


class LSREM(LSR):
    """L+ = L_CE + lambda_C L_C + lambda_P L_P + lambda_N L_N + lambda_EM L_EM (paper, Sec. 4).

    L_EM is the image-wise weighted MaxSquare of Chen et al. 2019 (the paper's reference [7]) on target logits.
    """

    minimises_entropy: ClassVar[bool] = True
