"""A layer that is damaged on purpose is the one that is named, whatever the precision."""

import copy
import json
import math
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from lsr_infer.parity.meter import LayerError
from lsr_train.exporting.calibration import CALIBRATIONS, gather
from lsr_train.exporting.checkpoint_parity import layer_errors, worst_layer
from lsr_train.exporting.graph import layers
from lsr_train.exporting.precisions import SCHEMES, Rewriting, quantise, tensors_to_quantise, to_half


def in_precision(model: Any, images: list[np.ndarray], precision: str) -> Any:
    if precision == "fp32":
        return model
    if precision == "fp16":
        return to_half(model)
    how = Rewriting.of(model, SCHEMES[precision])
    spreads = gather(model, tensors_to_quantise(model, how), images)
    return quantise(model, {k: CALIBRATIONS["minmax"](v) for k, v in spreads.items()}, how)


@pytest.mark.parametrize("precision", ["fp32", "fp16", *SCHEMES])
@pytest.mark.parametrize("damaged", ["backbone.layer1.0.downsample.0", "backbone.layer3.1.conv2", "head.branches.1"])
def test_the_damaged_layer_is_named(
    made: Any, traced: Any, images: list[np.ndarray], precision: str, damaged: str
) -> None:
    model = in_precision(traced, images, precision)
    whole = layer_errors(made, model, images[:1])
    assert [item.layer for item in whole] == list(layers(model))
    assert max(item.error for item in whole) < {"fp32": 1e-4, "fp16": 0.05}.get(precision, 0.5)
    other = copy.deepcopy(made)
    with torch.no_grad():
        other.get_submodule(damaged).weight.mul_(-1)
    worst = worst_layer(layer_errors(other, model, images[:1]))
    assert worst is not None
    assert worst.layer == damaged
    assert worst.error > worst.before + 0.5
    assert damaged in worst.describe()


def test_a_layer_that_is_not_finite_is_the_worst(made: Any, traced: Any, images: list[np.ndarray]) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(traced)
    for item in broken.graph.initializer:
        if item.name == "network.backbone.layer2.1.conv1.weight":
            item.CopyFrom(onnx.numpy_helper.from_array(np.inf * onnx.numpy_helper.to_array(item), item.name))
    drift = layer_errors(made, broken, images[:1])
    worst = worst_layer(drift)
    assert worst is not None
    assert (worst.layer, worst.error) == ("backbone.layer2.1.conv1", math.inf)
    assert json.loads(json.dumps([item.to_dict() for item in drift], allow_nan=False))[0]["layer"] == "backbone.conv1"


def test_figures_as_data() -> None:
    item = LayerError(layer="a", error=0.1, before=0.0, largest=3.0)
    assert item.to_dict() == {"layer": "a", "error": 0.1, "before": 0.0, "largest": 3.0, "snr_db": pytest.approx(20)}
    assert worst_layer([]) is None
