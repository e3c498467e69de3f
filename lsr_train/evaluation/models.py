"""Opens what `evaluate` scores: a checkpoint in torch, or an exported file in the runtime that ships it.

Both are opened with their device checked, describe themselves, and give a predictor with the protocol it follows.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsr_infer.errors import UsageError
from lsr_infer.labelspace import LabelSpace
from lsr_infer.segmenter import Segmenter
from lsr_train.config.data import TargetConfig
from lsr_train.data.footage import TargetFrames, open_footage
from lsr_train.data.labels import LABEL_SPACES
from lsr_train.data.scan import user_cache_folder
from lsr_train.device import choose_device, choose_precision
from lsr_train.evaluation.options import EvaluateOptions
from lsr_train.evaluation.scores import EvaluationProtocol, NetworkPredictor, Predictor
from lsr_train.evaluation.signals import estimate_target_statistics
from lsr_train.runs.checkpoint import ModelInfo, load_model, model_hash
from lsr_train.runs.folder import resolve_model

__all__ = ["ScoredModel", "open_scored_model", "predicted_space", "working_size"]

logger = logging.getLogger(__name__)

_FOREIGN_SIZE = (512, 1024)
_EXPORTED = (".onnx", ".engine")


@dataclass(frozen=True, kw_only=True)
class ReadyModel:
    """A predictor, its protocol as plain data (`text` is for a person), and the number of unusable target frames."""

    predict: Predictor
    protocol: dict[str, Any]
    left_out: int = 0


class ScoredModel(Protocol):
    """An opened model.

    Attributes:
        num_classes: C.
        space: the classes it predicts; None where the file does not say.
        size: rows and columns that are fed at scale 1 (to a frame of the training's aspect ratio).
        about: plain data for the result; `text` is one line for a person.
        device: what it runs on.
    """

    num_classes: int
    space: LabelSpace | None
    size: tuple[int, int]
    about: dict[str, Any]
    device: str

    def prepare(self) -> ReadyModel:
        """Do what is left to do before the first frame."""
        ...


def open_scored_model(options: EvaluateOptions) -> ScoredModel:
    """Open what is to be scored, on the device that was asked for."""
    file = resolve_model(options.model)
    return ExportedModel(file, options) if file.suffix.lower() in _EXPORTED else CheckpointModel(file, options)


def working_size(info: ModelInfo, height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns to feed: those asked for, else (0) those of the training."""
    return (height, width) if height else (info.height or _FOREIGN_SIZE[0], info.width or _FOREIGN_SIZE[1])


def predicted_space(
    model: str, own: LabelSpace | None, num_classes: int, wanted: LabelSpace | None = None
) -> LabelSpace:
    """Return the classes a model predicts: those it names itself, else those asked for, else known ones of its number.

    Raises:
        UsageError: none has its number of classes.
    """
    candidates = (*([] if wanted is None else [wanted]), *LABEL_SPACES.values())
    found = own or next((space for space in candidates if space.num_classes == num_classes), None)
    if found is None:
        raise UsageError(f"{model} has {num_classes} classes and no names for them. Set --label_space to a YAML file.")
    return found


class CheckpointModel:
    """A checkpoint of ours, or one of a layout that is recognised; see `ScoredModel`."""

    def __init__(self, file: Path, options: EvaluateOptions) -> None:
        self._device = choose_device(options.device, options.precision)
        self._options = options
        self._network, info = load_model(file, dilations=options.branches)
        if info.origin:
            logger.info("%s: recognised as %s", file, info.origin)
        what = info.origin or f"{info.method or 'unknown method'}, step {info.step}, {self._network.spec.backbone}"
        what += f", trained with {info.labelled} labelled frames of the target" if info.labelled else ""
        self.num_classes = self._network.spec.num_classes
        self.space = info.label_space
        self.size = working_size(info, options.height, options.width)
        self.device = str(self._device)
        self.about: dict[str, Any] = {
            "text": f"{file.name}: {what}",
            "file": file.name,
            "sha256": model_hash(file),
            "method": info.method,
            "step": info.step,
            "origin": info.origin,
            "labelled": info.labelled,
            "network": self._network.spec.to_dict(),
        }

    def prepare(self) -> ReadyModel:
        """Place the network and, where asked, give it the target's batch-norm statistics."""
        options = self._options
        if options.threads:
            torch.set_num_threads(options.threads)
        height, width = self.size
        protocol = EvaluationProtocol(
            kind=options.protocol, height=height, width=width, scales=options.factors, flip=options.flip,
            precision=choose_precision(self._device, options.precision),
        )  # fmt: skip
        network = self._network.to(self._device)
        shown: dict[str, Any] = {
            **asdict(protocol),
            "scales": list(protocol.scales),
            "batch_norm": options.batch_norm,
            "text": protocol.text,
        }
        left_out = 0
        if options.batch_norm == "target":
            target = TargetConfig(
                layout=options.target_layout, root=options.target, split=options.target_split, height=height,
                width=width,
            )  # fmt: skip
            footage = open_footage(target, on_bad=options.on_bad, cache=user_cache_folder())
            frames = TargetFrames(footage, options.batch_norm_frames, height, width)
            shown["text"] += f"; {estimate_target_statistics(network, frames)}"
            left_out = len(footage.left_out)
        return ReadyModel(predict=NetworkPredictor(network, protocol), protocol=shown, left_out=left_out)


class ExportedModel:
    """An exported file, run by `lsr_infer` as it is shipped: its own resizing, its own masks; see `ScoredModel`."""

    def __init__(self, file: Path, options: EvaluateOptions) -> None:
        asked = {
            "flip": options.flip,
            "dilations": options.branches is not None,
            "scales": options.factors != (1.0,),
            "batch_norm": options.batch_norm != "stored",
            "precision": options.precision not in ("fp32", "auto"),
        }
        wrong = [f"--{name}" for name, is_asked in asked.items() if is_asked]
        if wrong:
            raise UsageError(
                f"{file.name} is an exported file and is scored as it is; {', '.join(wrong)} would change it. "
                "Leave that out, or score the checkpoint."
            )
        self._options = options
        self._segmenter = Segmenter(file, device=options.device, threads=options.threads)
        manifest = self._segmenter.manifest
        self._fed = (options.height, options.width) if options.height else None
        if self._fed is not None:
            self._segmenter.working_size(*self._fed, self._fed)  # raises where the graph does not take that size
        self.num_classes = manifest.label_space.num_classes
        self.space: LabelSpace | None = manifest.label_space
        self.size = self._fed or (manifest.height, manifest.width)
        self.device = f"{self._segmenter.device} ({self._segmenter.backend})"
        self.about: dict[str, Any] = {
            "text": f"{file.name}: {manifest.precision} for {manifest.runtime}, {manifest.method or 'unknown method'}",
            "file": file.name,
            "sha256": model_hash(file),
            "method": manifest.method,
            "precision": manifest.precision,
            "backend": self._segmenter.backend,
            "checkpoint": manifest.checkpoint,
        }

    def prepare(self) -> ReadyModel:
        """Say how frames are fed; the session is open already."""
        kind = self._options.protocol
        rule = "stretched" if self._fed or self._segmenter.manifest.fixed_size else self._segmenter.manifest.resize
        labels = "masks at the labels' own size" if kind == "native" else "labels resized to that too"
        shown = {
            "kind": kind,
            "height": self.size[0],
            "width": self.size[1],
            "scales": [1.0],
            "flip": False,
            "precision": self._segmenter.manifest.precision,
            "batch_norm": "stored",
            "text": f"{kind}: the exported file in {self._segmenter.backend}, frames at {self.size[1]}x{self.size[0]} "
            f"({rule}), {labels}, one view, {self._segmenter.manifest.precision}",
        }
        return ReadyModel(predict=self._predict, protocol=shown)

    def _predict(self, frame: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
        """Return the classes of a frame, int64 [H,W]; `size` is the frame's own."""
        classes = self._segmenter(frame, size=self._fed).classes
        if classes.shape != size:
            raise ValueError(f"a mask of {classes.shape} for labels of {size}")
        return torch.from_numpy(classes.astype(np.int64))
