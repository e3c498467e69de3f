"""Reads the types that a network or an engine computes in, and compares them with its Manifest.

A builder may leave a file in float32 without a warning; only the layers show it.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lsr_infer.errors import DeviceError, QualityGateError

__all__ = ["Inspected", "check_engine_types", "check_network_types", "inspected_types", "network_types",
           "working_types"]  # fmt: skip

_TYPE_OF = {"fp32": "float", "fp16": "half", "int8": "int8"}
_WORKING = ("convolution", "deconvolution", "matrix_multiply")
_WORKING_WORDS = r"conv(?!ert)|gemm|matmul|matrix"
"""What names of working layers hold in an inspector, such as CaskConvolution, CaskGemmMatrixMultiply or gemm."""

_TYPE_KEYS = ("Format/Datatype", "Datatype", "DataType", "Format")
"""Where an inspector writes a tensor's type: TensorRT 11 has split the one member of TensorRT 10 in two."""

_WORDS = (
    ("bf16", r"bf16|bfloat"), ("half", r"fp16|half|float16"), ("fp8", r"fp8"), ("uint8", r"uint8"), ("int8", r"int8"),
    ("int64", r"int64"), ("int32", r"int32"), ("bool", r"bool"), ("float", r"fp32|float"),
)  # fmt: skip
"""What an inspector calls the types, in the order in which they are tried; they differ between versions."""


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
        if _name(layer.type) not in _WORKING:
            continue
        source = maker.get(layer.get_input(0).name)
        reads = source if source is not None and _name(source.type) == "dequantize" else layer
        counts[_name(reads.get_input(0).dtype)] += 1
    return dict(sorted(counts.items()))


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """What an engine's inspector shows: layers by type of their outputs, convolutions by type of their data."""

    layers: dict[str, int] = field(default_factory=dict)
    working: dict[str, int] = field(default_factory=dict)


def inspected_types(text: str) -> Inspected:
    """Read the types in the JSON of an inspector, whose engine was built with detailed verbosity."""
    try:
        layers = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError):
        return Inspected()
    outputs: Counter[str] = Counter()
    working: Counter[str] = Counter()
    for layer in layers:
        if not isinstance(layer, dict):
            continue
        outputs.update(_tensor_types(layer, "Outputs"))
        if re.search(_WORKING_WORDS, f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}", re.IGNORECASE):
            working.update(_tensor_types(layer, "Inputs")[:1])
    return Inspected(layers=dict(sorted(outputs.items())), working=dict(sorted(working.items())))


def _tensor_types(layer: Mapping[str, Any], side: str) -> list[str]:
    """Return the types of a layer's inputs or outputs, in the order in which they stand, as far as they are shown."""
    found = []
    for tensor in layer.get(side, []):
        described = " ".join(str(tensor.get(key, "")) for key in _TYPE_KEYS).lower()
        found += [name for name, words in _WORDS if re.search(words, described)][:1]
    return found


def check_network_types(precision: str, working: Mapping[str, int]) -> None:
    """Raise `QualityGateError` unless most of a parsed network works in the type that its Manifest claims."""
    if not _mostly(precision, working):
        raise QualityGateError(
            f"its Manifest says {precision}, but of its convolutions {_list(working, 'compute in')}. No engine is "
            "written under that name; export the ONNX file again with that precision."
        )


def check_engine_types(precision: str, shown: Inspected) -> None:
    """Raise `DeviceError` unless most of a built engine works in the type that its Manifest claims.

    Where the inspector shows types but no convolution, that type must at least be among them.
    """
    if shown.working and not _mostly(precision, shown.working):
        what = f"of the built engine's convolutions {_list(shown.working, 'compute in')}"
    elif shown.layers and not shown.working and _TYPE_OF[precision] not in shown.layers:
        what = f"of the built engine's layers {_list(shown.layers, 'give')}"
    else:
        return
    raise DeviceError(
        f"the Manifest says {precision}, but {what}: this GPU or version does not compute so. No engine is written; "
        "choose another precision."
    )


def _mostly(precision: str, working: Mapping[str, int]) -> bool:
    """Return whether more than half of the convolutions and products compute in a precision's type."""
    return 2 * working.get(_TYPE_OF[precision], 0) > sum(working.values())


def _list(types: Mapping[str, int], verb: str) -> str:
    return ", ".join(f"{count} {verb} {name}" for name, count in types.items()) or f"none {verb} any type"


def _layers(network: Any) -> Iterator[Any]:
    for index in range(network.num_layers):
        yield network.get_layer(index)


def _name(value: Any) -> str:
    """Return the bare name of one of the library's enumerated values."""
    return str(value).rpartition(".")[2].lower()
