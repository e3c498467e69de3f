"""Minimises entropy on the target: MinEnt (Vu et al. 2019, ADVENT) and MaxSquare (Chen et al. 2019)."""

from typing import ClassVar

from torch import Tensor

from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from lsr_train.losses.pixel import cross_entropy, entropy_loss, max_square_loss
from lsr_train.methods.method import DomainOutputs, Method, Network


class EntropyMethod(Method):
    """L_CE(source) + lambda_EM `entropy`(target); a subclass defines `sharpness`."""

    uses_target: ClassVar[bool] = True

    def terms(self, network: Network, source: LabelledBatch, target: UnlabelledBatch | None) -> dict[str, Tensor]:
        """Return `cross_entropy`, and `entropy` unless its weight is 0."""
        assert target is not None
        outputs = self.both_domains(network, source, target)
        values = {"cross_entropy": cross_entropy(outputs.source_logits, source.labels)}
        return values | {"entropy": self.sharpness(outputs, target)} if self.config.weights.entropy else values

    def sharpness(self, outputs: DomainOutputs, target: UnlabelledBatch) -> Tensor:
        """Compute the unweighted term from the outputs of both domains, logits at image size."""
        raise NotImplementedError

    def term_weights(self) -> dict[str, float]:
        """Return lambda_EM."""
        return {"entropy": self.config.weights.entropy}


class MinEnt(EntropyMethod):
    """L_CE + lambda_EM L_ent, where L_ent is the mean entropy of a target pixel as a share of the largest possible.

    The paper's lambda is 0.001 (`weights.entropy`).
    """

    def sharpness(self, outputs: DomainOutputs, target: UnlabelledBatch) -> Tensor:
        """Return `entropy_loss` of the target."""
        return entropy_loss(outputs.target_logits, mask=target.mask)


class MaxSquareIW(EntropyMethod):
    """L_CE + lambda_EM L_EM, where L_EM is minus the weighted mean of squared probabilities (Chen et al. 2019, Eq. 7).

    The paper's lambda is 0.1 (`weights.entropy`), its alpha 0.2 (`weights.entropy_ratio`).
    """

    def sharpness(self, outputs: DomainOutputs, target: UnlabelledBatch) -> Tensor:
        """Return `max_square_loss` of the target."""
        return max_square_loss(outputs.target_logits, self.config.weights.entropy_ratio, mask=target.mask)
