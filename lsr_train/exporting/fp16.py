"""FP16 graphs: float32 graphs whose network computes in half precision, with casts at both ends.

TensorRT is strongly typed, so precision is a property of the graph: every weight and tensor between the casts is half.
The normalisation before, and upsampling and decision behind, stay in float32.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError, QualityGateError
from lsr_train.exporting.calibration import gather
from lsr_train.exporting.graph import logits_of

__all__ = ["CHOICES", "LARGEST_HALF", "check_reach", "to_half"]

LARGEST_HALF = 65504.0
"""The largest finite number of half precision."""

CHOICES = (
    "weights and arithmetic in half precision from the first convolution to the logits, batch-norm folded in float32",
    "normalisation in float32 before it, logits cast back to float32 behind it",
)
"""What is done here, in words, as the Manifest carries it."""


def check_reach(model: Any, images: Sequence[NDArray[np.uint8]]) -> None:
    """Raise where a value inside the float32 graph lies beyond half precision on frames.

    ONNX Runtime's CPU computes half graphs in float32 and would not show it, a GPU does.

    Args:
        model: the float32 graph.
        images: uint8 [1,H,W,3] each.

    Raises:
        QualityGateError: one does.
    """
    tensors = [node.output[0] for node in model.graph.node if node.op_type in ("Conv", "Add")]
    for tensor, spread in gather(model, tensors, images).items():
        reach = max(-spread.least, spread.largest)
        if not reach <= LARGEST_HALF:
            raise QualityGateError(
                f"{tensor} reaches {reach:g} on a frame, beyond half precision ({LARGEST_HALF:g}). Export in fp32."
            )


def to_half(model: Any) -> Any:
    """Return a copy of a float32 graph that computes in half precision from the first convolution to the logits.

    Batch-norm has been folded in float32, so each weight is rounded once.

    Args:
        model: an `onnx.ModelProto` of `trace`.

    Raises:
        InputError: a folded weight is beyond half precision.
    """
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    first = next(node.input[0] for node in graph.node if node.op_type == "Conv")
    logits = logits_of(result)
    inside, read = set(), {first}
    for node in graph.node:  # in the order of the graph, so that what a node reads is known by then
        if read & set(node.input) and logits not in read:
            inside.add(node.name)
            read.update(node.output)
    halves = {name for node in graph.node if node.name in inside for name in node.input}
    for item in graph.initializer:
        if item.name in halves:
            item.CopyFrom(onnx.numpy_helper.from_array(_half(onnx.numpy_helper.to_array(item), item.name), item.name))
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


def _half(values: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    """Round weights to half precision."""
    largest = float(np.abs(values).max(initial=0.0))
    if not largest <= LARGEST_HALF:
        raise InputError(f"{name}: a weight of {largest:g} is beyond half precision. Export in fp32.")
    return values.astype(np.float16)


def _cast(tensor: str, output: str, to: int) -> Any:
    import onnx

    # Not named after its output: a node of the graph may be called as that tensor is.
    return onnx.helper.make_node("Cast", [tensor], [output], f"{output}/cast", to=to)
