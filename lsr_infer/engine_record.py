"""What a TensorRT engine was built with and for: the facts by which a runtime refuses it before it is deserialised.

Plain data, a part of the Manifest; nothing here loads TensorRT or asks a device.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lsr_infer.errors import InputError
from lsr_infer.fields import Fields
from lsr_infer.parity_record import Parity

__all__ = ["FLAVOURS", "HARDWARE_LEVELS", "EngineFacts"]

FLAVOURS = ("tensorrt", "rtx")
HARDWARE_LEVELS = ("ampere_plus", "same_compute_capability")
"""How far an engine of TensorRT may be carried to other GPUs, in TensorRT's words."""

_CHECKED = ("engine", "network")
_PENDING = "pending"


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
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
        proved_on: compute capability of the GPU that was measured on; another one has to prove it anew.

    Raises:
        InputError: a value is outside what is allowed.
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

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("flavour", self.flavour, FLAVOURS),
            ("types_checked", self.types_checked, _CHECKED),
        ):
            if value not in allowed:
                raise InputError(f"Manifest: engine.{name} is {value!r}; allowed: {', '.join(allowed)}.")
        least, best, most = self.shapes
        if not all(1 <= low <= good <= high for low, good, high in zip(least, best, most, strict=True)):
            raise InputError(f"Manifest: engine.shapes are {self.shapes}; they must not fall from least to most.")

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain JSON data."""
        return {
            "flavour": self.flavour,
            "version": self.version,
            "gpu": self.gpu,
            "compute_capability": None if self.compute_capability is None else list(self.compute_capability),
            "targets": list(self.targets),
            "hardware_compatible": self.hardware_compatible,
            "version_compatible": self.version_compatible,
            "platform": self.platform,
            "shapes": dict(zip(("min", "opt", "max"), map(list, self.shapes), strict=True)),
            "types": dict(self.types),
            "types_checked": self.types_checked,
            "sha256": self.sha256,
            "onnx_sha256": self.onnx_sha256,
            "parity": _PENDING if self.parity is None else self.parity.to_dict(),
            "proved_on": None if self.proved_on is None else list(self.proved_on),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "EngineFacts":
        """Read the facts back from `to_dict`.

        Raises:
            InputError: a value is missing, of the wrong type or outside what is allowed.
        """
        shapes = fields.section("shapes")
        least, best, most = (_shape(shapes.integers(key), key) for key in ("min", "opt", "max"))
        return cls(
            flavour=fields.text("flavour"),
            version=fields.text("version"),
            gpu=fields.text("gpu"),
            compute_capability=_capability(fields, "compute_capability"),
            targets=fields.texts("targets"),
            hardware_compatible=fields.text("hardware_compatible"),
            version_compatible=fields.boolean("version_compatible"),
            platform=fields.text("platform"),
            shapes=(least, best, most),
            types=fields.counts("types"),
            types_checked=fields.text("types_checked"),
            sha256=fields.text("sha256"),
            onnx_sha256=fields.text("onnx_sha256"),
            parity=None if fields.holds("parity", _PENDING) else Parity.from_dict(fields.mapping("parity")),
            proved_on=_capability(fields, "proved_on"),
        )


def _capability(fields: Fields, key: str) -> tuple[int, int] | None:
    values = fields.optional_integers(key)
    if values is None:
        return None
    if len(values) != 2:
        raise InputError(f"Manifest: engine.{key} is no pair. Build the engine again.")
    return values[0], values[1]


def _shape(values: tuple[int, ...], key: str) -> tuple[int, int, int]:
    if len(values) != 3:
        raise InputError(f"Manifest: engine.shapes.{key} holds {len(values)} numbers, needed are 3.")
    return values[0], values[1], values[2]
