"""Critics that tell the domain of encoder features, and what trains against them. They know no method and no step."""

from lsr_train.adversarial.critics import FeatureCritic, PyramidCritic
from lsr_train.adversarial.domain import SOURCE, TARGET, domain_loss, frozen, reverse_gradient

__all__ = ["SOURCE", "TARGET", "FeatureCritic", "PyramidCritic", "domain_loss", "frozen", "reverse_gradient"]
