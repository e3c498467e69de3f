"""Defines the Manifest: everything the runtime needs to know about a model, as one JSON document inside its file.

The document is in the metadata of an ONNX file, and beside a TensorRT engine as `NAME.engine.json`. It is data
only: it names no path, and nothing in it makes the runtime read or write anywhere. Its values are checked here, because
a model file may come from anywhere.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import msgspec
import numpy as np

from lsr_infer.errors import InputError, UsageError
from lsr_infer.labelspace import LabelSpace
from lsr_infer.manifest.records import EngineFacts, Parity, Quantization, TeacherFacts, check_choice, convert

__all__ = ["FORMAT", "LARGEST_BATCH", "LARGEST_SIDE", "METADATA_KEY", "OUTPUTS", "PRECISIONS", "RUNTIMES", "Manifest"]

FORMAT = 3
_UNSEALED = 2
"""Of a document without a digest: an engine's, and those of 0.1.0."""
"""Version of the document. A reader takes its own version and those below."""
METADATA_KEY = "lsr_manifest"
"""Key of the document in the metadata of an ONNX file."""
OUTPUTS = ("logits", "classes")
PRECISIONS = ("fp32", "fp16", "int8")
RUNTIMES = ("any", "onnxruntime", "tensorrt")
UPSAMPLING = "bilinear-align-corners"
RESIZE = ("keep-aspect", "stretch")
LARGEST_SIDE = 16384  # rows and columns that enter a graph
LARGEST_BATCH = 1024  # frames that enter it at a time


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contract of one exported model.

    The graph takes `image`, uint8 [N,H,W,3] BGR, and gives `logits`, float32 [N,C,h,w] at feature size, or `classes`,
    uint8 [N,H,W]. Normalisation is inside the graph.

    Args:
        label_space: names and colours of the classes, in the order of the channels.
        output: `logits` or `classes`.
        height: rows the network works at: of every input where the graph is fixed, else of a frame of the training's
            aspect ratio.
        width: columns likewise.
        fixed_size: the graph takes `height` x `width` and nothing else.
        fixed_batch: the graph takes this many frames at a time; None takes any number.
        multiple: with a free size, sides are multiples of this (the network's stride).
        resize: `keep-aspect`: frames are resized to the area of `height` x `width` with their own aspect ratio;
            `stretch`: to exactly `height` x `width`. A graph of fixed size stretches.
        upsampling: how logits become a mask; always bilinear with align_corners=True.
        precision: of the weights and the arithmetic.
        normalization: name of the normalisation inside the graph, for display.
        checkpoint: SHA-256 of the checkpoint the model was made from.
        digest: of the ONNX file that the Manifest stands in, see `lsr_infer.io.digests`; empty for an engine, and in
            files of 0.1.0.
        method: how the network was trained.
        scores: figures of the checkpoint, by name.
        teacher: of a distilled network, else None.
        licence: of the weights.
        intended_use: what the network is for, and what it is not for.
        opset: of the ONNX graph.
        exporter: tools and versions that made the file.
        parity: how the ONNX graph compares with the checkpoint it was made from; None: not compared.
        runtime: which runtime the file was made for; `any` but for INT8, where they want different files.
        quantization: how an INT8 file was made; None for the others.
        choices: what was done to the graph beyond a plain export, in words.
        engine: what a TensorRT engine was built with and for, and how it compares with its ONNX file; None for an ONNX
            file.

    Raises:
        InputError: a value is outside what is allowed.
    """

    label_space: LabelSpace
    output: str = "logits"
    height: int
    width: int
    fixed_size: bool = False
    fixed_batch: int | None = None
    multiple: int = 8
    resize: str = "keep-aspect"
    upsampling: str = UPSAMPLING
    precision: str = "fp32"
    normalization: str = ""
    checkpoint: str = ""
    digest: str = ""
    method: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    teacher: TeacherFacts | None = None
    licence: str = ""
    intended_use: str = ""
    opset: int = 0
    exporter: str = ""
    parity: Parity | None = None
    runtime: str = "any"
    quantization: Quantization | None = None
    choices: tuple[str, ...] = ()
    engine: EngineFacts | None = None

    def __post_init__(self) -> None:
        check_choice("output", self.output, OUTPUTS)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("upsampling", self.upsampling, (UPSAMPLING,))
        check_choice("resize", self.resize, RESIZE)
        check_choice("runtime", self.runtime, RUNTIMES)
        if not (1 <= self.height <= LARGEST_SIDE and 1 <= self.width <= LARGEST_SIDE):
            raise InputError(f"Manifest: the size is {self.width}x{self.height}; allowed: 1 to {LARGEST_SIDE} a side.")
        if not 1 <= self.multiple <= 256:
            raise InputError(f"Manifest: multiple is {self.multiple}; allowed: 1 to 256.")
        if self.fixed_batch is not None and not 1 <= self.fixed_batch <= LARGEST_BATCH:
            raise InputError(f"Manifest: fixed_batch is {self.fixed_batch}; allowed: 1 to {LARGEST_BATCH}, or null.")
        if not all(math.isfinite(score) for score in self.scores.values()):
            raise InputError("Manifest: a score is not finite.")
        if self.engine is not None:
            _, _, (batch, *sides) = self.engine.shapes
            if batch > LARGEST_BATCH or max(sides) > LARGEST_SIDE:
                raise InputError(
                    f"Manifest: the engine takes up to {batch}x{sides[1]}x{sides[0]}; allowed: {LARGEST_BATCH} frames, "
                    f"{LARGEST_SIDE} a side."
                )

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (rows, columns) at which a frame of the given size enters the graph.

        A side beyond what is taken, as by an engine's range, becomes the nearest that is: such a frame is stretched a
        little instead of refused.
        """
        rows, columns = self.height, self.width
        as_trained = self.resize == "stretch" or height * self.width == width * self.height
        if self.fixed_size or (as_trained and self.engine is None):
            return rows, columns
        if not as_trained:
            area = self.height * self.width
            tall = math.sqrt(area * height / width)
            rows, columns = self.rounded_size(tall, area / tall)
        rows, columns = np.clip((rows, columns), *self._size_range()).tolist()
        return rows, columns

    def rounded_size(self, height: float, width: float) -> tuple[int, int]:
        """Return the nearest (rows, columns) the network's stride goes into, at least once; see `check_size`."""
        rows, columns = (max(1, round(side / self.multiple)) * self.multiple for side in (height, width))
        return rows, columns

    def check_size(self, height: int, width: int) -> None:
        """Raise `UsageError`, which names a size that is taken, unless frames may enter the graph at this one."""
        if (height, width) == (self.height, self.width) and self.engine is None:
            return
        asked = f"the size {width}x{height} was asked for"
        if self.fixed_size and (height, width) != (self.height, self.width):
            raise UsageError(f"{asked}, and the graph takes only {self.width}x{self.height}. Export one of free size.")
        low, high = self._size_range()
        if not self.fixed_size and (height, width) != self.rounded_size(height, width):
            rows, columns = np.clip(self.rounded_size(height, width), low, high)
            raise UsageError(f"{asked}; sides are multiples of {self.multiple}, such as {columns}x{rows}.")
        if not (low[0] <= height <= high[0] and low[1] <= width <= high[1]):
            raise UsageError(f"{asked}; allowed: {low[1]}x{low[0]} to {high[1]}x{high[0]}.")

    def _size_range(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the smallest and the largest (rows, columns) that are taken."""
        if self.engine is None:
            most = LARGEST_SIDE // self.multiple * self.multiple
            return (self.multiple, self.multiple), (most, most)
        (_, *low), _, (_, *high) = self.engine.shapes
        return (low[0], low[1]), (high[0], high[1])

    def batch_range(self) -> tuple[int, int]:
        """Return the smallest and the largest number of frames the graph takes at a time."""
        if self.fixed_batch is not None:
            return self.fixed_batch, self.fixed_batch
        if self.engine is None:
            return 1, LARGEST_BATCH
        return self.engine.shapes[0][0], self.engine.shapes[2][0]

    def to_json(self) -> str:
        """Return the document; `from_json` gives an equal Manifest."""
        own = {member.name: getattr(self, member.name) for member in fields(self)}
        embedded = {name: value.to_dict() for name, value in own.items() if hasattr(value, "to_dict")}
        given = {name: own.get(name, _GRAPH_INPUT.get(name)) for name in _Input.__struct_fields__}
        members = own | embedded | {
            "format": FORMAT if self.digest else _UNSEALED,
            "input": given,
            "output": {"name": self.output, "upsampling": self.upsampling},
        }  # fmt: skip
        document = msgspec.to_builtins({name: members[name] for name in _Document.__struct_fields__})
        return json.dumps(document, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "Manifest":
        """Read the Manifest out of a model's metadata; raises as `from_json`, and where there is none."""
        text = metadata.get(METADATA_KEY)
        if text is None:
            raise InputError("it has no Manifest, so its classes are unknown. Export it with export/to_onnx.py.")
        return cls.from_json(text)

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read a Manifest; `InputError` for what is none, of a newer format, or has a value that is not allowed."""
        try:
            document: Any = msgspec.json.decode(text)
        except (ValueError, RecursionError) as error:
            raise InputError("Manifest: it is no JSON. Export the model again.") from error
        version = convert(document, _Head, "Manifest").format
        if not 1 <= version <= FORMAT:
            raise InputError(
                f"Manifest: its format is {version}, this version reads up to {FORMAT}. Update it, or export again."
            )
        if version > _UNSEALED and not document.get("digest"):
            raise InputError(
                "Manifest: it is damaged, its digest is missing. Copy the model again, or export it again."
            )
        if version == 1:
            document = {"runtime": "any", "choices": []} | document
        read = convert(document, _Document, "Manifest")
        members = msgspec.structs.asdict(read) | msgspec.structs.asdict(read.input)
        members |= {"output": read.output.name, "upsampling": read.output.upsampling}
        for name, kind in _EMBEDDED.items():
            if members[name] is not None:
                members[name] = kind.from_dict(members[name], f"Manifest: {name}")
        members["label_space"] = LabelSpace.from_dict(read.label_space)
        return cls(**{member.name: members[member.name] for member in fields(cls)})


_GRAPH_INPUT = {"name": "image", "type": "uint8", "layout": "NHWC", "channels": "BGR"}
_EMBEDDED: Mapping[str, type[Parity | Quantization | TeacherFacts | EngineFacts]] = {
    "teacher": TeacherFacts, "parity": Parity, "quantization": Quantization, "engine": EngineFacts,
}  # fmt: skip


class _Head(msgspec.Struct):
    """What every version of the document has."""

    format: int


class _Input(msgspec.Struct, kw_only=True):
    """The only input of the graph, as the document has it."""

    name: Literal["image"]
    type: Literal["uint8"]
    layout: Literal["NHWC"]
    channels: Literal["BGR"]
    height: int
    width: int
    fixed_size: bool
    fixed_batch: int | None = None
    multiple: int
    resize: str
    normalization: str


class _Output(msgspec.Struct):
    name: str
    upsampling: str


class _Document(msgspec.Struct, kw_only=True):
    """The members of the document, in its order."""

    format: int
    label_space: dict[str, Any]
    input: _Input
    output: _Output
    precision: str
    checkpoint: str
    digest: str = ""
    method: str
    scores: dict[str, float]
    teacher: dict[str, Any] | None = None
    licence: str
    intended_use: str
    opset: int
    exporter: str
    parity: dict[str, Any] | None = None
    runtime: str
    quantization: dict[str, Any] | None = None
    choices: tuple[str, ...]
    engine: dict[str, Any] | None = None
