"""Pairs image files with label files by name, and names what may have been meant where a file has no partner."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lsr_infer.io.images import IMAGE_SUFFIXES
from lsr_infer.io.label_images import origins

__all__ = ["Matched", "Pair", "Suffixes", "keyed", "match"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Image and label file."""

    image: Path
    labels: Path


@dataclass(frozen=True, kw_only=True)
class Suffixes:
    """What the stems of image and label files end in after the name that both share, such as `_labelTrainIds`.

    A file type behind it, as in `_labelTrainIds.png`, is left out.
    """

    image: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        for side in ("image", "label"):
            ending = getattr(self, side)
            kind = next((kind for kind in IMAGE_SUFFIXES if ending.lower().endswith(kind)), "")
            object.__setattr__(self, side, ending[: len(ending) - len(kind)])


@dataclass(frozen=True, kw_only=True)
class Matched:
    """What belongs together.

    Args:
        pairs: images with their label files, in the order of the images.
        problems: one line for each file without a partner, or with an unclear one.
        advice: a sentence each on what would mend problems.
        left_out: files that are no label files of images here and are not needed either.
    """

    pairs: tuple[Pair, ...] = ()
    problems: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    left_out: tuple[Path, ...] = ()

    def __add__(self, other: "Matched") -> "Matched":
        return Matched(
            pairs=self.pairs + other.pairs,
            problems=self.problems + other.problems,
            advice=(*self.advice, *(line for line in other.advice if line not in self.advice)),
            left_out=self.left_out + other.left_out,
        )


Keyed = list[tuple[str, Path]]
"""Files, each after the name by which it finds its partner."""


def keyed(files: Iterable[Path], folder: Path, suffix: str) -> tuple[Keyed, list[Path]]:
    """Return files after their paths below a folder, without file type and suffix, and those without the suffix."""
    found: Keyed = []
    others = []
    for path in files:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name.endswith(suffix):
            found.append((name.removesuffix(suffix), path))
        else:
            others.append(path)
    return found, others


def match(images: Keyed, labels: Keyed) -> Matched:
    """Pair images and label files by the key before each, and name every one that is alone or double.

    Label files are PNG. One whose name only continues that of another which has an image, such as NAME_color.png beside
    NAME.png, is derived from it and left out.
    """
    problems: list[str] = []

    def by_key(files: Keyed) -> dict[str, Path]:
        named: dict[str, Path] = {}
        for key, path in files:
            first = named.setdefault(key, path)
            if first is not path:
                problems.append(f"{path}: has the same name as {first}, so its partner is not clear")
        return named

    by_image, by_label = by_key(images), by_key([item for item in labels if item[1].suffix.lower() == ".png"])
    both = by_image.keys() & by_label.keys()
    derived = {key for key in by_label.keys() - both if origins(key) & both}
    alone = {key: path for key, path in by_image.items() if key not in both}
    rest = {key: path for key, path in by_label.items() if key not in both | derived}
    others = {key: path for key, path in labels if path.suffix.lower() != ".png"}
    near, advice = _near(alone, rest, others)
    for key, path in alone.items():
        problems.append(f"{path}: has no label file" + (f"; {near[key]} is near" if key in near else ""))
    claimed = {*near.values(), *(path for key, path in rest.items() if origins(key) & alone.keys())}
    problems += [f"{path}: is a label file without an image" for path in rest.values() if path not in claimed]
    left_out = [*(by_label[key] for key in derived), *(path for path in others.values() if path not in claimed)]
    pairs = tuple(Pair(image=path, labels=by_label[key]) for key, path in by_image.items() if key in both)
    return Matched(pairs=pairs, problems=tuple(problems), advice=advice, left_out=tuple(sorted(left_out)))


_JPEG_ADVICE = (
    "Write labels as PNG where they are made: JPEG changes ids at every border, and converting it keeps that."
)
_SUFFIX_OPTIONS = ("--data.source.image_suffix", "--data.source.label_suffix")


def _near(
    images: Mapping[str, Path], labels: Mapping[str, Path], others: Mapping[str, Path]
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Return the file that may be meant as the label of images without one, by key, and advice on what pairs them.

    `labels` are without an image, `others` no PNG.
    """
    near = {key: others[key] for key in images if key in others}
    advice = [_JPEG_ADVICE] if near else []
    endings = _endings(images, labels)
    for of_image, of_label in endings[:1]:
        for key in images:
            if key.endswith(of_image) and (name := key.removesuffix(of_image) + of_label) in labels:
                near.setdefault(key, labels[name])
    if endings:
        choices = (
            " ".join(f"{option} {ending}" for option, ending in zip(_SUFFIX_OPTIONS, both, strict=True) if ending)
            for both in endings[:3]
        )
        advice.append(f"Set {' or '.join(choices)} to pair such names.")
    likely = _by_likeness({key: path for key, path in images.items() if key not in near}, labels)
    if likely:
        advice.append("Give images and labels the same names, in folders of the same names.")
    return near | likely, tuple(advice)


def _by_likeness(images: Mapping[str, Path], labels: Mapping[str, Path]) -> dict[str, Path]:
    """Return for images, by key, the one label file of the same name in another folder or case, or the same number."""

    def name(key: str) -> str:
        return key.rpartition("/")[2].casefold()

    def number(key: str) -> str:
        numbers: list[str] = re.findall(r"\d+", name(key))
        return numbers[-1] if numbers else ""

    for likeness in (name, number):
        found: dict[str, list[Path]] = {}
        for key, path in labels.items():
            found.setdefault(likeness(key), []).append(path)
        likely = {key: found[like][0] for key in images if (like := likeness(key)) and len(found.get(like, ())) == 1}
        if likely:
            return likely
    return {}


def _endings(images: Mapping[str, Path], labels: Mapping[str, Path]) -> list[tuple[str, str]]:
    """Return the endings of image and label names that pair most of them, shortest first; none where none pairs any."""
    candidates: set[tuple[str, str]] = set()
    for key in list(images)[:3]:
        stems = {key} | origins(key)
        for other in labels:
            candidates |= {
                (key.removeprefix(stem), other.removeprefix(stem)) for stem in stems & ({other} | origins(other))
            }
    counts = {
        (of_image, of_label): sum(
            key.endswith(of_image) and key.removesuffix(of_image) + of_label in labels for key in images
        )
        for of_image, of_label in candidates
    }
    most = max(counts.values(), default=0)
    return sorted(
        (ending for ending, count in counts.items() if count == most), key=lambda both: (len(both[0] + both[1]), both)
    )
