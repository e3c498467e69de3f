"""Files that appear whole or not at all.

One helper writes under a temporary name beside the target, flushes to the disk and renames. A kill at any instant
leaves either the old file or the new one; a full disk leaves the old one and an `InputError`.
"""

import errno
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lsr_infer.errors import InputError, UsageError

__all__ = [
    "PlaceError",
    "check_place",
    "place_error",
    "refuse_existing",
    "sync_folder",
    "sync_tree",
    "whole_file",
    "whole_folder",
    "write_bytes",
    "write_json",
    "write_text",
]

_PLACE_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOENT: "the folder does not exist",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EISDIR: "there is a folder of that name",
    errno.ENAMETOOLONG: "the name is too long",
}


class PlaceError(InputError):
    """A place for results is unusable, so that nothing else can be written there either."""


def place_error(path: Path, error: OSError) -> PlaceError:
    """Describe an `OSError` met while writing `path` as one line with what to do."""
    reason = _PLACE_ERRORS.get(error.errno or 0, error.strerror or str(error))
    remedy = "Free space or choose" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Choose"
    return PlaceError(f"{path}: cannot be written, {reason}. {remedy} another place; nothing there changed.")


def check_place(folder: Path) -> None:
    """Make a folder where it is missing, and raise unless a file can be written in it.

    Raises:
        InputError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        raise place_error(folder, error) from error


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise unless `path` is free to be written.

    Raises:
        UsageError: `path` exists and `overwrite` is false.
    """
    if path.exists() and not overwrite:
        raise UsageError(f"{path} already exists. Choose another output, or pass --overwrite.")


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush every file below `folder`, and the folder itself, to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` and rename it there once the block has ended well.

    The temporary name ends in the target's suffix, so that writers which choose a format by suffix work.

    Args:
        path: where the file shall appear; an existing file is replaced in one step.

    Yields:
        The temporary path to write to.

    Raises:
        InputError: the place cannot be written (full, read-only, missing folder).
        OSError: the block's own, where it names another file.
    """
    # The name is known before there is a file, so that an interruption at any instant clears it away.
    temporary = path.parent / f".{path.stem[:40]}.{secrets.token_hex(8)}.part{path.suffix}"
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.filename not in (None, temporary, str(temporary), str(path), str(path.parent)):
            raise  # the block met it elsewhere
        raise place_error(path, error) from error
    finally:
        with suppress(OSError):  # it was renamed, or never there
            temporary.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path` that takes its place once the block has ended well.

    What is at `path` is moved aside first and comes back if its place cannot be taken.

    Args:
        path: where the folder shall appear; an existing one (or a file) is replaced.

    Yields:
        The temporary folder to fill.

    Raises:
        InputError: the place cannot be written; what was at `path` is still there.
    """
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise place_error(path, error) from error
    aside = temporary.with_name(f"{temporary.name}.old")
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        sync_tree(temporary)
        if path.exists():
            path.rename(aside)
        temporary.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise place_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if aside.exists() and not path.exists():
            aside.rename(path)
        elif aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)


def _umask() -> int:
    """Return the process umask (mkstemp ignores it, a finished file should not)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, document: Any) -> None:
    """Write `document` as indented JSON to `path`, whole or not at all; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
