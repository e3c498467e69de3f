"""What the methods share that add a single term on target predictions; not a method itself."""

from typing import ClassVar

from torch import Tensor

from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from lsr_train.losses.pixel import cross_entropy
from lsr_train.methods.method import DomainOutputs, Method, Network

__all__ = ["EntropyMethod"]


class EntropyMethod(Method):
    """L_CE(source) + lambda_EM `entropy`(target); a subclass says how sharp a prediction is."""

    uses_target: ClassVar[bool] = True

    def terms(self, network: Network, source: LabelledBatch, target: UnlabelledBatch | None) -> dict[str, Tensor]:
        """Return `cross_entropy`, and `entropy` unless its weight is 0."""
        assert target is not None
        outputs = self.both_domains(network, source, target)
        values = {"cross_entropy": cross_entropy(outputs.source_logits, source.labels)}
        return values | {"entropy": self.sharpness(outputs, target)} if self.config.weights.entropy else values

    def sharpness(self, outputs: DomainOutputs, target: UnlabelledBatch) -> Tensor:
        """Compute the unweighted term.

        Args:
            outputs: of both domains, logits at image size.
            target: the unlabelled images.
        """
        raise NotImplementedError

    def term_weights(self) -> dict[str, float]:
        """Return lambda_EM."""
        return {"entropy": self.config.weights.entropy}
