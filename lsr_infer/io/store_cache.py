"""Keeps whole copies of stored files on this machine's disk, within a limit.

A copy appears under its name once all its bytes are there, and is known by address, size and tag, so that what changed
in a store is fetched anew. What a process reads is locked, so that no other one removes it.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.addresses import without_secrets
from lsr_infer.io.files import writing
from lsr_infer.io.stores import StoredFile, above_pattern, is_store, is_url, listing, pieces, status
from lsr_infer.io.temporary import is_at
from lsr_infer.system.progress import Progress

__all__ = ["fetch", "fetch_folder", "kept_copy", "local_path", "release"]

logger = logging.getLogger(__name__)

_AT_ONCE = 8
"""Files of a folder that are fetched at the same time."""
_DEFAULT_LIMIT = "50GB"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}

_held: dict[Path, tuple[int, int]] = {}
"""What this process reads from the cache: the descriptor of its lock, and how many times it was fetched."""
_guard = threading.Lock()
_unchecked: dict[Path, int] = {}
"""Bytes that may be written into a cache before what is in it is counted again."""


def _cache() -> tuple[Path, int]:
    """Return the folder of the cache (`LSR_CACHE`) and its limit in bytes (`LSR_CACHE_LIMIT`)."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    text = os.environ.get("LSR_CACHE_LIMIT") or _DEFAULT_LIMIT
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"LSR_CACHE_LIMIT is {text!r}; write a size such as 200GB.")
    folder = Path(os.environ.get("LSR_CACHE") or home / "lsr_road") / "stores"
    return folder, int(float(match[1]) * _UNITS[match[2].upper()])


def fetch(url: str | StoredFile) -> Path:
    """Return a whole copy of a file of a store or http server in the cache, fetched where it is not there yet.

    It has the file's own name, and stays until it is let go of by `release`, as often as it was fetched, or the process
    ends; then it may give way to others. Cut connections are taken up where they broke, by another process too.

    Raises:
        InputError: there is no such file, it is larger than the limit of the cache, or it cannot be read; see `status`.
    """
    found = url if isinstance(url, StoredFile) else status(url)
    if found is None:
        raise InputError(f"{without_secrets(str(url))}: is a folder. Name a file in it.")
    entry = _folder_of(found.url, found.size, found.tag)
    path = entry / _name(found.url)
    _hold(_Entry(entry, found.url, found.size, path.is_file, partial(_download, found, path)))
    return path


def fetch_folder(url: str) -> Path:
    """Return a folder in the cache with whole copies of all files of a folder or pattern of a store; as `fetch`."""
    files, top = list(listing(url)), above_pattern(url).rstrip("/")
    entry = _folder_of(top, *((found.url, found.size, found.tag) for found in files))
    folder, mark = entry / _name(top), entry / "whole"

    def fill() -> None:
        logger.info("%s: fetching %d files", without_secrets(url), len(files))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            works = [pool.submit(_download, found, folder / found.url[len(top) + 1 :]) for found in files]
            try:
                for work in works:
                    work.result()
            finally:
                pool.shutdown(cancel_futures=True)
        mark.touch()

    _hold(_Entry(entry, url, sum(found.size for found in files), mark.is_file, fill))
    return folder


_local: dict[str, Path] = {}


def local_path(place: str | Path) -> Path:
    """Return the path of a file or folder that a text names, which is its copy in the cache where that is an address.

    Within a process an address is asked for once; raises as `fetch`.
    """
    if not is_url(place):
        return Path(place)
    url = str(place)
    if url not in _local:
        found = None if is_store(url) and above_pattern(url) != url else status(url)
        _local[url] = fetch_folder(url) if found is None else fetch(found)
    return _local[url]


def kept_copy(place: object) -> Path | None:
    """Return the copy that `local_path` has of an address, None where it has none."""
    return _local.get(place) if isinstance(place, str) else None


def release(place: Path | str) -> None:
    """Let go of what `fetch` returned, once, or of the copy that `local_path` has of an address; else do nothing."""
    path = _local.pop(place, None) if isinstance(place, str) else place
    if path is None:
        return
    with _guard:
        entry = next((place for place in path.parents if place in _held), None)
        if entry is None:
            return
        descriptor, times = _held.pop(entry)
        if times > 1:
            _held[entry] = descriptor, times - 1
        else:
            os.close(descriptor)


def _folder_of(url: str, *state: Any) -> Path:
    key = hashlib.sha256(json.dumps([url, *state]).encode()).hexdigest()
    return _cache()[0] / key[:40]


def _name(url: str) -> str:
    """Return the name of a copy: the last part of the address, as far as it is a name."""
    name = urlsplit(url).path if not is_store(url) else url.partition("://")[2]
    name = (unquote(name) if not is_store(url) else name).rstrip("/").rpartition("/")[2]
    stem, dot, suffix = name.replace("\0", "_").rpartition(".")
    name = f"{stem[:120]}{dot}{suffix[:20]}"
    return name if name.strip(".") else "file"


@dataclass(frozen=True)
class _Entry:
    """A folder in the cache for what has an address: its bytes, whether all are there, and what fetches them."""

    folder: Path
    url: str
    size: int
    is_whole: Callable[[], bool]
    fill: Callable[[], None]


def _hold(entry: _Entry) -> None:
    """Keep an entry from being removed; one process fills it, while others wait."""
    place = entry.folder
    with _guard:
        if place in _held and entry.is_whole():
            _held[place] = _held[place][0], _held[place][1] + 1
            return
    with writing(place):
        while (lock := _locked(entry)) is None:  # another process removed it in between
            pass
    with _guard:
        kept, times = _held.pop(place, (lock, 0))
        if kept != lock:
            os.close(lock)
        _held[place] = kept, times + 1


def _locked(entry: _Entry) -> int | None:
    """Return the descriptor of the lock that keeps an entry, once it is whole; None where it was removed meanwhile."""
    entry.folder.mkdir(parents=True, exist_ok=True)
    path = entry.folder / "lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if is_at(lock, path) and not entry.is_whole():
            fcntl.flock(lock, fcntl.LOCK_EX)
            if is_at(lock, path) and not entry.is_whole():
                _make_room(entry)
                entry.fill()
            fcntl.flock(lock, fcntl.LOCK_SH)
        if is_at(lock, path) and entry.is_whole():
            os.utime(lock)  # the last to be removed
            return lock
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _make_room(entry: _Entry) -> None:
    """Remove what was used least recently and by nobody at present, until there is room for an entry."""
    (folder, limit), size = _cache(), entry.size
    if size > limit:
        raise InputError(
            f"{without_secrets(entry.url)}: {_readable(size)} do not fit into {folder}, whose limit is "
            f"{_readable(limit)}. Set LSR_CACHE_LIMIT higher, and LSR_CACHE to a folder with so much room."
        )
    with _guard:
        if (left := _unchecked.get(folder, 0)) >= size:
            _unchecked[folder] = left - size
            return
    sizes = {place: _size(place) for place in folder.iterdir() if place != entry.folder}
    total = sum(sizes.values()) + size
    if total > limit:
        for place in sorted(sizes, key=_used):
            if total <= max(size, 0.9 * limit):
                break
            if _remove_unused(place):
                total -= sizes[place]
    if total > limit:
        raise InputError(
            f"{folder}: is full of files in use, {_readable(total)} of {_readable(limit)}. Set LSR_CACHE_LIMIT higher, "
            "or let fewer processes work at once."
        )
    with _guard:
        _unchecked[folder] = min(limit - int(total), limit // 50)


def _readable(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def _size(place: Path) -> int:
    sizes = (os.lstat(os.path.join(root, name)) for root, _, names in os.walk(place) for name in names)
    with suppress(FileNotFoundError):  # somebody removes it
        return sum(status.st_size for status in sizes)
    return 0


def _used(entry: Path) -> float:
    """Return when an entry was last fetched."""
    with suppress(OSError):
        return (entry / "lock").stat().st_mtime
    return 0.0


def _remove_unused(entry: Path) -> bool:
    """Remove an entry; false where somebody reads or fills it."""
    try:
        lock = os.open(entry / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_at(lock, entry / "lock"):  # else another process removed it, and somebody may fill it anew
            shutil.rmtree(entry, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _download(found: StoredFile, path: Path) -> None:
    """Fetch a file into its place, on from what is there of it."""
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("ab") as file:
        begin = file.seek(0, os.SEEK_END)
        if begin > found.size:
            begin = file.truncate(0)
        several = bool(begin)
        with Progress(path.name, found.size, unit="B", done=begin) as progress:
            for piece in pieces(found, begin):
                file.write(piece)
                progress.step(len(piece))
                several = several or len(piece) < found.size
        file.flush()
        os.fsync(file.fileno())
    if several and status(found.url) != found:  # pieces of two contents would make none
        part.unlink()
        raise InputError(f"{without_secrets(found.url)}: changed while it was read. Run the command again.")
    os.replace(part, path)
