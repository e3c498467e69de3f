"""MinEnt: confident predictions on the target by minimal entropy (Vu et al. 2019, ADVENT, Sec. 3.1)."""

from torch import Tensor

from lsr_train.data.samples import UnlabelledBatch
from lsr_train.losses.pixel import entropy_loss
from lsr_train.methods.entropy_terms import EntropyMethod
from lsr_train.methods.method import DomainOutputs

__all__ = ["MinEnt"]


class MinEnt(EntropyMethod):
    """L_CE + lambda_EM L_ent, where L_ent is the mean entropy of a target pixel as a share of the largest possible.

    The paper's lambda is .001 (`weights.entropy`).
    """

    def sharpness(self, outputs: DomainOutputs, target: UnlabelledBatch) -> Tensor:
        """Return `entropy_loss` of the target."""
        return entropy_loss(outputs.target_logits, mask=target.mask)
