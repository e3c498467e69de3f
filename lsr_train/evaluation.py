"""A network looks at frames: scored against labels, or judged by signals that need none.

Frames arrive as decoders deliver them and are never augmented. The signals take frames that have no label field; labels
come in through `evaluate` alone, which knows no data set and no file format of a network. A network's training mode is
put back as it was.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lsr_infer.images import resize_frame, resize_labels
from lsr_infer.labelspace import IGNORE_INDEX
from lsr_train.losses import upsample
from lsr_train.metrics import ConfusionMatrix, agreement, iou, mean_iou

__all__ = [
    "AGREEMENT_SCALES",
    "Evaluation",
    "EvaluationProtocol",
    "FlipResult",
    "FrameBatch",
    "Frames",
    "NetworkPredictor",
    "Predictor",
    "ScoredFrame",
    "SegmentationNetwork",
    "Signals",
    "evaluate",
    "flip_agreement",
    "in_eval_mode",
    "label_free_signals",
    "mean_entropy",
    "scale_agreement",
    "score_frames",
]

Precision = Literal["fp32", "bf16", "fp16"]

AGREEMENT_SCALES = (0.75,)
"""Scales that are compared with the frame as it is. Ours: .75 costs .6 of a forward more, 1.25 would cost 1.6."""


class SegmentationNetwork(Protocol):
    """What is asked of a network: normalisation, and an output that has `logits`."""

    @property
    def normalize(self) -> Callable[[Tensor], Tensor]:
        """Frames uint8 [B,H,W,3] to image [B,3,H,W]."""
        ...

    def __call__(self, image: Tensor) -> Any:
        """Return an object with `logits` [B,C,h,w]."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the weights, whose device is the one to compute on."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """Return the network and every part of it."""
        ...


class Frames(Protocol):
    """Unlabelled frames of one size: `FrameBatch`, and the loader's unlabelled batches."""

    @property
    def frames(self) -> Tensor:
        """Uint8 [B,H,W,3], BGR."""
        ...

    @property
    def mask(self) -> Tensor | None:
        """Bool [B,H,W], true where a pixel counts; None means everywhere."""
        ...


class FrameBatch(NamedTuple):
    """The plain form of `Frames`."""

    frames: Tensor
    mask: Tensor | None = None


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


def _autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def _logits(network: SegmentationNetwork, image: Tensor, precision: Precision) -> Tensor:
    """Return the logits of an image as float32 [B,C,h,w]."""
    with _autocast(image.device, precision):
        logits: Tensor = network(image).logits
    return logits.float()


def _classes(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the class map [B,H,W] of logits [B,C,h,w]."""
    return _peak(upsample(logits, size))


def _peak(logits: Tensor) -> Tensor:
    """Return the class of every pixel; on a CPU argmax takes five to eight times as long for the same."""
    return logits.max(dim=1).indices


# -- signals that need no label ---------------------------------------------------------------------------------------


class _Look(NamedTuple):
    """A batch as the network sees it: image [B,3,H,W], mask, logits [B,C,h,w] and their class map [B,H,W]."""

    image: Tensor
    mask: Tensor | None
    logits: Tensor
    classes: Tensor


def _looks(network: SegmentationNetwork, batches: Iterable[Frames], precision: Precision) -> Iterator[_Look]:
    """Run the network over batches; the part that all signals share."""
    device = next(network.parameters()).device
    for batch in batches:
        image = network.normalize(batch.frames.to(device, non_blocking=True))  # [B,3,H,W]
        mask = None if batch.mask is None else batch.mask.to(device, non_blocking=True)
        logits = _logits(network, image, precision)  # [B,C,h,w]
        yield _Look(image, mask, logits, _classes(logits, (image.shape[2], image.shape[3])))


class _Comparison:
    """Counts of the plain prediction against other predictions of the same frames."""

    def __init__(self) -> None:
        self._confusion: ConfusionMatrix | None = None
        self.frames = 0

    def add(self, look: _Look, classes: Tensor) -> None:
        if self._confusion is None:
            self._confusion = ConfusionMatrix(look.logits.shape[1], look.logits.device)
        reference = look.classes if look.mask is None else look.classes.masked_fill(~look.mask, IGNORE_INDEX)
        self._confusion.update(reference, classes)
        self.frames += len(classes)

    @property
    def matrix(self) -> Tensor:
        if self._confusion is None:
            raise ValueError("there is no frame to compare predictions on")
        return self._confusion.matrix


class _Flip(_Comparison):
    """Compares with the prediction of the mirrored frame, mirrored back."""

    def observe(self, network: SegmentationNetwork, look: _Look, precision: Precision) -> None:
        mirrored = _logits(network, look.image.flip(-1), precision).flip(-1)  # [B,C,h,w]
        self.add(look, _classes(mirrored, (look.image.shape[2], look.image.shape[3])))


class _Scale(_Comparison):
    """Compares with the predictions of the frame at other sizes."""

    def __init__(self, scales: Sequence[float]) -> None:
        super().__init__()
        if not scales or not all(scale > 0 and scale != 1 for scale in scales):
            raise ValueError(f"scales are {tuple(scales)}; allowed: one or more positive factors other than 1")
        self.scales = tuple(scales)

    def observe(self, network: SegmentationNetwork, look: _Look, precision: Precision) -> None:
        H, W = look.image.shape[2:]
        for scale in self.scales:
            size = (max(1, round(H * scale)), max(1, round(W * scale)))
            image = functional.interpolate(look.image, size=size, mode="bilinear", antialias=scale < 1)
            self.add(look, _classes(_logits(network, image, precision), (H, W)))


class _Entropy:
    """Adds up the entropy of every pixel that counts."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None  # entropy, pixels

    def observe(self, network: SegmentationNetwork, look: _Look, precision: Precision) -> None:
        log_probabilities = upsample(look.logits, (look.image.shape[2], look.image.shape[3])).log_softmax(dim=1)
        entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=1)  # [B,H,W]
        weight = torch.ones_like(entropy) if look.mask is None else look.mask.to(entropy.dtype)
        share = entropy / max(math.log(look.logits.shape[1]), 1e-12)
        sums = torch.stack([(share * weight).sum(dtype=torch.float64), weight.sum(dtype=torch.float64)])
        self._sums = sums if self._sums is None else self._sums + sums

    @property
    def value(self) -> float:
        entropy, pixels = (0.0, 0.0) if self._sums is None else self._sums.tolist()
        if not pixels:
            raise ValueError("there is no pixel to take the entropy of")
        return float(entropy / pixels)


@dataclass(frozen=True, kw_only=True)
class FlipResult:
    """Outcome of `flip_agreement`.

    Args:
        value: flip-mIoU in [0,1], higher is better; divided by all C classes.
        iou: agreement of each class [C] float64; NaN where neither prediction has it.
        frames: how many frames were looked at.
    """

    value: float
    iou: Tensor
    frames: int


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What can be said about a network from unlabelled frames.

    Args:
        flip: flip-mIoU in [0,1], higher is better.
        scale: mIoU between the predictions at scale 1 and at other scales, in [0,1], higher is better.
        entropy: mean entropy of the softmax as a share of log C, in [0,1], **lower** is more certain.
        frames: how many frames were looked at.
    """

    flip: float
    scale: float
    entropy: float
    frames: int

    def higher_is_better(self) -> dict[str, float]:
        """Return the signals by name with the entropy negated, so that the largest is the best for each."""
        return {"flip": self.flip, "scale": self.scale, "entropy": -self.entropy}


def flip_agreement(
    network: SegmentationNetwork, batches: Iterable[Frames], *, precision: Precision = "fp32"
) -> FlipResult:
    """Compare each prediction with that of the mirrored frame, mirrored back: the label-free signal.

    Over 49 checkpoints of the real pair its rank correlation with the true test mIoU was .80 (scale agreement .71,
    entropy .30).

    Args:
        network: put into evaluation mode meanwhile.
        batches: unlabelled frames at the size they are to be judged at; the last batch may be smaller.
        precision: of the network; the rest computes in float32.

    Raises:
        ValueError: there is no frame.
    """
    flip = _Flip()
    with in_eval_mode(network):
        for look in _looks(network, batches, precision):
            flip.observe(network, look, precision)
    matrix = flip.matrix
    return FlipResult(value=agreement(matrix), iou=iou(matrix), frames=flip.frames)


def scale_agreement(
    network: SegmentationNetwork,
    batches: Iterable[Frames],
    *,
    scales: Sequence[float] = AGREEMENT_SCALES,
    precision: Precision = "fp32",
) -> float:
    """Compare each prediction with those of the same frame at other scales.

    Args:
        network: put into evaluation mode meanwhile.
        batches: unlabelled frames.
        scales: factors of both sides; all pairs are counted into one matrix.
        precision: of the network.

    Returns:
        The mIoU between the two, divided by all C classes; in [0,1], higher is better.

    Raises:
        ValueError: there is no frame, or a scale is 1 or not positive.
    """
    scale = _Scale(scales)
    with in_eval_mode(network):
        for look in _looks(network, batches, precision):
            scale.observe(network, look, precision)
    return agreement(scale.matrix)


def mean_entropy(network: SegmentationNetwork, batches: Iterable[Frames], *, precision: Precision = "fp32") -> float:
    """Mean entropy of the softmax at full resolution, as a share of log C; in [0,1], lower is more certain.

    Args:
        network: put into evaluation mode meanwhile.
        batches: unlabelled frames.
        precision: of the network; softmax and entropy compute in float32.

    Raises:
        ValueError: there is no pixel that counts.
    """
    entropy = _Entropy()
    with in_eval_mode(network):
        for look in _looks(network, batches, precision):
            entropy.observe(network, look, precision)
    return entropy.value


def label_free_signals(
    network: SegmentationNetwork,
    batches: Iterable[Frames],
    *,
    scales: Sequence[float] = AGREEMENT_SCALES,
    precision: Precision = "fp32",
) -> Signals:
    """Compute all signals in one pass, which shares the plain forward; each equals what its own function returns.

    Args:
        network: put into evaluation mode meanwhile.
        batches: unlabelled frames.
        scales: of the scale agreement.
        precision: of the network.

    Raises:
        ValueError: there is no frame or no pixel that counts, or a scale is 1 or not positive.
    """
    flip, scale, entropy = _Flip(), _Scale(scales), _Entropy()
    with in_eval_mode(network):
        for look in _looks(network, batches, precision):
            for signal in (flip, scale, entropy):
                signal.observe(network, look, precision)
    return Signals(
        flip=agreement(flip.matrix), scale=agreement(scale.matrix), entropy=entropy.value, frames=flip.frames
    )


# -- scored against labels --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """How a frame becomes a class map that is compared with its labels.

    Args:
        kind: `native` feeds frames of `height` x `width` and upsamples the logits to the labels' own size (what the
            field does); `resized` resizes the labels to `height` x `width` too (what the authors' released code does).
        height: rows fed to the network at scale 1.
        width: columns fed to the network at scale 1.
        scales: factors of that size; with several views their softmax is averaged at the labels' size.
        flip: whether each scale is looked at mirrored, too.
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
    """Predicts with a network by a protocol.

    Args:
        network: on the device to compute on; put into evaluation mode meanwhile.
        protocol: which views of a frame are looked at.
    """

    def __init__(self, network: SegmentationNetwork, protocol: EvaluationProtocol) -> None:
        self.network, self.protocol = network, protocol

    def _views(self, frame: NDArray[np.uint8]) -> Iterator[Tensor]:
        """Yield the logits [1,C,h,w] of every view, mirrored ones mirrored back."""
        device = next(self.network.parameters()).device
        for scale in self.protocol.scales:
            fed = torch.from_numpy(np.ascontiguousarray(resize_frame(frame, *self.protocol.size(scale))))
            image = self.network.normalize(fed.unsqueeze(0).to(device))  # [1,3,H,W]
            yield _logits(self.network, image, self.protocol.precision)
            if self.protocol.flip:
                yield _logits(self.network, image.flip(-1), self.protocol.precision).flip(-1)

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


Labelled = tuple[NDArray[np.uint8], NDArray[np.uint8], str]
"""A frame uint8 [H,W,3], its labels uint8 [H,W], and what it is called."""


def _one_ahead(frames: Iterable[Labelled]) -> Iterator[Labelled]:
    """Read the next frame in a thread while the caller works on this one; what reading raises is raised here."""
    iterator = iter(frames)
    with ThreadPoolExecutor(max_workers=1) as pool:
        upcoming = pool.submit(next, iterator, None)
        while (item := upcoming.result()) is not None:
            upcoming = pool.submit(next, iterator, None)
            yield item


@dataclass
class _Worst:
    """Keeps the few frames with the lowest score."""

    count: int
    _heap: list[tuple[float, int, ScoredFrame]] = field(default_factory=list)  # the best of the worst on top
    _seen: int = 0

    def offer(self, scored: ScoredFrame) -> None:
        self._seen += 1  # decides between equal scores: the earlier frame stays
        if self.count and not np.isnan(scored.miou):
            heapq.heappush(self._heap, (-scored.miou, -self._seen, scored))
            if len(self._heap) > self.count:
                heapq.heappop(self._heap)

    def worst_first(self) -> tuple[ScoredFrame, ...]:
        return tuple(scored for _, _, scored in sorted(self._heap, key=lambda item: item[:2], reverse=True))


def evaluate(
    predict: Predictor,
    frames: Iterable[Labelled],
    num_classes: int,
    *,
    resized: tuple[int, int] | None = None,
    relabel: NDArray[np.uint8] | None = None,
    worst: int = 0,
) -> Evaluation:
    """Score predictions on labelled frames with one confusion matrix over all of them.

    Args:
        predict: what is scored.
        frames: frame, labels and name of each; the labels 0..C-1 or 255, of the frame's size.
        num_classes: C, of the labels.
        resized: rows and columns to which frame and labels are resized first (the `resized` protocol); None compares
            at the labels' own size.
        relabel: uint8 [256], from predicted classes to those of the labels; None where they are the same.
        worst: how many of the worst frames to keep.

    Raises:
        ValueError: there is no frame, sizes differ, or a label or a predicted class is outside 0..C-1.
    """
    whole, lowest = ConfusionMatrix(num_classes), _Worst(worst)
    table = None if relabel is None else torch.from_numpy(relabel.astype(np.int64))
    scores: list[tuple[str, float]] = []
    for original, truth, file in _one_ahead(frames):
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
        shown = ScoredFrame(file=file, miou=miou, frame=frame, labels=labels, classes=classes.numpy().astype(np.uint8))
        lowest.offer(shown)
    if not scores:
        raise ValueError("there is no frame to score")
    return Evaluation(
        matrix=whole.matrix, frames=len(scores), void=whole.void, frame_miou=tuple(scores), worst=lowest.worst_first()
    )


def score_frames(
    network: SegmentationNetwork,
    frames: Iterable[Labelled],
    size: tuple[int, int],
    num_classes: int,
    *,
    precision: Precision = "fp32",
) -> float:
    """Mean IoU of a network on labelled frames, by the native protocol in one view.

    Args:
        network: put into evaluation mode meanwhile.
        frames: frame, labels and name of each.
        size: rows and columns fed.
        num_classes: C.
        precision: of the network.

    Raises:
        ValueError: as `evaluate`.
    """
    protocol = EvaluationProtocol(height=size[0], width=size[1], precision=precision)
    return mean_iou(evaluate(NetworkPredictor(network, protocol), frames, num_classes).iou)
