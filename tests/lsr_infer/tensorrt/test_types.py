"""Types read off an engine's inspector in the words of several versions, and what is made of them."""

import json

import pytest

from lsr_infer.errors import DeviceError, QualityGateError
from lsr_infer.tensorrt.types import Inspected, check_engine_types, check_network_types, inspected_types


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("Row major linear FP32", "float"),
        ("Float", "float"),
        ("Row major linear FP16 format", "half"),
        ("Channel major FP16 format where channel % 8 == 0", "half"),
        ("Half", "half"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("Int8", "int8"),
        ("Row major UInt8", "uint8"),
        ("Row major INT32", "int32"),
        ("Int64", "int64"),
        ("BF16", "bf16"),
        ("BFloat16", "bf16"),
        ("Bool", "bool"),
    ],
)
def test_every_version_s_word_for_a_type(words: str, name: str) -> None:
    text = json.dumps({"Layers": [{"Name": "conv1", "Outputs": [{"Name": "x", "Format/Datatype": words}]}]})
    assert inspected_types(text) == Inspected(layers={name: 1})


def test_layers_are_counted_and_the_unknown_left_out() -> None:
    def output(words: str) -> dict[str, object]:
        return {"Inputs": [{"Format/Datatype": "Int8"}], "Outputs": [{"Format/Datatype": words}]}

    layers = [output("Half"), output("Half"), output("Float"), output("N/A due to dynamic shapes"), "conv1"]
    assert inspected_types(json.dumps({"Layers": layers, "Bindings": ["image"]})).layers == {"float": 1, "half": 2}


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"Layers": ["conv1", "conv2"]}', '{"Layers": []}', "{}"])
def test_an_inspector_that_shows_no_types(text: str) -> None:
    assert inspected_types(text) == Inspected()


def test_most_of_the_work_must_be_in_the_type_that_is_claimed() -> None:
    check_network_types("fp16", {"half": 3, "float": 2})
    check_network_types("int8", {"int8": 100, "float": 4})
    check_network_types("fp32", {"float": 1})
    for precision, working in (
        ("fp16", {"half": 2, "float": 2}),
        ("fp16", {"float": 4}),
        ("int8", {"half": 104}),
        ("fp32", {"half": 104}),
        ("fp32", {}),
    ):
        with pytest.raises(QualityGateError, match=f"Manifest says {precision}"):
            check_network_types(precision, working)


def document(*layers: tuple[str, str, str], keys: tuple[str, ...] = ("Format/Datatype",)) -> Inspected:
    """Read an inspector's document of (kind of layer, type read, type given)."""

    def port(words: str) -> list[dict[str, str]]:
        return [{"Name": "x", "Dimensions": "[1,8,64,96]"} | dict.fromkeys(keys, words)]

    shown = [{"Name": "l", "LayerType": kind, "Inputs": port(one), "Outputs": port(two)} for kind, one, two in layers]
    return inspected_types(json.dumps({"Layers": shown}))


INT8 = "Thirty-two wide channel vectorized row major Int8 format."
QUANTISED = (
    ("Reformat", "Row major linear FP32", INT8),
    ("CaskConvolution", INT8, INT8),
    ("CaskConvActPool", INT8, "Row major linear FP32"),
    ("CaskConvolution", "Row major linear FP32", "Row major linear FP32"),
    ("Resize", "Row major linear FP32", "Row major linear FP32"),
)


def test_one_layer_of_a_type_does_not_make_an_engine_of_it() -> None:
    """The engine is judged as the network is: by most of its convolutions and products."""
    check_engine_types("int8", document(*QUANTISED))
    one = document(QUANTISED[0], QUANTISED[1], QUANTISED[3], QUANTISED[3])
    assert one.working == {"float": 2, "int8": 1}
    assert one.layers == {"float": 2, "int8": 2}
    with pytest.raises(DeviceError, match="of the built engine's convolutions 2 compute in float, 1 compute"):
        check_engine_types("int8", one)
    half = document(("gemm", "Half", "Half"), ("MatrixMultiply", "Float", "Float"), ("kgen", "Half", "Half"))
    assert half.working == {"float": 1, "half": 1}
    with pytest.raises(DeviceError, match="the Manifest says fp16"):
        check_engine_types("fp16", half)


def test_tensorrt_11_splits_the_type_from_the_layout() -> None:
    found = document(("CaskConvolution", "Int8", "Int8"), ("Convert", "Int8", "Float"), keys=("DataType",))
    assert found == Inspected(layers={"float": 1, "int8": 1}, working={"int8": 1})


def test_an_engine_that_shows_no_convolution_can_be_refused_alone() -> None:
    check_engine_types("int8", Inspected())
    check_engine_types("fp16", document(("kgen", "Half", "Half"), ("kgen", "Float", "Float")))
    with pytest.raises(DeviceError, match="of the built engine's layers 1 give float"):
        check_engine_types("int8", document(("kgen", "Float", "Float")))
