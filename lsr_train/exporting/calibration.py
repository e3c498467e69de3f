"""Chooses the frames an export uses, and finds INT8's ranges from them.

Frames are the user's, the checkpoint's own training frames, or the shipped Toytown frames; nothing is compared on
frames that chose its ranges. All ways to choose a range are tried on held-out frames against the float file.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError, LsrError, QualityGateError, UsageError
from lsr_infer.labelspace import LabelSpace
from lsr_infer.manifest.records import Parity
from lsr_infer.parity.frame_set import FrameSet, evenly, read_frame_set
from lsr_infer.parity.meter import ParityMeter
from lsr_infer.render.masks import upsample_argmax
from lsr_infer.system.progress import with_progress
from lsr_train.exporting.graph import Watched, copy_of, logits_name, open_session
from lsr_train.exporting.precisions import LARGEST_HALF, Rewriting, ValueRange, quantise, tensors_to_quantise

__all__ = [
    "CALIBRATIONS", "LABEL_IDS", "Calibration", "Candidate", "ValueHistogram", "at_most", "best_of", "candidates",
    "check_reach", "gather", "read_labelled", "training_frames", "without",
]  # fmt: skip

LABEL_IDS = ("classes", "cityscapes-id", "cityscapes-trainid")
"""What label files may hold: class indices of the model, or ids that are grouped into its classes."""

_FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Frames of one origin in three parts that share none: for ranges, for choosing among them, for the proof."""

    ranges: FrameSet
    choice: FrameSet
    proof: FrameSet

    @classmethod
    def split(cls, frames: FrameSet, held_out: int) -> "Calibration":
        """Deal frames out, each part spread over all of them; two parts of up to `held_out` frames are kept back."""
        total = len(frames)
        if total < _FEWEST:
            raise UsageError(
                f"{frames.origin}: too few, at least {_FEWEST} are needed to calibrate, choose and compare on "
                "different ones. Name more with --calibrate."
            )
        kept_back = 2 * max(1, min(held_out, total // 3))
        held = evenly(total, kept_back)
        rest = sorted(set(range(total)) - set(held))
        return cls(ranges=frames.part(rest), choice=frames.part(held[0::2]), proof=frames.part(held[1::2]))


def at_most(frames: FrameSet, count: int) -> FrameSet:
    """Return `count` frames of a set, evenly spread, or all where it has no more."""
    return frames if len(frames) <= count else frames.part(evenly(len(frames), count))


def read_labelled(
    path: Path, count: int, space: LabelSpace, *, labels: Path | None = None, label_ids: str = "classes"
) -> FrameSet:
    """Read frames of the user's, with labels in a model's classes where there are some.

    See `read_frame_set`; `label_ids` is one of `LABEL_IDS` and says what the label images hold.
    """
    from lsr_train.data.labels import encoding_map

    if label_ids not in LABEL_IDS:
        raise UsageError(f"--label-ids is {label_ids!r}; allowed: {', '.join(LABEL_IDS)}.")
    read = read_frame_set(path, count, labels=labels)
    id_map = encoding_map(label_ids, space)
    found = []
    for name, label in zip(read.names, read.labels, strict=True):
        try:
            found.append(None if label is None else id_map.apply(label))
        except InputError as error:
            what = str(error).split(". Set ")[0]
            raise InputError(f"{path}: labels of {name}: {what}. Say what they hold with --label-ids.") from error
    return replace(read, labels=found)


def without(frames: FrameSet, taken: Sequence[FrameSet]) -> FrameSet:
    """Leave out the frames that other sets hold, pixel for pixel."""

    def content(frame: NDArray[np.uint8]) -> bytes:
        return hashlib.sha256(repr(frame.shape).encode() + frame.tobytes()).digest()

    known = {content(frame) for part in taken for frame in part.frames}
    indices = [n for n, frame in enumerate(frames.frames) if content(frame) not in known]
    if len(indices) == len(frames):
        return frames
    if not indices:
        raise UsageError(
            f"all of {frames.origin} also calibrate, so they prove nothing. Name other frames with --frames."
        )
    return frames.part(indices)


def training_frames(model: Path, count: int) -> tuple[FrameSet, bool]:
    """Read frames that a checkpoint was trained on: unlabelled target frames where its run has some, else the source's.

    `model` is the network's file in a run folder. Returns the frames without labels, and whether they are Toytown's.
    `UsageError` names --calibrate where there is no run, its frames are gone, or what reads a run is not installed.
    """
    advice = "Name frames like those of your camera with --calibrate FOLDER|VIDEO."
    run = model.absolute().parents[2] if len(model.absolute().parents) > 2 else model.parent
    file = run / "config.yaml"
    if not file.is_file():
        raise UsageError(f"{model}: lies in no run folder, so its training frames are unknown. {advice}")
    try:
        from lsr_train.config.data import TargetConfig
        from lsr_train.config.recipes import read_config
        from lsr_train.data.footage import open_footage
    except ImportError as error:
        raise UsageError(
            f"{run.name}: its configuration cannot be read ({error.name} is not installed: lsr-road[train]). {advice}"
        ) from error
    try:
        data = read_config(file).data
        chosen = [data.target]
        if not data.target.given:
            same = ("layout", "root", "split", "height", "width")
            chosen = [TargetConfig(**{name: getattr(source, name) for name in same}) for source in data.sources]
        toytown = all(place.layout.startswith("toytown") for place in chosen)
        frames: list[NDArray[np.uint8]] = []
        for left, place in zip(range(len(chosen), 0, -1), chosen, strict=True):
            wanted = -(-(count - len(frames)) // left)
            limit = place.limit if place.layout.startswith("toytown") else wanted
            footage = open_footage(replace(place, limit=limit), on_bad="skip")
            taken = evenly(len(footage), wanted)
            frames += [footage[n].frame for n in with_progress(taken, "training frames", len(taken))]
    except LsrError as error:
        raise UsageError(f"the training frames of {run.name} cannot be read: {error} {advice}") from error
    names = ", ".join(Path(place.root).name if place.root else place.layout for place in chosen)
    origin = f"{len(frames)} frames that the checkpoint was trained on ({names})"
    return FrameSet(frames=frames, labels=[None] * len(frames), origin=origin), toytown


_BINS = 2048
_LEVELS = 128
_ENTROPY_STEP = 16
"""Bins between two thresholds that are tried: the divergence is smooth, and each one costs a pass over 2048 bins."""


@dataclass
class ValueHistogram:
    """How the values of one tensor are spread: extremes, and a histogram of sampled magnitudes up to `width`."""

    least: float = np.inf
    largest: float = -np.inf
    width: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def add(self, least: float, largest: float, sample: NDArray[np.float32]) -> None:
        """Add a frame: the extremes of the whole map, and a sample of its values."""
        if not (np.isfinite(least) and np.isfinite(largest)):
            raise ValueError("a value is not finite")
        self.least, self.largest = min(self.least, least), max(self.largest, largest)
        reach = max(abs(least), abs(largest))
        self.width = self.width or reach
        while self.width < reach:
            self.counts[: _BINS // 2] = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[_BINS // 2 :] = 0
            self.width *= 2
        if self.width == 0.0:
            self.counts[0] += sample.size
            return
        bins = (np.abs(sample).ravel() * (_BINS / self.width)).astype(np.int64)
        self.counts += np.bincount(np.minimum(bins, _BINS - 1), minlength=_BINS)

    def within(self, bins: int) -> ValueRange:
        """Return the range that ends with the first `bins` of the histogram, or where the values end."""
        reach = self.width * bins / _BINS
        return max(self.least, -reach), min(self.largest, reach)


def gather(model: Any, tensors: Sequence[str], images: Sequence[NDArray[np.uint8]]) -> dict[str, ValueHistogram]:
    """Run images uint8 [1,H,W,3] through a float32 graph, and note how the values of tensors [N,C,h,w] are spread."""
    watched = Watched(model, tensors)
    spreads = {tensor: ValueHistogram() for tensor in tensors}
    for image in with_progress(images, "ranges of values", len(images)):
        for tensor, (least, largest, sample) in watched.run(image).items():
            spreads[tensor].add(least, largest, sample)
    return spreads


def _min_max(spread: ValueHistogram) -> ValueRange:
    """Everything that was seen."""
    return spread.least, spread.largest


def _percentile(share: float, spread: ValueHistogram) -> ValueRange:
    """The range that holds a share of the magnitudes."""
    total = np.cumsum(spread.counts)
    return spread.within(1 + int(np.searchsorted(total, share * total[-1])))


def _entropy(spread: ValueHistogram) -> ValueRange:
    """The range whose quantised histogram diverges least from the histogram (Migacz, GTC 2017: TensorRT's method).

    Zeros, which a ReLU leaves plenty of and every scale represents exactly, are not counted.
    """
    counts = spread.counts.astype(np.float64)
    counts[0] = 0
    if not counts.any():
        return _min_max(spread)
    tried = range(_LEVELS, _BINS + 1, _ENTROPY_STEP)
    divergences = [_divergence(counts, bins) for bins in tried]
    return spread.within(tried[int(np.argmin(divergences))])


def _divergence(counts: NDArray[np.float64], bins: int) -> float:
    """Return the Kullback-Leibler divergence of the first `bins` in 128 levels from the clipped histogram."""
    inside = counts[:bins]
    clipped = inside.copy()
    clipped[-1] += counts[bins:].sum()
    level = np.arange(bins) * _LEVELS // bins
    filled = inside > 0
    share = np.bincount(level, inside, _LEVELS) / np.maximum(np.bincount(level, filled, _LEVELS), 1)
    quantised = np.where(filled, share[level], 0.0)
    if not quantised.any():
        return np.inf
    one, other = clipped / clipped.sum(), quantised / quantised.sum()
    if ((one > 0) & (other == 0)).any():
        return np.inf  # the clipped tail lands where nothing else is
    kept = one > 0
    return float((one[kept] * np.log(one[kept] / other[kept])).sum())


CALIBRATIONS: Mapping[str, Callable[[ValueHistogram], ValueRange]] = {
    "minmax": _min_max,
    "entropy": _entropy,
    "percentile": partial(_percentile, 0.9999),
    "percentile-99.9": partial(_percentile, 0.999),
}
"""How a range is chosen, by name. All are tried, what agrees best with the float file on held-out frames is kept."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A calibration, how it agrees with the float file on held-out frames, and the ranges it chose."""

    calibration: str
    parity: Parity
    ranges: Mapping[str, ValueRange]

    def rank(self) -> tuple[float, float]:
        """Clear agreement first, then overall agreement; more is better."""
        return self.parity.clear_agreement or 0.0, self.parity.agreement

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON data."""
        figures = ("agreement", "clear_agreement", "max_logit_difference", "mean_logit_difference", "frames")
        return {"calibration": self.calibration, **{name: getattr(self.parity, name) for name in figures}}


def candidates(
    model: Any,
    how: Rewriting,
    space: LabelSpace,
    ranges_from: Sequence[NDArray[np.uint8]],
    held_out: Sequence[NDArray[np.uint8]],
    *,
    margin: float = 1.0,
) -> list[Candidate]:
    """Quantise a float32 graph of `trace` with every calibration and compare each with it, without a label.

    Frames are uint8 [1,H,W,3], at sizes the graph takes; `margin` is that of a `Bar`.
    """
    spreads = gather(model, tensors_to_quantise(model, how), ranges_from)
    reference = _logits(model, held_out, "the float file")
    found = []
    for name, choose in with_progress(CALIBRATIONS.items(), "quantising", len(CALIBRATIONS), unit="calibration"):
        ranges = {tensor: choose(spread) for tensor, spread in spreads.items()}
        made = quantise(model, ranges, how)
        meter = ParityMeter(space, margin=margin)
        for image, one, other in zip(held_out, reference, _logits(made, held_out, f"calibration {name}"), strict=True):
            size = image.shape[1], image.shape[2]
            meter.update(one, other, upsample_argmax(one, *size), upsample_argmax(other, *size))
        parity = meter.result(reference="float file", frames_from="held-out frames")
        found.append(Candidate(calibration=name, parity=parity, ranges=ranges))
    return found


def best_of(found: Sequence[Candidate]) -> Candidate:
    """Return the candidate that agrees best; of equal ones the first."""
    return max(found, key=Candidate.rank)


def _logits(model: Any, images: Sequence[NDArray[np.uint8]], what: str) -> list[NDArray[np.float32]]:
    """Run frames through a graph, called `what`; logits [C,h,w] also of a graph that gives classes."""
    import onnx

    shown, logits = copy_of(model), logits_name(model)
    del shown.graph.output[:]
    shown.graph.output.append(onnx.helper.make_tensor_value_info(logits, onnx.TensorProto.FLOAT, None))
    session = open_session(shown)
    return [
        np.asarray(session.run([logits], {"image": image})[0][0], dtype=np.float32)
        for image in with_progress(images, what, len(images))
    ]


def check_reach(model: Any, images: Sequence[NDArray[np.uint8]]) -> None:
    """Raise `QualityGateError` where a value inside the float32 graph lies beyond half precision on frames."""
    tensors = [node.output[0] for node in model.graph.node if node.op_type in ("Conv", "Add")]
    for tensor, spread in gather(model, tensors, images).items():
        reach = max(-spread.least, spread.largest)
        if not reach <= LARGEST_HALF:
            raise QualityGateError(
                f"{tensor} reaches {reach:g} on a frame, beyond half precision ({LARGEST_HALF:g}). Export in fp32."
            )
