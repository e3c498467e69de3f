"""What a model file says of itself, whichever kind it is, without running it and without the engine that would.

An ONNX file carries its Manifest inside; beside a TensorRT engine it stands as `NAME.engine.json`, so that nothing has
to be deserialised to read it.
"""

from dataclasses import dataclass
from pathlib import Path

from lsr_infer.errors import InputError
from lsr_infer.manifest import METADATA_KEY, Manifest
from lsr_infer.onnxfile import TensorPort, read_onnx

__all__ = ["ENGINE_SUFFIX", "ModelFile", "check_ports", "read_model_file"]

ENGINE_SUFFIX = ".engine"
_LARGEST_MANIFEST = 1 << 24


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


def read_model_file(path: Path) -> ModelFile:
    """Describe a model file.

    Raises:
        InputError: it is missing, no model, has no Manifest, or its graph is not what the Manifest says.
    """
    if not path.is_file():
        if path.is_dir():
            raise InputError(f"{path}: is a folder. Export a run with export/to_onnx.py, and name the file.")
        raise InputError(f"{path}: there is no such model file.")
    try:
        if path.suffix.lower() == ENGINE_SUFFIX:
            return _engine(path)
        if path.suffix.lower() == ".onnx":
            return _onnx(path)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from error
    raise InputError(f"{path}: is no model; known: .onnx, {ENGINE_SUFFIX}.")


def _onnx(path: Path) -> ModelFile:
    found = read_onnx(path)
    text = found.metadata.get(METADATA_KEY)
    if text is None:
        raise InputError("it has no Manifest, so its classes are unknown. Export it with export/to_onnx.py.")
    manifest = Manifest.from_json(text)
    check_ports(found.inputs, found.outputs, manifest)
    return ModelFile(
        path=path, kind="onnx", size=found.size, manifest=manifest, inputs=found.inputs, outputs=found.outputs,
        weights=found.weights,
    )  # fmt: skip


def _engine(path: Path) -> ModelFile:
    beside = path.with_name(f"{path.name}.json")
    try:
        if beside.stat().st_size > _LARGEST_MANIFEST:
            raise InputError(f"its Manifest {beside.name} is larger than any. Build the engine with export/to_trt.py.")
        text = beside.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(
            f"its Manifest {beside.name} is not beside it. Copy both, or build the engine with export/to_trt.py."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"its Manifest {beside.name} cannot be read. Build the engine with export/to_trt.py."
        ) from error
    manifest = Manifest.from_json(text)
    if manifest.engine is None:
        raise InputError(f"its Manifest {beside.name} is no engine's. Build the engine with export/to_trt.py.")
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
