"""What is to be segmented: images, videos, streams and cameras, found from what a command line names."""

import glob
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from lsr_infer.addresses import is_address, is_live_only, label, name_of
from lsr_infer.errors import InputError
from lsr_infer.imageheaders import is_one_picture
from lsr_infer.images import IMAGE_SUFFIXES

__all__ = ["VIDEO_SUFFIXES", "Found", "Kind", "Source", "find_sources"]

VIDEO_SUFFIXES = (
    ".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".gif", ".apng",
)  # fmt: skip
"""Endings, in lower case, that are taken for videos in a folder and behind an http address. A file that is named itself
may have any other."""

Kind = Literal["image", "video", "stream", "camera"]
_CAMERA = re.compile(r"(?:camera:)?(\d{1,3})")


@dataclass(frozen=True)
class Source:
    """One image, video, stream or camera.

    Args:
        place: the file, the address, or the camera's number.
        kind: what it is taken for: by its name, until it says itself what it is.
        name: where its results go below the output folder, without suffix; unlike that of every other source.
    """

    place: Path | str | int
    kind: Kind = field(compare=False)
    name: Path

    @property
    def live(self) -> bool:
        """Whether frames are lost where they are not fetched in time."""
        return self.kind in ("stream", "camera")

    @property
    def label(self) -> str:
        """What it is called in messages and documents, without secrets."""
        return f"camera:{self.place}" if isinstance(self.place, int) else label(self.place)

    def opened(self, *, finite: bool) -> Self:
        """Return the source as what it is, once it has said whether it has an end.

        Behind http, what has one is a recording, of which no frame may be lost; cameras and rtsp are live.
        """
        recording = self.kind == "stream" and finite and not is_live_only(str(self.place))
        return replace(self, kind="video") if recording else self


@dataclass(frozen=True)
class Found:
    """What a search gave.

    Args:
        sources: in the order they were named, folders sorted.
        left_out: files in folders that are neither image nor video by their names.
    """

    sources: tuple[Source, ...]
    left_out: tuple[Path, ...]


_Places = dict[Path | str | int, tuple[Path, Kind]]
"""Place -> its name relative to what named it, and its kind."""


def find_sources(words: Sequence[str], *, without: Path | None = None) -> Found:
    """Find what a command line names.

    Args:
        words: files, folders (searched through), patterns such as `clips/*.mp4`, addresses (`rtsp://…`), cameras (`0`,
            `camera:0`; a file of that name goes first).
        without: a folder whose files are passed over, such as the place of the results.

    Raises:
        UsageError: an address of an unknown scheme.
        InputError: a word names nothing.
    """
    places: _Places = {}
    left_out: list[Path] = []
    for word in words:
        camera = _CAMERA.fullmatch(word)
        if is_address(word):
            places.setdefault(word, (Path(name_of(word)), _kind_of(word)))
        elif camera is not None and not Path(word).exists():
            places.setdefault(int(camera[1]), (Path(f"camera_{int(camera[1])}"), "camera"))
        else:
            for top in _expand(word):
                if top.is_dir():
                    _search(top, places, left_out, without)
                else:
                    places.setdefault(top, _file(top, Path(top.name)))
    if not places:
        raise InputError(f"{', '.join(words)}: holds no image and no video ({len(left_out)} other files).")
    return Found(tuple(_named(places)), tuple(left_out))


def _kind_of(address: str) -> Kind:
    """Return what an address is taken for by its name; see `Source.opened`."""
    named = urlsplit(address).path.lower().endswith(VIDEO_SUFFIXES)
    return "video" if named and not is_live_only(address) else "stream"


def _file(path: Path, place: Path) -> tuple[Path, Kind]:
    """Return a file's relative place and its kind; a GIF of one picture is an image."""
    suffix = path.suffix.lower()
    image = suffix in IMAGE_SUFFIXES or (suffix in (".gif", ".apng") and is_one_picture(path))
    return place, "image" if image else "video"


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


def _search(top: Path, places: _Places, left_out: list[Path], without: Path | None) -> None:
    """Add the images and videos below a folder."""
    skipped = None if without is None else without.resolve()
    if skipped is not None and top.resolve().is_relative_to(skipped):
        skipped = None  # the results lie at or above what is searched: nothing there is known to be one
    for path in sorted(top.rglob("*")):
        if not path.is_file() or (skipped is not None and path.resolve().is_relative_to(skipped)):
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
            places.setdefault(path, _file(path, path.relative_to(top)))
        else:
            left_out.append(path)


def _named(places: _Places) -> list[Source]:
    """Give each source a name of its own: without the suffix, with it where stems meet, numbered where names meet."""
    bare = {key: _bare(key, place) for key, (place, _) in places.items()}
    stems = Counter(bare.values())
    taken: set[Path] = set()
    sources = []
    for key, (place, kind) in places.items():
        name = bare[key] if stems[bare[key]] == 1 else place
        number = 2
        while name in taken:
            name = place.with_name(f"{place.name}_{number}")
            number += 1
        taken.add(name)
        sources.append(Source(key, kind, name))
    return sources


def _bare(key: Path | str | int, place: Path) -> Path:
    """Return a place without its suffix; only files have one."""
    return place.with_suffix("") if isinstance(key, Path) else place
