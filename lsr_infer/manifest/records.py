"""Defines the figures that a Manifest embeds: parity, quantisation, the build of a TensorRT engine, the teacher.

Plain data; nothing here loads TensorRT or asks a device.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from typing import Any, ClassVar, Self, TypeVar

import msgspec

from lsr_infer.errors import InputError

__all__ = [
    "FLAVOURS", "HARDWARE_LEVELS", "EngineFacts", "Parity", "Quantization", "TeacherFacts", "check_choice", "convert",
]  # fmt: skip

Kind = TypeVar("Kind")


def convert(document: Any, kind: type[Kind], name: str) -> Kind:
    """Convert parsed JSON, which messages call `name`, to a type with checked members.

    What comes out can be written again: texts are Unicode, numbers are finite. `InputError` where a member is missing
    or of another type.
    """
    try:
        return msgspec.json.decode(json.dumps(document), type=kind)
    except (TypeError, ValueError, RecursionError) as error:
        problem, _, member = str(error).partition(" - at `$")
        place = f"{member.removesuffix('`').lstrip('.')}: " if member else ""
        raise InputError(f"{name}: {place}{problem[:1].lower()}{problem[1:]}. Export the model again.") from error


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise `InputError` unless a member of the document has one of the allowed values."""
    if value not in allowed:
        raise InputError(f"Manifest: {name} is {value!r}; allowed: {', '.join(allowed)}.")


class _Record:
    """A record that is written with every member, and read with every member that is not `OPTIONAL`."""

    OPTIONAL: ClassVar[frozenset[str]] = frozenset()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON data."""
        return dict(msgspec.to_builtins(self))

    @classmethod
    def from_dict(cls, document: Any, name: str = "Manifest") -> Self:
        """Read the record back from `to_dict`; messages call it `name`. Raises as `convert`."""
        record = convert(document, cls, name)
        known = {member.name for member in fields(cls)}  # type: ignore[arg-type]  # each record is a dataclass
        if missing := sorted(known - document.keys() - cls.OPTIONAL):
            raise InputError(f"{name}: {', '.join(missing)} is missing. Export the model again.")
        return record


FLAVOURS = ("tensorrt", "rtx")
_CHECKED = ("engine", "network")
_PENDING = "pending"
HARDWARE_LEVELS = ("ampere_plus", "same_compute_capability")
"""How far an engine of TensorRT may be carried to other GPUs, in TensorRT's words."""


@dataclass(frozen=True, kw_only=True)
class Parity(_Record):
    """The figures of one comparison, as the Manifest carries them.

    Args:
        reference: what is taken as right, such as `checkpoint`.
        frames_from: where the frames come from, in words, without a path.
        frames: number of frames.
        pixels: number of pixels.
        agreement: share of pixels with the same class.
        clear_agreement: the same among places whose top two reference logits are apart, see `Bar`; None where there is
            none.
        clear_share: share of the places that are so; None in older documents.
        max_logit_difference: largest absolute difference of a logit; None where the candidate gives classes alone.
        mean_logit_difference: mean of it.
        class_agreement: for each class the reference found, the share of its pixels that agree.
        miou_reference: mean IoU of the reference where labels exist, else None.
        miou: mean IoU of the candidate where labels exist, else None.
        class_iou_difference: for each class whose union with the labels is not empty, IoU of the candidate minus that
            of the reference; empty without labels.
    """

    reference: str
    frames_from: str
    frames: int
    pixels: int
    agreement: float
    clear_agreement: float | None = None
    max_logit_difference: float | None
    mean_logit_difference: float | None
    class_agreement: Mapping[str, float] = field(default_factory=dict)
    miou_reference: float | None = None
    miou: float | None = None
    class_iou_difference: Mapping[str, float] = field(default_factory=dict)
    clear_share: float | None = None
    # Not in older exports.
    OPTIONAL: ClassVar = frozenset({"clear_agreement", "clear_share", "miou_reference", "miou", "class_iou_difference"})

    def worst_class(self) -> str:
        """Name the class that agrees least, with its share, and what it loses in IoU where that is known."""
        if not self.class_agreement:
            return "none"
        name = min(self.class_agreement, key=self.class_agreement.__getitem__)
        change = self.class_iou_difference.get(name)
        lost = "" if change is None else f", IoU {100 * change:+.2f} points"
        return f"{name} ({100 * self.class_agreement[name]:.2f} %{lost})"

    def describe(self) -> str:
        """Say in one phrase how far the two agree."""
        text = f"{100 * self.agreement:.4f} % of {self.pixels} pixels agree"
        if self.clear_agreement is not None:
            text += f", {100 * self.clear_agreement:.4f} % of the clear ones"
        if self.max_logit_difference is not None:
            text += f", largest logit difference {self.max_logit_difference:.2g}"
        if self.miou is not None and self.miou_reference is not None:
            text += f", mean IoU {100 * self.miou:.2f} after {100 * self.miou_reference:.2f}"
        return text


@dataclass(frozen=True, kw_only=True)
class Quantization(_Record):
    """How an INT8 file was made.

    Args:
        scheme: types of activations and weights: `U8S8` (ONNX Runtime's CPU) or `S8S8`, symmetric (TensorRT).
        calibration: how ranges were chosen: `minmax`, `entropy` or `percentile`.
        calibrated_on: where the calibration frames are from, in words, without a path.
        frames: how many of them.
        candidates: for each way that was tried, the share of held-out pixels that agree with the float file.
        in_float: names of the nodes that stayed in float.
    """

    scheme: str
    calibration: str
    calibrated_on: str
    frames: int
    candidates: Mapping[str, float] = field(default_factory=dict)
    in_float: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EngineFacts(_Record):
    """How an engine was built, and what was seen of it.

    Args:
        flavour: `tensorrt`, or `rtx` for TensorRT for RTX; their engines are not each other's.
        version: of the library that built it, such as 11.1.0.
        gpu: name of the GPU it was built on; empty where it was built ahead of time, without one.
        compute_capability: (major, minor) of that GPU; None ahead of time.
        targets: compute capabilities an engine built ahead of time runs on, such as ("86", "89").
        hardware_compatible: level of compatibility across GPUs, in TensorRT's word; empty for none.
        version_compatible: whether later versions of the library load it.
        platform: operating system and processor it was built for, such as `linux_x86_64`.
        shapes: (batch, height, width) at least, at best and at most.
        types: number of layers by type of their outputs, such as {"half": 210, "float": 3}.
        types_checked: where the types were read from: the built `engine`, or the parsed `network`.
        sha256: of the engine file.
        onnx_sha256: of the ONNX file it was built from.
        parity: how it compares with that file; None: pending, to be completed on the target.
        proved_on: compute capability of the GPU that was measured on; another one has to prove it again.
    """

    flavour: str
    version: str
    gpu: str = ""
    compute_capability: tuple[int, int] | None = None
    targets: tuple[str, ...] = ()
    hardware_compatible: str = ""
    version_compatible: bool = False
    platform: str = ""
    shapes: tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]
    types: Mapping[str, int] = field(default_factory=dict)
    types_checked: str = "network"
    sha256: str = ""
    onnx_sha256: str = ""
    parity: Parity | None = None
    proved_on: tuple[int, int] | None = None
    OPTIONAL: ClassVar = frozenset({"compute_capability", "proved_on"})

    def __post_init__(self) -> None:
        check_choice("engine.flavour", self.flavour, FLAVOURS)
        check_choice("engine.types_checked", self.types_checked, _CHECKED)
        least, best, most = self.shapes
        if not all(1 <= low <= good <= high for low, good, high in zip(least, best, most, strict=True)):
            raise InputError(f"Manifest: engine.shapes are {self.shapes}; they must not fall from least to most.")

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain JSON data, a missing parity as `pending`."""
        shapes = dict(zip(("min", "opt", "max"), map(list, self.shapes), strict=True))
        parity = _PENDING if self.parity is None else self.parity.to_dict()
        return super().to_dict() | {"shapes": shapes, "parity": parity}

    @classmethod
    def from_dict(cls, document: Any, name: str = "Manifest") -> Self:
        """Read the facts back from `to_dict`."""
        plain = dict(document)
        plain["shapes"] = astuple(convert(document.get("shapes"), _Shapes, f"{name}.shapes"))
        if (parity := document.get("parity")) == _PENDING:
            plain["parity"] = None
        elif "parity" in document:
            plain["parity"] = Parity.from_dict(parity, f"{name}.parity").to_dict()
        return super().from_dict(plain, name)


@dataclass(frozen=True)
class _Shapes:
    """(batch, height, width) as the document has them."""

    min: tuple[int, int, int]
    opt: tuple[int, int, int]
    max: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class TeacherFacts(_Record):
    """Which network taught, and how good it was.

    Args:
        sha256: of the teacher's model file, 64 hexadecimal digits.
        method: how it was trained.
        step: optimiser steps of that training.
        scores: the figures in its file, finite.
    """

    sha256: str
    method: str = ""
    step: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(math.isfinite(score) for score in self.scores.values()):
            raise InputError("teacher: a score is not finite.")
