"""Writes a model repository for NVIDIA's Triton Inference Server.

`NAME/config.pbtxt` is a `ModelConfig` of Triton's `model_config.proto`; the model lies in version folder 1. Only fields
that its documentation names are written. The server returns what the graph gives: with `classes` a finished mask,
with `logits` the small map from which a client has to make one.
"""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsr_infer.backends.model_file import ModelFile, TensorPort
from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.files import check_output_folder, refuse_existing, whole_folder
from lsr_infer.manifest import LARGEST_BATCH
from lsr_infer.tensorrt.admission import check_bytes, check_parity, sha256_of

__all__ = ["EnumName", "Serving", "model_config", "to_pbtxt", "write_repository"]

_DATA_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "float16": "TYPE_FP16"}
_OWN = re.compile(r"config\.pbtxt|labels\.txt|manifest\.json|1(/model\.(onnx|plan))?")
"""What lies in the folder of a model that this wrote: nothing else is replaced with it."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class EnumName(str):
    """A name of an enumeration: written without quotation marks."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a model is to be served.

    Args:
        name: of the model at the server, and of its folder.
        max_batch: frames the server may put together; the graph's own limit where it has one.
        delay_microseconds: how long a request may wait for others to join its batch.
        instances: copies of the model that run at once, on each device.
        kind: `auto`, `cpu` or `gpu`.
    """

    name: str
    max_batch: int = 8
    delay_microseconds: int = 2000
    instances: int = 1
    kind: str = "auto"

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise UsageError(f"the name {self.name!r} is no model's; allowed: letters, digits, '_', '-' and '.'.")
        if not 1 <= self.max_batch <= LARGEST_BATCH:
            raise UsageError(f"--max-batch is {self.max_batch}; allowed: 1 to {LARGEST_BATCH}.")
        if not 0 <= self.delay_microseconds <= 10_000_000:
            raise UsageError(f"--delay is {self.delay_microseconds} microseconds; allowed: 0 to 10000000.")
        if not 1 <= self.instances <= 64:
            raise UsageError(f"--instances is {self.instances}; allowed: 1 to 64.")
        if self.kind not in ("auto", "cpu", "gpu"):
            raise UsageError(f"--kind is {self.kind!r}; allowed: auto, cpu, gpu.")


def model_config(model: ModelFile, serving: Serving) -> dict[str, Any]:
    """Return the `ModelConfig` of a model as plain data, `EnumName`s for enumerations."""
    manifest, engine = model.manifest, model.manifest.engine
    if engine is not None and engine.flavour != "tensorrt":
        raise InputError(
            f"{model.path}: is an engine of TensorRT for RTX; Triton serves only those of TensorRT. Serve its ONNX."
        )
    if engine is not None and serving.kind == "cpu":
        raise UsageError("--kind is cpu, and an engine runs only on a GPU. Serve the ONNX file, or leave --kind out.")
    batched = manifest.fixed_batch is None
    least, most = manifest.batch_range()
    if batched and least > 1:
        raise InputError(
            f"{model.path}: takes {least} frames at a time at least, and a server has single ones to send. Build it "
            "again with --shapes that begin with one."
        )
    most = min(serving.max_batch, most)
    given, result = model.inputs[0], model.outputs[0]
    kind = serving.kind if engine is None else "gpu"
    facts = {
        "label_space": manifest.label_space.name,
        "classes": ",".join(manifest.label_space.names),
        "working_size": f"{manifest.width}x{manifest.height}",
        "checkpoint_sha256": manifest.checkpoint,
    }
    config: dict[str, Any] = {
        "name": serving.name,
        "platform": "onnxruntime_onnx" if engine is None else "tensorrt_plan",
        "max_batch_size": most if batched else 0,
        "version_policy": {"latest": {"num_versions": 1}},
        "input": [_tensor(given, batched)],
        "output": [_tensor(result, batched)],
        "instance_group": [{"count": serving.instances, "kind": EnumName(f"KIND_{kind.upper()}")}],
        "model_warmup": [_warmup(model, batched)],
        "parameters": [{"key": key, "value": {"string_value": text}} for key, text in facts.items()],
    }
    if batched and most > 1:
        config["dynamic_batching"] = {"max_queue_delay_microseconds": serving.delay_microseconds}
    return config


def _tensor(port: TensorPort, batched: bool) -> dict[str, Any]:
    """Describe a port; with batches Triton adds the first axis itself."""
    shape: Sequence[int | None] = port.shape[1:] if batched else port.shape
    return {
        "name": port.name,
        "data_type": EnumName(_DATA_TYPES[port.type]),
        "dims": [-1 if axis is None else axis for axis in shape],
    }


def _warmup(model: ModelFile, batched: bool) -> dict[str, Any]:
    """Describe a first request of black frames, which the server answers before it says that it is ready."""
    manifest = model.manifest
    height, width = manifest.height, manifest.width
    if manifest.engine is not None:
        _, height, width = manifest.engine.shapes[1]
    axes = [height, width, 3] if batched else [manifest.fixed_batch, height, width, 3]
    port = model.inputs[0]
    black = {"data_type": EnumName(_DATA_TYPES[port.type]), "dims": axes, "zero_data": True}
    return {"name": "black_frame", "batch_size": 1, "inputs": [{"key": port.name, "value": black}]}


def to_pbtxt(document: Mapping[str, Any]) -> str:
    """Write a message in protobuf's text format; a map is a list of objects with `key` and `value`."""
    return "\n".join(_message(document, "")) + "\n"


def _message(document: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in document.items():
        if isinstance(value, list) and all(isinstance(item, int) for item in value):
            yield f"{indent}{key}: [ {', '.join(map(str, value))} ]"
        elif isinstance(value, Mapping | list):
            for item in [value] if isinstance(value, Mapping) else value:
                yield f"{indent}{key} {{"
                yield from _message(item, f"{indent}  ")
                yield f"{indent}}}"
        else:
            yield f"{indent}{key}: {_scalar(value)}"


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, EnumName | int):
        return str(value)
    if isinstance(value, str):
        return f'"{"".join(map(_letter, value.encode("utf-8")))}"'
    raise TypeError(f"a {type(value).__name__} has no place in a config.pbtxt")


def _letter(byte: int) -> str:
    """Return a byte of a text, escaped where it would end the text or is not plain ASCII."""
    letter = chr(byte)
    return f"\\{byte:03o}" if letter in '"\\' or not 32 <= byte < 127 else letter


def write_repository(
    model: ModelFile, repository: Path, serving: Serving, *, overwrite: bool = False, allow_unverified: bool = False
) -> Path:
    """Write the folder of a model into a repository, whole or not at all, and return it.

    The repository is made where it is missing, other models in it stay as they are. To `overwrite` replaces a folder of
    that name that holds what this wrote and nothing else.
    """
    config = to_pbtxt(model_config(model, serving))  # refused before what could be corrected
    if model.manifest.engine is not None:
        check_bytes(model.path, model.manifest.engine, sha256_of(model.path.read_bytes()))
        check_parity(model.path, model.manifest, None, allow_unverified=allow_unverified)
    folder = repository / serving.name
    refuse_existing(folder, overwrite=overwrite, own=_OWN)
    check_output_folder(repository)
    with whole_folder(folder, overwrite=overwrite, own=_OWN) as temporary:
        (temporary / "1").mkdir()
        shutil.copyfile(model.path, temporary / "1" / ("model.onnx" if model.kind == "onnx" else "model.plan"))
        (temporary / "config.pbtxt").write_text(config, encoding="ascii")
        names = [name.replace("\n", " ") for name in model.manifest.label_space.names]
        (temporary / "labels.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        (temporary / "manifest.json").write_text(model.manifest.to_json() + "\n", encoding="utf-8")
    return folder
