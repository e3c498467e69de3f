"""Finds a data set's files by the layout its publisher gave it.

Each layout is one function from a folder and a split to pairs of image and label paths. Nothing is opened here; what is
inside the files is `scan`'s business, what the numbers mean is `lsr_train.data.labels`'s.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.images import IMAGE_SUFFIXES

__all__ = ["FOLDER_LAYOUTS", "FoundPairs", "Pair", "find_images", "find_pairs", "image_files"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Image and label file."""

    image: Path
    labels: Path


@dataclass(frozen=True, kw_only=True)
class FoundPairs:
    """What a layout found in a folder.

    Args:
        pairs: images with their label files, in name order.
        ids: what the label files hold, a key of `lsr_train.data.labels.ENCODINGS` or `classes`.
        problems: one line for each image without labels and each label file without an image.
        classes: the folder's classes.yaml, where there is one.
    """

    pairs: tuple[Pair, ...]
    ids: str
    problems: tuple[str, ...] = ()
    classes: Path | None = None


def image_files(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Return the files below a folder that have one of the suffixes, in name order, without hidden ones.

    Linked folders are followed, each real folder once. `Path.rglob` would leave out a folder it may not read, silently.
    """
    if not folder.is_dir():
        return []
    allowed = tuple(suffixes)

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename or folder}: cannot be read ({error.strerror}).") from error

    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in names if name.lower().endswith(allowed) and not name.startswith(".")]
    return sorted(found)


def _folder(root: Path) -> Path:
    """Return `root` if it is a folder that can be read."""
    try:
        if not root.is_dir():
            raise InputError(
                f"{root}: is not a folder. For a video or a glob as target set --data.target.layout frames."
                if root.exists()
                else f"{root}: does not exist."
            )
        next(root.iterdir(), None)
    except OSError as error:
        raise InputError(f"{root}: cannot be read ({error.strerror}).") from error
    return root


def _sides(root: Path, split: str, images: str, labels: str) -> list[tuple[Path, Path]]:
    """Return the pairs of folders that hold images and labels of a split; raises `InputError` where there are none.

    Both `images/train` and `train/images` are read, and without splits plain `images`.
    """
    if split:
        shapes = [(root / images / split, root / labels / split), (root / split / images, root / split / labels)]
    else:
        below = sorted(path for path in _folder(root).iterdir() if (path / images).is_dir())
        shapes = [(root / images, root / labels), *((path / images, path / labels) for path in below)]
    found = [(image, label) for image, label in shapes if image.is_dir()]
    if not found:
        missing = " nor ".join(str(image) for image, _ in shapes[:2])
        hint = "Set another split, or leave it empty" if split else "Set the layout or the folder"
        raise InputError(f"{root}: there is no {missing}. {hint}.")
    return found


def _match(
    images: Iterable[tuple[str, Path]], labels: Iterable[tuple[str, Path]]
) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """Pair images and label files by the key before each, and complain about every one that is alone or double."""
    problems: list[str] = []

    def by_key(files: Iterable[tuple[str, Path]]) -> dict[str, Path]:
        named: dict[str, Path] = {}
        for key, path in files:
            first = named.setdefault(key, path)
            if first is not path:
                problems.append(f"{path}: has the same name as {first}, so its partner is not clear")
        return named

    by_image, by_label = by_key(images), by_key(labels)
    problems += [f"{path}: has no label file" for key, path in by_image.items() if key not in by_label]
    problems += [f"{path}: is a label file without an image" for key, path in by_label.items() if key not in by_image]
    pairs = [Pair(image=path, labels=by_label[key]) for key, path in by_image.items() if key in by_label]
    return tuple(pairs), tuple(problems)


def _by_stem_with(images: str, labels: str, usual_ids: str) -> Callable[[Path, str, str], FoundPairs]:
    """Build the layout of two sides whose files have the same path but for the suffix, usually with `usual_ids`."""

    def keyed(folder: Path, *suffixes: str) -> list[tuple[str, Path]]:
        files = image_files(folder, suffixes or IMAGE_SUFFIXES)
        return [(path.relative_to(folder).with_suffix("").as_posix(), path) for path in files]

    def find(root: Path, split: str, ids: str) -> FoundPairs:
        found = [_match(keyed(image), keyed(label, ".png")) for image, label in _sides(root, split, images, labels)]
        pairs = tuple(pair for more, _ in found for pair in more)
        problems = tuple(problem for _, more in found for problem in more)
        return FoundPairs(pairs=pairs, ids=usual_ids if ids == "auto" else ids, problems=problems)

    return find


def _plain(root: Path, split: str, ids: str) -> FoundPairs:
    """images/ and labels/, matched by stem, with the user's classes.yaml."""
    classes = root / "classes.yaml"
    found = _by_stem_with("images", "labels", "classes")(root, split, ids)
    return replace(found, classes=classes) if classes.exists() else found


_CITYSCAPES_KINDS = {"cityscapes-id": "labelIds", "cityscapes-trainid": "labelTrainIds"}


def _cityscapes_splits(root: Path, split: str, *, labelled: bool) -> list[str]:
    """Return the splits to read; `test` has no real labels, so it is read with labels only where it is named."""
    base = root / "leftImg8bit" / split
    if not base.is_dir():
        remedy = "Set the layout, or another split." if split else "Set the layout or the folder."
        raise InputError(f"{root}: there is no {base}, which layout cityscapes needs. {remedy}")
    found = sorted(path.name for path in base.iterdir() if path.is_dir())
    return [split] if split else [name for name in found if not (labelled and name == "test")]


def _cityscapes(root: Path, split: str, ids: str) -> FoundPairs:
    """leftImg8bit/ and gtFine/, by split and city; labelIds before labelTrainIds where both are there."""

    def key(path: Path, name: str) -> str:
        return f"{path.parent.parent.name}/{path.parent.name}/{name}"

    images: list[tuple[str, Path]] = []
    labels: dict[str, list[tuple[str, Path]]] = {kind: [] for kind in _CITYSCAPES_KINDS}
    for name in _cityscapes_splits(root, split, labelled=True):
        files = image_files(root / "leftImg8bit" / name, (".png",))
        images += [
            (key(path, path.stem.removesuffix("_leftImg8bit")), path) for path in files if "_leftImg8bit" in path.stem
        ]
        for path in image_files(root / "gtFine" / name, (".png",)):
            for encoding, kind in _CITYSCAPES_KINDS.items():
                if path.stem.endswith(f"_gtFine_{kind}"):
                    labels[encoding].append((key(path, path.stem.partition("_gtFine_")[0]), path))
    if ids == "auto":
        ids = next((encoding for encoding, files in labels.items() if files), "cityscapes-id")
    if ids not in _CITYSCAPES_KINDS:
        raise UsageError(f"data.source.ids is {ids}; the cityscapes layout has {', '.join(_CITYSCAPES_KINDS)} or auto.")
    pairs, problems = _match(images, labels[ids])
    return FoundPairs(pairs=pairs, ids=ids, problems=problems)


_CAMVID_IMAGES, _CAMVID_LABELS = "701_StillsRaw_full", "LabeledApproved_full"


def _camvid(root: Path, split: str, ids: str) -> FoundPairs:
    """images/ and labels/ with Cityscapes train ids; or the images and colour labels as CamVid publishes them."""
    if (root / _CAMVID_IMAGES).is_dir() and not (root / "images").is_dir():
        if split:
            raise InputError(f"{root}: CamVid as published has no splits. Leave the split empty.")
        pairs, problems = _match(
            [(path.stem, path) for path in image_files(root / _CAMVID_IMAGES)],
            [(path.stem.removesuffix("_L"), path) for path in image_files(root / _CAMVID_LABELS, (".png",))],
        )
        return FoundPairs(pairs=pairs, ids="camvid-color" if ids == "auto" else ids, problems=problems)
    return _by_stem_with("images", "labels", "cityscapes-trainid")(root, split, ids)


FOLDER_LAYOUTS: dict[str, Callable[[Path, str, str], FoundPairs]] = {
    "gta5": _by_stem_with("images", "labels", "gta5-id"),
    "synthia": _by_stem_with("RGB", "GT/LABELS", "synthia-id"),
    "cityscapes": _cityscapes,
    "camvid": _camvid,
    "folder": _plain,
}
"""Layouts on a disk, by the name the configuration uses: (root, split, ids) -> what is there."""


def find_pairs(layout: str, root: str, split: str, ids: str) -> FoundPairs:
    """Find the labelled images of a data set, whose label files hold `ids` (`auto`: what the layout usually has).

    Raises:
        UsageError: no folder is named, or the layout cannot have such ids.
        InputError: the folder or the split is not there, cannot be read, or holds no image at all.
    """
    if not root:
        raise UsageError(f"layout {layout} needs a folder. Set --data.source.root (or --source).")
    found = FOLDER_LAYOUTS[layout](_folder(Path(root)), split, ids)
    if not found.pairs and not found.problems:
        raise InputError(f"{root}: holds no images in layout {layout}{f', split {split}' if split else ''}.")
    return found


def find_images(layout: str, root: str, split: str) -> tuple[Path, ...]:
    """Find a data set's images and no label file; raises as `find_pairs`."""
    base = _folder(Path(root))
    if layout == "cityscapes":
        folders = [base / "leftImg8bit" / name for name in _cityscapes_splits(base, split, labelled=False)]
    elif layout == "camvid" and (base / _CAMVID_IMAGES).is_dir() and not split:
        folders = [base / _CAMVID_IMAGES]
    else:
        name = "RGB" if layout == "synthia" else "images"
        folders = [images for images, _ in _sides(base, split, name, "")]
    files = tuple(path for folder in folders for path in image_files(folder))
    if not files:
        raise InputError(f"{root}: holds no images in layout {layout}{f', split {split}' if split else ''}.")
    return files
