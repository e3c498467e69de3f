"""Small ONNX files for tests, encoded by hand: the runtime's tests need neither torch nor the onnx package.

The graph is Cast, Transpose, AveragePool 8x8, Conv 1x1: logits that are a linear function of the mean colour of a
block, so that a test can compute them itself.
"""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lsr_infer.labelspace import LabelSpace
from lsr_infer.manifest import METADATA_KEY, Manifest

STRIDE = 8
SPACE = LabelSpace(name="colours", names=("blue", "green", "red"), colors=((0, 0, 255), (0, 255, 0), (255, 0, 0)))


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, data: bytes | str) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def attribute(name: str, values: int | Sequence[int]) -> bytes:
    """An AttributeProto: INT (2) or INTS (7)."""
    if isinstance(values, int):
        return block(5, block(1, name) + number(3, values) + number(20, 2))
    return block(5, block(1, name) + b"".join(number(8, value) for value in values) + number(20, 7))


def node(kind: str, inputs: Sequence[str], output: str, *attributes: bytes) -> bytes:
    return block(
        1, b"".join(block(1, name) for name in inputs) + block(2, output) + block(4, kind) + b"".join(attributes)
    )


def port(field: int, name: str, element: int, shape: Sequence[int | str]) -> bytes:
    axes = b"".join(block(1, number(1, axis) if isinstance(axis, int) else block(2, axis)) for axis in shape)
    return block(field, block(1, name) + block(2, block(1, number(1, element) + block(2, axes))))


def tensor(name: str, values: np.ndarray, location: str | None = None) -> bytes:
    """A TensorProto of float32, inside the file or (for attacks) outside it."""
    head = b"".join(number(1, side) for side in values.shape) + number(2, 1) + block(8, name)
    if location is not None:
        return block(5, head + block(13, block(1, "location") + block(2, location)) + number(14, 1))
    return block(5, head + block(9, struct.pack(f"<{values.size}f", *values.ravel().tolist())))


def model(
    weights: np.ndarray,
    bias: np.ndarray,
    metadata: Mapping[str, str],
    *,
    size: tuple[int, int] | None = None,
    input_name: str = "image",
    location: str | None = None,
    channels: int = 3,
    batch: int | str = "N",
) -> bytes:
    """Encode a ModelProto.

    Args:
        weights: [C,3] of the blue, green and red levels.
        bias: [C].
        metadata: its metadata_props.
        size: (height, width) of a graph of fixed size.
        input_name: name of the input.
        location: path of external data for the weights.
        channels: the input claims to have.
        batch: frames at a time, where the graph fixes that.
    """
    classes = len(weights)
    shape: tuple[int | str, ...] = (batch, *(size or ("H", "W")), channels)
    graph = (
        node("Cast", [input_name], "levels", attribute("to", 1))
        + node("Transpose", ["levels"], "planes", attribute("perm", [0, 3, 1, 2]))
        + node(
            "AveragePool",
            ["planes"],
            "cells",
            attribute("kernel_shape", [STRIDE, STRIDE]),
            attribute("strides", [STRIDE, STRIDE]),
        )
        + node("Conv", ["cells", "weights", "bias"], "logits")
        + block(2, "tiny")
        + tensor("weights", weights.reshape(classes, 3, 1, 1), location)
        + tensor("bias", bias)
        + port(11, input_name, 2, shape)
        + port(12, "logits", 1, (batch, classes, "h", "w"))
    )
    return _file(graph, metadata)


def _file(graph: bytes, metadata: Mapping[str, str]) -> bytes:
    entries = b"".join(block(14, block(1, key) + block(2, value)) for key, value in metadata.items())
    return number(1, 8) + block(7, graph) + block(8, number(2, 17)) + entries


def manifest(space: LabelSpace = SPACE, **changes: Any) -> Manifest:
    values: dict[str, Any] = {"label_space": space, "height": 64, "width": 96, "multiple": STRIDE} | changes
    return Manifest(**values)


def colour_model(path: Path, document: Manifest | None = None, **options: Any) -> Path:
    """Write a model whose class is the strongest channel of a block: 0 blue, 1 green, 2 red."""
    document = document or manifest()
    metadata = {METADATA_KEY: document.to_json()}
    size = (document.height, document.width) if document.fixed_size else None
    classes = document.label_space.num_classes
    weights = np.eye(classes, 3, dtype=np.float32)
    options = {"batch": document.fixed_batch or "N", **options}
    path.write_bytes(model(weights, np.zeros(classes, np.float32), metadata, size=size, **options))
    return path


def level_model(path: Path, document: Manifest | None = None) -> Path:
    """Write a model that gives classes: that of a pixel is its brightest channel's level, whatever it is."""
    document = document or manifest(output="classes")
    graph = (
        node("ReduceMax", ["image"], "classes", attribute("axes", [3]), attribute("keepdims", 0))
        + block(2, "levels")
        + port(11, "image", 2, ("N", "H", "W", 3))
        + port(12, "classes", 2, ("N", "H", "W"))
    )
    path.write_bytes(_file(graph, {METADATA_KEY: document.to_json()}))
    return path


def expected_logits(image: np.ndarray) -> np.ndarray:
    """Mean levels of 8x8 blocks [3,h,w], what the test model computes."""
    h, w = image.shape[0] // 8, image.shape[1] // 8
    means = image[: h * 8, : w * 8].reshape(h, 8, w, 8, 3).mean(axis=(1, 3))  # [h,w,3]
    return np.asarray(means.transpose(2, 0, 1), dtype=np.float32)
