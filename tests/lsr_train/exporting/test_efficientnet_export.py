"""EfficientNet-Lite in every precision: its activations stay fused, and each file computes what the checkpoint does."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra export)")

from lsr_infer.system.process import import_onnxruntime  # noqa: E402
from lsr_train.exporting.calibration import CALIBRATIONS, gather  # noqa: E402
from lsr_train.exporting.checkpoint_parity import layer_errors  # noqa: E402
from lsr_train.exporting.graph import layers, trace  # noqa: E402
from lsr_train.exporting.precisions import SCHEMES, Rewriting, quantise, tensors_to_quantise, to_half  # noqa: E402
from tests.lsr_train.exporting.small import network  # noqa: E402

pytestmark = pytest.mark.slow  # tracing 50 convolutions takes half a minute


@pytest.fixture(scope="module")
def mobile() -> Any:
    return network(backbone="efficientnet-lite0", width=1.0, output_stride=16, normalization="lite-rgb")


@pytest.fixture(scope="module")
def graph(mobile: Any) -> Any:
    return trace(mobile, fixed=None)


def fused(model: Any, path: Path) -> Counter[str]:
    """How many nodes of each kind ONNX Runtime runs."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


@pytest.mark.parametrize("precision", ["fp32", "fp16", *SCHEMES])
def test_every_layer_is_the_checkpoints(mobile: Any, graph: Any, images: list[np.ndarray], precision: str) -> None:
    model = graph
    if precision == "fp16":
        model = to_half(graph)
    elif precision != "fp32":
        how = Rewriting.of(graph, SCHEMES[precision])
        spreads = gather(graph, tensors_to_quantise(graph, how), images)
        model = quantise(graph, {name: CALIBRATIONS["minmax"](value) for name, value in spreads.items()}, how)
    found = layer_errors(mobile, model, images[:1])
    assert [item.layer for item in found] == list(layers(model))
    assert len(found) == 49 + 2
    assert max(item.error for item in found) < {"fp32": 1e-4, "fp16": 0.05}.get(precision, 0.5)


def test_onnx_runtime_clips_inside_its_convolutions(graph: Any, images: list[np.ndarray], tmp_path: Path) -> None:
    assert sum(node.op_type == "Clip" for node in graph.graph.node) == 33
    assert not fused(graph, tmp_path / "fp32.onnx")["Clip"]
    how = Rewriting.of(graph, SCHEMES["onnxruntime"])
    spreads = gather(graph, tensors_to_quantise(graph, how), images[:2])
    integers = quantise(graph, {name: CALIBRATIONS["minmax"](value) for name, value in spreads.items()}, how)
    kinds = fused(integers, tmp_path / "int8.onnx")
    assert (kinds["QLinearConv"], kinds["Conv"], kinds["Clip"]) == (51, 0, 0)
