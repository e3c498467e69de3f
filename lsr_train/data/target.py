"""The unlabelled data set of a run, indexed by sample number."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsr_infer.io.images import fit_mask, read_mask
from lsr_train.config.run import Config
from lsr_train.data.augmentation import Augmentation
from lsr_train.data.footage import Footage, open_footage
from lsr_train.data.frames import TargetFrames
from lsr_train.data.order import EpochOrder
from lsr_train.randomness import Stream, generator

__all__ = ["TargetDataset", "UnlabelledSample", "build_target"]


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
