"""Tells label images from the camera frames beside which they lie, by folders and names and then by their content."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError
from lsr_infer.io.images import IMAGE_SUFFIXES, read_image, read_label, used_bits
from lsr_infer.text import NAMED_FOLDERS, folders_of

__all__ = ["is_flat", "labels_left_out", "origins", "without_labels"]

_LABEL_WORD = re.compile(
    r"labels?|labell?ed\w*|lbls?|(label|instance)?(train)?ids|gt(fine|coarse)?|ground_?truths?|ann|annot(ation)?s?|masks?|"
    r"segm?|seg(mentation\w*|maps?|masks?)|sem|semantics?|semseg|class(es|gt|seg\w*)|instances?|panoptic|depth|disparity"
)
_IMAGE_WORD = re.compile(
    r"images?|imgs?|rgb|(jpeg|colou?r)images?|jpe?gs?|frames?|cam(era)?s?|(left|right)img8bit|photos?|stillsraw"
)
_PART = re.compile(r"segm?[_.\- ]*\d+")
"""A segment of a drive, of which others are beside it."""
_ATTACHED = re.compile(r"(.+?)(labels?|gt|annot(ation)?s?|masks?|seg)")
_SEPARATED = re.compile(r"[_.\-](?=[^/]*[^\W\d_][^/]*$)")
"""Before what may be added to a name: a word, but no mere number, which would be another image's."""

_LOOKED_AT, _IN_ALL = 8, 64
"""Files of one kind, and of all kinds, that are looked at."""
_MOST_COLORS = 64
"""Colours of a label image. Ours: no road frame of 160 had less than 2,992, or 160 in grey."""
_LEAST_EVEN = 0.45
"""Share of pixels equal to those below and on the right. Ours: it was at most 0.41 in these frames and Toytown's,
at least 0.50 in label images saved as JPEG, and 0.71 in 64 PNGs outside their most frequent colour."""
_GRADUAL, _SCATTERED = 0.7, 4
"""Share of borders between one colour and the next, and pieces of a colour, of which a camera's few levels have more.
Ours: of 423 label images none of over 2 classes had more than 0.66; of 12 grey frames in 3 to 60 levels at least 9 did,
but for those in 16 and more that were enlarged without blending."""


def _words(name: str) -> list[str]:
    return re.split(r"[_.\- ]+", name.lower())


def _rest(name: str) -> tuple[str, ...]:
    """Return the words of a name that say neither label nor image."""
    return tuple(w for w in _words(name) if not (_LABEL_WORD.fullmatch(w) or _IMAGE_WORD.fullmatch(w)))


def _says_label(name: str) -> bool:
    return any(map(_LABEL_WORD.fullmatch, _words(name)))


def origins(key: str) -> set[str]:
    """Return the names that a name may continue: NAME of NAME_color."""
    return {key[: found.start()] for found in _SEPARATED.finditer(key)}


def without_labels(files: Sequence[Path], top: Path) -> tuple[list[Path], list[Path]]:
    """Divide the images and videos found below a folder into camera frames and the label images beside them.

    Label images lie below `top` in a folder with such a name (`labels`, `gtFine`, `train_annot` beside `train`), or are
    called as a frame with such a word, or continue the name of a file in their folder (`a_L.png`; `a.png` beside
    `a.jpg`); and those that are looked at have few colours. Where no frame has more, all files are frames.
    """
    suspects = _suspects(files, top)
    each = max(1, min(_LOOKED_AT, _IN_ALL // max(1, len(suspects))))
    labels: set[Path] = set()
    for (_, _, named), group in suspects.items():
        verdicts = {_holds_labels(path, named=named) for path in _some(group, each)}
        if True in verdicts and False not in verdicts:
            labels.update(group)
    frames = [path for path in files if path not in labels]
    if labels and any(_is_photograph(path) for path in _some(frames, _IN_ALL)):
        return frames, sorted(labels)
    return list(files), []


def _suspects(files: Sequence[Path], top: Path) -> dict[tuple[Path, str, bool], list[Path]]:
    """Return the images that are labels by name, by folder, last word, and whether a word for labels says so."""
    folders = {path.parent for path in files}
    known = {str(place).lower() for folder in folders for place in (folder, *folder.parents)}
    of_labels = {folder for folder in folders if _is_of_labels(folder.relative_to(top).parts, top, known)}
    frame_names = {_rest(path.stem) for path in files if not _says_label(path.stem) and path.parent not in of_labels}
    suffixes: dict[tuple[Path, str], set[str]] = {}
    for path in files:
        suffixes.setdefault((path.parent, path.stem), set()).add(path.suffix.lower())
    found: dict[tuple[Path, str, bool], list[Path]] = {}
    for path in files:
        folder, stem, suffix = path.parent, path.stem, path.suffix.lower()
        named = folder in of_labels or (_says_label(stem) and _rest(stem) in frame_names)
        continued = any((folder, origin) in suffixes for origin in origins(stem))
        beside = suffix == ".png" and (continued or len(suffixes[folder, stem]) > 1)
        if suffix in IMAGE_SUFFIXES and (named or beside):
            last = _words(stem)[-1]
            found.setdefault((folder, last if last.isalpha() else "", named), []).append(path)
    return found


def _is_of_labels(parts: Sequence[str], top: Path, known: set[str]) -> bool:
    """Whether the innermost part of a path below `top` that says label or image says label.

    `trainannot` does so where `train` beside it is one of the known folders.
    """
    for depth in range(len(parts), 0, -1):
        name = parts[depth - 1].lower()
        attached = _ATTACHED.fullmatch(name)
        beside = str(top.joinpath(*parts[: depth - 1], attached[1])).lower() if attached else ""
        if (_says_label(name) and not _PART.fullmatch(name)) or beside in known:
            return True
        if any(map(_IMAGE_WORD.fullmatch, _words(name))):
            return False
    return False


def _some(files: Sequence[Path], count: int) -> Sequence[Path]:
    """Return at most `count` files, evenly spread."""
    return files[:: -(-len(files) // count)] if files else files


def _holds_labels(path: Path, *, named: bool) -> bool | None:
    """Whether an image has few colours, in areas: a camera may have few levels, but scatters them, or blends them.

    One that is named so has few colours alone, or is saved as JPEG, or holds 16 bits in one channel. None where it
    cannot be read, or is of one colour, which tells nothing.
    """
    try:
        pixels = read_label(path) if path.suffix.lower() == ".png" else read_image(path, used_bits(path))
    except InputError:
        return None
    colors = _colors(pixels)
    if colors == 1:
        return None
    if colors <= _MOST_COLORS:
        return named or _has_areas(pixels)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return named and bool(_even(_numbers(pixels)).mean() >= _LEAST_EVEN)
    return named and pixels.ndim == 2 and pixels.dtype == np.uint16


def _even(numbers: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where an image [H,W] is as it is below and on the right, [H-1,W-1]."""
    here = numbers[:-1, :-1]
    return np.asarray((here == numbers[1:, :-1]) & (here == numbers[:-1, 1:]))


def _has_areas(pixels: NDArray[Any]) -> bool:
    """Whether an image of few colours has areas of them, but for a camera's: many pieces, of one level and the next."""
    _, numbers, counts = np.unique(_numbers(pixels), return_inverse=True, return_counts=True)
    numbers = numbers.reshape(pixels.shape[:2])
    inside = _even(numbers)[numbers[:-1, :-1] != counts.argmax()]
    if not inside.size or inside.mean() < _LEAST_EVEN:
        return False
    steps = np.concatenate([np.abs(np.diff(numbers, axis=axis)).ravel() for axis in (0, 1)])
    if len(counts) == 2 or (steps == 1).sum() <= _GRADUAL * (steps > 0).sum():
        return True
    areas = [np.asarray(numbers == number, dtype=np.uint8) for number in range(len(counts))]
    pieces = sum(cv2.connectedComponents(area, connectivity=4)[0] - 1 for area in areas)
    return pieces <= _SCATTERED * len(counts)


def _is_photograph(path: Path) -> bool:
    """Whether a file is a video, or an image that may come from a camera by its colours."""
    try:
        return path.suffix.lower() not in IMAGE_SUFFIXES or not is_flat(read_image(path, used_bits(path)))
    except InputError:
        return False


def is_flat(frame: NDArray[np.uint8]) -> bool:
    """Whether a frame [H,W,3] has at least 2 colours, and so few as label images have."""
    return 2 <= _colors(frame) <= _MOST_COLORS


def _numbers(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return each colour of an image [H,W] or [H,W,3] as one number [H,W]."""
    return pixels if pixels.ndim == 2 else np.asarray(pixels.astype(np.int64) @ (1, 1 << 16, 1 << 32))


def _colors(pixels: NDArray[Any]) -> int:
    """Return how many colours or numbers about 16,384 pixels of an image [H,W] or [H,W,3] have."""
    step = max(1, round((pixels.shape[0] * pixels.shape[1] / 16384) ** 0.5))
    return len(np.unique(_numbers(pixels[::step, ::step])))


def labels_left_out(labels: Sequence[Path]) -> str:
    """Say how many label images of which folders are left out, and how they are taken all the same."""
    folders = Counter(str(path.parent) for path in labels)
    where = ", ".join(f"{count} in {folder}" for folder, count in sorted(folders.items())[:NAMED_FOLDERS])
    if len(folders) > NAMED_FOLDERS:
        where = f"in {folders_of(labels)}"
    return f"{len(labels)} label images beside frames are left out: {where}. To take them, name a folder of them alone."
