"""Types read off an engine's inspector in the words of several versions, and what is made of them."""

import json

import pytest

from lsr_infer.errors import DeviceError, QualityGateError
from lsr_infer.tensorrt.types import check_engine_types, check_network_types, inspected_types


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
    assert inspected_types(text) == {name: 1}


def test_layers_are_counted_and_the_unknown_left_out() -> None:
    def output(words: str) -> dict[str, object]:
        return {"Inputs": [{"Format/Datatype": "Int8"}], "Outputs": [{"Format/Datatype": words}]}

    layers = [output("Half"), output("Half"), output("Float"), output("N/A due to dynamic shapes"), "conv1"]
    assert inspected_types(json.dumps({"Layers": layers, "Bindings": ["image"]})) == {"float": 1, "half": 2}


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"Layers": ["conv1", "conv2"]}', '{"Layers": []}', "{}"])
def test_an_inspector_that_shows_no_types(text: str) -> None:
    assert inspected_types(text) == {}


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


def test_an_engine_must_show_the_type_that_is_claimed() -> None:
    check_engine_types("fp16", {"half": 1, "float": 9})
    with pytest.raises(DeviceError, match="says int8, but in the built engine 9 give float, 2 give half"):
        check_engine_types("int8", {"float": 9, "half": 2})
