"""Trains with cross-entropy on one labelled domain: the start of every adaptation, and its upper bound."""

from torch import Tensor

from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from lsr_train.losses.pixel import cross_entropy, upsample
from lsr_train.methods.method import Method, Network


class SourceOnly(Method):
    """Supervised training. Under the name `target-only` its source is the labelled split of the target."""

    def terms(self, network: Network, source: LabelledBatch, target: UnlabelledBatch | None) -> dict[str, Tensor]:
        """Return `cross_entropy` alone."""
        logits = upsample(network(source.image).logits, source.labels.shape[-2:])  # [B,C,H,W]
        return {"cross_entropy": cross_entropy(logits, source.labels)}
