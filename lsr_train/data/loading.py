"""Endless batches from a sample number on, made by worker processes.

Which samples a batch holds depends on its number, the batch size and the rank alone, so the number of workers changes
nothing and a run is taken up by its sample number. Frames stay uint8 until they are on the device.
"""

import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from lsr_infer.errors import LsrError, UsageError
from lsr_train.config.run import Config
from lsr_train.data.source import LabelledSample, SourceDataset
from lsr_train.data.target import TargetDataset, UnlabelledSample

__all__ = ["RawLabelled", "RawUnlabelled", "SampleNumbers", "source_loader", "target_loader"]


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
