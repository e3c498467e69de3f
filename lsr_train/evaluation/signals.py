"""Signals that judge a network on unlabelled frames; the frames have no label field.

A network's training mode is put back as it was.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from lsr_infer.labelspace import IGNORE_INDEX
from lsr_train.data.footage import TargetFrames
from lsr_train.device import Precision
from lsr_train.evaluation.scores import SegmentationNetwork, classes_of, in_eval_mode, logits_of
from lsr_train.losses.pixel import upsample
from lsr_train.losses.softmax import peaks
from lsr_train.metrics import ConfusionMatrix, agreement, iou
from lsr_train.network import DeepLabV2, reestimate_batch_norm

__all__ = [
    "AGREEMENT_SCALES",
    "LOOK_BATCH",
    "ClassSignals",
    "CollapseWatch",
    "FlipResult",
    "FrameBatch",
    "Frames",
    "Signals",
    "flip_agreement",
    "label_free_signals",
    "mean_entropy",
    "nothing_selected",
    "scale_agreement",
    "take_target_statistics",
]

LOOK_BATCH = 8
"""Frames a forward in looks and statistics; ours, no result depends on it but the last bits."""


class Frames(Protocol):
    """Unlabelled frames of one size: `FrameBatch`, and the loader's unlabelled batches."""

    @property
    def frames(self) -> Tensor:
        """Uint8 [B,H,W,3], BGR."""
        ...

    @property
    def mask(self) -> Tensor | None:
        """Bool [B,H,W], true where a pixel counts; None means everywhere."""
        ...


class FrameBatch(NamedTuple):
    """The plain form of `Frames`."""

    frames: Tensor
    mask: Tensor | None = None


def take_target_statistics(network: DeepLabV2, frames: TargetFrames) -> str:
    """Give a network the batch-norm statistics of unlabelled target frames (AdaBN).

    Returns:
        A phrase that says so.
    """
    device = next(network.parameters()).device
    batches = frames.batches(LOOK_BATCH, whole=True)
    images: Iterator[Tensor] = (network.normalize(batch.to(device)) for batch, _ in batches)  # [B,3,H,W] each
    reestimate_batch_norm(network, images)
    return f"batch-norm re-estimated on {len(frames)} unlabelled target frames"


AGREEMENT_SCALES = (0.75,)
"""Scales that are compared with the frame as it is. Ours: .75 costs .6 of a forward more, 1.25 would cost 1.6."""


class _Look(NamedTuple):
    """A batch as the network sees it: image [B,3,H,W], mask, logits [B,C,h,w] and their class map [B,H,W]."""

    image: Tensor
    mask: Tensor | None
    logits: Tensor
    classes: Tensor


def _looks(network: SegmentationNetwork, batches: Iterable[Frames], precision: Precision) -> Iterator[_Look]:
    """Run the network over batches; the part that all signals share."""
    device = next(network.parameters()).device
    for batch in batches:
        image = network.normalize(batch.frames.to(device, non_blocking=True))  # [B,3,H,W]
        mask = None if batch.mask is None else batch.mask.to(device, non_blocking=True)
        logits = logits_of(network, image, precision)  # [B,C,h,w]
        yield _Look(image, mask, logits, classes_of(logits, (image.shape[2], image.shape[3])))


class _Comparison:
    """Counts of the plain prediction against other predictions of the same frames."""

    def __init__(self) -> None:
        self._confusion: ConfusionMatrix | None = None
        self.frames = 0

    def add(self, look: _Look, classes: Tensor) -> None:
        if self._confusion is None:
            self._confusion = ConfusionMatrix(look.logits.shape[1], look.logits.device)
        reference = look.classes if look.mask is None else look.classes.masked_fill(~look.mask, IGNORE_INDEX)
        self._confusion.update(reference, classes)
        self.frames += len(classes)

    @property
    def matrix(self) -> Tensor:
        if self._confusion is None:
            raise ValueError("there is no frame to compare predictions on")
        return self._confusion.matrix


class _Flip(_Comparison):
    """Compares with the prediction of the mirrored frame, mirrored back."""

    def observe(self, network: SegmentationNetwork, look: _Look, precision: Precision) -> None:
        mirrored = logits_of(network, look.image.flip(-1), precision).flip(-1)  # [B,C,h,w]
        self.add(look, classes_of(mirrored, (look.image.shape[2], look.image.shape[3])))


class _Scale(_Comparison):
    """Compares with the predictions of the frame at other sizes."""

    def __init__(self, scales: Sequence[float]) -> None:
        super().__init__()
        if not scales or not all(scale > 0 and scale != 1 for scale in scales):
            raise ValueError(f"scales are {tuple(scales)}; allowed: one or more positive factors other than 1")
        self.scales = tuple(scales)

    def observe(self, network: SegmentationNetwork, look: _Look, precision: Precision) -> None:
        H, W = look.image.shape[2:]
        for scale in self.scales:
            size = (max(1, round(H * scale)), max(1, round(W * scale)))
            image = functional.interpolate(look.image, size=size, mode="bilinear", antialias=scale < 1)
            self.add(look, classes_of(logits_of(network, image, precision), (H, W)))


class _Entropy:
    """Adds up the entropy of every pixel that counts."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None  # entropy, pixels

    def observe(self, network: SegmentationNetwork, look: _Look, precision: Precision) -> None:
        log_probabilities = upsample(look.logits, (look.image.shape[2], look.image.shape[3])).log_softmax(dim=1)
        entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=1)  # [B,H,W]
        weight = torch.ones_like(entropy) if look.mask is None else look.mask.to(entropy.dtype)
        share = entropy / max(math.log(look.logits.shape[1]), 1e-12)
        sums = torch.stack([(share * weight).sum(dtype=torch.float64), weight.sum(dtype=torch.float64)])
        self._sums = sums if self._sums is None else self._sums + sums

    @property
    def value(self) -> float:
        entropy, pixels = (0.0, 0.0) if self._sums is None else self._sums.tolist()
        if not pixels:
            raise ValueError("there is no pixel to take the entropy of")
        return float(entropy / pixels)


class _Classes:
    """Counts how many pixels each class is given, and adds up how sure the network is of them."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None  # pixels and probability of each class, [2,C+1] with one column for the rest

    def observe(self, network: SegmentationNetwork, look: _Look, precision: Precision) -> None:
        num_classes = look.logits.shape[1]
        found = peaks(upsample(look.logits, (look.image.shape[2], look.image.shape[3])))
        bins = found.labels if look.mask is None else found.labels.masked_fill(~look.mask, num_classes)
        values = torch.stack([torch.ones_like(found.probability), found.probability]).flatten(1).double()
        sums = values.new_zeros(2, num_classes + 1).index_add_(1, bins.flatten(), values)
        self._sums = sums if self._sums is None else self._sums + sums

    def value(self, flip: Tensor) -> "ClassSignals":
        if self._sums is None or not float(self._sums[0, :-1].sum()):
            raise ValueError("there is no pixel to count classes on")
        pixels, probability = self._sums[:, :-1].cpu()
        return ClassSignals(share=pixels / pixels.sum(), confidence=probability / pixels, flip=flip.cpu())


def _observe(
    network: SegmentationNetwork,
    batches: Iterable[Frames],
    precision: Precision,
    *signals: _Flip | _Scale | _Entropy | _Classes,
) -> None:
    """Show every signal every batch, in one pass."""
    with in_eval_mode(network):
        for look in _looks(network, batches, precision):
            for signal in signals:
                signal.observe(network, look, precision)


@dataclass(frozen=True, kw_only=True)
class FlipResult:
    """Outcome of `flip_agreement`.

    Args:
        value: flip-mIoU in [0,1], higher is better; divided by all C classes.
        iou: agreement of each class [C] float64; NaN where neither prediction has it.
        frames: how many frames were looked at.
    """

    value: float
    iou: Tensor
    frames: int


@dataclass(frozen=True, kw_only=True)
class ClassSignals:
    """What can be said about each class from unlabelled frames; float64 [C] on the CPU.

    Args:
        share: of the pixels that are given to the class; they sum to 1.
        confidence: mean probability of the class where it is given; NaN where it never is.
        flip: agreement with the mirrored frame's prediction, as `FlipResult.iou`.
    """

    share: Tensor
    confidence: Tensor
    flip: Tensor


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What can be said about a network from unlabelled frames.

    Args:
        flip: flip-mIoU in [0,1], higher is better.
        scale: mIoU between the predictions at scale 1 and at other scales, in [0,1], higher is better.
        entropy: mean entropy of the softmax as a share of log C, in [0,1], **lower** is more certain.
        frames: how many frames were looked at.
        classes: the same for each class.
    """

    flip: float
    scale: float
    entropy: float
    frames: int
    classes: ClassSignals

    def higher_is_better(self) -> dict[str, float]:
        """Return the signals by name with the entropy negated, so that the largest is the best for each."""
        return {"flip": self.flip, "scale": self.scale, "entropy": -self.entropy}


def flip_agreement(
    network: SegmentationNetwork, batches: Iterable[Frames], *, precision: Precision = "fp32"
) -> FlipResult:
    """Compare each prediction with that of the mirrored frame, mirrored back: the label-free signal.

    Over 49 checkpoints of the real pair its rank correlation with the true test mIoU was .80 (scale agreement .71,
    entropy .30).

    Args:
        network: put into evaluation mode meanwhile.
        batches: unlabelled frames at the size they are to be judged at; the last batch may be smaller.
        precision: of the network; the rest computes in float32.

    Raises:
        ValueError: there is no frame.
    """
    flip = _Flip()
    _observe(network, batches, precision, flip)
    matrix = flip.matrix
    return FlipResult(value=agreement(matrix), iou=iou(matrix), frames=flip.frames)


def scale_agreement(
    network: SegmentationNetwork,
    batches: Iterable[Frames],
    *,
    scales: Sequence[float] = AGREEMENT_SCALES,
    precision: Precision = "fp32",
) -> float:
    """Compare each prediction with those of the same frame at other scales.

    Args:
        network: put into evaluation mode meanwhile.
        batches: unlabelled frames.
        scales: factors of both sides; all pairs are counted into one matrix.
        precision: of the network.

    Returns:
        The mIoU between the two, divided by all C classes; in [0,1], higher is better.

    Raises:
        ValueError: there is no frame, or a scale is 1 or not positive.
    """
    scale = _Scale(scales)
    _observe(network, batches, precision, scale)
    return agreement(scale.matrix)


def mean_entropy(network: SegmentationNetwork, batches: Iterable[Frames], *, precision: Precision = "fp32") -> float:
    """Mean entropy of the softmax at full resolution, as a share of log C; in [0,1], lower is more certain.

    Args:
        network: put into evaluation mode meanwhile.
        batches: unlabelled frames.
        precision: of the network; softmax and entropy compute in float32.

    Raises:
        ValueError: there is no pixel that counts.
    """
    entropy = _Entropy()
    _observe(network, batches, precision, entropy)
    return entropy.value


def label_free_signals(
    network: SegmentationNetwork,
    batches: Iterable[Frames],
    *,
    scales: Sequence[float] = AGREEMENT_SCALES,
    precision: Precision = "fp32",
) -> Signals:
    """Compute all signals in one pass, which shares the plain forward; each equals what its own function returns.

    Args:
        network: put into evaluation mode meanwhile.
        batches: unlabelled frames.
        scales: of the scale agreement.
        precision: of the network.

    Raises:
        ValueError: there is no frame or no pixel that counts, or a scale is 1 or not positive.
    """
    flip, scale, entropy, classes = _Flip(), _Scale(scales), _Entropy(), _Classes()
    _observe(network, batches, precision, flip, scale, entropy, classes)
    return Signals(
        flip=agreement(flip.matrix),
        scale=agreement(scale.matrix),
        entropy=entropy.value,
        frames=flip.frames,
        classes=classes.value(iou(flip.matrix)),
    )


def nothing_selected(names: Sequence[str]) -> str:
    """Say of a run without a selected checkpoint which classes kept it from one, and what it has instead."""
    return f"no checkpoint was selected: {', '.join(names)} had collapsed; this is the last one"


class CollapseWatch:
    """Compares each class's share of the target's pixels with its share at the start.

    Args:
        names: of the classes.
        looks: so many looks in a row below the bar are "for long". Ours: one look in a row was passed by classes that
            came back.
    """

    FALLS_BELOW = 0.1
    """Of the share at the start."""
    LEAST_SHARE = 1e-3
    """Classes that start below this are not watched: their share is noise. Ours."""

    def __init__(self, names: Sequence[str], looks: int = 2) -> None:
        self.names, self.looks = tuple(names), looks
        self._start: list[float] | None = None
        self._low = [0] * len(self.names)
        self._said: set[str] = set()

    def begin(self, shares: Sequence[float]) -> None:
        """Take the shares [C] before the first step as what is compared with."""
        self._start = list(shares)

    def observe(self, shares: Sequence[float]) -> tuple[str, ...]:
        """Take in the shares [C] of a look.

        Returns:
            Classes that have now been low for long and were not returned since they last were well.
        """
        if self._start is None:
            return ()
        new = []
        for place, (name, start, share) in enumerate(zip(self.names, self._start, shares, strict=True)):
            low = start >= self.LEAST_SHARE and share < self.FALLS_BELOW * start
            self._low[place] = self._low[place] + 1 if low else 0
            if not low:
                self._said.discard(name)
            if self._low[place] >= self.looks and name not in self._said:
                self._said.add(name)
                new.append(name)
        return tuple(new)

    @property
    def low(self) -> tuple[str, ...]:
        """Classes that were low at the last look."""
        return tuple(name for name, count in zip(self.names, self._low, strict=True) if count)

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain data."""
        return {"start": self._start, "low": self._low, "said": sorted(self._said)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        self._start = None if state["start"] is None else [float(share) for share in state["start"]]
        self._low = [int(count) for count in state["low"]]
        self._said = set(state["said"])
