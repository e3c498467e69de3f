"""Which calibration is kept: all are tried on held-out frames against the float file, without a label."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.backends.telemetry import import_onnxruntime
from lsr_infer.labelspace import LabelSpace
from lsr_infer.parity.metrics import Parity, ParityMeter
from lsr_infer.render.masks import upsample_argmax
from lsr_infer.system.processors import usable_cores
from lsr_train.exporting.calibration import CALIBRATIONS, Range, gather
from lsr_train.exporting.graph import logits_of
from lsr_train.exporting.int8 import Rewriting, quantise, tensors_to_quantise

__all__ = ["Candidate", "best_of", "candidates"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to choose ranges, and how it fares.

    Args:
        calibration: a key of `CALIBRATIONS`.
        parity: against the float file on held-out frames, without labels.
        ranges: what it chose; the graph is made again from them, so that only one has to be held.
    """

    calibration: str
    parity: Parity
    ranges: Mapping[str, Range]

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
    ranges_from: Iterable[NDArray[np.uint8]],
    held_out: Sequence[NDArray[np.uint8]],
    *,
    margin: float = 1.0,
) -> list[Candidate]:
    """Quantise a float32 graph with every calibration and compare each with it.

    Args:
        model: the float32 graph, an `onnx.ModelProto` of `trace`.
        how: in which form.
        space: its classes.
        ranges_from: calibration frames uint8 [1,H,W,3], at sizes the graph takes.
        held_out: frames that are not among them, likewise.
        margin: least distance of the top two logits at a clear pixel.

    Returns:
        One candidate for each of `CALIBRATIONS`.

    Raises:
        ValueError: a value inside the float graph is not finite.
    """
    spreads = gather(model, tensors_to_quantise(model, how), ranges_from)
    reference = _logits(model, held_out)
    found = []
    for name, choose in CALIBRATIONS.items():
        ranges = {tensor: choose(spread) for tensor, spread in spreads.items()}
        made = quantise(model, ranges, how)
        meter = ParityMeter(space, margin=margin)
        for image, one, other in zip(held_out, reference, _logits(made, held_out), strict=True):
            size = image.shape[1], image.shape[2]
            meter.update(one, other, upsample_argmax(one, *size), upsample_argmax(other, *size))
        parity = meter.result(reference="float file", frames_from="held-out frames")
        found.append(Candidate(calibration=name, parity=parity, ranges=ranges))
    return found


def best_of(found: Sequence[Candidate]) -> Candidate:
    """Return the candidate that agrees best; of equal ones the first."""
    return max(found, key=Candidate.rank)


def _logits(model: Any, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
    """Run frames through a graph; logits [C,h,w] also of a graph that gives classes."""
    import onnx

    onnxruntime = import_onnxruntime()

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    logits = logits_of(shown)
    del shown.graph.output[:]
    shown.graph.output.append(onnx.helper.make_tensor_value_info(logits, onnx.TensorProto.FLOAT, None))
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = usable_cores()
    session = onnxruntime.InferenceSession(shown.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return [np.asarray(session.run([logits], {"image": image})[0][0], dtype=np.float32) for image in images]
