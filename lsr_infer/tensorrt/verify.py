"""Compares an engine with its ONNX file on frames, and finds the layer that differs most where the bar is missed.

The engine is any function from frames to the graph's output, so that the comparison itself needs no GPU.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import DeviceError, InputError, QualityGateError, extra
from lsr_infer.io.images import resize_labels
from lsr_infer.manifest import Manifest
from lsr_infer.manifest.records import Parity
from lsr_infer.parity.frame_set import FrameSet, working_image
from lsr_infer.parity.meter import Bar, LayerError, ParityMeter, Verdict, check_bar
from lsr_infer.render.masks import upsample_argmax
from lsr_infer.system.process import import_onnxruntime
from lsr_infer.system.progress import Progress, with_progress

__all__ = ["OnnxReference", "RunGraph", "compare_with_onnx", "find_worst_layer", "inner_tensors", "judge_parity",
           "logits_tensor", "run_onnx", "with_outputs"]  # fmt: skip

_FLOATS = {1, 10}  # float32, float16
_LAYERS = (
    "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Conv", "ConvTranspose",
    "DequantizeLinear", "Gemm", "GlobalAveragePool", "Identity", "MatMul", "MaxPool", "Mul", "Relu", "Resize",
    "Sub", "Sum",
)  # fmt: skip
_DECIDES = ("ArgMax", "Cast", "Squeeze", "Identity")


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise DeviceError(f"onnx cannot be loaded ({error}). {extra('trt', 'trt-rtx')}") from error
    return onnx


def with_outputs(model: bytes, names: Sequence[str]) -> bytes:
    """Return a copy of a model that gives some of its inner tensors too."""
    onnx = _onnx()
    copy = onnx.load_from_string(model)
    there = {output.name for output in copy.graph.output}
    types = _types(onnx, copy)
    for name in names:
        if name in there:
            continue
        if name not in types:
            raise InputError(f"the graph has no tensor {name!r} whose type is known.")
        copy.graph.output.append(onnx.helper.make_tensor_value_info(name, types[name], None))
    return bytes(copy.SerializeToString())


def inner_tensors(model: bytes) -> dict[str, str]:
    """Return the floating tensors that a graph's layers give, in order, each with the type and name of its layer."""
    onnx = _onnx()
    loaded = onnx.load_from_string(model)
    types = _types(onnx, loaded)
    weights = {item.name for item in loaded.graph.initializer}
    found = {}
    depends: set[str] = {item.name for item in loaded.graph.input}
    for node in loaded.graph.node:
        if not depends.intersection(node.input):
            continue  # computed from weights alone, such as their dequantisation
        depends.update(node.output)
        name = node.output[0]
        if node.op_type in _LAYERS and types.get(name) in _FLOATS and name not in weights:
            found[name] = f"{node.op_type} {node.name or name}"
    return found


def logits_tensor(model: bytes) -> str | None:
    """Return the name of the logits inside a graph that gives classes, before upsampling; None where unknown."""
    graph = _onnx().load_from_string(model).graph
    maker = {output: node for node in graph.node for output in node.output}
    node = maker.get(graph.output[0].name)
    while node is not None and node.op_type in _DECIDES:
        decided = node.op_type == "ArgMax"
        name = node.input[0]
        node = maker.get(name)
        if decided:
            return str(node.input[0]) if node is not None and node.op_type == "Resize" else str(name)
    return None


def _types(onnx: Any, model: Any) -> dict[str, int]:
    """Return the element type of every tensor whose type follows from the graph."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except onnx.shape_inference.InferenceError as error:
        raise InputError(f"the types of the graph cannot be inferred ({error}). Export it again.") from error
    return {item.name: item.type.tensor_type.elem_type for item in (*graph.value_info, *graph.input, *graph.output)}


RunGraph = Callable[[bytes, NDArray[np.uint8]], Mapping[str, NDArray[Any]]]
"""Runs a graph, given as an ONNX file's bytes, on frames [N,H,W,3], and returns all its outputs by name."""

_AT_ONCE = 8
"""Inner tensors marked at once: each stays in memory, and keeps a builder from fusing what is around it."""


def find_worst_layer(
    model: bytes, frames: NDArray[np.uint8], reference: RunGraph, candidate: RunGraph
) -> LayerError | None:
    """Find the layer over which the error of a candidate grows most; None where it does not.

    Inner tensors are made outputs in copies of the graph, both sides run them, and the span in which the difference
    grows most is searched further, until one layer is left. Its `before` is the error of the last compared layer in
    front of it.
    """
    with Progress("searching for the layer that drifts", unit=""):
        return _worst_layer(model, frames, reference, candidate)


def _worst_layer(
    model: bytes, frames: NDArray[np.uint8], reference: RunGraph, candidate: RunGraph
) -> LayerError | None:
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
            if not seen[worst] > 0:
                return None
            return LayerError(
                layer=layers[names[worst]], error=seen[worst], before=seen.get(before, 0.0), largest=largest[worst]
            )
        low, high = before + 1, worst


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
    """Run a graph in ONNX Runtime on the CPU; a `RunGraph`."""
    session = _session(model)
    try:
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {session.get_inputs()[0].name: frames}), strict=True))
    except Exception as error:  # its exceptions share no base but Exception
        raise InputError(f"ONNX Runtime cannot run the graph: {' '.join(str(error).split())[:300]}.") from error


def _session(model: bytes) -> Any:
    """Load a graph into ONNX Runtime on the CPU."""
    onnxruntime = import_onnxruntime()

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # its errors come as exceptions
    try:
        return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base but Exception
        raise InputError(f"ONNX Runtime cannot run the graph: {' '.join(str(error).split())[:300]}.") from error


class OnnxReference:
    """An ONNX file in ONNX Runtime on the CPU, which gives its logits even where the graph itself gives classes alone.

    `DeviceError` where the onnx package is needed to find them and missing, `InputError` where they cannot be found.
    """

    def __init__(self, model: bytes, manifest: Manifest) -> None:
        self._logits = "logits"
        if manifest.output == "classes":
            name = logits_tensor(model)
            if name is None:
                raise InputError(
                    "the logits cannot be found in this graph of classes. Export it with export/to_onnx.py."
                )
            self._logits, model = name, with_outputs(model, [name])
        self._session, self._manifest = _session(model), manifest

    def run(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        """Return the logits float32 [C,h,w] of an image [1,H,W,3], and its classes [H,W] where the graph gives them."""
        image = np.repeat(image, self._manifest.fixed_batch or 1, axis=0)
        names = [self._logits] + (["classes"] if self._manifest.output == "classes" else [])
        results = self._session.run(names, {"image": image})
        logits = np.asarray(results[0][0], dtype=np.float32)
        return logits, np.asarray(results[1][0], dtype=np.uint8) if len(results) > 1 else None


def compare_with_onnx(
    reference: OnnxReference,
    candidate: Callable[[NDArray[np.uint8]], NDArray[Any]],
    manifest: Manifest,
    frames: FrameSet,
    *,
    margin: float = 1.0,
    where: str = "",
) -> Parity:
    """Compare an engine, a function from images [N,H,W,3] to its output, with its ONNX file on frames.

    Classes are compared at the size of a frame for logits, else at the graph's; `where` names what the engine ran on.
    """
    meter = ParityMeter(manifest.label_space, margin=margin)
    origin = f"{frames.origin}, on {where}" if where else frames.origin
    batch = manifest.fixed_batch or 1
    for frame, truth in with_progress(frames.pairs(), "comparing", len(frames)):
        image = working_image(frame, manifest)
        expected, classes = reference.run(image)
        found = candidate(np.repeat(image, batch, axis=0))[0]
        if not np.isfinite(expected).all():
            raise QualityGateError("the ONNX file's own logits are not finite on a frame. Export it again.")
        if classes is None:
            size = (frame.shape[0], frame.shape[1])
            logits = np.asarray(found, dtype=np.float32)
            finite = np.nan_to_num(logits, nan=0, posinf=0, neginf=0)  # the meter sees that they are not
            pair = upsample_argmax(expected, *size), upsample_argmax(finite, *size)
        else:
            logits, pair = None, (classes, np.asarray(found, dtype=np.uint8))
        if truth is not None and truth.shape != pair[0].shape:
            truth = resize_labels(truth, *pair[0].shape)
        try:
            meter.update(expected, logits, *pair, truth)
        except ValueError as error:
            raise InputError(f"the labels of {frames.origin} do not fit the model's classes: {error}.") from error
    return meter.result(reference="onnx", frames_from=origin)


def judge_parity(parity: Parity, bar: Bar, find: Callable[[], LayerError | None]) -> Verdict:
    """Hold figures against a bar without raising, so that they can be reported; below it, `find` looks for a layer."""
    try:
        check_bar(parity, bar)
    except QualityGateError as error:
        drift: tuple[LayerError, ...] = ()
        try:
            worst = find()
            where = "no layer drifts on its own"
            if worst is not None:
                drift, where = (worst,), f"the layer that drifts most is {worst.describe()}"
        except Exception as reason:  # noqa: BLE001 - the verdict itself matters more than where it comes from
            where = f"which layer drifts most could not be found ({' '.join(str(reason).split())})"
        failure = QualityGateError(f"{str(error).rstrip('.')}; {where}.")
        return Verdict(parity=parity, drift=drift, failure=failure)
    return Verdict(parity=parity)
