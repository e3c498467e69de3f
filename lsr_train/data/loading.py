"""Makes endless batches of all data sets of a run, from a sample number on, in worker processes.

A sample is a pure function of the seed and its number, and which samples a batch holds depends on its number, the batch
size and the rank alone: the number of workers changes nothing, and resuming needs nothing but the sample number.
"""

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from lsr_infer.errors import LsrError, UsageError
from lsr_infer.io.images import fit_mask, read_mask
from lsr_infer.io.store_cache import local_path
from lsr_infer.labelspace import IGNORE_INDEX, LabelSpace
from lsr_infer.system.process import usable_cores
from lsr_train.config.data import TargetConfig
from lsr_train.config.run import Config
from lsr_train.data.augmentation import Augmentation
from lsr_train.data.footage import Footage, TargetFrames, open_footage
from lsr_train.data.labelled import LabelledImages, open_source, open_sources
from lsr_train.data.samples import LabelledBatch, LabelledSample, UnlabelledBatch, UnlabelledSample
from lsr_train.randomness import Stream, generator

__all__ = [
    "Batches", "LabelledPart", "Mix", "SourceDataset", "TargetDataset", "TargetLabels", "batches_of", "build_labelled",
    "build_source", "build_target", "ignored_pixels", "open_batches",
]  # fmt: skip

BatchT_co = TypeVar("BatchT_co", covariant=True)


class EpochOrder:
    """Every image once in each pass over `count` images, shuffled again for each, in another order for each `part`."""

    def __init__(self, seed: int, stream: Stream, count: int, part: int = 0) -> None:
        self.seed, self.stream, self.count, self.part = seed, stream, count, part
        self._epoch, self._permutation = -1, np.empty(0, dtype=np.int64)

    def __call__(self, n: int) -> int:
        """Return the index of the image that sample `n` is, for any n >= 0."""
        epoch, place = divmod(n, self.count)
        if epoch != self._epoch:
            self._permutation = generator(self.seed, self.stream, epoch, self.part).permutation(self.count)
            self._epoch = epoch
        return int(self._permutation[place])


def class_probabilities(counts: NDArray[np.int64], temperature: float) -> NDArray[np.float64]:
    """Return how often each class is drawn: softmax((1 - frequency) / T) over the classes there are (DAFormer).

    Args:
        counts: pixels of each class [C]; a class without a pixel gets probability 0.
        temperature: T > 0; small values prefer rare classes strongly.
    """
    frequency = counts / max(int(counts.sum()), 1)
    scores = np.where(counts > 0, (1 - frequency) / temperature, -np.inf)
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())


class RareClassOrder:
    """Draw a class first, rare ones more often, then an image that shows it.

    An image shows a class where at least a thousandth of its labelled pixels have it; where no image reaches that, one
    pixel is enough. (The share is ours: it keeps a sliver of a class from standing for it.) `counts` are the pixels of
    each class in each image [N,C], of which at least one is not 0. Draws are others for each `part`.
    """

    MINIMUM_SHARE = 1e-3

    def __init__(self, seed: int, stream: Stream, counts: NDArray[np.int64], temperature: float, part: int = 0) -> None:
        self.seed, self.stream, self.part = seed, stream, part
        self._cumulative = np.cumsum(class_probabilities(counts.sum(axis=0), temperature))
        enough = counts >= np.maximum(counts.sum(axis=1, keepdims=True) * self.MINIMUM_SHARE, 1)
        enough = np.where(enough.any(axis=0), enough, counts > 0)
        self._images = [np.flatnonzero(column) for column in enough.T]

    def __call__(self, n: int) -> int:
        """Return the index of the image that sample `n` is, for any n >= 0."""
        rng = generator(self.seed, self.stream, n, self.part)
        drawn = np.searchsorted(self._cumulative, rng.random() * self._cumulative[-1], side="right")
        images = self._images[int(drawn)]
        return int(images[rng.integers(len(images))])


class Mix:
    """Says from which of several data sets a sample is drawn: as evenly as their weights allow, without history.

    Of any so many samples in a row, each data set has its share but for less than one sample for each of them, and the
    samples of one data set are numbered without gaps. Where in this pattern a run begins depends on the seed.
    """

    def __init__(self, seed: int, weights: Sequence[float]) -> None:
        exact = [Fraction(weight) for weight in weights]
        self._shares = [weight / sum(exact[index:]) for index, weight in enumerate(exact)][:-1]  # of what is left over
        draws = generator(seed, Stream.SOURCE_MIX, 0).random(len(self._shares))
        self._phases = [
            int(share.denominator * Fraction(draw)) for share, draw in zip(self._shares, draws, strict=True)
        ]

    def __call__(self, n: int) -> tuple[int, int]:
        """Return the data set of sample `n`, for any n >= 0, and how many of its samples come before."""
        for index, (share, phase) in enumerate(zip(self._shares, self._phases, strict=True)):
            before, after = ((m * share.numerator + phase) // share.denominator for m in (n, n + 1))
            if after > before:
                return index, before
            n -= before
        return len(self._shares), n


class _Dataset(Protocol[BatchT_co]):
    def __getitem__(self, n: int) -> Any: ...

    def collate(self, samples: Sequence[Any]) -> BatchT_co: ...


@dataclass(frozen=True, kw_only=True)
class LabelledPart:
    """One of the data sets that labelled batches are mixed from."""

    images: LabelledImages
    augmentation: Augmentation
    order: Callable[[int], int]  # which image its n-th sample is
    weight: float


class SourceDataset:
    """Augmented samples of the labelled data sets, mixed by their weights."""

    collate = staticmethod(LabelledBatch.collate)

    def __init__(self, parts: Sequence[LabelledPart], seed: int) -> None:
        self.parts, self.seed = parts, seed
        self.left_out = tuple(line for part in parts for line in part.images.left_out)
        self._mix = Mix(seed, [part.weight for part in parts])

    def __len__(self) -> int:
        """Return the number of images (samples go on for ever)."""
        return sum(len(part.images) for part in self.parts)

    def __getitem__(self, n: int) -> LabelledSample:
        """Return sample `n`, for any n >= 0; raises `InputError` where its file has become unusable since the scan."""
        index, own = self._mix(n)
        part = self.parts[index]
        sample = part.images[part.order(own)]
        rng = generator(self.seed, Stream.SOURCE_AUGMENTATION, n)
        frame, labels = part.augmentation(sample.frame, sample.labels, rng)
        assert labels is not None
        return LabelledSample(frame=frame, labels=labels, file=sample.file)


class TargetLabels:
    """Augmented samples of the target's labelled frames; `ignored` (bool [H,W]) is true where labels are void."""

    collate = staticmethod(LabelledBatch.collate)

    def __init__(self, part: LabelledPart, seed: int, ignored: NDArray[np.bool_] | None = None) -> None:
        self.part, self.seed, self._ignored = part, seed, ignored
        self.left_out = part.images.left_out

    def __len__(self) -> int:
        """Return the number of frames (samples go on for ever)."""
        return len(self.part.images)

    def __getitem__(self, n: int) -> LabelledSample:
        """Return sample `n`, for any n >= 0; raises `InputError` where its file has become unusable since the scan."""
        sample = self.part.images[self.part.order(n)]
        labels = sample.labels
        if (mask := fit_mask(self._ignored, *labels.shape)) is not None:
            labels = np.where(mask, np.uint8(IGNORE_INDEX), labels)
        rng = generator(self.seed, Stream.LABELLED_AUGMENTATION, n)
        frame, placed = self.part.augmentation(sample.frame, labels, rng)
        assert placed is not None
        return LabelledSample(frame=frame, labels=placed, file=sample.file)


class TargetDataset:
    """Augmented samples of the target; `ignored` (bool [H,W]) is true where a pixel never counts."""

    collate = staticmethod(UnlabelledBatch.collate)

    def __init__(
        self, footage: Footage, augmentation: Augmentation, seed: int, ignored: NDArray[np.bool_] | None = None
    ) -> None:
        self.footage, self.augmentation, self.seed = footage, augmentation, seed
        self.left_out = footage.left_out
        self.order = EpochOrder(seed, Stream.TARGET_ORDER, len(footage))
        self._ignored = fit_mask(ignored, augmentation.height, augmentation.width)
        self._counts = None if self._ignored is None else (~self._ignored).astype(np.uint8)

    def __len__(self) -> int:
        """Return the number of frames (samples go on for ever)."""
        return len(self.footage)

    def __getitem__(self, n: int) -> UnlabelledSample:
        """Return sample `n`, for any n >= 0; raises `InputError` where its file has become unusable since the scan."""
        sample = self.footage[self.order(n)]
        rng = generator(self.seed, Stream.TARGET_AUGMENTATION, n)
        frame, counts = self.augmentation(sample.frame, self._counts, rng)
        return UnlabelledSample(frame=frame, mask=None if counts is None else counts > 0, file=sample.file)

    def evenly(self, count: int) -> TargetFrames:
        """Return `count` evenly spread frames without augmentation, for statistics and label-free signals."""
        return TargetFrames(self.footage, count, self.augmentation.height, self.augmentation.width, self._ignored)


def build_source(
    config: Config, space: LabelSpace, target: TargetDataset | None = None, *, cache: Path | None = None
) -> SourceDataset:
    """Find, scan and prepare the labelled data sets of a run.

    `augment.lab_transfer` needs the target's frames, whose colours it borrows. The folder `cache` keeps what the scan
    found; None keeps nothing.

    Raises:
        UsageError: layout, split and ids do not fit together.
        InputError: files are missing or unusable; all of them are listed.
    """
    opened = open_sources(config, space, cache=cache)
    references = None
    if config.augment.lab_transfer:
        if target is None:
            raise ValueError("augment.lab_transfer needs the target data set: build_source(..., target)")
        references = target.footage.lab()
    temperature = config.augment.rare_class_temperature
    parts = []
    for index, (source, images) in enumerate(zip(config.data.sources, opened, strict=True)):
        order: Callable[[int], int] = EpochOrder(config.seed, Stream.SOURCE_ORDER, len(images), index)
        if temperature:
            order = RareClassOrder(config.seed, Stream.SOURCE_ORDER, images.counts, temperature, index)
        augmentation = Augmentation(config.augment, source.height, source.width, references)
        parts.append(LabelledPart(images=images, augmentation=augmentation, order=order, weight=source.weight))
    return SourceDataset(parts, config.seed)


def build_labelled(config: Config, space: LabelSpace, *, cache: Path | None = None) -> TargetLabels | None:
    """Find, scan and prepare the labelled frames of the target; None where a run has none.

    They are augmented as the source is, colours too, since they are few, but borrow no colours; what never counts in
    target frames is void in them.

    Raises:
        UsageError: layout, split and ids do not fit together.
        InputError: files are missing or unusable; all of them are listed.
    """
    few = config.data.labelled_frames
    if few is None:
        return None
    images = open_source(config, few, space, cache=cache)
    temperature = config.augment.rare_class_temperature
    order: Callable[[int], int] = EpochOrder(config.seed, Stream.LABELLED_ORDER, len(images))
    if temperature:
        order = RareClassOrder(config.seed, Stream.LABELLED_ORDER, images.counts, temperature)
    augmentation = Augmentation(config.augment, few.height, few.width)
    part = LabelledPart(images=images, augmentation=augmentation, order=order, weight=few.weight)
    return TargetLabels(part, config.seed, ignored_pixels(config.data.target, config.data.ignore_mask))


def build_target(config: Config, *, cache: Path | None = None) -> TargetDataset:
    """Find, scan and prepare the unlabelled data set of a run; `cache` keeps the frames of videos too.

    Raises:
        UsageError: no target is named.
        InputError: files are missing or unusable; all of them are listed.
    """
    target = config.data.target
    footage = open_footage(target, on_bad=config.data.on_bad, cache=cache)
    augment = config.augment if config.augment.target_colors else config.augment.without_colors()
    ignored = ignored_pixels(target, config.data.ignore_mask)
    return TargetDataset(footage, Augmentation(augment, target.height, target.width), config.seed, ignored)


def ignored_pixels(target: TargetConfig, ignore_mask: str) -> NDArray[np.bool_] | None:
    """Return the pixels of a whole target frame that never count, [H,W] at training size; None where all do.

    `ignore_mask` is the file of a mask, or empty.
    """
    ignored = read_mask(local_path(ignore_mask)) if ignore_mask else None
    ignored = fit_mask(ignored, target.height, target.width)
    if not (target.ignore_top or target.ignore_bottom):
        return ignored
    rows = np.zeros((target.height, target.width), dtype=bool)
    rows[: round(target.ignore_top * target.height)] = True
    rows[target.height - round(target.ignore_bottom * target.height) :] = True
    return rows if ignored is None else ignored | rows


class SampleNumbers(Sampler[list[int]]):
    """The sample numbers of one rank's batches of `batch_size` each, for ever.

    Batch k over all ranks holds the samples k*b to k*b+b-1 and belongs to rank k % world, so that N ranks with b each
    see what one rank with N*b sees. `start` is a multiple of the global batch.
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


class _ErrorsAsValues:
    """A data set whose errors are returned: torch would wrap them in a traceback of several lines."""

    def __init__(self, dataset: _Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, n: int) -> Any:
        try:
            return self.dataset[n]
        except LsrError as error:
            return error


def _collate(collate: Callable[[Sequence[Any]], Any], samples: Sequence[Any]) -> Any:
    """Make samples a batch, or return the first error among them."""
    error = next((sample for sample in samples if isinstance(sample, LsrError)), None)
    return collate(samples) if error is None else error


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


def batches_of(
    dataset: _Dataset[BatchT_co],
    config: Config,
    start: int = 0,
    *,
    rank: int = 0,
    world: int = 1,
    pin: bool = False,
    size: int = 0,
) -> Generator[BatchT_co, None, None]:
    """Yield a data set's batches of `size / world` images for ever, on the CPU; a size of 0 is `data.batch_size`.

    Closing the generator ends the workers. `start` is the number of the first sample over all ranks, a multiple of
    the size; `pin` puts batches into page-locked memory (for CUDA).

    Raises:
        UsageError: the batch size is not a multiple of the number of processes.
        InputError: a file has become unusable since the scan.
    """
    batch_size, rest = divmod(size or config.data.batch_size, world)
    if rest and size:
        raise UsageError(
            f"{size} labelled frames of the target in a step over {world} processes; it must be a multiple. Set "
            "--data.labelled.weight or --data.batch_size."
        )
    if rest:
        raise UsageError(
            f"data.batch_size is {config.data.batch_size} over {world} processes; it must be a multiple. "
            "Set --data.batch_size."
        )
    workers = min(config.data.workers, usable_cores())
    loader: DataLoader[Any] = DataLoader(
        _ErrorsAsValues(dataset),  # type: ignore[arg-type]  # torch asks for its own class, but uses __getitem__ alone
        batch_sampler=SampleNumbers(start, batch_size, rank, world),
        num_workers=workers,
        collate_fn=partial(_collate, dataset.collate),
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


class Batches(NamedTuple):
    """Endless batches of both domains from a sample number on, on the CPU.

    There is no target where the method uses none, and no `labelled` one where no frame of the target has labels.
    """

    source: Iterator[LabelledBatch]
    target: Iterator[UnlabelledBatch] | None
    labelled: Iterator[LabelledBatch] | None = None


@contextmanager
def open_batches(
    config: Config,
    source: SourceDataset,
    target: TargetDataset | None,
    start: int,
    *,
    labelled: TargetLabels | None = None,
    rank: int = 0,
    world: int = 1,
    pin: bool = False,
) -> Iterator[Batches]:
    """Load all data sets inside a `with` block, which ends the workers; see `batches_of`.

    `start` is the number of the first sample of source and target; as many batches of `labelled` lie before it.
    """
    with ExitStack() as stack:

        def opened(dataset: _Dataset[BatchT_co], first: int = start, size: int = 0) -> Iterator[BatchT_co]:
            batches = batches_of(dataset, config, first, rank=rank, world=world, pin=pin, size=size)
            return stack.enter_context(closing(batches))

        few = config.data.labelled_batch
        yield Batches(
            source=opened(source),
            target=None if target is None else opened(target),
            labelled=None if labelled is None else opened(labelled, start // config.data.batch_size * few, few),
        )
