"""MaxSquare with image-wise weights: confident predictions in which no class dominates (Chen et al. 2019, Sec. 3)."""

from torch import Tensor

from lsr_train.data.samples import UnlabelledBatch
from lsr_train.losses.pixel import max_square_loss
from lsr_train.methods.entropy_terms import EntropyMethod
from lsr_train.methods.method import DomainOutputs

__all__ = ["MaxSquareIW"]


class MaxSquareIW(EntropyMethod):
    """L_CE + lambda_EM L_EM, where L_EM is minus the weighted mean of squared probabilities (Chen et al. 2019, Eq. 7).

    The paper's lambda is .1 (`weights.entropy`), its alpha .2 (`weights.entropy_ratio`).
    """

    def sharpness(self, outputs: DomainOutputs, target: UnlabelledBatch) -> Tensor:
        """Return `max_square_loss` of the target."""
        return max_square_loss(outputs.target_logits, self.config.weights.entropy_ratio, mask=target.mask)
