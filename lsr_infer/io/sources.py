"""Finds the images, videos, streams and cameras that a command line names."""

import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from lsr_infer.errors import InputError
from lsr_infer.io.addresses import file_name_for, is_address, label
from lsr_infer.io.files import file_status
from lsr_infer.io.image_headers import is_one_picture, is_still
from lsr_infer.io.images import IMAGE_SUFFIXES, common_bits
from lsr_infer.io.label_images import without_labels
from lsr_infer.io.store_cache import kept_copy, local_path, release
from lsr_infer.io.stores import above_pattern, is_store, listing, status

__all__ = ["VIDEO_SUFFIXES", "Found", "Source", "find_sources", "folders_below", "image_files"]

VIDEO_SUFFIXES = (
    ".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".gif", ".apng",
)  # fmt: skip
"""Endings, in lower case, that are taken for videos in a folder and behind an http address. A file that is named itself
may have any other."""

_SUFFIXES = IMAGE_SUFFIXES + VIDEO_SUFFIXES
_Kind = Literal["image", "video", "stream", "camera"]
_CAMERA = re.compile(r"(?:camera:)?(\d{1,3})")


@dataclass(frozen=True)
class Source:
    """One image, video, stream or camera.

    Args:
        place: the file, the address, of a stored file too, or the camera's number.
        kind: what it is taken for: by its name, until it says itself what it is.
        name: where its results go below the output folder, without suffix; unlike that of every other source.
        bits: how many of 16 bits the images of a search use, where it is one of their files; see `common_bits`.
    """

    place: Path | str | int
    kind: _Kind = field(compare=False)
    name: Path
    bits: int | None = field(default=None, compare=False)

    @property
    def live(self) -> bool:
        """Whether frames are lost where they are not fetched in time."""
        return self.kind in ("stream", "camera")

    @property
    def label(self) -> str:
        """What it is called in messages and documents, without secrets."""
        return f"camera:{self.place}" if isinstance(self.place, int) else label(self.place)

    @property
    def file(self) -> Path | str:
        """The file or address of what is no camera; of a stored file its copy, which is kept until `release`."""
        assert not isinstance(self.place, int)
        return local_path(self.place) if is_store(self.place) else self.place

    def release(self) -> None:
        """Let go of the copy of a stored file."""
        if isinstance(self.place, str):
            release(self.place)

    def by_label(self, message: str) -> str:
        """Return a message about the copy of a stored file as one about the file."""
        copy = kept_copy(self.place)
        return message if copy is None else message.replace(str(copy), self.label)

    def opened(self, *, finite: bool) -> Self:
        """Return the source with its final kind, once it is known whether it has an end.

        Behind http, what has one is a recording, of which no frame may be lost; cameras and rtsp are live.
        """
        recording = self.kind == "stream" and finite and not _is_live_only(str(self.place))
        return replace(self, kind="video") if recording else self


@dataclass
class Found:
    """The result of a search.

    Args:
        sources: in the order they were named, folders sorted.
        left_out: files in folders that are neither image nor video by their names, or no files.
        labels: label images beside frames in folders.
        passed_over: images and videos in the folder that was to be skipped.
        unsearched: folders that could not be searched, each with the reason.
    """

    sources: Sequence[Source] = ()
    left_out: list[Path] = field(default_factory=list)
    labels: list[Path] = field(default_factory=list)
    passed_over: list[Path] = field(default_factory=list)
    unsearched: list[str] = field(default_factory=list)


_Places = dict[Path | str | int, tuple[Path, _Kind]]
"""Place -> its name relative to what named it, and its kind."""


def find_sources(arguments: Sequence[str], *, without: Path | str | None = None) -> Found:
    """Find what a command line names.

    Args:
        arguments: files, folders (searched through, but for hidden names), patterns such as `clips/*.mp4`,
            addresses (`rtsp://…`), cameras (`0`, `camera:0`; a file of that name goes first), and files, folders and
            patterns of stores (`s3://…`), whose names alone tell what they are.
        without: a folder, of a store too, whose files are passed over, such as the place of the results.
    """
    found = Found()
    places: _Places = {}
    passed_over = os.path.realpath(without) if isinstance(without, Path) else None
    for argument in arguments:
        camera = _CAMERA.fullmatch(argument)
        if is_store(argument):
            _search_store(argument, found, places, without)
        elif is_address(argument):
            places.setdefault(argument, (Path(file_name_for(argument)), _kind_of(argument)))
        elif camera is not None and not os.path.exists(argument):
            places.setdefault(int(camera[1]), (Path(f"camera_{int(camera[1])}"), "camera"))
        else:
            for top in _expand(argument):
                if os.path.isdir(top):
                    _search(top, found, places, passed_over)
                else:
                    places.setdefault(top, _file(top, Path(top.name)))
    if not places:
        others = f"{len(found.left_out)} other files"
        if found.passed_over:
            others += f", and {len(found.passed_over)} images and videos in {without}, which are taken for results"
        nothing = f"{', '.join(arguments)}: holds no image and no video ({others})."
        raise InputError(" ".join([nothing, *found.unsearched]))
    images = [place for place, (_, kind) in places.items() if kind == "image" and isinstance(place, Path)]
    found.sources = _named(places, dict.fromkeys(images, common_bits(images)))
    return found


def _is_live_only(address: str) -> bool:
    return urlsplit(address).scheme.lower().startswith("rtsp")


def _search_store(url: str, found: Found, places: _Places, without: Path | str | None) -> None:
    """Add a stored file, or what lies below a folder or fits a pattern."""
    top = above_pattern(url).rstrip("/")
    one = status(url) if above_pattern(url) == url else None
    results = f"{without.rstrip('/')}/" if isinstance(without, str) and not f"{top}/".startswith(without) else None
    for item in [one] if one else listing(url):
        name = Path(item.url[len(top) + 1 :] or top.rpartition("/")[2])
        if one is None and name.suffix.lower() not in _SUFFIXES:
            found.left_out.append(name)
        elif results is not None and item.url.startswith(results):
            found.passed_over.append(name)
        else:
            places.setdefault(item.url, (name, "image" if name.suffix.lower() in IMAGE_SUFFIXES else "video"))


def _kind_of(address: str) -> _Kind:
    """Return what an address is taken for by its name; see `Source.opened`."""
    path = urlsplit(address).path.lower()
    if _is_live_only(address) or not path.endswith(_SUFFIXES):
        return "stream"
    return "image" if path.endswith(IMAGE_SUFFIXES) else "video"


def _file(path: Path, place: Path) -> tuple[Path, _Kind]:
    """Return a file's relative place and its kind; a GIF of one picture is an image, and a HEIC by any name."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return place, "image"
    readable = os.path.isfile(path)  # a pipe would be waited for
    one = suffix in (".gif", ".apng") and readable and is_one_picture(path)
    return place, "image" if one or (readable and is_still(path)) else "video"


def _expand(argument: str) -> list[Path]:
    path = Path(argument)
    if glob.has_magic(argument) and not os.path.exists(path):
        matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
        if matches:
            return matches
        raise InputError(f"{argument}: no file fits this pattern.")
    if file_status(path) is None:
        raise InputError(f"{argument}: does not exist.")
    return [path]


def _search(top: Path, found: Found, places: _Places, without: str | None) -> None:
    """Add what lies below a folder, behind links too, but no folder twice."""
    if without is not None and _is_below(top, without):
        without = None  # the results lie at or above what is searched: nothing there is known to be one
    results: list[Path] = []
    files: list[Path] = []
    for folder, names in folders_below(top, found.unsearched):
        passed_over = without is not None and _is_below(folder, without)
        (results if passed_over else files).extend(folder / name for name in names)
    found.passed_over.extend(path for path in sorted(results) if path.suffix.lower() in _SUFFIXES)
    media = [path for path in sorted(files) if path.suffix.lower() in _SUFFIXES and _may_be_file(path)]
    found.left_out.extend(sorted({*files}.difference(media)))
    frames, labels = without_labels(media, top)
    found.labels.extend(labels)
    for path in frames:
        places.setdefault(path, _file(path, path.relative_to(top)))


def folders_below(top: Path, unsearched: list[str]) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and each one below it, with the names of what it holds besides folders; hidden ones are none.

    Folders behind links come last: what is reached without a link keeps its own name. None is entered twice,
    so that links may lead in circles. What cannot be searched, and why, is added to `unsearched`.
    """

    def fail(error: OSError) -> None:
        unsearched.append(f"{error.filename}: cannot be searched ({error.strerror or error}).")

    met: set[tuple[int, int]] = set()
    starts = [top]
    for start in starts:
        for root, folders, names in os.walk(start, onerror=fail):
            try:
                status = os.stat(root)
            except OSError as error:
                fail(error)
                status = None
            if status is None or (status.st_dev, status.st_ino) in met:
                folders.clear()
                continue
            met.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            starts += [Path(root, name) for name in folders if os.path.islink(os.path.join(root, name))]
            yield Path(root), [name for name in names if not name.startswith(".")]


def image_files(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Return the files that `find_sources` would find below a folder, in name order; none where there is no folder.

    Raises:
        InputError: a folder cannot be searched.
    """
    unsearched: list[str] = []
    walk = folders_below(folder, unsearched) if folder.is_dir() else ()
    found = [place / name for place, names in walk for name in names if name.lower().endswith(tuple(suffixes))]
    if unsearched:
        raise InputError(unsearched[0])
    return sorted(found)


def _is_below(path: Path, folder: str) -> bool:
    """Whether a path leads to a folder, which is free of links, or below it."""
    return Path(os.path.realpath(path)).is_relative_to(folder)


def _may_be_file(path: Path) -> bool:
    """Whether a path may lead to a file; a link to nowhere may, so that it fails where it is read, and is counted."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _named(places: _Places, bits: Mapping[Path | str | int, int]) -> list[Source]:
    """Give each source a unique name: without its suffix, with it where stems are equal, numbered where names are."""
    files = (key for key in places if isinstance(key, Path) or is_store(key))
    bare = {key: place for key, (place, _) in places.items()} | {key: places[key][0].with_suffix("") for key in files}
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
        sources.append(Source(key, kind, name, bits.get(key)))
    return sources
