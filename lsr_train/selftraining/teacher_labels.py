"""Labels pixels with a teacher's argmax, weights the labels, and corrects the teacher's logits before.

Distribution alignment holds the teacher's class frequencies to those the network learnt from labels. Without it
self-training feeds on itself: a class that is predicted a little too often is predicted ever more often (on the real
pair building swallows tree). Rectification (after ProDA, Zhang et al. 2021, with cosines in place of distances) weighs
the teacher's classes by how near its feature lies to their prototypes.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lsr_infer.labelspace import IGNORE_INDEX
from lsr_train.distributed import all_reduce_sum
from lsr_train.latent.cells import compute_dtype, void_last
from lsr_train.latent.directional import mean_directions, prototype_cosines
from lsr_train.latent.prototypes import Prototypes
from lsr_train.latent.pseudo_labels import peaks
from lsr_train.losses.pixel import upsample

Weighting = Literal["fraction", "confident", "all"]


class PixelLabels(NamedTuple):
    """Labels and weights of the pixels of a batch.

    Args:
        labels: [B,H,W] int64, 0..C-1, or 255 where a pixel does not count.
        weight: [B,H,W] float32 in [0, 1], 0 where a pixel does not count.
        probability: [B,H,W] float32, the teacher's of that label; 0 where a pixel does not count.
    """

    labels: Tensor
    weight: Tensor
    probability: Tensor

    @property
    def counts(self) -> Tensor:
        """Which pixels count, [B,H,W] bool."""
        return self.labels != IGNORE_INDEX


@torch.no_grad()
def teacher_labels(
    logits: Tensor,
    size: tuple[int, int],
    threshold: float = 0.968,
    *,
    weighting: Weighting = "fraction",
    mask: Tensor | None = None,
) -> PixelLabels:
    """Label every pixel with the teacher's argmax.

    Args:
        logits: the teacher's, corrected or not, [B,C,h,w], any floating type.
        size: (H, W) of the image.
        threshold: a pixel is confident where its peak probability is above it.
        weighting: `fraction` gives every pixel the share of the confident ones in the batches of all ranks (as DACS,
            Tranheden et al. 2021), `confident` 1 to the confident ones and 0 to the others, `all` 1 to every pixel.
        mask: [B,H,W] bool, true where a pixel counts; None means everywhere.
    """
    if weighting not in ("fraction", "confident", "all"):
        raise ValueError(f"weighting is {weighting!r}; allowed: fraction, confident, all")
    labels, probability = peaks(upsample(logits, size))  # [B,H,W] both
    counts = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask
    probability = torch.where(counts, probability, 0)
    confident = probability > threshold
    if weighting == "confident":
        weight = confident.float()
    elif weighting == "all":
        weight = counts.float()
    else:
        sure, total = all_reduce_sum(torch.stack([confident.sum(), counts.sum()]))
        weight = counts * (sure / total.clamp(min=1))
    return PixelLabels(torch.where(counts, labels, IGNORE_INDEX), weight, probability)


@torch.no_grad()
def pixel_means(**maps: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Average maps over pixels of all ranks, in one message; 0 where no pixel counts.

    Args:
        maps: by name, values [B,H,W], 0 where they do not count, and [B,H,W] bool, true where they do.
    """
    sums = [[part.sum(dtype=torch.float64) for part in pair] for pair in maps.values()]
    values, pixels = all_reduce_sum(torch.stack([torch.stack(pair, dim=0) for pair in sums], dim=1))
    return dict(zip(maps, values / pixels.clamp(min=1), strict=True))


class _Alignment(nn.Module):
    """State that both ways to align share: a strength, a decay, running shares [C] in buffers, and the batches seen."""

    prior: Tensor
    batches: Tensor

    LEAST = 1e-4
    """Shares below this count as this, so that every ratio is finite. Ours."""

    def __init__(self, num_classes: int, strength: float, decay: float, shares: tuple[str, ...]) -> None:
        super().__init__()
        if not 0 <= strength <= 1 or not 0 <= decay < 1:
            raise ValueError(f"strength is {strength}, allowed: [0, 1]; decay is {decay}, allowed: [0, 1)")
        self.strength, self.decay = strength, decay
        for name in ("prior", *shares):
            self.register_buffer(name, torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def _floored(self, shares: Tensor) -> Tensor:
        return shares.clamp(min=self.LEAST)


class DistributionAlignment(_Alignment):
    """Multiply probabilities by prior / marginal (ReMixMatch, Berthelot et al. 2020), as a term added to the logits.

    The prior is a running share of each class among source labels, the marginal one among the teacher's probabilities
    on the target; both live in buffers and move with each call in training mode. What is brought to the prior is the
    mean probability of each class: ReMixMatch trains on such soft guesses. Whoever takes the argmax afterwards still
    gives rare classes fewer pixels than the prior has (measured on streets -> CamVid: pole 0.0012 of the pixels, with a
    prior of 0.0168 and an aligned mean probability of 0.0123); `LabelAlignment` holds the argmax itself.

    Args:
        num_classes: C.
        strength: exponent of the ratio, in [0, 1]; 1 aligns wholly, 0 not at all.
        decay: share of the previous estimate, in [0, 1), to which it rises from 0: the first batches count alike,
            so that one of them that lacks a rare class does not stay in the estimate for long.
    """

    marginal: Tensor

    def __init__(self, num_classes: int, *, strength: float = 1.0, decay: float = 0.99) -> None:
        super().__init__(num_classes, strength, decay, ("marginal",))

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
            probabilities = logits.to(compute_dtype(logits.dtype)).softmax(dim=1)
            if mask is not None:
                probabilities = probabilities * mask[:, None]
            counts = _counts(labels, num_classes, probabilities.dtype)
            self._move(all_reduce_sum(torch.stack([counts, probabilities.sum(dim=(0, 2, 3))])))
        ratio = self._floored(self.prior) / self._floored(self.marginal)
        return (self.strength * ratio.log()).view(1, -1, 1, 1)

    def _move(self, sums: Tensor) -> None:
        """Average in what all ranks saw [2,C]: counts of labels and sums of probabilities."""
        totals = sums.sum(dim=1, keepdim=True)
        shares = sums / totals.clamp(min=1e-12)
        keep = (1 - 1 / (self.batches + 1)).clamp(max=self.decay)
        usable = (totals > 0).all()  # a batch without a label or without a cell does not count
        old = torch.stack([self.prior, self.marginal])
        moved = torch.where(usable, keep * old + (1 - keep) * shares, old)
        self.prior, self.marginal = moved.to(old.dtype).unbind()
        self.batches = self.batches + usable


class LabelAlignment(_Alignment):
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
        guarded: q are the shares that the teacher begins with, kept from then on, and the strength falls with the total
            variation between p and q: a simulator whose class shares are not those of the road has no say. (EM by
            Saerens et al. 2002 estimates a target's shares, too; on streets -> CamVid, where classes also look
            different, it gave pole 0.20 to 0.49 of the pixels, of which the teacher gives it 0.01.)
    """

    own: Tensor
    aligned: Tensor
    offset: Tensor

    RATE = 0.05
    """Largest step of an offset; the first steps are larger. Ours, not tuned."""
    DECAY = 0.95
    """Of the running shares of the aligned labels: short, so that the last step shows soon. Ours, not tuned."""
    LEAK = 0.005
    """Share of an offset that is lost at each step, so that it ends where log(wanted / found) is LEAK / RATE of it:
    the further the teacher is from the prior, the less it is held to it, and nothing winds up where offsets change no
    label. Ours, not tuned."""
    FARTHEST = 3.0
    """Offsets stay within it: a class of which the footage has nothing is not called up at any price. Ours."""
    BEGINNING = 100
    """Batches that tell what the teacher begins with. Ours."""
    ALIKE, UNLIKE = 0.12, 0.2
    """Total variation up to which the strength is whole, and from which on it is nothing. Ours: between streets and the
    labels of one source network it was 0.09 on CamVid, 0.11 on IDD, where the agreement with the mirrored frame is
    better at the whole strength (no label was asked), and 0.29 on a highway, where it must be nothing."""

    def __init__(self, num_classes: int, *, strength: float = 1.0, decay: float = 0.99, guarded: bool = False) -> None:
        super().__init__(num_classes, strength, decay, ("own", "aligned"))
        self.guarded = guarded
        self.register_buffer("offset", torch.zeros(num_classes))

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
            num_classes, exact = self.prior.shape[0], compute_dtype(logits.dtype)
            counts = [_counts(labels, num_classes, exact)]
            offered = [logits + self.offset.view(1, -1, 1, 1)]
            if self.strength < 1 or self.guarded:  # else nothing reads the teacher's own shares
                offered.append(logits)
            for scores in offered:
                found = scores.max(dim=1).indices  # several times as fast as argmax on a CPU
                counts.append(_counts(found if mask is None else found.where(mask, num_classes), num_classes, exact))
            self._move(all_reduce_sum(torch.stack(counts)))
        return self.offset.view(1, -1, 1, 1)

    @property
    def effective_strength(self) -> Tensor:
        """The strength that acts, a scalar: where `guarded`, the less the more the shares of both domains differ."""
        full = self.prior.new_tensor(self.strength)
        if not self.guarded:
            return full
        distance = (self.prior - self.own).abs().sum() / 2
        return full * ((self.UNLIKE - distance) / (self.UNLIKE - self.ALIKE)).clamp(0, 1)

    def _move(self, counts: Tensor) -> None:
        """Take in what all ranks saw [2 or 3,C]: source labels, aligned labels and, where read, the teacher's own."""
        totals = counts.sum(dim=1, keepdim=True)
        usable = (totals > 0).all()  # a batch without a label or without a pixel does not count
        shares = counts / totals.clamp(min=1)
        keep = (1 - 1 / (self.batches + 1)).clamp(max=self.decay)
        keep_own = (1 - 1 / (self.batches + 1)).where(self.batches < self.BEGINNING, 1) if self.guarded else keep
        for name, share, kept in zip(
            ("prior", "aligned", "own"), shares, (keep, keep.clamp(max=self.DECAY), keep_own), strict=False
        ):
            old = getattr(self, name)
            setattr(self, name, torch.where(usable, kept * old + (1 - kept) * share, old).to(old.dtype))
        strength = self.effective_strength
        wanted = self._floored(self.prior) ** strength * self._floored(self.own) ** (1 - strength)
        wanted = wanted / wanted.sum()
        lacks = (wanted / self._floored(self.aligned)).log().clamp(-1, 1)
        lacks = torch.where(self.prior > 0, lacks, lacks.clamp(max=0))  # what the source never shows is not called up
        offset = (1 - self.LEAK) * self.offset + (0.5 / (self.batches + 1)).clamp(min=self.RATE) * lacks
        offset = (offset - (wanted * offset).sum()).clamp(-self.FARTHEST, self.FARTHEST)
        self.offset = torch.where(usable, offset, self.offset).to(self.offset.dtype)
        self.batches = self.batches + usable


def _counts(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Count the pixels of each class [C]; labels outside 0..C-1 count nowhere."""
    bins = void_last(labels, num_classes).flatten()
    counts = torch.zeros(num_classes + 1, dtype=torch.int64, device=labels.device)  # float32 would stop at 2^24
    return counts.scatter_add(0, bins, torch.ones_like(bins))[:num_classes].to(dtype)


class Rectifier(nn.Module):
    """Class prototypes of the teacher's target features, and the correction they give.

    Args:
        num_classes: C.
        channels: K.
        temperature: divides the cosines, above 0; smaller trusts the prototypes more.
        decay: of the prototypes, in [0, 1).
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
        """
        seen = self.prototypes.seen[:, None, None]
        scores = prototype_cosines(features, self.prototypes.mean) / self.temperature  # [B,C,h,w]
        scores = torch.where(seen, scores, -math.inf)
        total = scores.logsumexp(dim=1, keepdim=True)  # -inf where no class is seen
        weights = torch.where(seen, scores - total, -self.prototypes.seen.sum().clamp(min=1).log())
        return torch.where(self.prototypes.seen.any(), weights, 0)

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Take in a batch of the teacher's features, with cell labels; in `eval()` nothing moves."""
        self.prototypes.move(*mean_directions(features, labels, self.prototypes.mean.shape[0]))
