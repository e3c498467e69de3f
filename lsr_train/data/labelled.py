"""Reads labelled images by index, from a folder in one of the layouts or from Toytown.

A sample has its file's own size and labels of the wanted space; resizing and augmentation come later.
"""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError, UnusableFilesError, UsageError
from lsr_infer.io.images import fit_mask, read_image, read_label, read_mask
from lsr_infer.io.store_cache import local_path
from lsr_infer.labelspace import IGNORE_INDEX, LabelSpace
from lsr_infer.system.progress import with_progress
from lsr_train.config.data import SourceConfig
from lsr_train.config.run import Config
from lsr_train.data.classes_file import classes_file, load_classes, load_label_space
from lsr_train.data.labels import CITYSCAPES_19, IdMap, encoding_map, joined, translation
from lsr_train.data.layouts import find_classes, find_images, source_pairs
from lsr_train.data.pairing import Pair
from lsr_train.data.samples import LabelledSample
from lsr_train.data.scan import scan_depth, scan_pairs, settle
from lsr_train.data.shares import report_labels, report_mix, warn

__all__ = [
    "LabelledImages", "ToytownImages", "choose_label_space", "open_labelled", "open_source", "open_sources",
    "toytown_seeds",
]  # fmt: skip

logger = logging.getLogger(__name__)


class LabelledImages(ABC):
    """Labelled images by index.

    Attributes:
        counts: pixels of each class in each image [N,C].
        left_out: one line for each unusable file that is not among them.
    """

    counts: NDArray[np.int64]
    left_out: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> LabelledSample:
        """Return image `index` at its own size; raises `InputError` where a file has become unusable since the scan."""

    def __iter__(self) -> Iterator[LabelledSample]:
        return (self[index] for index in range(len(self)))


class _FolderImages(LabelledImages):
    """Pairs of image and label files; `mask` (bool [H,W], resized to each) is true where labels are void.

    The images use `bits`, see `scan_depth`.
    """

    def __init__(
        self,
        pairs: tuple[Pair, ...],
        id_map: IdMap,
        counts: NDArray[np.int64],
        mask: NDArray[np.bool_] | None,
        left_out: tuple[str, ...],
        bits: int,
    ) -> None:
        self.pairs, self.id_map, self.counts, self.mask, self.left_out = pairs, id_map, counts, mask, left_out
        self.bits = bits

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> LabelledSample:
        pair = self.pairs[index]
        frame, raw = read_image(pair.image, self.bits), read_label(pair.labels)
        if frame.shape[:2] != raw.shape[:2]:
            raise InputError(
                f"{pair.labels}: differs in size from its image {pair.image.name}; it changed since the scan."
            )
        try:
            labels = self.id_map.apply(raw, fit_mask(self.mask, *raw.shape[:2]))
        except (InputError, ValueError) as error:
            raise InputError(f"{pair.labels}: {error}") from error
        return LabelledSample(frame=frame, labels=labels, file=str(pair.image))


_TOYTOWN_SEEDS = {("game", "train"): 0, ("game", "val"): 1, ("camera", "train"): 2, ("camera", "val"): 3}
_TOYTOWN_STRIDE = 10_000_000
_TOYTOWN_SCENES = {"train": 1000, "val": 100}
_TOYTOWN_CACHE_BYTES = 256 << 20


def toytown_seeds(domain: str, split: str, limit: int) -> range:
    """Return the scene numbers of a Toytown split; those of two splits or domains never meet.

    An empty split means `train`, a limit of 0 means 1000 scenes to train on and 100 for `val`.

    Raises:
        UsageError: there is no such split, or it has not so many scenes.
    """
    split = split or "train"
    if (domain, split) not in _TOYTOWN_SEEDS:
        raise UsageError(f"toytown has no split {split!r}; allowed: train, val.")
    count = limit or _TOYTOWN_SCENES[split]
    if count > _TOYTOWN_STRIDE:
        raise UsageError(f"toytown has at most {_TOYTOWN_STRIDE} scenes a split; limit is {count}.")
    first = _TOYTOWN_SEEDS[domain, split] * _TOYTOWN_STRIDE
    return range(first, first + count)


class ToytownImages(LabelledImages):
    """Rendered streets; a scene is rendered when it is first asked for and then kept, up to 256 MiB a process.

    Labels are of `space`, and void where `mask` (bool [H,W]) is true.
    """

    def __init__(
        self,
        domain: str,
        seeds: range,
        height: int,
        width: int,
        space: LabelSpace = CITYSCAPES_19,
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        self.domain, self.seeds, self.height, self.width = domain, seeds, height, width
        self.num_classes = space.num_classes
        self._table = translation(CITYSCAPES_19, space)
        self._mask = fit_mask(mask, height, width)
        self._cache: dict[int, LabelledSample] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> LabelledSample:
        if index in self._cache:
            return self._cache[index]
        from lsr_train.toytown import render

        seed = self.seeds[index]
        frame, labels = render(self.domain, seed, height=self.height, width=self.width)
        labels = self._table[labels]
        if self._mask is not None:
            labels[self._mask] = IGNORE_INDEX
        sample = LabelledSample(frame=frame, labels=labels, file=f"toytown-{self.domain}:{seed}")
        if (len(self._cache) + 1) * 4 * self.height * self.width <= _TOYTOWN_CACHE_BYTES:
            self._cache[index] = sample
        return sample

    @cached_property
    def counts(self) -> NDArray[np.int64]:  # type: ignore[override]
        """Pixels of each class in each scene [N,C]; renders every scene."""
        scenes = with_progress(self, "rendering", len(self))
        rows = [np.bincount(sample.labels.ravel(), minlength=256) for sample in scenes]
        return np.stack(rows)[:, : self.num_classes].astype(np.int64)


def choose_label_space(config: Config) -> LabelSpace:
    """Return the classes a configuration trains on; by itself those of all its sources, by name.

    Raises:
        UsageError: there is no such space.
        InputError: a YAML file of classes is unusable.
    """
    if config.label_space != "auto":
        return load_label_space(config.label_space)
    return joined([_own_space(source) for source in config.data.sources])


def _own_space(source: SourceConfig) -> LabelSpace:
    """Return the classes of a labelled folder's classes.yaml, else Cityscapes' 19."""
    classes = find_classes(local_path(source.root)) if source.layout == "folder" and source.root else None
    return CITYSCAPES_19 if classes is None else load_classes(classes).space


def _warn_of_other_names(root: Path) -> None:
    """Warn of files in a labelled folder that may be meant to name its classes, and are not read."""
    for path in sorted(root.iterdir()):
        if path.suffix.lower() in (".yaml", ".yml", ".json", ".txt") and re.search("class|label", path.stem.lower()):
            logger.warning("%s: is not read. Name classes in %s/classes.yaml, or set --label_space.", path, root)


def open_source(
    config: Config, source: SourceConfig, space: LabelSpace, *, cache: Path | None = None
) -> LabelledImages:
    """Find and scan one of the data sets that a configuration trains on, or another split of it; see `open_labelled`.

    Where classes come from several sources, a folder without a classes.yaml still has Cityscapes' train ids, and so
    have labelled frames of the target.
    """
    alone = len(config.data.sources) == 1 and source != config.data.labelled_frames
    plain = source.layout == "folder" and source.root and source.ids in ("auto", "classes")
    if plain and not alone and config.label_space == "auto" and find_classes(local_path(source.root)) is None:
        source = replace(source, ids="cityscapes-trainid")
    return open_labelled(
        source, space, label_space=config.label_space, on_bad=config.data.on_bad, cache=cache, alone=alone
    )


def open_sources(config: Config, space: LabelSpace, *, cache: Path | None = None) -> list[LabelledImages]:
    """Find and scan every labelled data set that a configuration trains on.

    Raises:
        UsageError: layout, split and ids of one do not fit together.
        InputError: files are missing or unusable; those of all data sets are listed.
    """
    opened, problems, sources = list[LabelledImages](), list[str](), config.data.sources
    for source in sources:
        try:
            opened.append(open_source(config, source, space, cache=cache))
        except UnusableFilesError as error:
            problems.append(str(error))
    if problems:
        raise UnusableFilesError("\n".join(problems))
    if len(sources) > 1:
        report_mix(sources, [images.counts.sum(axis=0) for images in opened], space)
    return opened


def open_labelled(
    source: SourceConfig,
    space: LabelSpace,
    *,
    label_space: str = "auto",
    on_bad: str = "stop",
    cache: Path | None = None,
    alone: bool = True,
) -> LabelledImages:
    """Find and scan a labelled data set; files keep their own size, Toytown is rendered at the size given.

    `label_space` is the configuration's text for `space`: a YAML file there also says what label files hold, where the
    folder has no classes.yaml. The folder `cache` keeps what the scan found; None keeps nothing. Classes that it lacks
    are no reason to warn where it does not stand `alone`.

    Raises:
        UsageError: layout, split and ids do not fit together.
        InputError: files are missing or unusable (all of them are listed), or the classes are.
    """
    mask = read_mask(local_path(source.ignore_mask)) if source.ignore_mask else None
    if source.layout.startswith("toytown-"):
        domain = source.layout.removeprefix("toytown-")
        seeds = toytown_seeds(domain, source.split, source.limit)
        return ToytownImages(domain, seeds, source.height, source.width, space, mask)
    found = source_pairs(source)
    if source.layout == "folder" and found.classes is None and label_space == "auto":
        _warn_of_other_names(local_path(source.root))
    file = found.classes or classes_file(label_space)
    classes = load_classes(file) if file is not None and found.ids == "classes" else None
    try:
        id_map = encoding_map(found.ids, space, classes)
    except InputError as error:
        raise InputError(f"{source.root}: {error}") from error
    logger.info("%s: ids read as %s, into the %d classes of %s", source.root, found.ids, space.num_classes, space.name)
    pairs = found.pairs[: source.limit] if source.limit else found.pairs
    bits = scan_depth(find_images(source.layout, source.root, ""), warn, cache=cache)  # of all splits
    scan = scan_pairs(pairs, id_map, space.num_classes, bits=bits, mask=mask, cache=cache)
    problems = (*found.problems, *(line for _, line in scan.problems))
    settle(problems, len(pairs) + len(found.problems), on_bad, f"files of {source.root}", found.matched.advice)
    bad = {index for index, _ in scan.problems}
    good = [index for index in range(len(pairs)) if index not in bad]
    if not scan.counts[good].any():
        raise InputError(f"{source.root}: every pixel is void in {space.name}. Set data.source.ids or the label space.")
    report_labels(
        source.root, [pairs[index] for index in good], space, scan.counts[good], scan.void[good],
        found.matched.left_out, alone=alone,
    )  # fmt: skip
    return _FolderImages(tuple(pairs[index] for index in good), id_map, scan.counts[good], mask, problems, bits)
