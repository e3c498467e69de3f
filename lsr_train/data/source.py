"""The labelled data set of a run, indexed by sample number."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsr_infer.labelspace import LabelSpace
from lsr_train.config.run import Config
from lsr_train.data.augmentation import Augmentation
from lsr_train.data.labelled import LabelledImages, open_labelled
from lsr_train.data.order import EpochOrder, Order, RareClassOrder
from lsr_train.data.target import TargetDataset
from lsr_train.randomness import Stream, generator

__all__ = ["LabelledSample", "SourceDataset", "build_source"]


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
