"""The Manifest beside an engine, `MODEL.engine.json`: reading it, writing it, and the command that builds anew.

An engine has no place for metadata of its own that can be read before it is opened, and opening it runs its code.
"""

import hashlib
import shlex
from pathlib import Path

from lsr_infer.engine_record import HARDWARE_LEVELS, EngineFacts
from lsr_infer.errors import InputError
from lsr_infer.manifest import Manifest

__all__ = ["engine_manifest", "manifest_path", "rebuild_command", "sha256_of"]

_LARGEST = 16 * 2**20
"""Bytes of a Manifest at most; the largest real ones hold a few thousand."""


def manifest_path(engine: Path) -> Path:
    """Return where the Manifest of an engine stands: `MODEL.engine.json` beside `MODEL.engine`."""
    return engine.with_name(f"{engine.name}.json")


def engine_manifest(engine: Path) -> tuple[str, Manifest, EngineFacts]:
    """Return the Manifest beside an engine, as text and read, and its facts; nothing of the engine itself is opened.

    Raises:
        InputError: there is none, it is broken, or it is that of no engine.
    """
    path = manifest_path(engine)
    again = f"Copy it from where the engine was built, or {build_command(engine)}"
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        text = data.decode("utf-8") if len(data) <= _LARGEST else ""
    except FileNotFoundError as error:
        raise InputError(f"{engine}: its Manifest {path.name} is not beside it. {again}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}). {again}.") from error
    try:
        manifest = Manifest.from_json(text)
    except InputError as error:
        raise InputError(f"{path}: {error} {again}.") from error
    if manifest.engine is None:
        raise InputError(f"{path}: is the Manifest of no engine. {again}.")
    return text, manifest, manifest.engine


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def build_command(engine: Path, *options: str) -> str:
    """Return the words "build it again: COMMAND" for an engine."""
    words = ["python", "export/to_trt.py", engine.with_suffix(".onnx").name, "-o", engine.name, *options, "--overwrite"]
    return f"build it again: {shlex.join(words)}"


def rebuild_command(engine: Path, facts: EngineFacts, *, flavour: str | None = None, add_target: str = "") -> str:
    """Return the words "build it again: COMMAND" that make the same engine for this machine.

    Args:
        engine: the engine.
        facts: what it was built with.
        flavour: of the new engine; None keeps the old one's.
        add_target: a compute capability to build for too.
    """
    flavour = flavour or facts.flavour
    options = ["--flavour", flavour, "--shapes", shapes_text(facts.shapes)]
    if flavour == "rtx" and facts.flavour == "rtx":
        targets = sorted({*facts.targets, *([add_target] if add_target else [])}, key=_as_number)
        options += ["--targets", ",".join(targets)] if targets else []
    elif flavour == facts.flavour:
        known = facts.hardware_compatible in HARDWARE_LEVELS
        options += ["--hardware-compatible", facts.hardware_compatible] if known else []
        options += ["--version-compatible"] if facts.version_compatible else []
    return build_command(engine, *options)


def _as_number(target: str) -> int:
    return int(target) if target.isdigit() else 0


def shapes_text(shapes: tuple[tuple[int, int, int], ...]) -> str:
    """Write (batch, height, width) of least, best and most as `--shapes` takes them: NxWIDTHxHEIGHT, in commas."""
    words = [f"{batch}x{width}x{height}" for batch, height, width in shapes]
    return words[0] if len(set(words)) == 1 else ",".join(words)
