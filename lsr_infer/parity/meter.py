"""Measures how closely one computation of a network follows another, and judges it against a bar.

Used by every export (checkpoint against ONNX, ONNX against engine). Counts and sums are gathered over frames, ratios
are taken last. A comparison that compared nothing has failed.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import QualityGateError, UsageError
from lsr_infer.labelspace import IGNORE_INDEX, LabelSpace
from lsr_infer.manifest import Manifest
from lsr_infer.manifest.records import Parity
from lsr_infer.parity.frame_set import FrameSet
from lsr_infer.render.masks import interpolate

__all__ = ["BARS", "Bar", "LayerError", "ParityCheck", "ParityMeter", "Verdict", "add_parity_options", "bar_for",
           "check_bar"]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What a comparison must reach; None sets no bar.

    `agreement` is the least share of pixels whose class agrees, `clear_agreement` that among clear places: those whose
    top two logits lie at least `margin` apart in the reference. Places are feature cells where the candidate gives
    logits, pixels where it decides by itself; `clear_share` of them must be clear, since among few nothing is proved.
    `miou_loss` is the largest loss of mean IoU, in points (hundredths), where labels exist.
    """

    agreement: float | None
    clear_agreement: float | None = None
    clear_share: float | None = None
    margin: float = 1.0
    miou_loss: float | None = None


BARS: Mapping[str, Bar] = {
    "fp32": Bar(agreement=0.9999),
    "fp16": Bar(agreement=0.995),
    "int8": Bar(agreement=0.9, clear_agreement=0.99, clear_share=0.05, miou_loss=1.0),
}
"""The bar of each precision. INT8's agreement over all pixels and its share of clear places are ours, and only guard
against nonsense: networks that were trained agree on 98.4 % (real pair, LSR+EM) to 99.4 % (Toytown) of all pixels."""

_ALLOWED = {
    "agreement": (1.0, "above 0 and up to 1"),
    "clear_agreement": (1.0, "above 0 and up to 1"),
    "margin": (1e6, "0 or more"),
    "miou_loss": (100.0, "0 to 100 points"),
}
"""What a command may set of a bar: the largest value, and the allowed range."""


def add_parity_options(add: Callable[..., None], *, reference: str, frames: str) -> None:
    """Add the options of a comparison with a reference; `frames` says which are taken by default."""
    add("--frames", type=Path, metavar="PLACE", common=True, help=f"folder, video or image to compare on ({frames})")
    add("--num-frames", type=int, default=8, metavar="N", help="compare on at most N frames (8)")
    add("--labels", type=Path, metavar="FOLDER", common=True, help="label images of --frames, named as they are: the "
        "model's class numbers, 255 for void")  # fmt: skip
    add("--agreement", type=float, metavar="SHARE", help="least share of equal pixels (fp32 0.9999, fp16 0.995, int8 "
        "0.9)")  # fmt: skip
    add("--clear-agreement", type=float, metavar="SHARE", help="the same of clear places (int8 0.99)")
    add("--margin", type=float, metavar="LOGITS", help="a place is clear if the top two logits of the "
        f"{reference} differ by so much (1)")  # fmt: skip
    add("--miou-loss", type=float, metavar="POINTS", help="most that mean IoU may fall, with labels (int8 1)")
    add("--report", type=Path, metavar="FILE.json", help="write all figures there, also where the bar is "
        "missed")  # fmt: skip


def bar_for(precision: str, **asked: Any) -> Bar:
    """Return the bar of a precision with what a command asked for in its place; None leaves its own.

    Names are those of `add_parity_options`, others are passed over; `UsageError` names the flag of a wrong value.
    """
    given = {name: asked[name] for name in _ALLOWED if asked.get(name) is not None}
    for name, value in given.items():
        most, allowed = _ALLOWED[name]
        least_fits = value > 0 if name.endswith("agreement") else value >= 0
        if not (least_fits and value <= most):
            raise UsageError(f"--{name.replace('_', '-')} is {value}; allowed: {allowed}.")
    return replace(BARS[precision], **given)


def check_bar(parity: Parity, bar: Bar) -> None:
    """Raise `QualityGateError` where nothing was compared, a figure is not finite or lies below the bar."""
    failures = []
    if parity.frames < 1 or parity.pixels < 1:
        raise QualityGateError("parity: no frame was compared, so nothing is proved. Name frames to compare on.")
    differences = (parity.max_logit_difference, parity.mean_logit_difference)
    if any(value is not None and not np.isfinite(value) for value in differences):
        failures.append("a logit is not finite")
    if bar.agreement is not None and not parity.agreement >= bar.agreement:
        failures.append(
            f"classes agree on {100 * parity.agreement:.4f} % of the pixels, {100 * bar.agreement:g} % asked"
        )
    if bar.clear_agreement is not None:
        if parity.clear_agreement is None:
            failures.append("no place is clear, so there is nothing to judge by")
        elif not parity.clear_agreement >= bar.clear_agreement:
            failures.append(
                f"classes agree on {100 * parity.clear_agreement:.4f} % of the clear places, "
                f"{100 * bar.clear_agreement:g} % asked"
            )
    if bar.clear_share is not None and parity.clear_share is not None and not parity.clear_share >= bar.clear_share:
        failures.append(
            f"only {100 * parity.clear_share:.2f} % of the places are clear, {100 * bar.clear_share:g} % are needed "
            "to judge by"
        )
    if bar.miou_loss is not None and parity.miou is not None and parity.miou_reference is not None:
        loss = 100 * (parity.miou_reference - parity.miou)
        if not loss <= bar.miou_loss:
            failures.append(f"mean IoU falls by {loss:.2f} points, {bar.miou_loss:g} allowed")
    if failures:
        raise QualityGateError(
            f"parity with the {parity.reference} on {parity.frames} frames ({parity.frames_from}): "
            f"{'; '.join(failures)}. "
            f"{parity.describe()}; the class that drifts most is {parity.worst_class()}."
        )


class ParityMeter:
    """Gathers a comparison frame by frame; clear places have their top two reference logits `margin` apart."""

    def __init__(self, space: LabelSpace, *, margin: float = 1.0) -> None:
        self._space, self._margin = space, margin
        self._frames = self._places = self._clear = self._clear_agreeing = self._values = 0
        self._largest = self._sum = 0.0
        self._with_labels = self._without_logits = False
        self._pairs = np.zeros((space.num_classes, space.num_classes), dtype=np.int64)
        self._labelled = np.zeros((2, space.num_classes, space.num_classes), dtype=np.int64)

    def update(
        self,
        reference: NDArray[np.float32] | None,
        candidate: NDArray[np.float32] | None,
        reference_classes: NDArray[np.uint8],
        candidate_classes: NDArray[np.uint8],
        labels: NDArray[np.uint8] | None = None,
    ) -> None:
        """Add one frame: logits [C,h,w] of both, class maps [H,W] of both, and labels [H,W] where there are some.

        A candidate that gives classes alone has no logits, and then at every frame.
        """
        classes = self._space.num_classes
        if reference is None and candidate is not None:
            raise ValueError("a candidate's logits need those of the reference")
        if reference is not None and (reference.ndim != 3 or reference.shape[0] != classes):
            raise ValueError(f"reference logits {list(reference.shape)}; needed: [{classes},h,w]")
        if self._frames and (candidate is None) != self._without_logits:
            raise ValueError("a candidate gives logits for every frame or for none")
        self._without_logits = candidate is None
        pairs = _pair_counts(reference_classes, candidate_classes, classes)
        if reference is not None and candidate is not None:
            if reference.shape != candidate.shape:
                raise ValueError(f"logits {list(reference.shape)} and {list(candidate.shape)} differ in shape")
            difference = np.abs(reference.astype(np.float64) - candidate)
            self._largest = float(np.maximum(self._largest, difference.max()))  # keeps a NaN, which no bar lets pass
            self._sum += float(difference.sum())
            self._values += difference.size
            # Clear cells are judged at feature size: there the logits are the network's own.
            self._count_clear(reference, reference.argmax(axis=0) == candidate.argmax(axis=0))
        elif reference is not None:
            # Where the candidate decides by itself, pixels are judged as it sees them: by the interpolated logits.
            full = interpolate(reference, *reference_classes.shape)
            self._count_clear(full, reference_classes == candidate_classes)
        self._pairs += pairs
        if labels is not None:
            self._with_labels = True
            self._labelled[0] += _pair_counts(labels, reference_classes, classes)
            self._labelled[1] += _pair_counts(labels, candidate_classes, classes)
        self._frames += 1

    def _count_clear(self, reference: NDArray[np.float32], agree: NDArray[np.bool_]) -> None:
        """Add the places [h,w] where the top two of the reference's logits [C,h,w] lie apart."""
        if reference.shape[0] > 1:
            top = np.partition(reference, reference.shape[0] - 2, axis=0)[-2:]
            clear = top[1] - top[0] >= self._margin
            self._places += clear.size
            self._clear += int(clear.sum())
            self._clear_agreeing += int(agree[clear].sum())

    def result(self, *, reference: str, frames_from: str) -> Parity:
        """Return the figures of all frames so far; with none, figures that no bar lets pass."""
        pixels = int(self._pairs.sum())
        found = self._pairs.sum(axis=1)
        names = self._space.names
        labelled = bool(self._labelled.any())
        if self._with_labels and not labelled:
            raise QualityGateError(
                f"parity on {frames_from}: not a pixel of the labels is a class. Name others, or none."
            )
        ious = [_iou(matrix) for matrix in self._labelled]
        known = np.flatnonzero(np.isfinite(ious).all(axis=0)).tolist()  # classes for which both give a figure
        return Parity(
            reference=reference,
            frames_from=frames_from,
            frames=self._frames,
            pixels=pixels,
            agreement=float(np.trace(self._pairs) / pixels) if pixels else 0.0,
            clear_agreement=self._clear_agreeing / self._clear if self._clear else None,
            max_logit_difference=None if self._without_logits else self._largest,
            mean_logit_difference=None if self._without_logits else self._sum / max(self._values, 1),
            class_agreement={names[c]: float(self._pairs[c, c] / found[c]) for c in np.flatnonzero(found).tolist()},
            miou_reference=_mean_iou(ious[0]) if labelled else None,
            miou=_mean_iou(ious[1]) if labelled else None,
            class_iou_difference={names[c]: float(ious[1][c] - ious[0][c]) for c in known},
            clear_share=self._clear / self._places if self._places else None,
        )


def _pair_counts(first: NDArray[np.uint8], second: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Count [C,C] how often each pair of classes meets; pixels whose `first` is void are left out."""
    if first.shape != second.shape:
        raise ValueError(f"class maps {list(first.shape)} and {list(second.shape)} differ in size")
    kept = first != IGNORE_INDEX
    one, other = first[kept].astype(np.int64), second[kept].astype(np.int64)
    if one.size and (one.max() >= classes or other.max() >= classes):
        raise ValueError(f"a class of {max(one.max(), other.max())} is not among the {classes}")
    counts = np.bincount(one * classes + other, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64, copy=False)


def _iou(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the IoU of each class, NaN where its union is empty."""
    hit = np.diag(matrix).astype(np.float64)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - hit
    return np.where(union > 0, hit / np.maximum(union, 1.0), np.nan)


def _mean_iou(found: NDArray[np.float64]) -> float:
    """Return the mean over the classes whose union is not empty."""
    return float(np.nanmean(found)) if np.isfinite(found).any() else 0.0


@dataclass(frozen=True, kw_only=True)
class ParityCheck:
    """What a file has to pass: frames, a bar, and a JSON file that gets all figures, also where the bar is missed."""

    frames: FrameSet
    bar: Bar
    report: Path | None = None
    overwrite_report: bool = False


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """How far one layer's output is off: its relative error in L2 over all frames, and that of the layers it reads.

    Infinite where a value is not finite; `largest` is the largest magnitude of its output.
    """

    layer: str
    error: float
    before: float
    largest: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON data; SNR in decibel, what is not finite as null."""
        snr = -20 * math.log10(self.error) if 0 < self.error < math.inf else None
        figures = {"error": self.error, "before": self.before, "largest": self.largest}
        finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        return {"layer": self.layer, **finite, "snr_db": snr}

    def describe(self) -> str:
        """Say it in one phrase."""
        return f"{self.layer} (relative error {self.error:.2g} after {self.before:.2g} before it)"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a comparison found: figures, layers that were examined, and why the file must not appear."""

    parity: Parity | None = None
    drift: tuple[LayerError, ...] = ()
    failure: QualityGateError | None = None

    def report(self, manifest: Manifest, *, candidates: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
        """Gather all figures as plain JSON data; `passed` is null where the comparison is still to be made."""
        compared = self.parity is not None or self.failure is not None
        return {
            "passed": self.failure is None if compared else None,
            "failure": None if self.failure is None else str(self.failure),
            "precision": manifest.precision,
            "runtime": manifest.runtime,
            "parity": None if self.parity is None else self.parity.to_dict(),
            "choices": list(manifest.choices),
            "quantization": None if manifest.quantization is None else manifest.quantization.to_dict(),
            "candidates": list(candidates),
            "drift": [layer.to_dict() for layer in self.drift],
        }
