"""Finds the clips of an archive one after the other, and names the results of each.

Every source that is named has a folder of its own below the output, in which results lie as the clips do. So the name
of a clip depends on nothing but itself and its source, and stays when clips are added.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.addresses import label, without_secrets
from lsr_infer.io.files import file_status
from lsr_infer.io.sources import VIDEO_SUFFIXES, folders_below
from lsr_infer.io.stores import above_pattern, has_secret, is_store, is_url, listing, status

__all__ = ["Clip", "ClipList"]


@dataclass(frozen=True)
class Clip:
    """A video: the file or address, and the name of its results below the output, with `/` between its parts.

    Raises:
        UsageError: the name would lead out of the output.
    """

    place: str
    name: str

    def __post_init__(self) -> None:
        if ".." in self.name.split("/"):
            raise UsageError(f"{label(self.place)}: its path has `..` in it. Write it without.")


@dataclass
class ClipList:
    """The clips that sources name, found again each time the list is iterated.

    Args:
        sources: files, folders (searched through, but for hidden names), patterns, each of stores too, addresses of
            videos, and lists (`@clips.txt`, a path or address a line).
        without: a folder, of a store too, whose files are passed over, such as the place of the results.

    Attributes:
        left_out: files in folders that are no videos by their names, counted by the last iteration.
        unsearched: folders that it could not search, each with the reason.

    Raises:
        UsageError: two sources, or two lines of a list, would have one folder of results; or see `Clip`.
        InputError: a source is not there.
    """

    sources: Sequence[str]
    without: Path | str | None = None
    left_out: int = field(default=0, init=False)
    unsearched: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        tops: dict[str, str] = {}
        for source in self.sources:
            if is_url(source):
                pass  # a store is asked when it is listed
            elif _is_pattern(source):
                if next(glob.iglob(source, recursive=True), None) is None:
                    raise InputError(f"{source}: no file fits this pattern.")
            elif file_status(Path(source.removeprefix("@"))) is None:
                raise InputError(f"{source}: does not exist.")
            other = tops.setdefault(_top(source), source)
            if other != source:
                raise UsageError(
                    f"{label(other)} and {label(source)} would both have their results in {_top(source)}/. Name the "
                    "folder above them, or put their paths into a list: @clips.txt."
                )

    def __iter__(self) -> Iterator[Clip]:
        self.left_out = 0
        self.unsearched = []
        for source in dict.fromkeys(self.sources):
            top = _top(source)
            if is_store(source):
                yield from self._stored(source, top)
            elif is_url(source):
                yield Clip(source, top)
            elif source.startswith("@"):
                yield from _listed(Path(source[1:]), top)
            elif _is_pattern(source):
                yield from self._fitting(source, top)
            elif os.path.isdir(source):
                yield from self._below(Path(source), top)
            else:
                yield Clip(source, top)

    def _fitting(self, pattern: str, top: str) -> Iterator[Clip]:
        base = _fixed_part(pattern)
        passed_over = None
        if isinstance(self.without, Path):  # beside results that lie around them, clips are taken
            whole, above = Path(os.path.realpath(self.without)), Path(os.path.realpath(base))
            passed_over = whole if above in whole.parents else whole / top
        for match in sorted(glob.iglob(pattern, recursive=True)):
            place = Path(os.path.realpath(os.path.dirname(match)))
            if os.path.isfile(match) and (passed_over is None or not place.is_relative_to(passed_over)):
                yield Clip(match, f"{top}/{os.path.relpath(match, base)}")

    def _below(self, folder: Path, top: str) -> Iterator[Clip]:
        passed_over = os.path.realpath(self.without) if isinstance(self.without, Path) else None
        for place, names in folders_below(folder, self.unsearched):
            if passed_over is not None and Path(os.path.realpath(place)).is_relative_to(passed_over):
                continue
            videos = sorted(name for name in names if name.lower().endswith(VIDEO_SUFFIXES))
            self.left_out += len(names) - len(videos)
            for name in videos:
                path = place / name
                yield Clip(str(path), f"{top}/{path.relative_to(folder).as_posix()}")

    def _stored(self, url: str, top: str) -> Iterator[Clip]:
        base = above_pattern(url)
        one = status(url) if base == url else None
        if one is not None:
            yield Clip(url, top)
            return
        base = f"{base.rstrip('/')}/"
        results = f"{self.without.rstrip('/')}/" if isinstance(self.without, str) else None
        for found in listing(url):
            if results is not None and found.url.startswith(results):
                continue
            if found.url.lower().endswith(VIDEO_SUFFIXES):
                yield Clip(found.url, f"{top}/{found.url[len(base) :]}")
            else:
                self.left_out += 1


def _is_pattern(source: str) -> bool:
    return not source.startswith("@") and glob.has_magic(source) and not os.path.exists(source)


def _top(source: str) -> str:
    """Return the folder below the output in which the results of a source lie."""
    if is_url(source):
        return above_pattern(without_secrets(source)).rstrip("/").rpartition("/")[2]
    if source.startswith("@"):
        return Path(source).stem.removeprefix("@")
    path = Path(_fixed_part(source) if _is_pattern(source) else source)
    return path.absolute().resolve().name if path.name in ("", "..") else path.name


def _fixed_part(pattern: str) -> str:
    """Return the folder in front of the first part of a pattern that has a star, a question mark or a bracket."""
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return str(Path(*parts[:fixed]))


def _listed(file: Path, top: str) -> Iterator[Clip]:
    """Yield the clips of a list; one that stands there twice is one clip."""
    met: dict[int, int] = {}
    try:
        with file.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                place = line.strip()
                if not place:
                    continue
                path = _path_in_list(place)
                whole = hash(place if is_url(place) else path)
                if hash(path) not in met:
                    met[hash(path)] = whole
                    yield Clip(place, f"{top}{path}")
                elif met[hash(path)] != whole:
                    raise UsageError(
                        f"{file}: two of its lines would both have their results in {top}{path}/, whose name "
                        "holds nothing that may be a secret. Put them into two lists."
                    )
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error}).") from error


def _path_in_list(place: str) -> str:
    """Return the path of a line below its list's folder, without what may be a secret."""
    if not is_url(place):
        return os.path.abspath(place)
    if is_store(place) and has_secret(place):
        raise UsageError(
            f"{label(place)}: credentials are not read from an address. Set them as the store's own tools have them "
            "(docs/guide/stores.md)."
        )
    return (place if is_store(place) else without_secrets(place)).partition(":/")[2]
