"""Endless batches from a sample number on, made by worker processes.

Which samples a batch holds depends on its number, the batch size and the rank alone, so the number of workers changes
nothing and a run is taken up by its sample number. Frames stay uint8 until they are on the device.
"""

import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from lsr_infer.errors import LsrError, UsageError
from lsr_infer.io.images import fit_mask, read_mask
from lsr_infer.labelspace import LabelSpace
from lsr_train.config.run import Config
from lsr_train.data.augmentation import Augmentation
from lsr_train.data.footage import Footage, TargetFrames, open_footage
from lsr_train.data.labelled import LabelledImages, open_labelled
from lsr_train.data.order import EpochOrder, Order, RareClassOrder
from lsr_train.randomness import Stream, generator

__all__ = [
    "LabelledSample",
    "RawLabelled",
    "RawUnlabelled",
    "SampleNumbers",
    "SourceDataset",
    "TargetDataset",
    "UnlabelledSample",
    "build_source",
    "build_target",
    "source_loader",
    "target_loader",
]


class UnlabelledSample(NamedTuple):
    """One augmented frame: uint8 [H,W,3], mask bool [H,W] (true where a pixel counts) or None, what it is called."""

    frame: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    file: str


class TargetDataset:
    """Samples of the target, a pure function of the seed and the sample number.

    Args:
        footage: where they come from.
        augmentation: what happens to each.
        seed: of the run.
        ignored: bool [H,W], true where a pixel never counts; None for nowhere.
    """

    def __init__(
        self, footage: Footage, augmentation: Augmentation, seed: int, ignored: NDArray[np.bool_] | None = None
    ) -> None:
        self.footage, self.augmentation, self.seed = footage, augmentation, seed
        self.order = EpochOrder(seed, Stream.TARGET_ORDER, len(footage))
        fitted = fit_mask(ignored, augmentation.height, augmentation.width)
        self._counts = None if fitted is None else (~fitted).astype(np.uint8)

    def __len__(self) -> int:
        """Return the number of frames (samples go on for ever)."""
        return len(self.footage)

    @property
    def left_out(self) -> tuple[str, ...]:
        """One line for each unusable file that was left out."""
        return self.footage.left_out

    @property
    def lab(self) -> NDArray[np.float64]:
        """Colour statistics of every frame [N,2,3], see `lsr_train.data.augmentation.lab_statistics`."""
        return self.footage.lab()

    def __getitem__(self, n: int) -> UnlabelledSample:
        """Return sample `n`, for any n >= 0.

        Raises:
            InputError: its file has become unusable since the scan.
        """
        index = self.order(n)
        rng = generator(self.seed, Stream.TARGET_AUGMENTATION, n)
        frame, counts = self.augmentation(self.footage.read(index), self._counts, rng)
        return UnlabelledSample(frame, None if counts is None else counts > 0, self.footage.name(index))

    def evenly(self, count: int) -> TargetFrames:
        """Return `count` evenly spread frames without augmentation, for statistics and label-free signals."""
        ignored = None if self._counts is None else self._counts == 0
        return TargetFrames(self.footage, count, self.augmentation.height, self.augmentation.width, ignored)


def build_target(config: Config, *, cache: Path | None = None) -> TargetDataset:
    """Find, scan and prepare the unlabelled data set of a run.

    Args:
        config: the run.
        cache: folder that keeps what the scan found and the frames of videos; None keeps nothing.

    Raises:
        UsageError: no target is named.
        InputError: files are missing or unusable; all of them are listed.
    """
    target = config.data.target
    footage = open_footage(target, on_bad=config.data.on_bad, cache=cache)
    ignored = _never_counted(config)
    augment = config.augment if config.augment.target_colors else config.augment.without_colors()
    return TargetDataset(footage, Augmentation(augment, target.height, target.width), config.seed, ignored)


def _never_counted(config: Config) -> NDArray[np.bool_] | None:
    """Return the pixels of a whole frame that never count, [H,W] at training size; None where all do."""
    target = config.data.target
    ignored = read_mask(Path(config.data.ignore_mask)) if config.data.ignore_mask else None
    ignored = fit_mask(ignored, target.height, target.width)
    if not (target.ignore_top or target.ignore_bottom):
        return ignored
    rows = np.arange(target.height)
    outside = (rows < round(target.ignore_top * target.height)) | (
        rows >= target.height - round(target.ignore_bottom * target.height)
    )
    everywhere = np.broadcast_to(outside[:, None], (target.height, target.width)).copy()
    return everywhere if ignored is None else ignored | everywhere


class LabelledSample(NamedTuple):
    """One augmented image: frame uint8 [H,W,3], labels uint8 [H,W], and what it is called."""

    frame: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    file: str


class SourceDataset:
    """Samples of the source, a pure function of the seed and the sample number.

    Args:
        images: where they come from.
        augmentation: what happens to each.
        order: which image a sample is.
        seed: of the run.
    """

    def __init__(self, images: LabelledImages, augmentation: Augmentation, order: Order, seed: int) -> None:
        self.images, self.augmentation, self.order, self.seed = images, augmentation, order, seed

    def __len__(self) -> int:
        """Return the number of images (samples go on for ever)."""
        return len(self.images)

    @property
    def left_out(self) -> tuple[str, ...]:
        """One line for each unusable file that was left out."""
        return self.images.left_out

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Pixels of each class in the data set [C]."""
        return np.asarray(self.images.counts.sum(axis=0))

    def __getitem__(self, n: int) -> LabelledSample:
        """Return sample `n`, for any n >= 0.

        Raises:
            InputError: its file has become unusable since the scan.
        """
        index = self.order(n)
        rng = generator(self.seed, Stream.SOURCE_AUGMENTATION, n)
        frame, labels = self.augmentation(*self.images.read(index), rng)
        assert labels is not None
        return LabelledSample(frame, labels, self.images.name(index))


def build_source(
    config: Config, space: LabelSpace, target: TargetDataset | None = None, *, cache: Path | None = None
) -> SourceDataset:
    """Find, scan and prepare the labelled data set of a run.

    Args:
        config: the run.
        space: the classes, see `lsr_train.data.labelled.choose_label_space`.
        target: the run's target frames; needed where `augment.lab_transfer` borrows their colours.
        cache: folder that keeps what the scan found; None keeps nothing.

    Raises:
        UsageError: layout, split and ids do not fit together.
        InputError: files are missing or unusable; all of them are listed.
    """
    source = config.data.source
    images = open_labelled(source, space, label_space=config.label_space, on_bad=config.data.on_bad, cache=cache)
    references = target.lab if config.augment.lab_transfer and target is not None else None
    if config.augment.lab_transfer and references is None:
        raise ValueError("augment.lab_transfer needs the target data set: build_source(..., target)")
    augmentation = Augmentation(config.augment, source.height, source.width, references)
    temperature = config.augment.rare_class_temperature
    order: Order = EpochOrder(config.seed, Stream.SOURCE_ORDER, len(images))
    if temperature:
        order = RareClassOrder(config.seed, Stream.SOURCE_ORDER, images.counts, temperature)
    return SourceDataset(images, augmentation, order, config.seed)


class RawLabelled(NamedTuple):
    """A source batch on the CPU: frames uint8 [B,H,W,3] BGR, labels uint8 [B,H,W], what each is called."""

    frames: Tensor
    labels: Tensor
    files: tuple[str, ...]


class RawUnlabelled(NamedTuple):
    """A target batch on the CPU: frames uint8 [B,H,W,3] BGR, mask bool [B,H,W] or None, what each is called."""

    frames: Tensor
    mask: Tensor | None
    files: tuple[str, ...]


class SampleNumbers(Sampler[list[int]]):
    """The sample numbers of one rank's batches, for ever.

    Batch k over all ranks holds the samples k*b to k*b+b-1 and belongs to rank k % world, so that N ranks with b each
    see what one rank with N*b sees.

    Args:
        start: number of the first sample, over all ranks; a multiple of the global batch.
        batch_size: b, images a rank.
        rank: which rank this is.
        world: how many there are.
    """

    def __init__(self, start: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        if start % (batch_size * world):
            raise ValueError(f"sample {start} is not the first of a global batch of {batch_size * world}")
        self.start, self.batch_size, self.rank, self.world = start, batch_size, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        first = self.start + self.rank * self.batch_size
        while True:
            yield list(range(first, first + self.batch_size))
            first += self.batch_size * self.world


class _Fetching:
    """A data set whose errors travel as values: torch would wrap them in a traceback of several lines."""

    def __init__(self, dataset: SourceDataset | TargetDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, n: int) -> LabelledSample | UnlabelledSample | LsrError:
        try:
            return self.dataset[n]
        except LsrError as error:
            return error


def _collate(samples: Sequence[Any]) -> RawLabelled | RawUnlabelled | LsrError:
    """Stack samples to a batch, or hand on the first error."""
    for sample in samples:
        if isinstance(sample, LsrError):
            return sample
    frames = torch.from_numpy(np.stack([sample.frame for sample in samples]))
    files = tuple(sample.file for sample in samples)
    if isinstance(samples[0], LabelledSample):
        return RawLabelled(frames, torch.from_numpy(np.stack([sample.labels for sample in samples])), files)
    masks = [sample.mask for sample in samples]
    mask = None if masks[0] is None else torch.from_numpy(np.stack(masks))
    return RawUnlabelled(frames, mask, files)


def _end_with_the_trainer() -> None:
    """Wait for SIGTERM and obey the trainer's alone.

    Job systems send it to every process of a job, but the trainer still wants batches: it finishes its step and saves.
    Only the sender tells the two apart, and only `sigwaitinfo` tells the sender.
    """
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == os.getppid():
            os._exit(128 + signal.SIGTERM)


def _start_worker(_: int) -> None:
    """Prepare a worker process: one thread, and interruptions are the trainer's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS, where SIGTERM ends a worker as usual
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_the_trainer, daemon=True).start()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _batches(
    dataset: SourceDataset | TargetDataset, config: Config, start: int, rank: int, world: int, pin: bool
) -> Generator[Any, None, None]:
    """Yield batches for ever; closing the generator ends the workers."""
    batch_size, rest = divmod(config.data.batch_size, world)
    if rest:
        raise UsageError(
            f"data.batch_size is {config.data.batch_size} over {world} processes; it must be a multiple. "
            "Set --data.batch_size."
        )
    workers = config.data.workers
    loader: DataLoader[Any] = DataLoader(
        _Fetching(dataset),  # type: ignore[arg-type]  # torch asks for its own class, but uses __getitem__ alone
        batch_sampler=SampleNumbers(start, batch_size, rank, world),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        worker_init_fn=_start_worker if workers else None,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # else it takes a number of the training's, and a resumed run has others
    )
    iterator = iter(loader)
    try:
        for batch in iterator:
            if isinstance(batch, LsrError):
                raise batch
            yield batch
    finally:
        del iterator  # ends the workers


def source_loader(
    config: Config, dataset: SourceDataset, start: int = 0, *, rank: int = 0, world: int = 1, pin: bool = False
) -> Generator[RawLabelled, None, None]:
    """Yield source batches for ever.

    Args:
        config: batch size (over all ranks) and number of workers.
        dataset: what to load.
        start: number of the first sample, over all ranks; a multiple of `data.batch_size`.
        rank: which process this is.
        world: how many processes train together.
        pin: put batches into pinned memory (for CUDA).

    Yields:
        Batches of `data.batch_size / world` images. Close the generator to end the workers.

    Raises:
        UsageError: the batch size is not a multiple of the number of processes.
        InputError: a file has become unusable since the scan.
    """
    return _batches(dataset, config, start, rank, world, pin)


def target_loader(
    config: Config, dataset: TargetDataset, start: int = 0, *, rank: int = 0, world: int = 1, pin: bool = False
) -> Generator[RawUnlabelled, None, None]:
    """Yield target batches for ever; as `source_loader`, without labels."""
    return _batches(dataset, config, start, rank, world, pin)
