"""Writes and reads model files: safetensors with everything a reader needs to know as JSON in their header.

Nothing in such a file can run. It holds no path of the machine that made it, and the same network and facts give the
same bytes. It carries its own digest (`lsr_infer.io.digests`), so that damage is noticed; files of 0.1.0 carry none.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.digests import BLANK, seal, stated_digest
from lsr_infer.io.files import whole_file
from lsr_infer.labelspace import LabelSpace
from lsr_infer.manifest.records import TeacherFacts
from lsr_train.network.deeplab import DeepLabV2
from lsr_train.network.spec import NORMALIZATIONS, NetworkSpec
from lsr_train.network.weight_files import load_checked
from lsr_train.network.weights import recognise
from lsr_train.runs.folder import CHECKPOINT_FILES, RunFolder

__all__ = [
    "UNSEALED", "ModelInfo", "TeacherFacts", "checked_digest", "damage", "load_model", "model_hash", "newest_whole",
    "save_model", "save_tensors",
]  # fmt: skip

logger = logging.getLogger(__name__)

FORMAT = 2
"""Version of the metadata."""
UNSEALED = 1
"""Of files that may have no digest: those of 0.1.0, of a model and of a state."""

_KEY = "lsr_road"
LICENCE = (
    "The code is MIT. These weights follow the terms of the data and of the starting weights they were trained from."
)
INTENDED_USE = (
    "Semantic segmentation of road scenes, for research and evaluation on the camera it was adapted to. Not a safety "
    "component: no vehicle may act on it alone."
)


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The description inside a model file.

    Args:
        label_space: the classes, in channel order; None only for a foreign checkpoint, which names none.
        height: training height in pixels; 0 if unknown.
        width: training width in pixels; 0 if unknown.
        scores: figures by name, finite.
        origin: a phrase on where the file is from, where that is not this project.
        teacher: of a distilled network, else None.
        labelled: how many frames of the target had labels that it was trained with.
    """

    label_space: LabelSpace | None
    method: str = ""
    step: int = 0
    height: int = 0
    width: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    licence: str = LICENCE
    intended_use: str = INTENDED_USE
    origin: str = ""
    teacher: TeacherFacts | None = None
    labelled: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain JSON data."""
        return {
            **vars(self),
            "label_space": None if self.label_space is None else self.label_space.to_dict(),
            "scores": {name: float(value) for name, value in self.scores.items()},
            "teacher": None if self.teacher is None else self.teacher.to_dict(),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "ModelInfo":
        """Read the facts back; raises `InputError` where a key is missing or of the wrong type."""
        try:
            space = document["label_space"]
            teacher = document.get("teacher")  # files from before distillation have no such key
            return cls(
                label_space=None if space is None else LabelSpace.from_dict(space),
                method=str(document["method"]),
                step=int(document["step"]),
                height=int(document["height"]),
                width=int(document["width"]),
                scores={str(name): float(value) for name, value in document["scores"].items()},
                licence=str(document["licence"]),
                intended_use=str(document["intended_use"]),
                origin=str(document["origin"]),
                teacher=None if teacher is None else TeacherFacts.from_dict(teacher, "teacher"),
                labelled=int(document.get("labelled", 0)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"the model's description is damaged: {type(error).__name__} {error}.") from error


def save_model(path: Path, network: DeepLabV2, info: ModelInfo) -> str:
    """Write a network as a `.safetensors` file, whole or not at all, and return its digest; a file there is replaced.

    Raises:
        ValueError: the label space has another number of classes than the network, or a score is not finite.
        InputError: the place cannot be written.
    """
    space = info.label_space
    if space is not None and space.num_classes != network.spec.num_classes:
        raise ValueError(f"the network has {network.spec.num_classes} classes, {space.name} {space.num_classes}")
    document = {
        "format": FORMAT,
        "network": network.spec.to_dict(),
        "batch_norm": network.batch_norm,
        "normalization": NORMALIZATIONS[network.spec.normalization].to_dict(),
        "info": info.to_dict(),
        "digest": BLANK,
    }
    # One key only: the writer orders several as it likes, and equal models shall be equal files.
    metadata = {_KEY: json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False)}
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with whole_file(path, overwrite=True) as temporary:
        return save_tensors(temporary, tensors, metadata)


def load_model(
    path: Path,
    device: torch.device | str = "cpu",
    *,
    dilations: tuple[int, ...] | None = None,
    sure: bool = True,
    option: str = "--network.dilations",
) -> tuple[DeepLabV2, ModelInfo]:
    """Read a network: this project's safetensors, or a `.pth` of AdaptSegNet's line (see `recognise`).

    Args:
        path: the file.
        device: where the network goes.
        dilations: of the classifier of a `.pth`, whose names do not tell them; None takes those of AdaptSegNet's code.
        sure: whether these are known to be the file's own; else a warning says what was taken.
        option: what states them.

    Returns:
        The network in evaluation mode, and its facts; those of a foreign file have no label space, and `origin` says
        what was recognised.

    Raises:
        InputError: the file is missing, damaged, foreign, of a newer format, or its parts contradict each other.
        UsageError: the file states other dilations than those that are said to be its own.
    """
    if not path.is_file():
        what = "is a folder, not a model file" if path.is_dir() else "there is no such file"
        raise InputError(f"{path}: {what}. Name a .safetensors or .pth file.")
    if path.suffix != ".safetensors":
        found = recognise(path, dilations=dilations)
        if found.doubt and not (dilations and sure):
            logger.warning("%s Set %s '[6, 12, 18, 24]' or '[6, 12]'.", found.doubt, option)
        return found.network.to(device), ModelInfo(label_space=None, origin=found.text)
    digest = checked_digest(path)
    document, weights = _read(path)
    if digest is None and document["format"] > UNSEALED:
        raise damage(path)
    try:
        spec = NetworkSpec.from_dict(document["network"])
        batch_norm = document["batch_norm"]
        same = document["normalization"] == NORMALIZATIONS[spec.normalization].to_dict()
        info = ModelInfo.from_dict(document["info"])
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise InputError(f"{path}: its description is damaged ({error}). Use another copy.") from error
    if not same or batch_norm not in ("train", "frozen"):
        raise InputError(f"{path}: its description contradicts itself (normalization or batch_norm). Use another copy.")
    if info.label_space is not None and info.label_space.num_classes != spec.num_classes:
        raise InputError(
            f"{path}: {spec.num_classes} classes in the network and {info.label_space.num_classes} in its label space "
            f"{info.label_space.name}. Use another copy."
        )
    if dilations and sure and dilations != spec.dilations:
        raise UsageError(f"{path}: states its dilations itself, {list(spec.dilations)}. Leave --network.dilations out.")
    with torch.random.fork_rng(devices=[]):  # the weights are replaced: reading draws no random number
        network = DeepLabV2(spec)
    load_checked(network, weights, path, "Use another copy of the model.")
    network.set_batch_norm(batch_norm)
    return network.eval().to(device), info


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a model file of ours."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            text = metadata.get(_KEY)
            weights = {} if text is None else {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise InputError(f"{path}: no readable safetensors file ({error}). Use another copy.") from error
    if text is None:
        raise InputError(f"{path}: holds weights, but no description of a model of this project. Use a file it wrote.")
    try:
        document = json.loads(text)
        version = document["format"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path}: its description is damaged ({error}). Use another copy.") from error
    if version not in (UNSEALED, FORMAT):
        raise InputError(
            f"{path}: a model file of format {version}; this version reads up to {FORMAT}. Update the program."
        )
    return document, weights


def model_hash(path: Path) -> str:
    """Return the SHA-256 of a model file as 64 hexadecimal digits."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error


def checked_digest(path: Path) -> str | None:
    """Return the digest that a file of a checkpoint states, None where it states none.

    Raises:
        InputError: it is damaged, or cannot be read; names the newest checkpoint of the run that is whole.
    """
    try:
        return stated_digest(path)
    except ValueError as error:
        raise damage(path) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Use another copy.") from error


def damage(path: Path) -> InputError:
    """Return the error of a damaged file of a checkpoint."""
    other = newest_whole(path)
    advice = "Use another copy" if other is None else f"Use another copy, or {other}, the newest that is whole"
    return InputError(f"{path}: it is damaged, its content is not what its digest is of. {advice}.")


def newest_whole(path: Path) -> Path | None:
    """Return the newest other checkpoint of a run all of whose files have their digests; None where none is known.

    `path` is a file in a checkpoint folder; anywhere else there is no other checkpoint.
    """
    run = RunFolder(path.parent.parent.parent)
    for step in reversed(run.steps()) if path.parent.parent.name == "checkpoints" else ():
        folder = run.checkpoint(step)
        files = (folder / name for name in CHECKPOINT_FILES)
        if folder != path.parent and all(map(_is_whole, files)):
            return folder
    return None


def _is_whole(path: Path) -> bool:
    try:
        return stated_digest(path) is not None
    except (OSError, ValueError):
        return False


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Write contiguous CPU tensors to `path`, and return the digest; call it on a temporary name and rename.

    A text of `metadata` has a place for the digest.
    """
    try:
        save_file(dict(tensors), path, metadata=dict(metadata))
        return seal(path)
    except SafetensorError as error:
        reason = "the disk is full" if "os error 28" in str(error) else str(error)
        raise InputError(
            f"{path.parent}: cannot be written, {reason}. Free space or choose another place; nothing there changed."
        ) from error
