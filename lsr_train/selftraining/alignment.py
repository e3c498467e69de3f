"""Distribution alignment: the teacher's class frequencies are held to those the network learnt from labels.

Without it self-training feeds on itself: a class that is predicted a little too often is predicted ever more often (on
the real pair building swallows tree). It works on logits, as everything does that corrects the teacher. Two ways: the
frequencies that are held can be those of the teacher's probabilities or those of its labels.
"""

import torch
from torch import Tensor, nn

from lsr_train.distributed import all_reduce_sum
from lsr_train.latent.moments import lifted

__all__ = ["DistributionAlignment", "LabelAlignment"]


class DistributionAlignment(nn.Module):
    """Multiply probabilities by prior / marginal (ReMixMatch, Berthelot et al. 2020), as a term added to the logits.

    The prior is a running share of each class among source labels, the marginal one among the teacher's probabilities
    on the target; both live in buffers and move with each call in training mode. What is brought to the prior is the
    mean probability of each class: ReMixMatch trains on such soft guesses. Whoever takes the argmax afterwards still
    gives rare classes fewer pixels than the prior has (measured on streets -> CamVid: pole .0012 of the pixels, with a
    prior of .0168 and an aligned mean probability of .0123); `LabelAlignment` holds the argmax itself.

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
            probabilities = logits.to(lifted(logits.dtype)).softmax(dim=1)
            if mask is not None:
                probabilities = probabilities * mask[:, None]
            counts = _counts(labels, num_classes, probabilities.dtype)
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


class LabelAlignment(nn.Module):
    """Add to the logits what gives the teacher's *labels*, its argmax, the prior's shares.

    One offset a class, moved after each batch by the logarithm of wanted over found share: stochastic ascent on the
    dual of the assignment of pixels to classes of given sizes, which Asano et al. 2020 solve for a whole data set at
    once by Sinkhorn's algorithm. The step's form is ours. All shares are running ones, so that a class that comes in
    bursts is not taken for a rare one; the offsets' mean, weighted by the wanted shares, is kept at 0, since what they
    have in common changes no label.

    Args:
        num_classes: C.
        strength: in [0, 1]; 1 holds the labels to the prior p, 0 to the teacher's own running shares q, between them to
            p^strength q^(1 - strength), made to sum to 1.
        decay: share of the previous running shares of prior and teacher, in [0, 1), to which it rises from 0.

    Raises:
        ValueError: a number is out of range.
    """

    prior: Tensor
    own: Tensor
    aligned: Tensor
    offset: Tensor
    batches: Tensor

    RATE = 0.05
    """Largest step of an offset; the first steps are larger. Ours, not tuned."""
    DECAY = 0.95
    """Of the running shares of the aligned labels: what the last step did shall soon be seen. Ours, not tuned."""
    LEAK = 0.005
    """Share of an offset that is lost at each step, so that it ends where log(wanted / found) is LEAK / RATE of it:
    the further the teacher is from the prior, the less it is held to it, and nothing winds up where offsets change no
    label. Ours, not tuned."""
    FARTHEST = 3.0
    """Offsets stay within it: a class of which the footage has nothing is not called up at any price. Ours."""

    def __init__(self, num_classes: int, *, strength: float = 1.0, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 <= strength <= 1 or not 0 <= decay < 1:
            raise ValueError(f"strength is {strength}, allowed: [0, 1]; decay is {decay}, allowed: [0, 1)")
        self.strength, self.decay = strength, decay
        for name in ("prior", "own", "aligned"):
            self.register_buffer(name, torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("offset", torch.zeros(num_classes))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, labels: Tensor, logits: Tensor, mask: Tensor | None = None) -> Tensor:
        """Take in a batch and return what to add to its logits.

        Args:
            labels: source labels [B,H,W] int64, 255 for void, and wherever a target pixel would not count.
            logits: the teacher's on the target [B,C,H,W], at the size at which they are labelled.
            mask: [B,H,W] bool, true where a target pixel counts; None means everywhere.

        Returns:
            [1,C,1,1].
        """
        if self.training:
            num_classes, exact = self.prior.shape[0], lifted(logits.dtype)
            counts = [_counts(labels, num_classes, exact)]
            looks = [logits + self.offset.view(1, -1, 1, 1)]
            if self.strength < 1:  # else nothing reads the teacher's own shares
                looks.append(logits)
            for seen in looks:
                found = seen.max(dim=1).indices  # several times as fast as argmax on a CPU
                counts.append(_counts(found if mask is None else found.where(mask, num_classes), num_classes, exact))
            self._move(all_reduce_sum(torch.stack(counts)))
        return self.offset.view(1, -1, 1, 1)

    def _move(self, counts: Tensor) -> None:
        """Take in what all ranks saw [2 or 3,C]: source labels, aligned labels and, where read, the teacher's own."""
        totals = counts.sum(dim=1, keepdim=True)
        usable = (totals > 0).all()  # a batch without a label or without a pixel says nothing
        shares = counts / totals.clamp(min=1)
        keep = (1 - 1 / (self.batches + 1)).clamp(max=self.decay)
        for name, share, kept in zip(
            ("prior", "aligned", "own"), shares, (keep, keep.clamp(max=self.DECAY), keep), strict=False
        ):
            old = getattr(self, name)
            setattr(self, name, torch.where(usable, kept * old + (1 - kept) * share, old).to(old.dtype))
        wanted = _floored(self.prior) ** self.strength * _floored(self.own) ** (1 - self.strength)
        wanted = wanted / wanted.sum()
        lacks = (wanted / _floored(self.aligned)).log().clamp(-1, 1)
        lacks = torch.where(self.prior > 0, lacks, lacks.clamp(max=0))  # what the source never shows is not called up
        offset = (1 - self.LEAK) * self.offset + (0.5 / (self.batches + 1)).clamp(min=self.RATE) * lacks
        offset = (offset - (wanted * offset).sum()).clamp(-self.FARTHEST, self.FARTHEST)
        self.offset = torch.where(usable, offset, self.offset).to(self.offset.dtype)
        self.batches = self.batches + usable


def _counts(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Count the pixels of each class [C]; labels outside 0..C-1 count nowhere."""
    bins = torch.where((labels >= 0) & (labels < num_classes), labels, num_classes).flatten()
    counts = torch.zeros(num_classes + 1, dtype=torch.int64, device=labels.device)  # float32 would stop at 2^24
    return counts.scatter_add(0, bins, torch.ones_like(bins))[:num_classes].to(dtype)


def _floored(shares: Tensor) -> Tensor:
    """Return shares of at least `LEAST`."""
    return shares.clamp(min=DistributionAlignment.LEAST)
