"""Aligns features adversarially: AdaptSegNet (Tsai et al. 2018) and SAPNet (Li et al. 2020)."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lsr_train.adversarial import critics
from lsr_train.config.run import Config
from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from lsr_train.losses.pixel import cross_entropy, upsample
from lsr_train.methods.method import Method, Network


class _Adversarial(Method):
    """L_CE(source) + lambda_adv `adversarial`, against a critic with an optimiser that a subclass makes."""

    uses_target: ClassVar[bool] = True
    critic: nn.Module
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)

    def term_weights(self) -> dict[str, float]:
        """Return lambda_adv; a critic's own term has weight 1."""
        return {"adversarial": self.config.weights.adversarial}

    def optimizers(self) -> dict[str, Optimizer]:
        """Return the critic's."""
        return {"critic": torch.optim.Adam(self.critic.parameters(), lr=self.config.critic.lr, betas=self.betas)}


class AdaptSegNetFeat(_Adversarial):
    """L_CE(source) + lambda_adv BCE(D(F_t), source), while D learns (BCE(D(F_s), source) + BCE(D(F_t), target)) / 2.

    Tsai et al. 2018, Eq. 1 to 5, whose critic judges predictions; this is the variant on features that the paper's
    table lists (its reference [44]), for which no code is published. lambda_adv is 0.001 (`weights.adversarial`,
    unconfirmed for features), D's optimiser Adam of rate 1e-4 (`critic.lr`) and betas 0.9 and 0.99. A mask of the
    target is not used: each of D's scores sees a large part of the image.
    """

    betas: ClassVar[tuple[float, float]] = (0.9, 0.99)

    def __init__(self, config: Config, num_classes: int, channels: int) -> None:
        super().__init__(config, num_classes, channels)
        self.critic = critics.FeatureCritic(channels)

    def terms(self, network: Network, source: LabelledBatch, target: UnlabelledBatch | None) -> dict[str, Tensor]:
        """Return `cross_entropy`, `adversarial` (for the network alone) and `critic` (for the critic alone)."""
        assert target is not None
        outputs = self.both_images(network, source.image, target.image)
        with self.in_precision(source.image):
            fooling = critics.frozen(self.critic, outputs[1].features)
            judged = [self.critic(output.features.detach()) for output in outputs]
        return {
            "cross_entropy": cross_entropy(upsample(outputs[0].logits, source.labels.shape[-2:]), source.labels),
            "adversarial": critics.domain_loss(fooling, critics.SOURCE),
            "critic": critics.critic_loss(*judged),
        }


class SAPNet(_Adversarial):
    """L_CE(source) + lambda_adv L_D, where L_D = (BCE(D(F_s), source) + BCE(D(F_t), target)) / 2, reversed before F.

    D learns to tell the domains, and the encoder, whose gradient is reversed, to hide them (Li et al. 2020, Eq. 5
    to 7). lambda_adv is 0.1 (`weights.adversarial`), D's optimiser Adam of rate 1e-5 (`critic.lr`): both from
    detection, ours for segmentation. A mask of the target is not used.
    """

    def __init__(self, config: Config, num_classes: int, channels: int) -> None:
        super().__init__(config, num_classes, channels)
        self.critic = critics.PyramidCritic(channels, num_classes)

    def terms(self, network: Network, source: LabelledBatch, target: UnlabelledBatch | None) -> dict[str, Tensor]:
        """Return `cross_entropy` and `adversarial`, which trains network and critic against one another."""
        assert target is not None
        outputs = self.both_images(network, source.image, target.image)
        with self.in_precision(source.image):
            features = torch.cat([output.features for output in outputs])
            logits = torch.cat([output.logits for output in outputs])
            # one batch: its statistics are of both domains
            scores = self.critic(critics.reverse_gradient(features), logits)
        of_source, of_target = scores.split([len(output.logits) for output in outputs])
        return {
            "cross_entropy": cross_entropy(upsample(outputs[0].logits, source.labels.shape[-2:]), source.labels),
            "adversarial": critics.critic_loss(of_source, of_target),
        }
