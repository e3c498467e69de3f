"""Collects every number that the figures need of a network, in one pass over labelled frames.

Labels are read here for analysis alone; nothing of it reaches training or the selection of a checkpoint.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.images import resize_frame, resize_labels
from lsr_infer.labelspace import IGNORE_INDEX, LabelSpace
from lsr_infer.parity.frame_set import evenly
from lsr_infer.system.progress import with_progress
from lsr_train.analysis.options import AnalyzeOptions
from lsr_train.data.classes_file import load_label_space
from lsr_train.data.labelled import LabelledImages
from lsr_train.data.samples import LabelledSample
from lsr_train.device import Precision, autocast, choose_device, choose_precision
from lsr_train.evaluation.models import predicted_space, working_size
from lsr_train.evaluation.scores import in_eval_mode
from lsr_train.latent import histogram_downsample, nearest_downsample, pseudo_labels
from lsr_train.latent.pseudo_labels import peaks
from lsr_train.losses.pixel import upsample
from lsr_train.metrics import iou, mean_iou
from lsr_train.network import DeepLabV2
from lsr_train.runs.checkpoint import ModelInfo, load_model

__all__ = [
    "BANDS", "BINS", "BalancedSample", "Observation", "OpenedNetwork", "ShownFrame", "SpreadFrames",
    "border_distance", "observe", "observe_network", "open_network",
]  # fmt: skip

BANDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Upper ends, in pixels of the labels, of the bands of distance from the nearest border; the last band has none."""
BINS = 15
"""Equal bins of confidence (Guo et al. 2017)."""


class BalancedSample:
    """Keeps at most so many vectors of each class, every one of them equally likely (reservoir by random keys)."""

    def __init__(self, num_classes: int, per_class: int, seed: int = 0) -> None:
        self.per_class = per_class
        self._generator = torch.Generator().manual_seed(seed)
        self._keys = [torch.empty(0) for _ in range(num_classes)]
        self._vectors: list[Tensor] = [torch.empty(0) for _ in range(num_classes)]

    def add(self, vectors: Tensor, labels: Tensor) -> None:
        """Offer vectors [N,K] with their classes [N] int64; other labels than 0..C-1 are left out."""
        keys = torch.rand(len(labels), generator=self._generator)
        for index in range(len(self._keys)):
            mine = (labels == index).nonzero().flatten()
            if len(mine) == 0:
                continue
            chosen = mine[keys[mine].argsort()[: self.per_class]]
            there = self._vectors[index] if len(self._keys[index]) else vectors.new_empty(0, vectors.shape[1])
            all_keys = torch.cat([self._keys[index], keys[chosen]])
            kept = all_keys.argsort()[: self.per_class]
            self._vectors[index] = torch.cat([there, vectors[chosen]])[kept]
            self._keys[index] = all_keys[kept]

    def take(self) -> tuple[Tensor, Tensor]:
        """Return the sample [N,K] and its classes [N] int64, by class; both empty where nothing was offered."""
        found = [(vectors, index) for index, vectors in enumerate(self._vectors) if len(vectors)]
        if not found:
            return torch.empty(0, 0), torch.empty(0, dtype=torch.int64)
        labels = [torch.full((len(vectors),), index) for vectors, index in found]
        return torch.cat([vectors for vectors, _ in found]), torch.cat(labels)


@dataclass(frozen=True, kw_only=True)
class ShownFrame:
    """A frame of a figure."""

    file: str
    frame: NDArray[np.uint8]  # [H,W,3], BGR, at the labels' size
    labels: NDArray[np.uint8]  # [H,W]
    classes: NDArray[np.uint8]  # the prediction [H,W]
    nearest: NDArray[np.uint8]  # labels of feature cells by plain subsampling [h,w]
    histogram: NDArray[np.uint8]  # by the paper's scheme [h,w]


@dataclass(kw_only=True)
class Observation:
    """The counts of a network over labelled frames. Counts are int64, C is the number of classes."""

    space: LabelSpace
    confusion: Tensor  # pixels [D,C,C] by band of distance from a border, true class, predicted class
    bin_count: Tensor  # labelled pixels [BINS] by confidence
    bin_right: Tensor  # of these the ones that were right [BINS]
    bin_confidence: Tensor  # sum of their confidence [BINS] float64
    pixels: Tensor  # labelled pixels [C] at the size that is fed
    nearest: Tensor  # feature cells [C+1] that plain subsampling gives each class; the last is void
    histogram: Tensor  # likewise by the paper's scheme
    pseudo: Tensor  # labelled feature cells [C] that the network gave each class
    pseudo_right: Tensor  # of these the ones whose true class it is [C]
    covered: Tensor  # labelled feature cells [C] of each true class that the network gave any class
    sums: Tensor  # sum [C,K] float64 of the features of each true class
    features: Tensor = field(default_factory=lambda: torch.empty(0, 0))  # a balanced sample [N,K] float32
    feature_labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))  # its true classes [N]
    shown: list[ShownFrame] = field(default_factory=list)
    frame_miou: list[float] = field(default_factory=list)  # of each frame; NaN where all of it is void

    @classmethod
    def empty(cls, space: LabelSpace, channels: int) -> "Observation":
        """Return one without a frame, for features of K `channels`."""
        count = space.num_classes

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.int64)

        return cls(
            space=space, confusion=zeros(len(BANDS) + 1, count, count), bin_count=zeros(BINS), bin_right=zeros(BINS),
            bin_confidence=torch.zeros(BINS, dtype=torch.float64), pixels=zeros(count), nearest=zeros(count + 1),
            histogram=zeros(count + 1), pseudo=zeros(count), pseudo_right=zeros(count), covered=zeros(count),
            sums=torch.zeros(count, channels, dtype=torch.float64),
        )  # fmt: skip

    @property
    def frames(self) -> int:
        """How many frames there were."""
        return len(self.frame_miou)

    @property
    def iou(self) -> Tensor:
        """IoU of each class [C] float64 over all pixels; NaN where it is neither labelled nor predicted."""
        return iou(self.confusion.sum(dim=0))

    @property
    def cells(self) -> Tensor:
        """Feature cells [C] that the paper's scheme gives each class."""
        return self.histogram[:-1]

    @property
    def expected_calibration_error(self) -> float:
        """ECE over all labelled pixels, 0 to 1; NaN where there is none."""
        gaps = (self.bin_right - self.bin_confidence).abs().sum()
        return float(gaps / self.bin_count.sum())


def border_distance(labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return each pixel's distance [H,W] from the nearest pixel beside which the label changes; 0 on it.

    A change to or from void counts too; the distance is infinite everywhere where no label changes.
    """
    inner = np.ones(labels.shape, np.uint8)
    for axis in (0, 1):
        changes = np.diff(labels.astype(np.int16), axis=axis) != 0
        first, second = [slice(None)] * 2, [slice(None)] * 2
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        inner[tuple(first)][changes] = 0
        inner[tuple(second)][changes] = 0
    if inner.all():
        return np.full(labels.shape, np.inf, np.float32)
    return np.asarray(cv2.distanceTransform(inner, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


@dataclass(frozen=True, kw_only=True)
class _Output:
    """One frame through the network."""

    features: Tensor  # [K,h,w] float32
    classes: Tensor  # predicted at the labels' size [H,W]
    confidence: Tensor  # of them [H,W]
    pseudo: Tensor  # labels of feature cells from the network's own predictions [h,w]


def _forward(
    network: DeepLabV2, frame: NDArray[np.uint8], fed: tuple[int, int], shown: tuple[int, int],
    precision: Precision, confidence: float,
) -> _Output:  # fmt: skip
    """Run one frame, uint8 [H,W,3]."""
    device = next(network.parameters()).device
    image = torch.from_numpy(np.ascontiguousarray(resize_frame(frame, *fed))).unsqueeze(0).to(device)
    with autocast(device, precision):
        output = network(network.normalize(image))
    logits, features = output.logits.float(), output.features.float()
    found = peaks(upsample(logits, shown))
    cells = pseudo_labels(upsample(logits, fed), features.shape[-2:], confidence=confidence)
    return _Output(
        features=features[0].cpu(), classes=found.labels[0].cpu(), confidence=found.probability[0].cpu(),
        pseudo=cells[0].cpu(),
    )  # fmt: skip


def _counts(labels: Tensor, classes: int) -> Tensor:
    """Count labels, of any shape; the last of `classes` + 1 entries is void."""
    return torch.bincount(torch.where(labels == IGNORE_INDEX, classes, labels).flatten(), minlength=classes + 1)


def _add_pixels(into: Observation, output: _Output, labels: NDArray[np.uint8]) -> None:
    """Count predictions by correctness, confidence and distance from a border."""
    count = into.space.num_classes
    truth = torch.from_numpy(np.ascontiguousarray(labels)).long()
    valid = truth != IGNORE_INDEX
    true, predicted, sure = truth[valid], output.classes[valid], output.confidence[valid].double()
    band = np.digitize(border_distance(labels), BANDS, right=True)
    places = (torch.from_numpy(band).long()[valid] * count + true) * count + predicted
    here = torch.bincount(places, minlength=into.confusion.numel()).view_as(into.confusion)
    into.confusion += here
    into.frame_miou.append(mean_iou(iou(here.sum(dim=0))))
    bins = (sure * BINS).long().clamp_(max=BINS - 1)
    into.bin_count += torch.bincount(bins, minlength=BINS)
    into.bin_right += torch.bincount(bins[true == predicted], minlength=BINS)
    into.bin_confidence += torch.bincount(bins, weights=sure, minlength=BINS)


def _add_cells(into: Observation, output: _Output, fed_labels: Tensor, sample: BalancedSample) -> tuple[Tensor, Tensor]:
    """Count feature cells and collect their vectors; return their labels by both schemes [h,w]."""
    count, size = into.space.num_classes, (output.features.shape[-2], output.features.shape[-1])
    nearest = nearest_downsample(fed_labels, size, count)[0]
    truth = histogram_downsample(fed_labels, size, count)[0]
    into.pixels += _counts(fed_labels, count)[:-1]
    into.nearest += _counts(nearest, count)
    into.histogram += _counts(truth, count)
    labelled, given = truth != IGNORE_INDEX, output.pseudo != IGNORE_INDEX
    into.pseudo += _counts(output.pseudo[labelled], count)[:-1]
    into.pseudo_right += _counts(truth[labelled & (output.pseudo == truth)], count)[:-1]
    into.covered += _counts(truth[labelled & given], count)[:-1]
    vectors, cells = output.features.flatten(1).T[labelled.flatten()], truth[labelled]
    into.sums.index_add_(0, cells, vectors.double())
    sample.add(vectors, cells)
    return nearest, truth


def observe(
    network: DeepLabV2,
    frames: Iterable[LabelledSample],
    space: LabelSpace,
    size: tuple[int, int],
    *,
    precision: Precision = "fp32",
    per_class: int = 350,
    confidence: float = 0.5,
    seed: int = 0,
    shown: Collection[int] = (),
) -> Observation:
    """Run a network in evaluation mode over labelled frames and count.

    Args:
        network: left in the mode it was in.
        frames: labelled ones.
        space: its classes.
        size: rows and columns that are fed; features and the labels of their cells are of this size.
        precision: of the network.
        per_class: feature vectors kept of each class (Sec. 5.3: 350).
        confidence: T_p of pseudo-labels.
        seed: of the sample; the same for several networks takes the same places.
        shown: positions of frames that are kept for figures.

    Raises:
        ValueError: there is no frame.
    """
    into = Observation.empty(space, network.feature_channels)
    sample = BalancedSample(space.num_classes, per_class, seed)
    with in_eval_mode(network):
        for position, scene in enumerate(frames):
            frame, labels = scene.frame, scene.labels
            output = _forward(network, frame, size, (labels.shape[0], labels.shape[1]), precision, confidence)
            _add_pixels(into, output, labels)
            fed_labels = torch.from_numpy(np.ascontiguousarray(resize_labels(labels, *size))).long().unsqueeze(0)
            nearest, truth = _add_cells(into, output, fed_labels, sample)
            if position in shown:
                arrays = {"classes": output.classes, "nearest": nearest, "histogram": truth}
                drawn = {name: array.numpy().astype(np.uint8) for name, array in arrays.items()}
                into.shown.append(ShownFrame(file=scene.file, frame=frame, labels=labels, **drawn))
    if not into.frame_miou:
        raise ValueError("there is no frame")
    into.features, into.feature_labels = sample.take()
    return into


@dataclass(frozen=True, kw_only=True)
class OpenedNetwork:
    """A network on its device."""

    path: Path  # as it was named
    file: Path
    network: DeepLabV2
    info: ModelInfo
    size: tuple[int, int]  # rows and columns that are fed
    space: LabelSpace


class SpreadFrames:
    """Evenly spread frames of a labelled data set, in order."""

    def __init__(self, frames: LabelledImages, count: int) -> None:
        self._frames, self._indices = frames, evenly(len(frames), count)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> LabelledSample:
        return self._frames[self._indices[position]]

    def __iter__(self) -> Iterator[LabelledSample]:
        return (self[position] for position in range(len(self)))


def open_network(options: AnalyzeOptions, path: Path, file: Path) -> OpenedNetwork:
    """Open a checkpoint; raises `UsageError` where its classes have no names, or others than those asked for."""
    if file.suffix.lower() in (".onnx", ".engine"):
        raise UsageError(f"{file.name} is an exported file, which has no features to analyze. Name its checkpoint.")
    device = choose_device(options.device, options.precision)
    network, info = load_model(file, dilations=options.scoring(str(file)).branches)
    wanted = None if options.label_space == "auto" else load_label_space(options.label_space)
    space = predicted_space(str(file), info.label_space, network.spec.num_classes, wanted)
    if wanted is not None and wanted.names != space.names:
        raise UsageError(
            f"{file}: predicts the classes of {space.name}, --label_space asks for {wanted.name}. Leave it out."
        )
    size = working_size(info, options.height, options.width)
    return OpenedNetwork(path=path, file=file, network=network.to(device), info=info, size=size, space=space)


def observe_network(
    options: AnalyzeOptions, opened: OpenedNetwork, frames: SpreadFrames | Sequence[LabelledSample], name: str,
    shown: Iterable[int],
) -> Observation:  # fmt: skip
    """Observe a network as the options say, and show how far it is under its name."""
    device = next(opened.network.parameters()).device
    try:
        return observe(
            opened.network, with_progress(frames, name, len(frames)), opened.space, opened.size,
            precision=choose_precision(device, options.precision), per_class=options.per_class,
            confidence=options.confidence, seed=options.seed, shown=frozenset(shown),
        )  # fmt: skip
    except ValueError as error:
        raise InputError(f"{options.data or options.layout}: {error}.") from error
