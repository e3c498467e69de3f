"""LSR+: the paper's complete objective, LSR with entropy minimisation by MaxSquare (paper, Sec. 4)."""

from typing import ClassVar

from torch import Tensor

from lsr_train.batch import LabelledBatch, UnlabelledBatch
from lsr_train.config import Config
from lsr_train.losses import cross_entropy, max_square_loss
from lsr_train.methods.latent_terms import build_regularizer, latent_weights
from lsr_train.methods.method import Method, Network

__all__ = ["LSREM"]


class LSREM(Method):
    """L+ = L_CE + lambda_C L_C + lambda_P L_P + lambda_N L_N + lambda_EM L_EM (paper, Sec. 4).

    L_EM is the image-wise weighted MaxSquare of Chen et al. 2019 (the paper's reference [7]) on target logits.
    """

    uses_target: ClassVar[bool] = True

    def __init__(self, config: Config, num_classes: int, channels: int) -> None:
        super().__init__(config, num_classes, channels)
        self.regularizer = build_regularizer(config, num_classes, channels)

    def terms(self, network: Network, source: LabelledBatch, target: UnlabelledBatch | None) -> dict[str, Tensor]:
        """Return `cross_entropy`, and `entropy` and the latent terms whose weight is not 0."""
        assert target is not None
        outputs = self.both_domains(network, source, target)
        weights = self.config.weights
        entropy = {}
        if weights.entropy > 0:
            entropy["entropy"] = max_square_loss(outputs.target_logits, weights.entropy_ratio, mask=target.mask)
        return {
            "cross_entropy": cross_entropy(outputs.source_logits, source.labels),
            **entropy,
            **self.regularizer(
                outputs.source_features, source.labels, outputs.target_features, outputs.target_logits, target.mask
            ),
        }

    def term_weights(self) -> dict[str, float]:
        """Return the lambdas of the latent terms and of the entropy."""
        return {**latent_weights(self.config), "entropy": self.config.weights.entropy}

    def diagnostics(self) -> dict[str, Tensor]:
        """Return norms of both domains, the prototypes' mean cosine and the labelled share of target cells."""
        return self.regularizer.diagnostics()
