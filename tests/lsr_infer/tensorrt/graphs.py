"""Small ONNX files in every precision, made with the onnx package: convolutions, a head, logits or classes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsr_infer.backends.model_file import read_model_file
from lsr_infer.labelspace import LabelSpace
from lsr_infer.manifest import METADATA_KEY, Manifest
from lsr_infer.manifest.records import Parity
from lsr_infer.tensorrt.make import OnnxModel

onnx: Any = pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper

SPACE = LabelSpace(name="five", names=("a", "b", "c", "d", "e"), colors=tuple((50 * n, 0, 0) for n in range(5)))


PROVED = Parity(
    reference="checkpoint", frames_from="4 frames", frames=4, pixels=9, agreement=1.0, clear_agreement=1.0,
    max_logit_difference=0.0, mean_logit_difference=0.0,
)  # fmt: skip


def manifest(**changes: Any) -> Manifest:
    return replace(Manifest(label_space=SPACE, height=64, width=96, parity=PROVED), **changes)


class _Graph:
    """Nodes and weights, added one after the other."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def constant(self, name: str, values: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output


def small_graph(precision: str = "fp32", output: str = "logits", *, depth: int = 3, width: int = 8) -> Any:
    """A network of `depth` convolutions, of which the first two halve the sides; fp32 or fp16."""
    random = np.random.default_rng(5)
    kind: type[np.floating[Any]] = np.float16 if precision == "fp16" else np.float32
    graph = _Graph()
    x = graph.node("Cast", ["image"], "levels", to=TensorProto.FLOAT)
    x = graph.node("Transpose", [x], "planes", perm=[0, 3, 1, 2])
    x = graph.node("Sub", [x, graph.constant("mean", np.full((1, 3, 1, 1), 110, np.float32))], "centred")
    x = graph.node("Mul", [x, graph.constant("scale", np.full((1, 1, 1, 1), 1 / 64, np.float32))], "scaled")
    if precision == "fp16":
        x = graph.node("Cast", [x], "halves", to=TensorProto.FLOAT16)
    channels = 3
    for n in range(depth):
        weight = random.normal(0, (2 / (9 * channels)) ** 0.5, (width, channels, 3, 3)).astype(kind)
        inputs = [x, graph.constant(f"weight{n}", weight), graph.constant(f"bias{n}", np.zeros(width, kind))]
        stride = 2 if n < 2 else 1
        x = graph.node("Conv", inputs, f"conv{n}", strides=[stride, stride], pads=[1] * 4, kernel_shape=[3, 3])
        x = graph.node("Relu", [x], f"relu{n}")
        channels = width
    head = random.normal(0, 1, (SPACE.num_classes, channels, 1, 1)).astype(kind)
    inputs = [x, graph.constant("weight_head", head), graph.constant("bias_head", np.zeros(SPACE.num_classes, kind))]
    x = graph.node("Conv", inputs, "head", kernel_shape=[1, 1])
    x = graph.node("Cast", [x], "logits", to=TensorProto.FLOAT)
    if output == "classes":
        batch = graph.node("Shape", ["logits"], "batch", start=0, end=2)
        sides = graph.node("Shape", ["image"], "sides", start=1, end=3)
        sizes = graph.node("Concat", [batch, sides], "sizes", axis=0)
        rule = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
        x = graph.node("Resize", [x, "", "", sizes], "full", **rule)
        x = graph.node("ArgMax", [x], "best", axis=1, keepdims=0)
        x = graph.node("Cast", [x], "best_float", to=TensorProto.FLOAT)
        graph.node("Cast", [x], "classes", to=TensorProto.UINT8)
        port = helper.make_tensor_value_info("classes", TensorProto.UINT8, ["N", "H", "W"])
    else:
        port = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", SPACE.num_classes, "h", "w"])
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])
    made = helper.make_model(
        helper.make_graph(graph.nodes, "small", [image], [port], graph.weights),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(made)
    return made


def save(model: Any, path: Path, document: Manifest) -> Path:
    """Write a model with its Manifest."""
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=document.to_json())
    path.write_bytes(model.SerializeToString())
    return path


def small_file(path: Path, precision: str = "fp32", output: str = "logits", **changes: Any) -> Path:
    """Write a small model in any precision; its Manifest tells the truth but for `changes`."""
    model = small_graph("fp16" if precision == "fp16" else "fp32", output)
    if precision == "int8":
        model = quantize(model, path.with_name("float.onnx"))
    return save(model, path, manifest(**({"precision": precision, "output": output} | changes)))


def quantize(model: Any, scratch: Path) -> Any:
    """Quantise symmetrically, weights and activations, as TensorRT wants it; the head stays in float."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            random = np.random.default_rng(1)
            self.frames = iter(random.integers(0, 256, (3, 1, 64, 96, 3), dtype=np.uint8))

        def get_next(self) -> dict[str, np.ndarray] | None:
            frame = next(self.frames, None)
            return None if frame is None else {"image": frame}

    scratch.write_bytes(model.SerializeToString())
    made = scratch.with_name("quantized.onnx")
    quantize_static(
        str(scratch),
        str(made),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=["head"],
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
        },
    )
    quantized = onnx.load(str(made))
    scratch.unlink()
    made.unlink()
    return quantized


def damaged(layer: str, factor: float = 1.5) -> Callable[[bytes], bytes]:
    """Return what changes the weights of one convolution in a model, and nothing else."""

    def damage(data: bytes) -> bytes:
        model = onnx.load_from_string(data)
        (node,) = [node for node in model.graph.node if node.name == layer]
        for index, weight in enumerate(model.graph.initializer):
            if weight.name == node.input[1]:
                changed = np.array(numpy_helper.to_array(weight))
                changed[::2] *= factor
                model.graph.initializer[index].CopyFrom(numpy_helper.from_array(changed, weight.name))
                return bytes(model.SerializeToString())
        raise AssertionError(f"{layer} has no weights of its own")

    return damage


def read_model(path: Path) -> OnnxModel:
    """Read an ONNX file as `to_trt.py` does."""
    return OnnxModel.read(path, read_model_file(path).manifest)
