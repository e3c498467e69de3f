"""Labelled images by index, wherever they come from: a folder in one of the layouts, or Toytown.

What is handed out is a frame at its own size with labels of the wanted space; resizing and augmentation come later.
"""

import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.images import fit_mask, read_image, read_label, read_mask
from lsr_infer.labelspace import IGNORE_INDEX, LabelSpace
from lsr_train.config.run import Config, SourceConfig
from lsr_train.data.labels import (
    CITYSCAPES_19,
    Classes,
    IdMap,
    encoding_map,
    load_classes,
    load_label_space,
    translation,
)
from lsr_train.data.layouts import Pair, find_pairs
from lsr_train.data.scan import scan_pairs, settle

__all__ = [
    "FolderImages",
    "LabelledFrame",
    "LabelledFrames",
    "LabelledImages",
    "ToytownImages",
    "choose_label_space",
    "open_labelled",
    "toytown_seeds",
]

logger = logging.getLogger(__name__)


class LabelledImages(Protocol):
    """Labelled images by index."""

    left_out: tuple[str, ...]

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return what image `index` is called in messages."""

    def read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return frame uint8 [H,W,3] and labels uint8 [H,W] of image `index`, at its own size."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """Pixels of each class in each image [N,C]."""


class FolderImages:
    """Pairs of image and label files.

    Args:
        pairs: the files.
        id_map: what the label files hold, as labels of the wanted space.
        counts: pixels of each class in each image [N,C].
        mask: bool [H,W], true where labels are void in every image; resized to each.
        left_out: one line for each pair that is not among them because it is unusable.
    """

    def __init__(
        self,
        pairs: tuple[Pair, ...],
        id_map: IdMap,
        counts: NDArray[np.int64],
        mask: NDArray[np.bool_] | None = None,
        left_out: tuple[str, ...] = (),
    ) -> None:
        self.pairs, self.id_map, self.counts, self.mask, self.left_out = pairs, id_map, counts, mask, left_out

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """Return the image's path."""
        return str(self.pairs[index].image)

    def read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return frame and labels of image `index`.

        Raises:
            InputError: a file has become unusable since the scan.
        """
        pair = self.pairs[index]
        frame, raw = read_image(pair.image), read_label(pair.labels)
        if frame.shape[:2] != raw.shape[:2]:
            raise InputError(
                f"{pair.labels}: differs in size from its image {pair.image.name}; it changed since the scan."
            )
        try:
            return frame, self.id_map.apply(raw, fit_mask(self.mask, *raw.shape[:2]))
        except (InputError, ValueError) as error:
            raise InputError(f"{pair.labels}: {error}") from error


_TOYTOWN_SEEDS = {("game", "train"): 0, ("game", "val"): 1, ("camera", "train"): 2, ("camera", "val"): 3}
_TOYTOWN_STRIDE = 10_000_000
_TOYTOWN_SCENES = {"train": 1000, "val": 100}
_TOYTOWN_KEPT_BYTES = 256 << 20


def toytown_seeds(domain: str, split: str, limit: int) -> range:
    """Return the scene numbers of a Toytown split; those of two splits or domains never meet.

    Args:
        domain: `game` or `camera`.
        split: `train` or `val`; empty means `train`.
        limit: how many scenes; 0 means 1000 to train on and 100 for `val`.

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


class ToytownImages:
    """Rendered streets; a scene is rendered when it is first asked for and then kept, up to 256 MiB a process.

    Args:
        domain: `game` or `camera`.
        seeds: scene numbers.
        height: rows to render.
        width: columns to render.
        space: the classes the labels are wanted in.
        mask: bool [H,W], true where labels are void.
    """

    left_out: tuple[str, ...] = ()

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
        self._kept: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    def __len__(self) -> int:
        return len(self.seeds)

    def name(self, index: int) -> str:
        """Return domain and scene number."""
        return f"toytown-{self.domain}:{self.seeds[index]}"

    def read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Render scene `index`; the arrays are not to be changed."""
        if index in self._kept:
            return self._kept[index]
        from lsr_train.toytown import render

        frame, labels = render(self.domain, self.seeds[index], height=self.height, width=self.width)
        labels = self._table[labels]
        if self._mask is not None:
            labels[self._mask] = IGNORE_INDEX
        if (len(self._kept) + 1) * 4 * self.height * self.width <= _TOYTOWN_KEPT_BYTES:
            self._kept[index] = (frame, labels)
        return frame, labels

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Pixels of each class in each scene [N,C]; renders every scene."""
        rows = [np.bincount(self.read(index)[1].ravel(), minlength=256) for index in range(len(self))]
        return np.stack(rows)[:, : self.num_classes].astype(np.int64)


def choose_label_space(config: Config) -> LabelSpace:
    """Return the classes a configuration trains on.

    Raises:
        UsageError: there is no such space.
        InputError: a YAML file of classes is unusable.
    """
    if config.label_space != "auto":
        return load_label_space(config.label_space)
    source = config.data.source
    classes = Path(source.root) / "classes.yaml"
    if source.layout == "folder" and source.root and classes.exists():
        return load_classes(classes).space
    return CITYSCAPES_19


def _classes_of(found: Path | None, space_file: str) -> Classes | None:
    """Return what classes.yaml beside the data says, else the YAML file the space came from."""
    if found is not None:
        return load_classes(found)
    return load_classes(Path(space_file)) if space_file.endswith((".yaml", ".yml")) else None


def open_labelled(
    source: SourceConfig,
    space: LabelSpace,
    *,
    label_space: str = "auto",
    on_bad: str = "stop",
    cache: Path | None = None,
) -> LabelledImages:
    """Find and scan a labelled data set.

    Args:
        source: where it is and how it lies.
        space: the classes wanted.
        label_space: the configuration's text for `space`; a YAML file there also says what label files hold, where the
            folder has no classes.yaml.
        on_bad: `stop` or `skip` over unusable files.
        cache: folder that keeps what the scan found; None keeps nothing.

    Raises:
        UsageError: layout, split and ids do not fit together.
        InputError: files are missing or unusable (all of them are listed), or the classes are.
    """
    mask = read_mask(Path(source.ignore_mask)) if source.ignore_mask else None
    if source.layout.startswith("toytown-"):
        domain = source.layout.removeprefix("toytown-")
        seeds = toytown_seeds(domain, source.split, source.limit)
        return ToytownImages(domain, seeds, source.height, source.width, space, mask)
    found = find_pairs(source.layout, source.root, source.split, source.ids)
    id_map = encoding_map(found.ids, space, _classes_of(found.classes, label_space) if found.ids == "classes" else None)
    logger.info("%s: ids read as %s, into the %d classes of %s", source.root, found.ids, space.num_classes, space.name)
    pairs = found.pairs[: source.limit] if source.limit else found.pairs
    scan = scan_pairs(pairs, id_map, space.num_classes, mask=mask, cache=cache)
    problems = (*found.problems, *(line for _, line in scan.problems))
    settle(problems, len(pairs) + len(found.problems), on_bad, f"files of {source.root}")
    bad = {index for index, _ in scan.problems}
    good = [index for index in range(len(pairs)) if index not in bad]
    if not scan.counts[good].any():
        raise InputError(f"{source.root}: every pixel is void in {space.name}. Set data.source.ids or the label space.")
    return FolderImages(tuple(pairs[index] for index in good), id_map, scan.counts[good], mask, problems)


class LabelledFrame(NamedTuple):
    """Frame uint8 [H,W,3] and labels uint8 [H,W] at the files' own size, and what the frame is called."""

    frame: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    file: str


class LabelledFrames:
    """A labelled data set to score on, by index and in name order. It is scanned on construction.

    Args:
        layout: as `data.source.layout`.
        root: the folder; Toytown needs none.
        split: a split by the layout's own name; empty means everything there is.
        ids: what the label files hold, or `auto`.
        height: rows at which Toytown is rendered; files keep their own size.
        width: columns at which Toytown is rendered.
        space: the classes wanted.
        limit: only the first so many; 0 means all. For Toytown: how many scenes.
        ignore_mask: image whose non-black pixels are void in every frame; empty means none.
        label_space: the text `space` was loaded from; a YAML file there may also say what label files hold.
        on_bad: `stop` or `skip` over unusable files.
        cache: folder that keeps what the scan found; None keeps nothing.

    Raises:
        UsageError: layout, split and ids do not fit together.
        InputError: files are missing or unusable; all of them are listed.
    """

    def __init__(
        self,
        layout: str,
        root: str,
        split: str,
        ids: str,
        height: int,
        width: int,
        space: LabelSpace,
        limit: int = 0,
        *,
        ignore_mask: str = "",
        label_space: str = "auto",
        on_bad: str = "stop",
        cache: Path | None = None,
    ) -> None:
        source = SourceConfig(
            layout=layout,  # type: ignore[arg-type]  # checked by SourceConfig itself
            root=root,
            split=split,
            ids=ids,  # type: ignore[arg-type]  # checked by SourceConfig itself
            height=height,
            width=width,
            limit=limit,
            ignore_mask=ignore_mask,
        )
        self.space = space
        self._images = open_labelled(source, space, label_space=label_space, on_bad=on_bad, cache=cache)

    @property
    def left_out(self) -> tuple[str, ...]:
        """One line for each unusable file that was left out."""
        return self._images.left_out

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> LabelledFrame:
        """Return frame `index`, 0 <= index < len."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        frame, labels = self._images.read(index)
        return LabelledFrame(frame, labels, self._images.name(index))

    def __iter__(self) -> Iterator[LabelledFrame]:
        return (self[index] for index in range(len(self)))
