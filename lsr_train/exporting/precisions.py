"""Rewrites float32 graphs to half precision or INT8.

FP16: TensorRT is strongly typed, so precision is a property of the graph: every weight and tensor between two casts is
half. The normalisation before, and upsampling and decision after them, stay in float32.

INT8: explicit quantise/dequantise pairs, in the two forms that runtimes run fast. ONNX Runtime's CPU wants unsigned
activations and signed weights (U8S8) and fuses what stands between two pairs; TensorRT wants both signed and symmetric
(S8S8), float weights with their own pair, float biases, and no pair between a convolution and the sum it ends in.

Why not `onnxruntime.quantization`: its histogram ways keep every map of every calibration frame. Measured (1.31), with
32 frames of 320x240 and the half-width ResNet-50 of the real pair: 3.9 GB for entropy and for percentile.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError
from lsr_train.exporting.graph import Producers, copy_of, layers, logits_name

__all__ = [
    "FP16_CHOICES", "LARGEST_HALF", "SCHEMES", "Rewriting", "Scheme", "ValueRange", "quantise", "rounded_in_sum",
    "tensors_to_quantise", "to_half",
]  # fmt: skip

ValueRange = tuple[float, float]
"""Least and largest value that a quantised tensor represents."""

LARGEST_HALF = 65504.0
"""The largest finite number of half precision."""

FP16_CHOICES = (
    "weights and arithmetic in half precision from the first convolution to the logits, batch-norm folded in float32",
    "normalisation in float32 before it, logits cast back to float32 behind it",
)
"""What is done here, as the Manifest lists it."""


def to_half(model: Any) -> Any:
    """Return a copy of a float32 graph that computes in half precision from the first convolution to the logits.

    Batch-norm has been folded in float32, so each weight is rounded once.
    """
    import onnx

    result = copy_of(model)
    graph = result.graph
    first = next(node.input[0] for node in graph.node if node.op_type == "Conv")
    logits = logits_name(result)
    inside, read = set(), {first}
    for node in graph.node:  # in the order of the graph, so that what a node reads is known by then
        if read & set(node.input) and logits not in read:
            inside.add(node.name)
            read.update(node.output)
    halves = {name for node in graph.node if node.name in inside for name in node.input}
    for item in graph.initializer:
        if item.name in halves:
            values = onnx.numpy_helper.to_array(item)
            largest = float(np.abs(values).max(initial=0.0))
            if not largest <= LARGEST_HALF:
                raise InputError(f"{item.name}: a weight of {largest:g} is beyond half precision. Export in fp32.")
            item.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), item.name))
    placed = []
    for node in graph.node:
        if node.name in inside:
            node.input[:] = [f"{first}/half" if name == first else name for name in node.input]
            node.output[:] = [f"{logits}/half" if name == logits else name for name in node.output]
        placed.append(node)
        if first in node.output:
            placed.append(_cast(first, f"{first}/half", onnx.TensorProto.FLOAT16))
        if f"{logits}/half" in node.output:
            placed.append(_cast(f"{logits}/half", logits, onnx.TensorProto.FLOAT))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in placed]
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def _cast(tensor: str, output: str, to: int) -> Any:
    import onnx

    # Not named after its output: a node of the graph may be called as that tensor is.
    return onnx.helper.make_node("Cast", [tensor], [output], f"{output}/cast", to=to)


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How a runtime wants its integers; `choices` says it for people, as the Manifest lists it."""

    name: str
    signed: bool  # activations are signed and symmetric, else unsigned with a zero point
    every_sum: bool  # both terms of a residual sum and a pooling's input are quantised, else the shortcut alone
    classifier: bool  # the classifier is quantised, too; else it stays in float
    stored: bool  # weights are stored as int8 and biases as int32; else as floats, weights with a pair of their own
    choices: tuple[str, ...]


SCHEMES: Mapping[str, Scheme] = {
    "onnxruntime": Scheme(
        name="U8S8",
        signed=False,
        every_sum=True,
        # Measured on the real pair (101 frames of CamVid val), two networks: mean IoU -0.03 and -0.36 points, with
        # the classifier in float +0.03 and -0.39. ResNet-101 at 1024x512 takes 0.91 of the time in ONNX Runtime, 0.78
        # in OpenVINO.
        classifier=True,
        stored=True,
        choices=(
            "activations uint8 with a zero point, weights int8 symmetric for each output channel, rounded so that "
            "its sum is kept, biases int32",
            "residual sums, the pooling and the classifier's convolutions in uint8, their sum in float32",
        ),
    ),
    "tensorrt": Scheme(
        name="S8S8",
        signed=True,
        every_sum=False,
        classifier=False,
        stored=False,
        choices=(
            "activations and weights int8 symmetric, weights for each output channel and behind pairs of their own, "
            "biases in float32",
            "in a residual sum the shortcut alone is quantised, so that convolution and sum stay one kernel",
            "the classifier in float32",
        ),
    ),
}
"""The scheme of each runtime."""


@dataclass(frozen=True, kw_only=True)
class Rewriting:
    """How one graph is rewritten: the scheme, convolutions that stay in float, bits of the weights (8, or 7)."""

    scheme: Scheme
    in_float: tuple[str, ...] = ()
    weight_bits: int = 8

    @classmethod
    def of(cls, model: Any, scheme: Scheme, *, weight_bits: int = 8) -> "Rewriting":
        """Return how a scheme rewrites a float32 graph of `trace`."""
        classifier = [name for name in layers(model) if name.startswith("head.")]
        return cls(scheme=scheme, in_float=() if scheme.classifier else tuple(classifier), weight_bits=weight_bits)


def tensors_to_quantise(model: Any, how: Rewriting) -> tuple[str, ...]:
    """Return the tensors that `quantise` needs a range for."""
    return tuple(dict.fromkeys(node.input[index] for node, index in _inputs_to_quantise(model, how)))


def _inputs_to_quantise(model: Any, how: Rewriting) -> list[tuple[Any, int]]:
    """Return the (node, number of the input) that get a pair in front of them."""
    scheme, in_float = how.scheme, how.in_float
    weights = {item.name for item in model.graph.initializer}
    producers = Producers(model)

    def integer_convolution(tensor: str) -> bool:
        node = producers.of(tensor)
        return node is not None and node.op_type == "Conv" and node.name not in in_float

    found = []
    started = False  # nothing is quantised before the first convolution: the normalisation stays in float
    for node in model.graph.node:
        if node.op_type == "Conv":
            started = True
            if node.name not in in_float:
                found.append((node, 0))
        elif node.op_type == "MaxPool" and started and scheme.every_sum:
            found.append((node, 0))
        elif node.op_type == "Add" and started and not any(name in weights for name in node.input):
            above = {name for tensor in node.input for name in producers.upstream([tensor])}
            if any(name.startswith("head.") for name in above):
                terms = [n for n in (0, 1) if scheme.every_sum and integer_convolution(node.input[n])]
            elif scheme.every_sum:
                terms = [0, 1]
            else:  # the shortcut: what is no convolution's output, else the second term
                terms = [next((n for n in (1, 0) if not integer_convolution(node.input[n])), 1)]
            found += [(node, n) for n in terms]
    return found


def quantise(model: Any, ranges: Mapping[str, ValueRange], how: Rewriting) -> Any:
    """Return a copy of a float32 graph that computes in INT8, with a range for each of `tensors_to_quantise`."""
    result = copy_of(model)
    writer = _Writer(result, how.scheme, ranges, 2 ** (how.weight_bits - 1) - 1)
    for node, index in _inputs_to_quantise(result, how):
        tensor = node.input[index]
        node.input[index] = writer.activation(tensor)
        if node.op_type == "MaxPool":
            writer.share(tensor, node.output[0])  # pooling moves integers: the same scale before and after
        if node.op_type == "Conv":
            writer.weights(node, tensor)
    writer.finish()
    return result


class _Writer:
    """Adds quantise/dequantise pairs and their numbers to a graph."""

    def __init__(self, model: Any, scheme: Scheme, ranges: Mapping[str, ValueRange], largest_weight: int) -> None:
        self._graph, self._scheme, self._ranges, self._largest = model.graph, scheme, ranges, largest_weight
        self._floats = {item.name: item for item in model.graph.initializer}
        self._scales: dict[str, float] = {}
        self._shared: dict[str, str] = {}
        self._pairs: dict[str, list[Any]] = {}  # nodes to insert once a tensor is there
        self._weights: list[Any] = []  # and those of weights

    def share(self, tensor: str, output: str) -> None:
        """Let `output` be represented exactly as `tensor` is."""
        self._shared[output] = self._shared.get(tensor, tensor)

    def activation(self, tensor: str) -> str:
        """Return the name of the dequantised `tensor`, and make the pair where it is not there yet."""
        if tensor not in self._pairs:
            like = self._shared.get(tensor, tensor)
            scale, zero = _scale_of(self._ranges[like], signed=self._scheme.signed)
            self._scales[tensor] = scale
            self._constants(tensor, scale=np.float32(scale), zero_point=zero)
            self._pairs[tensor] = self._pair(tensor, tensor)
        return f"{tensor}/dequantized"

    def weights(self, node: Any, tensor: str) -> None:
        """Quantise weight and bias of a convolution that reads `tensor`."""
        import onnx

        stored = self._scheme.stored
        weight = onnx.numpy_helper.to_array(self._floats[node.input[1]])
        bias = onnx.numpy_helper.to_array(self._floats[node.input[2]]) if len(node.input) > 2 and stored else None
        scales = np.maximum(np.abs(weight).max(axis=(1, 2, 3)), 1e-12).astype(np.float64) / self._largest  # [K]
        if bias is not None:  # else the bias, in units of both scales, leaves int32
            scales = np.maximum(scales, np.abs(bias) / (self._scales[tensor] * 2.0**30))
        name = f"{node.name}.weight"
        self._constants(name, scale=scales.astype(np.float32), zero_point=np.zeros(len(scales), np.int8))
        scales = scales.astype(np.float32).astype(np.float64)
        if stored:
            steps = rounded_in_sum(weight.reshape(len(scales), -1) / scales[:, None]).reshape(weight.shape)
            self._constants(name, quantized=steps.clip(-self._largest, self._largest).astype(np.int8))
        self._weights += self._pair(name, "" if stored else node.input[1], axis=0)
        node.input[1] = f"{name}/dequantized"
        if bias is not None:
            unit = scales * np.float32(self._scales[tensor])
            name = f"{node.name}.bias"
            self._constants(name, quantized=np.rint(bias / unit).astype(np.int32), scale=unit.astype(np.float32),
                            zero_point=np.zeros(len(unit), np.int32))  # fmt: skip
            self._weights += self._pair(name, axis=0)
            node.input[2] = f"{name}/dequantized"

    def finish(self) -> None:
        """Put the pairs where they belong and drop the weights that are no longer read."""
        placed = self._weights
        for tensor in [port.name for port in self._graph.input]:
            placed += self._pairs.pop(tensor, [])
        for node in list(self._graph.node):
            placed.append(node)
            for output in node.output:
                placed += self._pairs.pop(output, [])
        del self._graph.node[:]
        self._graph.node.extend(placed)
        read = {name for node in self._graph.node for name in node.input}
        kept = [item for item in self._graph.initializer if item.name in read]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _constants(self, name: str, **values: Any) -> None:
        import onnx

        for part, value in values.items():
            self._graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), f"{name}/{part}"))

    @staticmethod
    def _pair(name: str, tensor: str = "", **attributes: Any) -> list[Any]:
        """Make quantise and dequantise of a tensor; without one, dequantise alone, of integers that are stored."""
        from onnx.helper import make_node

        numbers = [f"{name}/scale", f"{name}/zero_point"]
        quantized, dequantized = f"{name}/quantized", f"{name}/dequantized"
        first = [make_node("QuantizeLinear", [tensor, *numbers], [quantized], quantized, **attributes)]
        second = make_node("DequantizeLinear", [quantized, *numbers], [dequantized], dequantized, **attributes)
        return [*(first if tensor else []), second]


def rounded_in_sum(values: NDArray[Any]) -> NDArray[Any]:
    """Round the rows of an array [N,T] to integers, each to the one below or above, so that their sums are kept.

    Plain rounding errs in a row's sum by more, the longer the row, and a convolution's inputs are mostly positive and
    smooth, so that this error adds up where others cancel: it spoils convolutions of single channels. Measured with
    `to_onnx.py` on 8 frames of CamVid: EfficientNet-Lite0 after 50 steps of the source stage agrees with its checkpoint
    on 95.8 % of the pixels and all clear ones, with plain rounding on 91.6 % and 98.9 %, below the bar; a half-width
    ResNet-50 after 400 steps on 97.8 % against 97.5 %. That rounding may go either way for the sake of the result is
    the idea of AdaRound (Nagel et al. 2020); this rule, which needs no data, is ours.
    """
    rounded = np.rint(values)
    left = values - rounded  # in -0.5..0.5
    missing = np.rint(left.sum(axis=1, keepdims=True))  # steps that the sum lacks
    places = np.argsort(np.argsort(-left * np.sign(missing), axis=1, kind="stable"), axis=1, kind="stable")
    changed: NDArray[Any] = rounded + np.sign(missing) * (places < np.abs(missing))
    return changed


def _scale_of(found: ValueRange, *, signed: bool) -> tuple[float, NDArray[Any]]:
    """Return scale and zero point of a range, which is widened to hold 0."""
    low, high = min(found[0], 0.0), max(found[1], 0.0)
    if signed:
        return max(-low, high, 1e-12) / 127, np.array(0, np.int8)
    scale = max(high - low, 1e-12) / 255
    return scale, np.array(round(-low / scale), np.uint8)
