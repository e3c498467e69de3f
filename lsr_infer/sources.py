"""What is to be segmented: images and videos, found from files, folders and patterns."""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lsr_infer.errors import InputError
from lsr_infer.images import IMAGE_SUFFIXES

__all__ = ["VIDEO_SUFFIXES", "Found", "Source", "find_sources"]

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv")
"""Names, in lower case, that are taken for videos in a folder. A file that is named itself may have any other."""


@dataclass(frozen=True)
class Source:
    """One image or video.

    Args:
        path: the file.
        kind: what it is taken for, by its name.
        name: where its results go below the output folder, without suffix; unlike that of every other source.
    """

    path: Path
    kind: Literal["image", "video"]
    name: Path


@dataclass(frozen=True)
class Found:
    """What a search gave.

    Args:
        sources: in the order they were named, folders sorted.
        left_out: files in folders that are neither image nor video by their names.
    """

    sources: tuple[Source, ...]
    left_out: tuple[Path, ...]


def find_sources(words: Sequence[str], *, without: Path | None = None) -> Found:
    """Find what a command line names.

    Args:
        words: files, folders (searched through) or patterns such as `clips/*.mp4`.
        without: a folder whose files are passed over, such as the place of the results.

    Raises:
        InputError: a word names nothing.
    """
    files: dict[Path, Path] = {}  # file -> its place relative to what named it
    left_out: list[Path] = []
    for word in words:
        for top in _expand(word):
            if top.is_dir():
                _search(top, files, left_out, without)
            else:
                files.setdefault(top, Path(top.name))
    if not files:
        raise InputError(f"{', '.join(words)}: holds no image and no video ({len(left_out)} other files).")
    return Found(tuple(_named(files)), tuple(left_out))


def _expand(word: str) -> list[Path]:
    """Return the paths a word stands for."""
    path = Path(word)
    if path.exists():
        return [path]
    if glob.has_magic(word):
        matches = [Path(match) for match in sorted(glob.glob(word, recursive=True))]
        if matches:
            return matches
        raise InputError(f"{word}: no file fits this pattern.")
    raise InputError(f"{word}: does not exist.")


def _search(top: Path, files: dict[Path, Path], left_out: list[Path], without: Path | None) -> None:
    """Add the images and videos below a folder."""
    skipped = None if without is None else without.resolve()
    for path in sorted(top.rglob("*")):
        if not path.is_file() or (skipped is not None and path.resolve().is_relative_to(skipped)):
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
            files.setdefault(path, path.relative_to(top))
        else:
            left_out.append(path)


def _named(files: dict[Path, Path]) -> list[Source]:
    """Give each file a name of its own: without the suffix, with it where stems meet, numbered where names meet."""
    stems = Counter(place.with_suffix("") for place in files.values())
    taken: set[Path] = set()
    sources = []
    for path, place in files.items():
        name = place.with_suffix("") if stems[place.with_suffix("")] == 1 else place
        number = 2
        while name in taken:
            name = place.with_name(f"{place.name}_{number}")
            number += 1
        taken.add(name)
        kind: Literal["image", "video"] = "image" if path.suffix.lower() in IMAGE_SUFFIXES else "video"
        sources.append(Source(path, kind, name))
    return sources
