"""Trains UDA-OCE: clusters, orthogonality, sparsity and entropy minimisation (Toldo et al. 2021)."""

from typing import ClassVar

import torch
from torch import Tensor

from lsr_infer.labelspace import IGNORE_INDEX
from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from lsr_train.latent.cells import cell_sums
from lsr_train.latent.prototypes import class_means
from lsr_train.losses.oce import centroid_clustering_loss, centroid_distance, orthogonality_loss, sparsity_loss
from lsr_train.losses.pixel import cross_entropy, max_square_loss, upsample
from lsr_train.methods.method import Method, Network
from lsr_train.network import SegOutput


class OCE(Method):
    """L_CE + lambda_CL L_CL + lambda_OR L_OR + lambda_SP L_SP + lambda_EM L_EM (Toldo et al. 2021, Eq. 1).

    The labels of both domains' cells are the network's own predictions. L_CL is the distance of both domains'
    features to the common centroids minus that between centroids. Its weights for GTA5 are 0.02, 2, 0.5 and 0.1, with
    `weights.entropy_ratio` 0.2; for SYNTHIA 0.02, 0.1, 1 and 0.05, with 0.
    """

    uses_target: ClassVar[bool] = True

    def terms(self, network: Network, source: LabelledBatch, target: UnlabelledBatch | None) -> dict[str, Tensor]:
        """Return `cross_entropy`, and of the others (`cluster`, `orthogonality`, …) those whose weight is not 0."""
        assert target is not None
        outputs = self.both_images(network, source.image, target.image)
        source_logits = upsample(outputs[0].logits, source.labels.shape[-2:])
        values = {"cross_entropy": cross_entropy(source_logits, source.labels), **self._constraints(outputs, target)}
        if self.config.weights.entropy:
            target_logits = upsample(outputs[1].logits, target.image.shape[-2:])
            values["entropy"] = max_square_loss(target_logits, self.config.weights.entropy_ratio, mask=target.mask)
        return values

    def term_weights(self) -> dict[str, float]:
        """Return the four lambdas."""
        weights = self.config.weights
        return {name: getattr(weights, name) for name in ("cluster", "orthogonality", "sparsity", "entropy")}

    def _constraints(self, outputs: tuple[SegOutput, SegOutput], target: UnlabelledBatch) -> dict[str, Tensor]:
        """Return the terms on features whose weight is not 0."""
        labels = [output.logits.detach().argmax(dim=1) for output in outputs]
        if target.mask is not None:
            size = (labels[1].shape[1], labels[1].shape[2])
            labels[1] = labels[1].where(cell_sums(target.mask, size) > 0, IGNORE_INDEX)
        features = torch.cat([output.features for output in outputs])
        weights, values = self.config.weights, {}
        with torch.autocast(features.device.type, enabled=False):
            centroids, present = class_means(features, torch.cat(labels), self.num_classes)
            if weights.cluster:
                pairs = zip(outputs, labels, strict=True)
                pulls = [centroid_clustering_loss(output.features, cells, centroids) for output, cells in pairs]
                values["cluster"] = pulls[0] + pulls[1] - centroid_distance(centroids, present)
            if weights.orthogonality:
                values["orthogonality"] = orthogonality_loss(features, centroids, present)
            if weights.sparsity:
                values["sparsity"] = sparsity_loss(centroids, present)
        return values
