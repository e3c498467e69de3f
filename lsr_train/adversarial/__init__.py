"""Trains critics that tell the domain of encoder features, and features against them."""

from lsr_train.adversarial.critics import FeatureCritic, PyramidCritic
from lsr_train.adversarial.domain import SOURCE, TARGET, domain_loss, frozen, reverse_gradient

__all__ = ["SOURCE", "TARGET", "FeatureCritic", "PyramidCritic", "domain_loss", "frozen", "reverse_gradient"]
