"""Which layer drifts most, when one computation of a graph does not follow another closely enough.

Inner tensors are made outputs in copies of the graph, both sides run them, and the span in which the difference grows
most is looked at more closely, until one layer is left.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.backends.telemetry import import_onnxruntime
from lsr_infer.errors import InputError, LsrError
from lsr_infer.parity.verdict import LayerDrift
from lsr_infer.tensorrt.graphs import inner_tensors, with_outputs

__all__ = ["Run", "find_drift", "run_onnx"]

Run = Callable[[bytes, NDArray[np.uint8]], Mapping[str, NDArray[Any]]]
"""Runs a graph, given as an ONNX file's bytes, on frames [N,H,W,3], and returns all its outputs by name."""

_AT_ONCE = 8
"""Inner tensors marked at once: each stays in memory, and keeps a builder from fusing what is around it."""


def find_drift(model: bytes, frames: NDArray[np.uint8], reference: Run, candidate: Run) -> LayerDrift | None:
    """Find the layer that drifts most.

    Args:
        model: the ONNX file's bytes that both are made from; the reference runs it as it is.
        frames: uint8 [N,H,W,3].
        reference: what is taken as right.
        candidate: what drifts.

    Returns:
        The layer over which the error grows most, `before` being that of the last compared layer in front of it; None
        where nothing drifts.

    Raises:
        DeviceError: the onnx package is missing.
        InputError: the graph has no layer whose output can be compared.
    """
    layers = inner_tensors(model)
    names = list(layers)
    if not names:
        raise InputError("the graph has no floating tensor that could be compared.")
    seen: dict[int, float] = {}
    largest: dict[int, float] = {}
    low, high = 0, len(names) - 1
    while True:
        wanted = [place for place in _spread(low, high) if place not in seen]
        if wanted:
            marked = with_outputs(model, [names[place] for place in wanted])
            expected, found = reference(marked, frames), candidate(marked, frames)
            seen |= {place: _difference(expected[names[place]], found[names[place]]) for place in wanted}
            largest |= {place: float(np.abs(found[names[place]].astype(np.float64)).max()) for place in wanted}
        places = sorted(seen)
        jumps = {place: seen[place] - (seen[places[n - 1]] if n else 0.0) for n, place in enumerate(places)}
        worst = max(jumps, key=lambda place: jumps[place])
        before = max((place for place in places if place < worst), default=-1)
        if worst - before <= 1:
            return _drift_at(layers[names[worst]], seen[worst], seen.get(before, 0.0), largest[worst])
        low, high = before + 1, worst


def _drift_at(layer: str, error: float, before: float, largest: float) -> LayerDrift | None:
    return LayerDrift(layer=layer, error=error, before=before, largest=largest) if error > 0 else None


def _spread(low: int, high: int) -> Sequence[int]:
    """Return at most `_AT_ONCE` places from low to high, the last among them."""
    count = min(_AT_ONCE, high - low + 1)
    return sorted({high - round(n * (high - low) / max(count - 1, 1)) for n in range(count)})


def _difference(expected: NDArray[Any], found: NDArray[Any]) -> float:
    reference, other = expected.astype(np.float64), found.astype(np.float64)
    scale = float(np.sqrt(np.mean(reference**2)))
    distance = float(np.sqrt(np.mean((other - reference) ** 2)))
    if not np.isfinite(distance):
        return float("inf")
    return distance / scale if scale else distance


def run_onnx(model: bytes, frames: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Run a graph in ONNX Runtime on the CPU; a `Run`.

    Raises:
        InputError: ONNX Runtime cannot.
    """
    onnxruntime = import_onnxruntime()

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {session.get_inputs()[0].name: frames}), strict=True))
    except LsrError:
        raise
    except Exception as error:  # its exceptions share no base but Exception
        raise InputError(f"ONNX Runtime cannot run the graph: {' '.join(str(error).split())[:300]}.") from error
