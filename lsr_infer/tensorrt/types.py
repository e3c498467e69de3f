"""Which types a network or an engine computes in, read off it and compared with what its Manifest claims.

A builder that leaves a file in float32 does so without a word; only the layers say what they are.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from lsr_infer.errors import DeviceError, QualityGateError

__all__ = ["check_engine_types", "check_network_types", "engine_types", "network_types", "working_types"]

_TYPE_OF = {"fp32": "float", "fp16": "half", "int8": "int8"}
_WORKING = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_WORDS = (
    ("bf16", r"bf16|bfloat"),
    ("half", r"fp16|half|float16"),
    ("fp8", r"fp8"),
    ("uint8", r"uint8"),
    ("int8", r"int8"),
    ("int64", r"int64"),
    ("int32", r"int32"),
    ("bool", r"bool"),
    ("float", r"fp32|float"),
)
"""What an inspector calls the types, in the order in which to look; its words differ between versions."""


def network_types(network: Any) -> dict[str, int]:
    """Count the layers of a parsed network by the type of their outputs, such as {"half": 210, "float": 3}."""
    counts: Counter[str] = Counter()
    for layer in _layers(network):
        counts.update(_name(layer.get_output(n).dtype) for n in range(layer.num_outputs))
    return dict(sorted(counts.items()))


def working_types(network: Any) -> dict[str, int]:
    """Count the convolutions and products of a parsed network by the type they compute in.

    One whose data comes straight from 8-bit integers by a dequantisation computes in int8 in the built engine.
    """
    maker = {layer.get_output(n).name: layer for layer in _layers(network) for n in range(layer.num_outputs)}
    counts: Counter[str] = Counter()
    for layer in _layers(network):
        if _name(layer.type) not in {name.lower() for name in _WORKING}:
            continue
        source = maker.get(layer.get_input(0).name)
        reads = source if source is not None and _name(source.type) == "dequantize" else layer
        counts[_name(reads.get_input(0).dtype)] += 1
    return dict(sorted(counts.items()))


def engine_types(engine: Any, module: Any) -> dict[str, int]:
    """Count the layers of a built engine by the type of their outputs; empty where its inspector does not show any.

    Args:
        engine: the opened engine, built with detailed verbosity.
        module: the library.
    """
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(module.LayerInformationFormat.JSON)
    return inspected_types(text)


def inspected_types(text: str) -> dict[str, int]:
    """Count the layers in an inspector's JSON by the type of their outputs."""
    try:
        layers = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        return {}
    counts: Counter[str] = Counter()
    for layer in layers:
        for output in layer.get("Outputs", []) if isinstance(layer, dict) else []:
            described = str(output.get("Format/Datatype", output.get("Datatype", ""))).lower()
            named = next((name for name, words in _WORDS if re.search(words, described)), None)
            if named is not None:
                counts[named] += 1
    return dict(sorted(counts.items()))


def check_network_types(precision: str, working: Mapping[str, int]) -> None:
    """Raise unless most of the work of a parsed network is in the type that its Manifest claims.

    Args:
        precision: `fp32`, `fp16` or `int8`, as the Manifest says.
        working: what `working_types` found.

    Raises:
        QualityGateError: it is not.
    """
    needed = _TYPE_OF[precision]
    if 2 * working.get(needed, 0) <= sum(working.values()):
        raise QualityGateError(
            f"its Manifest says {precision}, but of its convolutions {_list(working)}. No engine is written under that "
            "name; export the ONNX file again with that precision."
        )


def check_engine_types(precision: str, types: Mapping[str, int]) -> None:
    """Raise unless a built engine shows the type that its Manifest claims.

    Args:
        precision: `fp32`, `fp16` or `int8`, as the Manifest says.
        types: what `engine_types` found, not empty.

    Raises:
        DeviceError: no layer of it computes so; a builder may do so where the GPU has not the arithmetic.
    """
    if not types.get(_TYPE_OF[precision], 0):
        raise DeviceError(
            f"the Manifest says {precision}, but in the built engine {_list(types)}: this GPU or version does not "
            "compute so. No engine is written; choose another precision."
        )


def _list(types: Mapping[str, int]) -> str:
    return ", ".join(f"{count} give {name}" for name, count in types.items()) or "none gives any type"


def _layers(network: Any) -> Iterator[Any]:
    for index in range(network.num_layers):
        yield network.get_layer(index)


def _name(value: Any) -> str:
    """Return the bare name of one of the library's enumerated values."""
    return str(value).rpartition(".")[2].lower()
