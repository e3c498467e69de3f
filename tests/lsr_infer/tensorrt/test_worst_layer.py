"""Inner tensors made outputs, and the layer found that was damaged on purpose; ONNX Runtime on both sides."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra export)")

from lsr_infer.errors import InputError  # noqa: E402
from lsr_infer.tensorrt.verify import find_worst_layer, inner_tensors, logits_tensor, run_onnx, with_outputs  # noqa: E402  # noqa: E402
from tests.lsr_infer.tensorrt.graphs import damaged, quantize, small_graph  # noqa: E402

FRAMES = np.random.default_rng(2).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("layer", ["conv0", "conv7", "conv19", "head"])
def test_the_damaged_layer_is_found(precision: str, layer: str) -> None:
    model = small_graph(precision, depth=20).SerializeToString()
    damage = damaged(layer)
    runs: list[int] = []

    def candidate(marked: bytes, frames: np.ndarray) -> Mapping[str, Any]:
        runs.append(len(onnx.load_from_string(marked).graph.output))
        return run_onnx(damage(marked), frames)

    drift = find_worst_layer(model, FRAMES, run_onnx, candidate)
    assert drift is not None
    assert drift.layer == f"Conv {layer}"
    assert drift.before < 1e-2 < drift.error
    assert drift.largest > 0
    assert layer in drift.describe()
    assert len(runs) <= 3  # 45 layers, eight at a time
    assert max(runs) <= 9


def test_a_layer_that_is_not_finite_is_the_one() -> None:
    model = small_graph(depth=6).SerializeToString()
    drift = find_worst_layer(
        model, FRAMES, run_onnx, lambda marked, f: run_onnx(damaged("conv3", float("nan"))(marked), f)
    )
    assert drift is not None
    assert (drift.layer, drift.error) == ("Conv conv3", float("inf"))


def test_an_equal_computation_drifts_nowhere() -> None:
    assert find_worst_layer(small_graph().SerializeToString(), FRAMES, run_onnx, run_onnx) is None


def test_marking_changes_nothing_else() -> None:
    data = small_graph(output="classes").SerializeToString()
    names = list(inner_tensors(data))
    assert {"conv0", "relu2", "head", "logits", "full"} <= set(names)
    assert not {"mean", "weight0", "batch", "sizes"} & set(names)
    marked = with_outputs(data, names)
    first, second = run_onnx(data, FRAMES), run_onnx(marked, FRAMES)
    np.testing.assert_array_equal(first["classes"], second["classes"])
    assert set(second) == {"classes", *names}
    stripped = onnx.load_from_string(marked)
    del stripped.graph.output[1:]
    assert stripped.SerializeToString() == onnx.load_from_string(data).SerializeToString()
    with pytest.raises(InputError, match="no tensor 'nothing'"):
        with_outputs(data, ["nothing"])


def test_layers_of_a_quantised_graph(tmp_path: Path) -> None:
    data = quantize(small_graph(), tmp_path / "float.onnx").SerializeToString()
    names = inner_tensors(data)
    assert {"conv0", "conv2", "head"} <= set(names)
    assert not any("weight" in name for name in names)  # what is computed from weights alone cannot drift
    assert set(run_onnx(with_outputs(data, list(names)), FRAMES)) >= set(names)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_logits_of_a_graph_of_classes_are_found(precision: str) -> None:
    assert logits_tensor(small_graph(precision, "classes").SerializeToString()) == "logits"
    assert logits_tensor(small_graph(precision, "logits").SerializeToString()) is None


def test_what_cannot_be_run_is_said() -> None:
    with pytest.raises(InputError, match="ONNX Runtime cannot run the graph"):
        run_onnx(b"no model", FRAMES)
    with pytest.raises(InputError, match="ONNX Runtime cannot run the graph"):
        run_onnx(small_graph().SerializeToString(), FRAMES[..., :2])
