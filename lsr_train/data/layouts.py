"""Finds a data set's files by the layout its publisher gave it.

Each layout is one function from a folder and a split to pairs of image and label paths. Nothing is opened here; what is
inside the files is `scan`'s business, what the numbers mean is `lsr_train.data.labels`'s.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.sources import image_files
from lsr_infer.io.store_cache import local_path
from lsr_train.config.data import SourceConfig
from lsr_train.data.pairing import Matched, Pair, Suffixes, keyed, match

__all__ = ["FOLDER_LAYOUTS", "FoundPairs", "find_classes", "find_images", "find_pairs", "source_pairs"]


@dataclass(frozen=True, kw_only=True)
class FoundPairs:
    """What a layout found in a folder.

    Args:
        matched: images with their label files, in name order, and what has no partner.
        ids: what the label files hold, a key of `lsr_train.data.labels.ENCODINGS` or `classes`.
        classes: the folder's classes.yaml, where there is one.
    """

    matched: Matched
    ids: str
    classes: Path | None = None

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Images with their label files."""
        return self.matched.pairs

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each file without a partner."""
        return self.matched.problems


def find_classes(root: Path) -> Path | None:
    """Return the file of a labelled folder's own classes; `InputError` where there are several."""
    try:
        found = sorted(path for path in root.iterdir() if path.name.lower() in ("classes.yaml", "classes.yml"))
    except OSError:  # whoever looks for images there reports it
        return None
    if len(found) > 1:
        raise InputError(f"{root}: has {' and '.join(path.name for path in found)}. Keep one of them.")
    return found[0] if found else None


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


_CITYSCAPES_IMAGES = "leftImg8bit"
_VOC_FOLDERS = "JPEGImages", "SegmentationClass"
_CAMVID_IMAGES, _CAMVID_LABELS = "701_StillsRaw_full", "LabeledApproved_full"
_FIRST_FOLDERS = {"cityscapes": _CITYSCAPES_IMAGES, "synthia": "RGB", "camvid": _CAMVID_IMAGES}
"""What tells a published layout by its name."""


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
        like = next((name for name, folder in _FIRST_FOLDERS.items() if (root / folder).is_dir()), None)
        hint = "Set another split, or leave it empty" if split else "Set the layout or the folder"
        if like is not None:
            hint = f"It looks like layout {like}: set that one"
        elif root.name in (images, labels):
            hint = f"Name {root.parent}, which holds it"
        raise InputError(f"{root}: there is no {missing}{_folders_in(root)}. {hint}.")
    if labels and not any(label.is_dir() for _, label in found):
        missing_labels = found[0][1]
        raise InputError(
            f"{root}: there is no {missing_labels}{_folders_in(missing_labels.parent)}. Call the folder of labels so."
        )
    return found


def _folders_in(place: Path) -> str:
    """Name the folders in a place, of which one may be meant; nothing where there are none."""
    names = sorted(path.name for path in place.iterdir() if path.is_dir()) if place.is_dir() else []
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"; in {place} are {', '.join(names[:8])}{more}" if names else ""


def _by_stem_with(images: str, labels: str, usual_ids: str) -> "_Finder":
    """Build the layout of two sides whose files have the same path but for the suffixes, usually with `usual_ids`."""

    def find(root: Path, split: str, ids: str, suffixes: Suffixes) -> FoundPairs:
        matched = Matched()
        for image, label in _sides(root, split, images, labels):
            of_images, no_images = keyed(image_files(image), image, suffixes.image)
            of_labels, no_labels = keyed(image_files(label), label, suffixes.label)
            matched += match(of_images, of_labels) + Matched(left_out=(*no_images, *no_labels))
        return FoundPairs(matched=matched, ids=usual_ids if ids == "auto" else ids)

    return find


def _has_voc_names(root: Path) -> bool:
    return (root / _VOC_FOLDERS[0]).is_dir() and not (root / "images").is_dir()


def _plain(root: Path, split: str, ids: str, suffixes: Suffixes) -> FoundPairs:
    """images/ and labels/, matched by stem, or Pascal VOC's folders (as CVAT has), with the user's classes.yaml."""
    names = _VOC_FOLDERS if _has_voc_names(root) else ("images", "labels")
    found = _by_stem_with(*names, "classes")(root, split, ids, suffixes)
    return replace(found, classes=find_classes(root))


_CITYSCAPES_KINDS = {"cityscapes-id": "labelIds", "cityscapes-trainid": "labelTrainIds"}


def _cityscapes_splits(root: Path, split: str, *, labelled: bool) -> list[str]:
    """Return the splits to read; `test` has no real labels, so it is read with labels only where it is named.

    Where leftImg8bit/ has no folders, its own files are the one split, which has an empty name.
    """
    base = root / _CITYSCAPES_IMAGES / split
    if not base.is_dir():
        remedy = "Set the layout, or another split." if split else "Set the layout or the folder."
        raise InputError(f"{root}: there is no {base}, which layout cityscapes needs. {remedy}")
    found = sorted(path.name for path in base.iterdir() if path.is_dir())
    return [split] if split or not found else [name for name in found if not (labelled and name == "test")]


def _cityscapes(root: Path, split: str, ids: str, suffixes: Suffixes) -> FoundPairs:
    """leftImg8bit/ and gtFine/, by split, with cities or not; labelIds before labelTrainIds where both are there."""
    if suffixes != Suffixes():
        raise UsageError(
            "layout cityscapes has suffixes of its own. Leave --data.source.image_suffix and label_suffix out."
        )
    sides = []
    for name in _cityscapes_splits(root, split, labelled=True):
        image_root, label_root = root / _CITYSCAPES_IMAGES / name, root / "gtFine" / name
        images, labels = image_files(image_root), image_files(label_root, (".png",))
        flat = {image_root} == {path.parent for path in images} or {label_root} == {path.parent for path in labels}

        def key(path: Path, folder: Path, *, flat: bool = flat) -> str:
            stem = re.split("_leftImg8bit|_gtFine_", path.stem)[0]
            return stem if flat else (path.relative_to(folder).parent / stem).as_posix()

        sides.append((
            [(key(path, image_root), path) for path in images],
            {
                encoding: [(key(path, label_root), path) for path in labels if path.stem.endswith(f"_gtFine_{kind}")]
                for encoding, kind in _CITYSCAPES_KINDS.items()
            },
        ))  # fmt: skip
    if ids == "auto":
        found = (encoding for encoding in _CITYSCAPES_KINDS if any(labels[encoding] for _, labels in sides))
        ids = next(found, "cityscapes-id")
    if ids not in _CITYSCAPES_KINDS:
        raise UsageError(f"data.source.ids is {ids}; the cityscapes layout has {', '.join(_CITYSCAPES_KINDS)} or auto.")
    return FoundPairs(matched=reduce(add, (match(images, labels[ids]) for images, labels in sides), Matched()), ids=ids)


def _camvid(root: Path, split: str, ids: str, suffixes: Suffixes) -> FoundPairs:
    """images/ and labels/ with Cityscapes train ids; or the images and colour labels as CamVid publishes them."""
    if (root / _CAMVID_IMAGES).is_dir() and not (root / "images").is_dir():
        if split:
            raise InputError(f"{root}: CamVid as published has no splits. Leave the split empty.")
        matched = match(
            [(path.stem, path) for path in image_files(root / _CAMVID_IMAGES)],
            [(path.stem.removesuffix("_L"), path) for path in image_files(root / _CAMVID_LABELS, (".png",))],
        )
        return FoundPairs(matched=matched, ids="camvid-color" if ids == "auto" else ids)
    return _by_stem_with("images", "labels", "cityscapes-trainid")(root, split, ids, suffixes)


_Finder = Callable[[Path, str, str, Suffixes], FoundPairs]

FOLDER_LAYOUTS: dict[str, _Finder] = {
    "gta5": _by_stem_with("images", "labels", "gta5-id"),
    "synthia": _by_stem_with(_FIRST_FOLDERS["synthia"], "GT/LABELS", "synthia-id"),
    "cityscapes": _cityscapes,
    "camvid": _camvid,
    "folder": _plain,
}
"""Layouts on a disk, by the name the configuration uses: (root, split, ids, suffixes) -> what is there."""


_NO_SUFFIXES = Suffixes()


def find_pairs(layout: str, root: str, split: str, ids: str, suffixes: Suffixes = _NO_SUFFIXES) -> FoundPairs:
    """Find the labelled images of a data set, whose label files hold `ids` (`auto`: what the layout usually has).

    File names end in `suffixes` after what images and labels share.

    Raises:
        UsageError: no folder is named, or the layout cannot have such ids.
        InputError: the folder or the split is not there, cannot be read, or holds no image at all.
    """
    if not root:
        raise UsageError(f"layout {layout} needs a folder. Set --data.source.root (or --source).")
    found = FOLDER_LAYOUTS[layout](_folder(local_path(root)), split, ids, suffixes)
    if not found.pairs and not found.problems:
        raise InputError(f"{root}: holds no images in layout {layout}{f', split {split}' if split else ''}.")
    return found


def source_pairs(source: SourceConfig) -> FoundPairs:
    """Find the pairs that a configuration names; raises as `find_pairs`."""
    suffixes = Suffixes(image=source.image_suffix, label=source.label_suffix)
    return find_pairs(source.layout, source.root, source.split, source.ids, suffixes)


def find_images(layout: str, root: str, split: str) -> tuple[Path, ...]:
    """Find a data set's images and no label file; raises as `find_pairs`."""
    base = _folder(local_path(root))
    if layout == "cityscapes":
        folders = [base / _CITYSCAPES_IMAGES / name for name in _cityscapes_splits(base, split, labelled=False)]
    elif layout == "camvid" and (base / _CAMVID_IMAGES).is_dir() and not split:
        folders = [base / _CAMVID_IMAGES]
    else:
        name = _FIRST_FOLDERS[layout] if layout == "synthia" else "images"
        name = _VOC_FOLDERS[0] if layout == "folder" and _has_voc_names(base) else name
        folders = [images for images, _ in _sides(base, split, name, "")]
    files = tuple(path for folder in folders for path in image_files(folder))
    if not files:
        raise InputError(f"{root}: holds no images in layout {layout}{f', split {split}' if split else ''}.")
    return files
