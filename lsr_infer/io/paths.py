"""Checks paths to read or write: what is there, whether it may be replaced, and why it cannot be written."""

import errno
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from lsr_infer.errors import InputError, UsageError

__all__ = [
    "OutputPathError", "check_output_folder", "describe_written", "file_status", "is_file", "is_folder",
    "output_path_error", "refuse_existing", "writing",
]  # fmt: skip

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOENT: "the folder does not exist",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EEXIST: "there is a file of that name",
    errno.EISDIR: "there is a folder of that name",
    errno.ENAMETOOLONG: "the name is too long",
}
_REMEDIES = {
    errno.ENOSPC: "Free space or choose another place",
    errno.EDQUOT: "Free space or choose another place",
    errno.ENAMETOOLONG: "Give the source a shorter name",
}
_FOR_ALL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors that concern every file of a folder, and not one name in it."""


class OutputPathError(InputError):
    """Nothing can be written at a path, so that no other result can be written there either."""


def file_status(path: Path) -> os.stat_result | None:
    """Return the status of a path, links followed; None where nothing is there.

    Unlike `Path.exists`, it raises `InputError` for a path that may not be accessed.
    """
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be accessed, {_reason(error)}. Name another, or make it accessible."
        ) from error


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder; raises `InputError` where that cannot be known, see `file_status`."""
    status = file_status(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def is_file(path: Path) -> bool:
    """Whether a path leads to a file, which no pipe and no device is; raises as `is_folder`."""
    status = file_status(path)
    return status is not None and stat.S_ISREG(status.st_mode)


def output_path_error(path: Path, error: OSError, *, written: Sequence[Path] = ()) -> InputError:
    """Describe an `OSError` met while writing `path`, after the results in `written`, as one line with what to do.

    It is an `OutputPathError` where nothing else can be written there either.
    """
    remedy = _REMEDIES.get(error.errno or 0, "Choose another place")
    kind = OutputPathError if error.errno in _FOR_ALL else InputError
    return kind(f"{path}: cannot be written, {_reason(error)}. {remedy}; {describe_written(written)}.")


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0, error.strerror or str(error))


def describe_written(written: Sequence[Path]) -> str:
    """Say what a failure has changed."""
    return f"{', '.join(path.name for path in written)} had been written before" if written else "nothing there changed"


def check_output_folder(folder: Path) -> None:
    """Make a folder where it is missing, and raise `InputError` unless a file can be written in it."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")


def refuse_existing(path: Path, *, overwrite: bool, own: re.Pattern[str] | None = None) -> None:
    """Raise `UsageError` unless `path` is free or may be replaced.

    Args:
        path: what is to be written.
        overwrite: it may be replaced.
        own: what a folder that is replaced may hold: the whole path of each thing in it, from the folder on. None where
            `path` is to be a file, which no folder gives way to.
    """
    if not os.path.lexists(path):  # a link that leads nowhere is something too
        return
    if not overwrite:
        raise UsageError(f"{path} already exists. Choose another output, or pass --overwrite.")
    if own is None or path.is_symlink() or not path.is_dir():
        return

    def fail(error: OSError) -> NoReturn:
        raise output_path_error(path, error) from error

    for root, folders, files in os.walk(path, onerror=fail):
        for name in (*folders, *files):
            found = Path(root, name).relative_to(path)
            if own.fullmatch(found.as_posix()) is None:
                raise UsageError(
                    f"{path} holds {found}, which is no result of this command, and is not replaced even with "
                    "--overwrite. Choose another output, or move it away."
                )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` that the block meets while writing `path` into an `InputError` of one line."""
    try:
        yield
    except OSError as error:
        raise output_path_error(path, error) from error
