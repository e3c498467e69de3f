"""Judges a network on unlabelled frames: agreement with mirrored and scaled frames, entropy, and each class's share.

The frames have no label field. A network's training mode is put back as it was.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lsr_infer.labelspace import IGNORE_INDEX
from lsr_train.data.footage import TargetFrames
from lsr_train.data.samples import UnlabelledBatch
from lsr_train.device import Precision
from lsr_train.evaluation.scores import SegmentationNetwork, classes_of, in_eval_mode, logits_of
from lsr_train.latent.pseudo_labels import peaks
from lsr_train.losses.pixel import upsample
from lsr_train.metrics import ConfusionMatrix, agreement, iou
from lsr_train.network import DeepLabV2, reestimate_batch_norm

__all__ = [
    "AGREEMENT_SCALES", "SIGNAL_BATCH", "ClassSignals", "CollapseWatch", "Signals", "estimate_target_statistics",
    "label_free_signals", "nothing_selected",
]  # fmt: skip

SIGNAL_BATCH = 8
"""Frames a forward in signals and statistics; ours, no result depends on it but the last bits."""
AGREEMENT_SCALES = (0.75,)
"""Scales that are compared with the frame as it is. Ours: 0.75 costs 0.6 of a forward more, 1.25 would cost 1.6."""


@dataclass(frozen=True, kw_only=True)
class ClassSignals:
    """Signals of each class from unlabelled frames; float64 [C] on the CPU.

    Args:
        share: of the pixels that are given to the class; they sum to 1.
        confidence: mean probability of the class where it is given; NaN where it never is.
        flip: IoU with the mirrored frame's prediction; NaN where neither prediction has the class.
    """

    share: Tensor
    confidence: Tensor
    flip: Tensor


@dataclass(frozen=True, kw_only=True)
class Signals:
    """Signals of a network from unlabelled frames.

    Over 28 checkpoints of the real pair the rank correlation of `flip` with the true test mIoU is 0.63, of `scale` 0.69
    and of `entropy` 0.11 (tests/benchmarks/selection_ranking.py).

    Args:
        flip: mIoU between the prediction and that of the mirrored frame, mirrored back, divided by all C classes; in
            [0,1], higher is better.
        scale: mIoU between the predictions at scale 1 and at other scales, in [0,1], higher is better.
        entropy: mean entropy of the softmax at full resolution as a share of log C, in [0,1], **lower** is more
            certain.
        frames: how many frames were evaluated.
    """

    flip: float
    scale: float
    entropy: float
    frames: int
    classes: ClassSignals

    def higher_is_better(self) -> dict[str, float]:
        """Return the signals by name with the entropy negated, so that the largest is the best for each."""
        return {"flip": self.flip, "scale": self.scale, "entropy": -self.entropy}


class _Sums:
    """Sums over all batches; nothing in them waits for the device."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.flip, self.scale = ConfusionMatrix(num_classes, device), ConfusionMatrix(num_classes, device)
        self.entropy = torch.zeros(2, dtype=torch.float64, device=device)  # sum, pixels
        # Pixels and probability of each class, with one column for the rest.
        self.classes = torch.zeros(2, num_classes + 1, dtype=torch.float64, device=device)
        self.frames = 0

    def add_agreement(
        self, network: SegmentationNetwork, batch: UnlabelledBatch, logits: Tensor, scales: Sequence[float],
        precision: Precision,
    ) -> None:  # fmt: skip
        """Compare the prediction with those of the mirrored and the scaled frames; logits [B,C,h,w]."""
        H, W = batch.image.shape[2:]
        plain = classes_of(logits, (H, W))  # [B,H,W]
        if batch.mask is not None:
            plain = plain.masked_fill(~batch.mask, IGNORE_INDEX)
        mirrored = logits_of(network, batch.image.flip(-1), precision).flip(-1)  # [B,C,h,w]
        self.flip.update(plain, classes_of(mirrored, (H, W)))
        for scale in scales:
            size = (max(1, round(H * scale)), max(1, round(W * scale)))
            image = functional.interpolate(batch.image, size=size, mode="bilinear", antialias=scale < 1)
            self.scale.update(plain, classes_of(logits_of(network, image, precision), (H, W)))

    def add_certainty(self, batch: UnlabelledBatch, logits: Tensor) -> None:
        """Add the entropy and the class of every pixel that counts; logits [B,C,h,w]."""
        H, W = batch.image.shape[2:]
        log_probabilities = upsample(logits, (H, W)).log_softmax(dim=1)
        entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=1)  # [B,H,W]
        del log_probabilities  # the largest tensor here, and it is needed no more
        weight = torch.ones_like(entropy) if batch.mask is None else batch.mask.to(entropy.dtype)
        share = entropy / max(math.log(logits.shape[1]), 1e-12)
        self.entropy += torch.stack([(share * weight).sum(dtype=torch.float64), weight.sum(dtype=torch.float64)])
        found = peaks(upsample(logits, (H, W)))
        bins = found.labels if batch.mask is None else found.labels.masked_fill(~batch.mask, logits.shape[1])
        values = torch.stack([torch.ones_like(found.probability), found.probability]).flatten(1).double()
        self.classes += torch.zeros_like(self.classes).index_add_(1, bins.flatten(), values)

    def signals(self) -> Signals:
        """Return what the sums come to."""
        total, counted = self.entropy.tolist()
        if not counted:
            raise ValueError("there is no pixel that counts to take signals of")
        pixels, probability = self.classes[:, :-1].cpu()
        flip = iou(self.flip.matrix).cpu()
        return Signals(
            flip=agreement(self.flip.matrix),
            scale=agreement(self.scale.matrix),
            entropy=total / counted,
            frames=self.frames,
            classes=ClassSignals(share=pixels / pixels.sum(), confidence=probability / pixels, flip=flip),
        )


def label_free_signals(
    network: SegmentationNetwork,
    batches: Iterable[UnlabelledBatch],
    *,
    scales: Sequence[float] = AGREEMENT_SCALES,
    precision: Precision = "fp32",
) -> Signals:
    """Compute all signals in one pass over unlabelled frames, which are on the CPU and of the size to be judged at.

    All pairs of scales are counted into one matrix. Only the network computes in `precision`.

    Raises:
        ValueError: there is no frame or no pixel that counts, or a scale is 1 or not positive.
    """
    if not scales or not all(scale > 0 and scale != 1 for scale in scales):
        raise ValueError(f"scales are {tuple(scales)}; allowed: one or more positive factors other than 1")
    device = next(network.parameters()).device
    sums: _Sums | None = None
    with in_eval_mode(network):
        for raw in batches:
            batch = raw.on(device, network.normalize)
            logits = logits_of(network, batch.image, precision)  # [B,C,h,w]
            sums = _Sums(logits.shape[1], device) if sums is None else sums
            sums.add_agreement(network, batch, logits, scales, precision)
            sums.add_certainty(batch, logits)
            sums.frames += len(batch.image)
    if sums is None:
        raise ValueError("there is no frame to take signals of")
    return sums.signals()


def estimate_target_statistics(network: DeepLabV2, frames: TargetFrames) -> str:
    """Give a network the batch-norm statistics of unlabelled target frames (AdaBN), and return a phrase on it."""
    device = next(network.parameters()).device
    batches = frames.batches(SIGNAL_BATCH, whole=True, what="batch-norm of the target")
    reestimate_batch_norm(network, (batch.on(device, network.normalize).image for batch in batches))
    return f"batch-norm re-estimated on {len(frames)} unlabelled target frames"


def nothing_selected(names: Sequence[str]) -> str:
    """Say of a run without a selected checkpoint which classes kept it from one, and what it has instead."""
    return f"no checkpoint was selected: {', '.join(names)} had collapsed; this is the last one"


class CollapseWatch:
    """Compares each class's share of the target's pixels with its share at the start.

    Self-training can drop a class for another without any loss rising. What it cannot hide is the share of the target's
    pixels that are given to the class, which needs no label to count.

    A class has collapsed after `patience` evaluations in a row below the bar. Ours: one in a row was passed by classes
    that came back.
    """

    FALLS_BELOW = 0.1
    """Of the share at the start."""
    LEAST_SHARE = 1e-3
    """Classes that start below this are not watched: their share is noise. Ours."""

    def __init__(self, names: Sequence[str], patience: int = 2) -> None:
        self.names, self.patience = tuple(names), patience
        self._start: list[float] | None = None
        self._low = [0] * len(self.names)
        self._reported: set[str] = set()

    def start(self, shares: Sequence[float]) -> None:
        """Take the shares [C] before the first step as what is compared with."""
        self._start = list(shares)

    def observe(self, shares: Sequence[float]) -> tuple[str, ...]:
        """Take in the shares [C] of an evaluation, and return each class that has collapsed, once until it recovers."""
        if self._start is None:
            return ()
        new = []
        for place, (name, start, share) in enumerate(zip(self.names, self._start, shares, strict=True)):
            low = start >= self.LEAST_SHARE and share < self.FALLS_BELOW * start
            self._low[place] = self._low[place] + 1 if low else 0
            if not low:
                self._reported.discard(name)
            if self._low[place] >= self.patience and name not in self._reported:
                self._reported.add(name)
                new.append(name)
        return tuple(new)

    @property
    def low(self) -> tuple[str, ...]:
        """Classes that were low at the last evaluation."""
        return tuple(name for name, count in zip(self.names, self._low, strict=True) if count)

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain data."""
        return {"start": self._start, "low": self._low, "reported": sorted(self._reported)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned; 0.1.0 called the reported classes `said`."""
        self._start = None if state["start"] is None else [float(share) for share in state["start"]]
        self._low = [int(count) for count in state["low"]]
        self._reported = set(state["reported"] if "reported" in state else state["said"])
