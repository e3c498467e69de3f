"""LSR+: the paper's complete objective, LSR with entropy minimisation by MaxSquare (paper, Sec. 4)."""

from torch import Tensor

from lsr_train.data.samples import UnlabelledBatch
from lsr_train.losses.pixel import max_square_loss
from lsr_train.methods.latent_terms import LatentMethod
from lsr_train.methods.method import DomainOutputs

__all__ = ["LSREM"]


class LSREM(LatentMethod):
    """L+ = L_CE + lambda_C L_C + lambda_P L_P + lambda_N L_N + lambda_EM L_EM (paper, Sec. 4).

    L_EM is the image-wise weighted MaxSquare of Chen et al. 2019 (the paper's reference [7]) on target logits.
    """

    def further_terms(self, outputs: DomainOutputs, target: UnlabelledBatch) -> dict[str, Tensor]:
        """Return `entropy`, unless its weight is 0."""
        weights = self.config.weights
        if weights.entropy == 0:
            return {}
        return {"entropy": max_square_loss(outputs.target_logits, weights.entropy_ratio, mask=target.mask)}

    def term_weights(self) -> dict[str, float]:
        """Return the lambdas of the latent terms and of the entropy."""
        return {**super().term_weights(), "entropy": self.config.weights.entropy}
