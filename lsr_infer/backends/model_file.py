"""Describes model files without running them: ONNX files from their bytes, engines from the Manifest beside them.

A model may come from anywhere, so an ONNX file is scanned before a backend opens it. It is refused where its bytes are
no protobuf, and where a weight is stored outside: in another file, or in memory, which ONNX Runtime writes alike. The
scan is by hand: the `onnx` package would be an eleventh requirement, takes half a second to import, and holds a second
copy of the weights.
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lsr_infer.errors import InputError
from lsr_infer.io.digests import digest_in
from lsr_infer.io.files import is_file, is_folder
from lsr_infer.manifest import METADATA_KEY, Manifest
from lsr_infer.shipped import model_path, shipped_models
from lsr_infer.tensorrt.admission import engine_manifest

__all__ = [
    "LARGEST_FILE", "ModelFile", "OnnxFile", "TensorPort", "check_is_file", "check_ports", "read_model_file",
    "read_onnx",
]  # fmt: skip

LARGEST_FILE = 2**31 - 1
"""Largest file that is read: protobuf ends there."""

_LARGEST_TEXT = 1 << 24
_DEEPEST = 32

# ONNX's TensorProto.DataType in NumPy's words.
_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip

# Numbers of the fields that are followed, by the message they stand in.
_PARTS = {
    "model": {7: "graph", 14: "metadata", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 11: "input", 12: "output", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}


@dataclass(frozen=True, kw_only=True)
class TensorPort:
    """An input or output of a graph; `type` in NumPy's words, None in `shape` where an axis is free."""

    name: str
    type: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """The contents of an ONNX file; `size` in bytes, `weights` the number of values in the main graph's tensors."""

    size: int
    metadata: Mapping[str, str]
    inputs: tuple[TensorPort, ...]
    outputs: tuple[TensorPort, ...]
    weights: int


def read_onnx(path: Path) -> OnnxFile:
    """Scan an ONNX file.

    Raises:
        InputError: it cannot be read, is empty, above 2 GB, no protobuf, holds no graph, keeps weights elsewhere, or
            has not the digest that its Manifest states.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size > LARGEST_FILE:
                raise InputError(f"{path}: is {size} bytes, an ONNX file has at most 2 GB. Export the model again.")
            if not size:
                raise InputError(f"{path}: is empty. Export the model again.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                found = _Scan(content).model(size)
                digest_in(content, found.metadata.get(METADATA_KEY, "").encode())
                return found
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except ValueError as error:
        raise InputError(
            f"{path}: is damaged, its content is not what the digest in its Manifest is of. Copy it again, or export "
            "the model again."
        ) from error
    except _NoProtobufError as error:
        raise InputError(f"{path}: is no ONNX file, or a damaged one ({error}). Export the model again.") from error
    except _ExternalDataError as error:
        raise InputError(
            f"{path}: keeps a weight outside itself ({error}), which is not read. Export the model as one file."
        ) from error


class _NoProtobufError(Exception):
    pass


class _ExternalDataError(Exception):
    pass


@dataclass(frozen=True)
class _Field:
    """A field of a message, with its value or the span of its bytes."""

    number: int
    value: int
    start: int
    end: int
    is_block: bool


class _Scan:
    """Walks through the bytes of a model without copying its weights."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._metadata: dict[str, str] = {}
        self._inputs: list[TensorPort] = []
        self._outputs: list[TensorPort] = []
        self._weights = 0

    def model(self, size: int) -> OnnxFile:
        graphs = 0
        for part, field in self._parts("model", 0, size):
            if part == "metadata":
                key, value = self._entry(field)
                self._metadata[key] = value
            elif part == "graph":
                graphs += 1
                self._main_graph(field)
            else:
                self._search(part, field, 1)
        if graphs != 1:
            raise _NoProtobufError(f"it holds {graphs or 'no'} graphs")
        inputs, outputs = tuple(self._inputs), tuple(self._outputs)
        return OnnxFile(size=size, metadata=self._metadata, inputs=inputs, outputs=outputs, weights=self._weights)

    def _parts(self, name: str, start: int, end: int) -> Iterator[tuple[str, _Field]]:
        """Yield the parts of a message that are followed."""
        followed = _PARTS.get(name, {})
        for field in self._fields(start, end):
            if field.is_block and field.number in followed:
                yield followed[field.number], field

    def _main_graph(self, graph: _Field) -> None:
        for part, field in self._parts("graph", graph.start, graph.end):
            if part == "input":
                self._inputs.append(self._port(field))
            elif part == "output":
                self._outputs.append(self._port(field))
            elif part == "tensor":
                self._weights += self._tensor(field)
            else:
                self._search(part, field, 1)

    def _search(self, part: str, field: _Field, depth: int) -> None:
        """Check every tensor below a message."""
        if depth > _DEEPEST:
            raise _NoProtobufError("it is nested too deeply")
        if part == "tensor":
            self._tensor(field)
            return
        for name, inner in self._parts(part, field.start, field.end):
            self._search(name, inner, depth + 1)

    def _tensor(self, tensor: _Field) -> int:
        """Return how many values a tensor has; raises unless they stand in the file."""
        count = 1
        for field in self._fields(tensor.start, tensor.end):
            if field.number == 13 and field.is_block:  # external_data
                key, value = self._entry(field)
                raise _ExternalDataError(f"{key} {value[:80]}")
            if field.number == 14 and field.value:  # data_location
                raise _ExternalDataError(f"location {field.value}")
            if field.number == 1:  # dims, one by one or packed
                place = field.start
                while place < field.end:
                    side, place = self._varint(place, field.end)
                    count *= side
                if not field.is_block:
                    count *= field.value
        return count

    def _port(self, port: _Field) -> TensorPort:
        """Read a ValueInfoProto of a tensor."""
        name, element, shape = "", "no tensor", list[int | None]()
        for field in self._fields(port.start, port.end):
            if field.number == 1:
                name = self._text(field)
            elif field.number == 2 and field.is_block:
                for kind in self._blocks(field, 1):
                    for inner in self._fields(kind.start, kind.end):
                        if inner.number == 1:
                            element = _TYPES.get(inner.value, f"type {inner.value}")
                        elif inner.number == 2 and inner.is_block:
                            sides = (self._fields(axis.start, axis.end) for axis in self._blocks(inner, 1))
                            shape += [next((side.value for side in axis if side.number == 1), None) for axis in sides]
        return TensorPort(name=name, type=element, shape=tuple(shape))

    def _entry(self, entry: _Field) -> tuple[str, str]:
        """Read a StringStringEntryProto."""
        texts = {1: "", 2: ""}
        for field in self._fields(entry.start, entry.end):
            if field.number in texts:
                texts[field.number] = self._text(field)
        return texts[1], texts[2]

    def _text(self, field: _Field) -> str:
        if not field.is_block:
            raise _NoProtobufError("a text is a number")
        if field.end - field.start > _LARGEST_TEXT:
            raise _NoProtobufError(f"a text has {field.end - field.start} bytes")
        try:
            return self._content[field.start : field.end].decode("utf-8")
        except UnicodeDecodeError as error:
            raise _NoProtobufError("a text is no UTF-8") from error

    def _blocks(self, field: _Field, number: int) -> Iterator[_Field]:
        for inner in self._fields(field.start, field.end):
            if inner.number == number and inner.is_block:
                yield inner

    def _fields(self, start: int, end: int) -> Iterator[_Field]:
        """Yield the fields of a message that fills [start, end) exactly."""
        place = start
        while place < end:
            key, place = self._varint(place, end)
            number, kind = key >> 3, key & 7
            if not number:
                raise _NoProtobufError(f"a field without a number at byte {place}")
            if kind == 0:
                value, place = self._varint(place, end)
                yield _Field(number, value, place, place, False)
                continue
            if kind == 2:
                length, place = self._varint(place, end)
            elif kind in (1, 5):
                length = 8 if kind == 1 else 4
            else:
                raise _NoProtobufError(f"a field of no known kind at byte {place}")
            if length > end - place:
                raise _NoProtobufError(f"it breaks off at byte {end}")
            yield _Field(number, 0, place, place + length, kind == 2)
            place += length

    def _varint(self, place: int, end: int) -> tuple[int, int]:
        """Return the number at a place and the place behind it."""
        value = shift = 0
        while place < end and shift < 70:
            byte = self._content[place]
            place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & ((1 << 64) - 1), place
            shift += 7
        raise _NoProtobufError(f"it breaks off at byte {place}")


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """The description of a model file, `onnx` or `engine`.

    `size` is in bytes, `weights` the number of values in the graph's tensors (None for an engine). The inputs and
    outputs of an engine are those of its Manifest.
    """

    path: Path
    kind: str
    size: int
    manifest: Manifest
    inputs: tuple[TensorPort, ...]
    outputs: tuple[TensorPort, ...]
    weights: int | None


def check_is_file(path: Path) -> None:
    """Raise `InputError` unless there is a file."""
    if is_folder(path):
        raise InputError(f"{path}: is a folder. Export a run with export/to_onnx.py, and name the file.")
    if not is_file(path):
        names = f" Shipped ones: {', '.join(shipped_models())}." if not path.suffix else ""
        raise InputError(f"{path}: there is no such model file.{names}")


def read_model_file(model: Path | str) -> ModelFile:
    """Describe a model file; `InputError` where its graph is not what its Manifest says, or it is no model at all."""
    path = model_path(model)
    check_is_file(path)
    try:
        if path.suffix.lower() == ".engine":
            _, manifest, _ = engine_manifest(path)
            given, result = _expected(manifest)
            return ModelFile(
                path=path, kind="engine", size=path.stat().st_size, manifest=manifest, inputs=(given,),
                outputs=(result,), weights=None,
            )  # fmt: skip
        if path.suffix.lower() == ".onnx":
            found = read_onnx(path)
            manifest = Manifest.from_metadata(found.metadata)
            check_ports(found.inputs, found.outputs, manifest)
            return ModelFile(
                path=path, kind="onnx", size=found.size, manifest=manifest, inputs=found.inputs, outputs=found.outputs,
                weights=found.weights,
            )  # fmt: skip
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from error
    raise InputError(f"{path}: is no model; known: .onnx, .engine.")


def _expected(manifest: Manifest) -> tuple[TensorPort, TensorPort]:
    """Return the input and the output a Manifest describes."""
    size = (manifest.height, manifest.width) if manifest.fixed_size else (None, None)
    batch, classes = manifest.fixed_batch, manifest.label_space.num_classes
    given = TensorPort(name="image", type="uint8", shape=(batch, *size, 3))
    if manifest.output == "logits":
        return given, TensorPort(name="logits", type="float32", shape=(batch, classes, None, None))
    return given, TensorPort(name="classes", type="uint8", shape=(batch, *size))


def check_ports(inputs: tuple[TensorPort, ...], outputs: tuple[TensorPort, ...], manifest: Manifest) -> None:
    """Raise `InputError` unless a graph with these ports is the one the Manifest describes."""
    given, result = _expected(manifest)
    for kind, ports, expected in (("input", inputs, given), ("output", outputs, result)):
        if len(ports) != 1 or not _fits(ports[0], expected):
            described = "; ".join(map(_in_words, ports)) or "none"
            raise InputError(
                f"its Manifest says one {kind} {_in_words(expected)}, the graph has: {described}. Export it again."
            )


def _fits(found: TensorPort, expected: TensorPort) -> bool:
    """Whether name, type and number of axes are the same, and no axis contradicts the other."""
    if (found.name, found.type, len(found.shape)) != (expected.name, expected.type, len(expected.shape)):
        return False
    axes = zip(found.shape, expected.shape, strict=True)
    return all(one is None or other is None or one == other for one, other in axes)


def _in_words(port: TensorPort) -> str:
    shape = ",".join("?" if axis is None else str(axis) for axis in port.shape)
    return f"{port.name} {port.type} [{shape}]"
