"""Copies of an ONNX graph with more outputs, so that what happens inside it can be compared.

Needs the onnx package, which is imported where it is used. Weights and nodes are left as they are.
"""

from collections.abc import Sequence
from typing import Any

from lsr_infer.errors import DeviceError, InputError, extra

__all__ = ["inner_tensors", "logits_tensor", "with_outputs"]

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
    """Return a copy of a model that gives some of its inner tensors too.

    Args:
        model: the ONNX file's bytes, weights included.
        names: tensors of `inner_tensors`, or those that are outputs already.

    Raises:
        DeviceError: the onnx package is missing.
        InputError: the graph has no such tensor.
    """
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
    """Return the floating tensors that a graph's layers give, in the order of the graph, each with its layer's words.

    Raises:
        DeviceError: the onnx package is missing.
    """
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
    """Return the name of the logits inside a graph that gives classes, before they are upsampled; None where unknown.

    Raises:
        DeviceError: the onnx package is missing.
    """
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
