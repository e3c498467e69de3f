"""Self-training held in shape by LSR's constraints on the latent space."""

import torch
from torch import Tensor

from lsr_train.config.run import Config
from lsr_train.latent import LatentRegularizer, pseudo_labels
from lsr_train.losses.pixel import upsample
from lsr_train.methods.latent_terms import build_regularizer, latent_weights
from lsr_train.methods.method import Network
from lsr_train.methods.self_training_terms import SelfTrainingMethod, Views
from lsr_train.selftraining import PixelLabels

__all__ = ["LSRSelfTraining"]


class LSRSelfTraining(SelfTrainingMethod):
    """L = L_CE + lambda_ST L_ST + lambda_C L_C + lambda_P L_P (+ lambda_N L_N or the prototype cross-entropy).

    The constraints act on the source's features with its labels, and on those of the mixed or the target image with the
    teacher's or the student's labels (`config.latent`), as the paper prints them or on directions alone.
    """

    def __init__(self, config: Config, num_classes: int, channels: int) -> None:
        super().__init__(config, num_classes, channels)
        self._latent_weights = latent_weights(config, config.latent.form)
        self.regularizer = build_regularizer(config, num_classes, channels, config.latent.form)

    def further_terms(self, network: Network, views: Views) -> dict[str, Tensor]:
        """Return the latent terms whose weight is not 0."""
        if not self.regularizer.terms:
            return {}
        source, source_output = views.source, views.source_output
        output = views.mixed_output
        if self.config.latent.image == "target":
            output = network(views.target.image)
        size = (output.features.shape[2], output.features.shape[3])
        labels = views.labels if self.config.latent.image == "target" else views.mixed.labels
        cells = self._cells(labels, output.logits, size)
        if isinstance(self.regularizer, LatentRegularizer):
            return self.regularizer.forward(
                source_output.features, source.labels, output.features, output.logits, labels.counts,
                target_cells=cells,
            )  # fmt: skip
        source_size = (source_output.features.shape[2], source_output.features.shape[3])
        return self.regularizer.forward(
            source_output.features, self.to_cells(source.labels, source_size), output.features, cells
        )

    def term_weights(self) -> dict[str, float]:
        """Return the weights of all terms."""
        return {**super().term_weights(), **self._latent_weights}

    def diagnostics(self) -> dict[str, Tensor]:
        """Return those of self-training and of the regularizer."""
        return {**super().diagnostics(), **self.regularizer.diagnostics()}

    @torch.no_grad()
    def _cells(self, labels: PixelLabels, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the labels [B,h,w] of the features that the target's terms see, of pixels that count alone."""
        if self.config.latent.labels == "teacher":
            return self.sure_cells(labels, size)
        upsampled = upsample(logits.detach(), labels.labels.shape[-2:])
        threshold, confidence = self.config.histogram.threshold, self.config.pseudo_labels.confidence
        return pseudo_labels(upsampled, size, threshold, confidence, mask=labels.counts)
