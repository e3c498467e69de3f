"""What a model file says of itself, whichever kind it is, without running it and without the engine that would.

An ONNX file carries its Manifest inside; beside a TensorRT engine it stands as `NAME.engine.json`, so that nothing has
to be deserialised to read it.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from lsr_infer.backends.onnx_file import TensorPort, read_onnx
from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.paths import is_file, is_folder
from lsr_infer.manifest import Manifest
from lsr_infer.tensorrt.admission import engine_manifest

__all__ = ["ModelFile", "check_is_file", "check_ports", "read_model_file", "shipped_model"]

logger = logging.getLogger(__name__)

_SHIPPED = Path(__file__).parents[1] / "models" / "toytown_adapted.onnx"


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A model file, described.

    Args:
        path: the file.
        kind: `onnx` or `engine`.
        size: in bytes.
        manifest: what it says about itself.
        inputs: of the graph; for an engine as its Manifest has them.
        outputs: of the graph; likewise.
        weights: number of values in the graph's tensors; None for an engine.
    """

    path: Path
    kind: str
    size: int
    manifest: Manifest
    inputs: tuple[TensorPort, ...]
    outputs: tuple[TensorPort, ...]
    weights: int | None


def check_is_file(path: Path) -> None:
    """Raise unless there is a file.

    Raises:
        InputError: there is none.
    """
    if is_folder(path):
        raise InputError(f"{path}: is a folder. Export a run with export/to_onnx.py, and name the file.")
    if not is_file(path):
        raise InputError(f"{path}: there is no such model file.")


def read_model_file(path: Path) -> ModelFile:
    """Describe a model file.

    Raises:
        InputError: it is missing, no model, has no Manifest, or its graph is not what the Manifest says.
    """
    check_is_file(path)
    try:
        if path.suffix.lower() == ".engine":
            return _engine(path)
        if path.suffix.lower() == ".onnx":
            return _onnx(path)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from error
    raise InputError(f"{path}: is no model; known: .onnx, .engine.")


def shipped_model() -> Path:
    """Return the demonstration network that comes with the package, and say in the log that it is taken.

    Raises:
        UsageError: this installation has none.
    """
    if not _SHIPPED.is_file():
        raise UsageError("this installation ships no model. Name one, for `lsr-infer` with --model MODEL.onnx.")
    logger.info("no model named: using the shipped demonstration network, trained on Toytown, not on real roads")
    return _SHIPPED


def _onnx(path: Path) -> ModelFile:
    found = read_onnx(path)
    manifest = Manifest.from_metadata(found.metadata)
    check_ports(found.inputs, found.outputs, manifest)
    return ModelFile(
        path=path, kind="onnx", size=found.size, manifest=manifest, inputs=found.inputs, outputs=found.outputs,
        weights=found.weights,
    )  # fmt: skip


def _engine(path: Path) -> ModelFile:
    _, manifest, _ = engine_manifest(path)
    inputs, outputs = _expected(manifest)
    return ModelFile(
        path=path, kind="engine", size=path.stat().st_size, manifest=manifest, inputs=(inputs,), outputs=(outputs,),
        weights=None,
    )  # fmt: skip


def _expected(manifest: Manifest) -> tuple[TensorPort, TensorPort]:
    """Return the input and the output a Manifest describes."""
    size = (manifest.height, manifest.width) if manifest.fixed_size else (None, None)
    batch, classes = manifest.fixed_batch, manifest.label_space.num_classes
    given = TensorPort(name="image", type="uint8", shape=(batch, *size, 3))
    if manifest.output == "logits":
        return given, TensorPort(name="logits", type="float32", shape=(batch, classes, None, None))
    return given, TensorPort(name="classes", type="uint8", shape=(batch, *size))


def check_ports(inputs: tuple[TensorPort, ...], outputs: tuple[TensorPort, ...], manifest: Manifest) -> None:
    """Raise unless a graph with these ports is the one the Manifest describes.

    Raises:
        InputError: it is another.
    """
    given, result = _expected(manifest)
    for kind, ports, expected in (("input", inputs, given), ("output", outputs, result)):
        if len(ports) != 1 or not _fits(ports[0], expected):
            described = "; ".join(map(_words, ports)) or "none"
            raise InputError(
                f"its Manifest says one {kind} {_words(expected)}, the graph has: {described}. Export the model again."
            )


def _fits(found: TensorPort, expected: TensorPort) -> bool:
    """Whether name, type and number of axes are the same, and no axis contradicts the other."""
    if (found.name, found.type, len(found.shape)) != (expected.name, expected.type, len(expected.shape)):
        return False
    axes = zip(found.shape, expected.shape, strict=True)
    return all(one is None or other is None or one == other for one, other in axes)


def _words(port: TensorPort) -> str:
    shape = ",".join("?" if axis is None else str(axis) for axis in port.shape)
    return f"{port.name} {port.type} [{shape}]"
