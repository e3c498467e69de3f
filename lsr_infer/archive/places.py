"""Reads clips and writes results where an archive keeps them: the one module that knows what a place is.

Everything appears under its name whole or not at all, and is readable by any number of processes at once.
"""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.addresses import without_secrets
from lsr_infer.io.files import check_output_folder, file_status, whole_file, whole_folder, write_bytes, writing
from lsr_infer.io.store_cache import fetch, fetch_folder, release
from lsr_infer.io.stores import is_store, is_url, pieces, put_folder, put_whole, remove_folder, status, stored
from lsr_infer.io.temporary import discard, sweep

__all__ = ["ResultPlace", "clip_file", "clip_label", "clip_stamp", "result_place", "result_place_name"]

_RESULTS = re.compile(
    r"[^/]*(_overlay\.mp4|_side_by_side\.mp4|_mask\.mkv|_classes\.jsonl|_mask|_confidence)|[^/]*/\d{6,}\.png", re.DOTALL
)
"""What the folder of a clip's results holds; where it holds anything else it is not replaced."""


class ResultPlace(Protocol):
    """Where results and records of an archive appear; names below it have `/` between their parts.

    Every method raises `InputError` where the place cannot be read or written.
    """

    def prepare(self) -> None:
        """Make the place where it is missing, and see that it can be written."""

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file, None where there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, whole or not at all, over what is there."""

    def holds(self, name: str) -> bool:
        """Whether there is a file or folder of this name."""

    def folder(self, name: str) -> AbstractContextManager[Path]:
        """Give an empty local folder, which takes the place of the one of this name once the block has ended well.

        `UsageError` where the folder that is there holds what is no result.
        """

    def file(self, name: str) -> AbstractContextManager[Path]:
        """Give a local path for a file, which takes the place of the one of this name; see `folder`."""

    def local(self, name: str) -> AbstractContextManager[Path]:
        """Give a local path with the content of a folder of this name."""

    def remove(self, name: str) -> None:
        """Remove a folder with all it holds, where it is there."""


def result_place(top: str) -> ResultPlace:
    """Return the folder, or the prefix of a store, of this name."""
    return _Stored(top) if is_store(top) else _Local(top)


def result_place_name(output: Path | str | None) -> str:
    """Return what `result_place` is asked for, the same on every node; `UsageError` for http, which is only read."""
    if is_url(output) and not is_store(output):
        raise UsageError(f"{clip_label(str(output))}: http servers are only read. Choose a folder or store.")
    return str(output) if is_store(output) else str(Path(output or ".").absolute())


class _Local:
    """A folder on this machine's disks, or on a file system that the nodes share."""

    def __init__(self, top: str) -> None:
        self._top = Path(top)

    def prepare(self) -> None:
        check_output_folder(self._top)

    def read(self, name: str) -> bytes | None:
        try:
            return (self._top / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InputError(f"{self._top / name}: cannot be read ({error.strerror or error}).") from error

    def write(self, name: str, data: bytes) -> None:
        path = self._in_its_folder(name)
        write_bytes(path, data)

    def holds(self, name: str) -> bool:
        return os.path.lexists(self._top / name)

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        with whole_folder(self._in_its_folder(name), overwrite=True, own=_RESULTS) as folder:
            yield folder

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        with whole_file(self._in_its_folder(name), overwrite=True) as path:
            yield path

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        yield self._top / name

    def remove(self, name: str) -> None:
        with writing(self._top / name):
            if self.holds(name):
                discard(self._top / name)

    def _in_its_folder(self, name: str) -> Path:
        """Return the path of a name, whose folder is there and holds nothing that a kill left."""
        path = self._top / name
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        _swept(path.parent)
        return path


class _Stored:
    """A prefix of an object store. A folder's files are written one after the other; then its record is."""

    def __init__(self, top: str) -> None:
        self._top = top.rstrip("/")

    def prepare(self) -> None:
        self.write(".archive/written", b"")

    def read(self, name: str) -> bytes | None:
        if not stored(self._url(name)):
            return None
        found = status(self._url(name))
        return None if found is None else b"".join(pieces(found))

    def write(self, name: str, data: bytes) -> None:
        with self.file(name) as path:
            path.write_bytes(data)

    def holds(self, name: str) -> bool:
        return stored(self._url(name))

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        with TemporaryDirectory(prefix="lsr_archive_") as folder:
            yield Path(folder)
            self.remove(name)  # its record says that it is being made again
            put_folder(Path(folder), self._url(name))

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        with TemporaryDirectory(prefix="lsr_archive_") as folder:
            path = Path(folder) / Path(name).name
            yield path
            put_whole(path, self._url(name))

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        folder = fetch_folder(self._url(name))
        try:
            yield folder
        finally:
            release(folder)

    def remove(self, name: str) -> None:
        if self.holds(name):
            remove_folder(self._url(name))

    def _url(self, name: str) -> str:
        return f"{self._top}/{name}"


@cache
def _swept(folder: Path) -> None:
    """Remove what killed processes left in a folder, once a process: many results lie in one."""
    sweep(folder)


def clip_label(place: str) -> str:
    """Return what a clip is called in records, without secrets."""
    return without_secrets(place) if is_url(place) else place


def clip_stamp(place: str) -> str:
    """Return what changes with a clip without reading it; `InputError` where it is gone.

    It is size and time of change of a file, and the tag that a store gives each content.
    """
    if is_url(place):
        found = status(place)
        if found is None:
            raise InputError(f"{clip_label(place)}: is a folder. Name it as a source, with a slash at its end.")
        return f"{found.size}-{found.tag}"
    there = file_status(Path(place))
    if there is None:
        raise InputError(f"{place}: does not exist.")
    return f"{there.st_size}-{there.st_mtime_ns}"


@contextmanager
def clip_file(place: str) -> Iterator[Path]:
    """Yield a local file with a clip's content; that of an address is its copy in the cache."""
    if not is_url(place):
        yield Path(place)
        return
    path = fetch(place)
    try:
        yield path
    except InputError as error:
        if type(error) is not InputError or str(path) not in str(error):
            raise
        raise InputError(str(error).replace(str(path), clip_label(place))) from error
    finally:
        release(path)
