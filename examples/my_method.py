"""Adds MaxSquare on target predictions to the source's cross-entropy: a method in a file of one's own."""

from lsr_train.losses import cross_entropy, max_square_loss, upsample
from lsr_train.methods import Method


class Mine(Method):
    """Source cross-entropy and MaxSquare on the target."""

    uses_target = True  # else no footage is loaded

    def terms(self, network, source, target):
        """Return one scalar a term; `source` has image and labels, `target` image and mask (or None)."""
        size = source.labels.shape[-2:]
        labelled = upsample(network(source.image).logits, size)  # [B,C,H,W]
        unlabelled = upsample(network(target.image).logits, target.image.shape[-2:])  # [B,C,H,W]
        return {
            "cross_entropy": cross_entropy(labelled, source.labels),
            "certainty": max_square_loss(unlabelled, mask=target.mask),
        }

    def term_weights(self):
        """Return the weight of every term but the cross-entropy."""
        return {"certainty": 0.1}
