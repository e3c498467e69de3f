"""Prototype-rectified labels: the teacher's opinion, weighed by how near its feature lies to each class's prototype.

After ProDA (Zhang et al. 2021), with cosines in place of distances. It works on logits: a product of softmaxes is a sum
of logits.
"""

import math

import torch
from torch import Tensor, nn

from lsr_train.latent.directions import mean_directions, prototype_cosines
from lsr_train.latent.prototypes import Prototypes

__all__ = ["Rectifier"]


class Rectifier(nn.Module):
    """Class prototypes of the teacher's target features, and the correction they give.

    Args:
        num_classes: C.
        channels: K.
        temperature: divides the cosines, above 0; smaller trusts the prototypes more.
        decay: of the prototypes, in [0, 1).

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, num_classes: int, channels: int, *, temperature: float = 0.1, decay: float = 0.99) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; allowed: above 0")
        self.temperature = temperature
        self.prototypes = Prototypes(num_classes, channels, decay)

    @torch.no_grad()
    def correction(self, features: Tensor) -> Tensor:
        """Return what to add to the teacher's logits, [B,C,h,w]: log softmax of cosine / temperature.

        A class without a prototype yet gets the mean weight of the others, which neither helps nor hinders it.

        Args:
            features: the teacher's on the target [B,K,h,w].
        """
        seen = self.prototypes.seen[:, None, None]
        scores = prototype_cosines(features, self.prototypes.mean) / self.temperature  # [B,C,h,w]
        scores = torch.where(seen, scores, -math.inf)
        total = scores.logsumexp(dim=1, keepdim=True)  # -inf where no class is seen
        weights = torch.where(seen, scores - total, -self.prototypes.seen.sum().clamp(min=1).log())
        return torch.where(self.prototypes.seen.any(), weights, 0)

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Take in a batch of the teacher's features; in `eval()` nothing moves.

        Args:
            features: [B,K,h,w].
            labels: cell labels [B,h,w] int64, 255 where the teacher is not sure.
        """
        self.prototypes.move(*mean_directions(features, labels, self.prototypes.mean.shape[0]))
