"""Distribution alignment: the teacher's class frequencies are held to those the network learnt from labels.

Without it self-training feeds on itself: a class that is predicted a little too often is predicted ever more often (on
the real pair building swallows tree). It works on logits, as everything does that corrects the teacher.
"""

import torch
from torch import Tensor, nn

from lsr_train.distributed import all_reduce_sum
from lsr_train.latent.moments import lifted

__all__ = ["DistributionAlignment"]


class DistributionAlignment(nn.Module):
    """Multiply probabilities by prior / marginal (ReMixMatch, Berthelot et al. 2020), as a term added to the logits.

    The prior is a running share of each class among source labels, the marginal one among the teacher's probabilities
    on the target; both live in buffers and move with each call in training mode. What is brought to the prior is the
    mean probability of each class: ReMixMatch trains on such soft guesses. Whoever takes the argmax afterwards still
    gives rare classes fewer pixels than the prior has (measured on streets -> CamVid: pole .0012 of the pixels, with a
    prior of .0168 and an aligned mean probability of .0123).

    Args:
        num_classes: C.
        strength: exponent of the ratio, in [0, 1]; 1 aligns wholly, 0 not at all.
        decay: share of the previous estimate, in [0, 1), to which it rises from 0: the first batches count alike,
            so that one of them that lacks a rare class does not stay in the estimate for long.

    Raises:
        ValueError: a number is out of range.
    """

    prior: Tensor
    marginal: Tensor
    batches: Tensor

    LEAST = 1e-4
    """Shares below this count as this, so that every ratio is finite. Ours."""

    def __init__(self, num_classes: int, *, strength: float = 1.0, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 <= strength <= 1 or not 0 <= decay < 1:
            raise ValueError(f"strength is {strength}, allowed: [0, 1]; decay is {decay}, allowed: [0, 1)")
        self.strength, self.decay = strength, decay
        self.register_buffer("prior", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("marginal", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, labels: Tensor, logits: Tensor, mask: Tensor | None = None) -> Tensor:
        """Take in a batch and return what to add to its logits.

        Args:
            labels: source labels [B,H,W] int64, 255 for void.
            logits: the teacher's on the target [B,C,h,w].
            mask: [B,h,w] bool, true where a target cell counts; None means everywhere.

        Returns:
            [1,C,1,1]: strength * log(prior / marginal).
        """
        num_classes = self.prior.shape[0]
        if self.training:
            bins = torch.where((labels >= 0) & (labels < num_classes), labels, num_classes).flatten()
            probabilities = logits.to(lifted(logits.dtype)).softmax(dim=1)
            counts = probabilities.new_zeros(num_classes + 1)
            counts = counts.scatter_add(0, bins, torch.ones_like(bins, dtype=counts.dtype))[:num_classes]
            if mask is not None:
                probabilities = probabilities * mask[:, None]
            self._move(counts, probabilities.sum(dim=(0, 2, 3)))
        ratio = self.prior.clamp(min=self.LEAST) / self.marginal.clamp(min=self.LEAST)
        return (self.strength * ratio.log()).view(1, -1, 1, 1)

    def _move(self, labels: Tensor, probabilities: Tensor) -> None:
        """Average in what all ranks saw: [C] label counts and [C] sums of probabilities."""
        sums = all_reduce_sum(torch.stack([labels, probabilities]))
        totals = sums.sum(dim=1, keepdim=True)
        shares = sums / totals.clamp(min=1e-12)
        keep = (1 - 1 / (self.batches + 1)).clamp(max=self.decay)
        usable = (totals > 0).all()  # a batch without a label or without a cell says nothing
        old = torch.stack([self.prior, self.marginal])
        moved = torch.where(usable, keep * old + (1 - keep) * shares, old)
        self.prior, self.marginal = moved.to(old.dtype).unbind()
        self.batches = self.batches + usable
