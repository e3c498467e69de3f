"""Scores a network's predictions against labels, and draws the frames it did worst on.

Labels come in through `score` alone, which knows no data set and no file format of a network; frames are never
augmented. A network's training mode is put back as it was.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.files import write_bytes, writing
from lsr_infer.io.images import resize_frame, resize_labels
from lsr_infer.labelspace import LabelSpace
from lsr_infer.render.overlay import explained, overlay
from lsr_train.data.samples import LabelledSample
from lsr_train.device import Precision, autocast
from lsr_train.losses.pixel import upsample
from lsr_train.metrics import ConfusionMatrix, iou, mean_iou

__all__ = [
    "OVERLAY_ALPHA", "Evaluation", "EvaluationProtocol", "NetworkPredictor", "Predictor", "ScoredFrame",
    "SegmentationNetwork", "check_folder", "classes_of", "comparison", "in_eval_mode", "logits_of", "score",
    "score_frames", "write_worst",
]  # fmt: skip

OVERLAY_ALPHA = 0.55
"""The share of the classes' colours where they are drawn over a frame."""


class SegmentationNetwork(Protocol):
    """A torch module that normalises frames uint8 [B,H,W,3] to image [B,3,H,W] and returns `logits` [B,C,h,w]."""

    @property
    def normalize(self) -> Callable[[Tensor], Tensor]:
        """From frames to an image."""

    def __call__(self, image: Tensor) -> Any:
        """Return an object with `logits`."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the weights."""

    def modules(self) -> Iterator[nn.Module]:
        """Return the network and every part of it."""


@contextmanager
def in_eval_mode(network: SegmentationNetwork) -> Iterator[None]:
    """Run a block with every part of the network in evaluation mode and without gradients; put each mode back after."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def logits_of(network: SegmentationNetwork, image: Tensor, precision: Precision) -> Tensor:
    """Return the logits of an image as float32 [B,C,h,w]."""
    with autocast(image.device, precision):
        logits: Tensor = network(image).logits
    return logits.float()


def classes_of(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the class map [B,H,W] of logits [B,C,h,w]."""
    return _peak(upsample(logits, size))


def _peak(logits: Tensor) -> Tensor:
    """Return the class of every pixel; on a CPU argmax takes five to eight times as long for the same."""
    return logits.max(dim=1).indices


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """How a frame becomes a class map that is compared with its labels.

    Args:
        kind: `native` feeds frames of `height` x `width` and upsamples the logits to the labels' own size (what the
            field does); `resized` resizes the labels to `height` x `width` too (what the authors' released code does).
        height: rows fed to the network at scale 1.
        width: columns fed to the network at scale 1.
        scales: factors of that size; with several views their softmax is averaged at the labels' size.
        flip: whether each scale is also predicted mirrored.
        precision: of the network; everything after the logits computes in float32.

    Raises:
        ValueError: a size or scale is not positive, or the kind is unknown.
    """

    kind: Literal["native", "resized"] = "native"
    height: int
    width: int
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if self.kind not in ("native", "resized"):
            raise ValueError(f"protocol is {self.kind!r}; allowed: native, resized")
        if self.height < 1 or self.width < 1 or not self.scales or not all(scale > 0 for scale in self.scales):
            raise ValueError(f"size {self.width}x{self.height} and scales {self.scales} must be positive")

    @property
    def text(self) -> str:
        """One line for a person."""
        labels = "logits upsampled to the labels' own size" if self.kind == "native" else "labels resized to that too"
        factors = ", ".join(f"{scale:g}" for scale in self.scales)
        views = "one view" if self.scales == (1.0,) else f"mean softmax over scales {factors}"
        mirrored = ", each also mirrored" if self.flip else ""
        return f"{self.kind}: frames at {self.width}x{self.height}, {labels}, {views}{mirrored}, {self.precision}"

    def size(self, scale: float) -> tuple[int, int]:
        """Rows and columns that are fed at a scale."""
        return max(1, round(self.height * scale)), max(1, round(self.width * scale))


class Predictor(Protocol):
    """Turns a frame into a class map: a network in torch, or whatever else computes one."""

    def __call__(self, frame: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
        """Return classes, int64 [H,W], at `size` of a frame uint8 [H',W',3] of any size."""
        ...


class NetworkPredictor:
    """Predicts with a network, on its device and in evaluation mode, the views of a frame that a protocol wants."""

    def __init__(self, network: SegmentationNetwork, protocol: EvaluationProtocol) -> None:
        self.network, self.protocol = network, protocol

    def _views(self, frame: NDArray[np.uint8]) -> Iterator[Tensor]:
        """Yield the logits [1,C,h,w] of every view, mirrored ones mirrored back."""
        device = next(self.network.parameters()).device
        for scale in self.protocol.scales:
            fed = torch.from_numpy(np.ascontiguousarray(resize_frame(frame, *self.protocol.size(scale))))
            image = self.network.normalize(fed.unsqueeze(0).to(device))  # [1,3,H,W]
            yield logits_of(self.network, image, self.protocol.precision)
            if self.protocol.flip:
                yield logits_of(self.network, image.flip(-1), self.protocol.precision).flip(-1)

    def __call__(self, frame: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
        """Return the classes of a frame, int64 [H,W], at `size`."""
        with in_eval_mode(self.network):
            views = [upsample(logits, size) for logits in self._views(frame)]  # each [1,C,H,W]
            if len(views) == 1:
                return _peak(views[0])[0]
            return _peak(torch.stack([view.softmax(dim=1) for view in views]).mean(dim=0))[0]


@dataclass(frozen=True, kw_only=True)
class ScoredFrame:
    """A frame with what was predicted on it.

    Args:
        file: what the frame is called.
        miou: mean IoU over the classes that are labelled or predicted in this frame.
        frame: uint8 [H,W,3], BGR, at the size of the labels.
        labels: uint8 [H,W].
        classes: the prediction, uint8 [H,W].
    """

    file: str
    miou: float
    frame: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    classes: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What scoring a data set gave.

    Args:
        matrix: counts [C,C] over the data set, true class by row.
        frames: how many frames were scored.
        void: pixels left out because their label is void.
        frame_miou: name and mean IoU of each frame; NaN where all of it is void.
        worst: the frames with the lowest mean IoU, the worst first.
    """

    matrix: Tensor
    frames: int
    void: int
    frame_miou: tuple[tuple[str, float], ...]
    worst: tuple[ScoredFrame, ...] = ()

    @property
    def iou(self) -> Tensor:
        """IoU of each class [C] float64; NaN where it is neither labelled nor predicted."""
        return iou(self.matrix)


def _prefetched(frames: Iterable[LabelledSample]) -> Iterator[LabelledSample]:
    """Read the next frame in a thread while the caller works on this one; what reading raises is raised here."""
    iterator = iter(frames)
    with ThreadPoolExecutor(max_workers=1) as pool:
        upcoming = pool.submit(next, iterator, None)
        while (item := upcoming.result()) is not None:
            upcoming = pool.submit(next, iterator, None)
            yield item


def score(
    predict: Predictor,
    frames: Iterable[LabelledSample],
    num_classes: int,
    *,
    resized: tuple[int, int] | None = None,
    relabel: NDArray[np.uint8] | None = None,
    worst: int = 0,
) -> Evaluation:
    """Score predictions on labelled frames with one confusion matrix over all of them.

    Args:
        predict: what is scored.
        frames: with labels 0..C-1 or 255, of the frame's size.
        num_classes: C, of the labels.
        resized: rows and columns to which frame and labels are resized first (the `resized` protocol); None compares
            at the labels' own size.
        relabel: uint8 [256], from predicted classes to those of the labels; None where they are the same.
        worst: how many of the worst frames to keep.

    Raises:
        ValueError: there is no frame, sizes differ, or a label or a predicted class is outside 0..C-1.
    """
    whole = ConfusionMatrix(num_classes)
    lowest: list[ScoredFrame] = []
    table = None if relabel is None else torch.from_numpy(relabel.astype(np.int64))
    scores: list[tuple[str, float]] = []
    for sample in _prefetched(frames):
        original, truth, file = sample.frame, sample.labels, sample.file
        if original.shape[:2] != truth.shape:
            raise ValueError(f"{file}: frame {original.shape[:2]} and labels {truth.shape} differ in size")
        frame = original if resized is None else resize_frame(original, *resized)
        labels = truth if resized is None else resize_labels(truth, *resized)
        height, width = labels.shape
        classes = predict(frame, (height, width)).cpu()
        classes = classes if table is None else table[classes]
        confusion = ConfusionMatrix(num_classes)
        confusion.update(torch.from_numpy(np.ascontiguousarray(labels)), classes)
        try:
            miou = mean_iou(iou(confusion.matrix))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        whole.merge(confusion)
        scores.append((file, miou))
        if worst and not np.isnan(miou):
            drawn = classes.numpy().astype(np.uint8)
            lowest.append(ScoredFrame(file=file, miou=miou, frame=frame, labels=labels, classes=drawn))
            lowest = sorted(lowest, key=lambda scored: scored.miou)[:worst]  # of equal ones the earlier stays
    if not scores:
        raise ValueError("there is no frame to score")
    return Evaluation(
        matrix=whole.matrix, frames=len(scores), void=whole.void, frame_miou=tuple(scores), worst=tuple(lowest)
    )


def score_frames(
    network: SegmentationNetwork,
    frames: Iterable[LabelledSample],
    size: tuple[int, int],
    num_classes: int,
    *,
    precision: Precision = "fp32",
) -> float:
    """Mean IoU of a network on labelled frames, by the native protocol in one view of `size`; raises as `score`."""
    protocol = EvaluationProtocol(height=size[0], width=size[1], precision=precision)
    return mean_iou(score(NetworkPredictor(network, protocol), frames, num_classes).iou)


def check_folder(folder: Path, *, overwrite: bool, flag: str = "--overlay_dir") -> None:
    """Raise unless pictures may be written to `folder`, which `flag` names and which need not be there.

    Raises:
        UsageError: it is there, not empty, and `overwrite` is false.
        InputError: it is a file, or cannot be read.
    """
    try:
        if folder.exists() and any(folder.iterdir()) and not overwrite:
            raise UsageError(f"{folder} is not empty. Choose another {flag}, or pass --overwrite.")
    except OSError as error:
        raise InputError(f"{folder}: cannot be used as a folder ({error.strerror}).") from error


def comparison(scored: ScoredFrame, space: LabelSpace) -> NDArray[np.uint8]:
    """Draw the frame, its labels over it and the prediction over it, from left to right, the classes below, in BGR."""
    both = (scored.labels, scored.classes)
    drawn = [scored.frame, *(overlay(scored.frame, classes, space, OVERLAY_ALPHA) for classes in both)]
    return explained(drawn, ("frame", "labels", "prediction"), space, np.stack(both))


def write_worst(folder: Path, worst: Sequence[ScoredFrame], space: LabelSpace) -> list[Path]:
    """Write one JPEG a frame, named by rank and score, in place of what an earlier call wrote; return the files."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9][0-9]_miou-*.jpg"):  # of an earlier call: two sets of worst frames must not mix
        old.unlink(missing_ok=True)
    written = []
    for rank, scored in enumerate(worst, start=1):
        name = re.sub(r"[^\w.-]+", "_", Path(scored.file).stem)[:80]
        path = folder / f"{rank:02d}_miou-{100 * scored.miou:.1f}_{name}.jpg"
        done, data = cv2.imencode(".jpg", comparison(scored, space), [cv2.IMWRITE_JPEG_QUALITY, 92])
        if not done:
            raise InputError(f"{path}: this picture cannot be written as JPEG.")
        write_bytes(path, data.tobytes())
        written.append(path)
    return written
