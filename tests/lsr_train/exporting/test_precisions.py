"""FP16 and INT8 graphs: what stands in them, what they compute, and that TensorRT's own parser reads them."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from lsr_infer.errors import InputError, QualityGateError
from lsr_train.data.labels import CAMVID_11
from lsr_train.exporting.calibration import CALIBRATIONS, best_of, candidates, check_reach, gather
from lsr_train.exporting.graph import OPSETS, layers, trace
from lsr_train.exporting.precisions import (
    SCHEMES,
    Rewriting,
    quantise,
    rounded_in_sum,
    tensors_to_quantise,
    to_half,
)


def run(model: Any, images: list[np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image})[0] for image in images])


def numbers(model: Any) -> dict[str, np.ndarray]:
    return {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}


def quantised(model: Any, images: list[np.ndarray], runtime: str, **options: Any) -> Any:
    how = Rewriting.of(model, SCHEMES[runtime], **options)
    spreads = gather(model, tensors_to_quantise(model, how), images)
    ranges = {tensor: CALIBRATIONS["minmax"](spread) for tensor, spread in spreads.items()}
    return quantise(model, ranges, how)


@pytest.fixture(scope="session")
def classes(made: Any) -> Any:
    return trace(made, fixed=None, outputs="classes")


def test_layers_carry_the_names_of_the_modules(traced: Any, made: Any) -> None:
    modules = dict(made.named_modules())
    assert len(layers(traced)) == 23
    assert all(type(modules[name]).__name__ == "Conv2d" for name in layers(traced))


def test_half_precision_between_casts(traced: Any, classes: Any, images: list[np.ndarray]) -> None:
    half = to_half(traced)
    onnx.checker.check_model(half, full_check=True)
    assert [output.type.tensor_type.elem_type for output in half.graph.output] == [onnx.TensorProto.FLOAT]
    weights = {node.input[1] for node in half.graph.node if node.op_type == "Conv"}
    assert {numbers(half)[name].dtype for name in weights} == {np.dtype(np.float16)}
    assert half.ByteSize() < 0.55 * traced.ByteSize()
    one, other = run(traced, images), run(half, images)
    assert 0 < np.abs(one - other).max() < 0.02 * np.abs(one).max()
    decided = to_half(classes)
    onnx.checker.check_model(decided, full_check=True)
    types = {
        item.name: item.type.tensor_type.elem_type
        for item in onnx.shape_inference.infer_shapes(decided).graph.value_info
    }
    resize = next(node for node in decided.graph.node if node.op_type == "Resize")
    assert types[resize.input[0]] == onnx.TensorProto.FLOAT
    assert (run(decided, images) == run(classes, images)).mean() > 0.99


def test_what_half_precision_cannot_hold_is_refused(traced: Any, images: list[np.ndarray]) -> None:
    check_reach(traced, images[:1])
    loud = onnx.ModelProto()
    loud.CopyFrom(traced)
    for item in loud.graph.initializer:
        if item.name == "network.backbone.layer2.0.conv1.weight":
            item.CopyFrom(onnx.numpy_helper.from_array(1e5 * onnx.numpy_helper.to_array(item), item.name))
    with pytest.raises(QualityGateError, match=r"layer2\.0\.conv1 reaches"):
        check_reach(loud, images[:1])
    for item in loud.graph.initializer:
        if item.name == "network.backbone.layer2.0.conv1.weight":
            item.CopyFrom(onnx.numpy_helper.from_array(1e9 * onnx.numpy_helper.to_array(item), item.name))
    with pytest.raises(InputError, match="beyond half precision"):
        to_half(loud)


def test_integers_for_onnx_runtime_are_fused(traced: Any, images: list[np.ndarray], tmp_path: Path) -> None:
    model = quantised(traced, images, "onnxruntime")
    onnx.checker.check_model(model, full_check=True)
    values = numbers(model)
    weight, scale = values["backbone.layer2.0.conv2.weight/quantized"], values["backbone.layer2.0.conv2.weight/scale"]
    original = numbers(traced)["network.backbone.layer2.0.conv2.weight"]
    assert weight.dtype == np.int8
    assert np.abs(weight).max() == 127
    left = weight - original / scale[:, None, None, None]  # in steps
    assert (np.abs(left) < 1).all()
    assert (np.abs(left.sum(axis=(1, 2, 3))) < 0.51).all()
    assert values["backbone.layer2.0.conv2.bias/quantized"].dtype == np.int32
    zero_points = {name: value for name, value in values.items() if name.endswith("/zero_point") and value.ndim == 0}
    assert {value.dtype for value in zero_points.values()} == {np.dtype(np.uint8)}
    assert any(zero_points.values())
    assert zero_points["relu_3/zero_point"] == 0
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    settings.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(settings.optimized_model_filepath).graph.node)
    assert kinds["QLinearConv"] == 23
    assert kinds["QLinearAdd"] == 8
    assert kinds["Conv"] + kinds["FusedConv"] == 0


def test_integers_for_tensorrt_are_symmetric_and_explicit(traced: Any, images: list[np.ndarray]) -> None:
    model = quantised(traced, images, "tensorrt")
    onnx.checker.check_model(model, full_check=True)
    values = numbers(model)
    points = [value for name, value in values.items() if name.endswith("/zero_point")]
    assert {value.dtype for value in points} == {np.dtype(np.int8)}
    assert not any(value.any() for value in points)
    assert not any(value.dtype == np.int32 for value in values.values())
    producer = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "Conv" and not node.name.startswith("head."):
            pair = producer[node.input[1]]
            assert (pair.op_type, producer[pair.input[0]].op_type) == ("DequantizeLinear", "QuantizeLinear")
            assert values[producer[pair.input[0]].input[0]].dtype == np.float32
            assert node.input[2] not in producer  # the bias is a plain float
        if node.op_type == "Conv" and node.name.startswith("head."):
            assert node.input[1] not in producer
        if node.op_type == "Add" and node.name != "node_add_16" and all(name in producer for name in node.input):
            kinds = [producer[name].op_type for name in node.input]
            if "head." not in "".join(node.input):
                assert kinds.count("DequantizeLinear") == 1, "one term of a residual sum stays in the kernel"


@pytest.mark.parametrize("runtime", list(SCHEMES))
def test_integers_compute_nearly_the_same(traced: Any, images: list[np.ndarray], runtime: str) -> None:
    expected = run(traced, images)
    errors = {}
    for bits in (8, 7):
        found = run(quantised(traced, images, runtime, weight_bits=bits), images)
        errors[bits] = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert (found.argmax(1) == expected.argmax(1)).mean() > 0.9
    assert 0 < errors[8] < errors[7] < 0.3


@pytest.mark.parametrize("length", [1, 9, 25, 1280])
def test_rounded_rows_keep_their_sums(length: int) -> None:
    values = np.random.default_rng(length).normal(0, 40, (64, length))
    values[0] = np.rint(values[0])
    values[1] = 0.4
    rounded = rounded_in_sum(values)
    assert np.array_equal(rounded, np.rint(rounded))
    assert (np.abs(rounded - values) < 1).all()
    assert (np.abs((rounded - values).sum(axis=1)) <= 0.5 + 1e-9).all()
    assert np.array_equal(rounded[0], values[0])
    assert np.array_equal(rounded_in_sum(-values), -rounded)


def test_a_range_that_is_missing_is_no_silent_default(traced: Any) -> None:
    with pytest.raises(KeyError):
        quantise(traced, {}, Rewriting.of(traced, SCHEMES["onnxruntime"]))


def test_every_calibration_is_tried_and_the_best_kept(traced: Any, images: list[np.ndarray]) -> None:
    tried = candidates(
        traced,
        Rewriting.of(traced, SCHEMES["onnxruntime"]),
        CAMVID_11,
        images[:4],
        images[4:],
        margin=0.5,
    )
    assert [candidate.calibration for candidate in tried] == list(CALIBRATIONS)
    assert len({candidate.parity.mean_logit_difference for candidate in tried}) == len(tried)
    best = best_of(tried)
    for candidate in tried:
        assert candidate.parity.frames == 2
        assert candidate.parity.miou is None
        assert best.rank() >= candidate.rank()
    assert best.parity.clear_agreement == max(candidate.parity.clear_agreement or 0 for candidate in tried)


@pytest.mark.parametrize("outputs", ["logits", "classes"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_tensorrt_parses_what_is_made_for_it(
    traced: Any, classes: Any, images: list[np.ndarray], precision: str, outputs: str
) -> None:
    """Its strongly typed network has the types the file is named after."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra trt-rtx)")
    floats = traced if outputs == "logits" else classes
    model = to_half(floats) if precision == "fp16" else quantised(floats, images, "tensorrt")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    parsed = builder.create_network(0)
    parser = trt.OnnxParser(parsed, logger)
    assert parser.parse(model.SerializeToString()), [parser.get_error(n).desc() for n in range(parser.num_errors)]
    shown = [parsed.get_layer(n) for n in range(parsed.num_layers)]
    convolutions = [layer for layer in shown if layer.type == trt.LayerType.CONVOLUTION]
    assert len(convolutions) == 23
    if precision == "fp16":
        assert {layer.get_output(0).dtype for layer in convolutions} == {trt.DataType.HALF}
    else:
        quantizers = [layer for layer in shown if layer.type == trt.LayerType.QUANTIZE]
        assert {layer.get_output(0).dtype for layer in quantizers} == {trt.DataType.INT8}
        assert len(quantizers) == 21 + len(tensors_to_quantise(floats, Rewriting.of(floats, SCHEMES["tensorrt"])))
    expected = trt.DataType.FLOAT if outputs == "logits" else trt.DataType.UINT8
    assert (parsed.get_output(0).name, parsed.get_output(0).dtype) == (outputs, expected)


@pytest.mark.slow
@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset(made: Any, images: list[np.ndarray], opset: int) -> None:
    floats = trace(made, fixed=None, opset=opset)
    assert [entry.version for entry in floats.opset_import if not entry.domain] == [opset]
    expected = run(floats, images)
    for model in (to_half(floats), *(quantised(floats, images, runtime) for runtime in SCHEMES)):
        onnx.checker.check_model(model, full_check=True)
        assert (run(model, images).argmax(1) == expected.argmax(1)).mean() > 0.9
