"""Checks paths, and writes files and folders atomically: each appears whole or not at all.

Everything is written under a temporary name beside the target, flushed to the disk and renamed. A kill at any instant
leaves either the old file or the new one; a full disk leaves the old one and an `InputError`.
"""

import errno
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.temporary import HeldPath, exchange, sweep

__all__ = [
    "AtomicOutputs", "OutputPathError", "check_output_folder", "file_status", "is_file", "is_folder",
    "output_path_error", "refuse_existing", "sync_folder", "sync_tree", "whole_file", "whole_folder", "write_bytes",
    "write_json", "write_text", "writing",
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
    return kind(f"{path}: cannot be written, {_reason(error)}. {remedy}; {_describe_written(written)}.")


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0, error.strerror or str(error))


def _describe_written(written: Sequence[Path]) -> str:
    """Say what a failure has changed."""
    return f"{', '.join(path.name for path in written)} had been written before" if written else "nothing there changed"


def check_output_folder(folder: Path) -> None:
    """Make a folder where it is missing, and sweep it; raises `InputError` unless a file can be written in it."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        held = HeldPath(folder / "check")
        try:
            held.create(_create_file)
            held.path.write_bytes(b"\0")
        finally:
            held.clear()


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


# The errors of file systems without hard links.
_NO_LINKS = frozenset({errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


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


def _create_file(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


class _File:
    """A file that is written under a temporary name."""

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self.path = path
        self.overwrite = overwrite
        self._held = HeldPath(path, path.suffix)
        self._mode = 0

    def create(self) -> Path:
        _check_name(self.path)
        self._mode = self._held.create(_create_file)
        return self._held.path

    def flush(self) -> None:
        with self._held.path.open("rb") as file:
            os.fsync(file.fileno())
        self._held.path.chmod(self._mode)  # a writer may have replaced the file

    def publish(self) -> None:
        if self.overwrite:
            os.replace(self._held.path, self.path)
        else:
            _rename_new(self._held.path, self.path)
        sync_folder(self.path.parent)

    def clear(self) -> None:
        self._held.clear()


class _Folder:
    """A folder that is written under a temporary name, and exchanged with what it replaces."""

    def __init__(self, path: Path, *, overwrite: bool, own: re.Pattern[str]) -> None:
        self.path = path
        self.overwrite = overwrite
        self._own = own
        self._held = HeldPath(path)
        self._aside = self._held.aside()

    def create(self) -> Path:
        _check_name(self.path)
        if self.overwrite:
            refuse_existing(self.path, overwrite=True, own=self._own)  # before the work
        self._held.create(Path.mkdir)
        return self._held.path

    def flush(self) -> None:
        sync_tree(self._held.path)
        if self.overwrite:
            refuse_existing(self.path, overwrite=True, own=self._own)  # again: it may have changed meanwhile

    def publish(self) -> None:
        """Give it the final name; without `overwrite` nothing but an empty folder can be lost."""
        if not os.path.lexists(self.path):
            self._held.path.rename(self.path)
        elif not self.overwrite:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.path))
        elif not exchange(self._held.path, self.path):
            self.path.rename(self._aside)  # a kill before the next line: `sweep` puts it back
            self._held.path.rename(self.path)
        sync_folder(self.path.parent)

    def clear(self) -> None:
        """Remove what is left of it and what it replaced, and restore what was moved aside if its path is free."""
        self._held.clear()
        if os.path.lexists(self._aside):
            sweep(self.path.parent)


def _check_name(path: Path) -> None:
    """Raise before the work where a name is longer than the file system takes."""
    if len(os.fsencode(path.name)) > os.pathconf(path.parent, "PC_NAME_MAX"):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))


def _rename_new(temporary: Path, path: Path) -> None:
    """Rename a file to a name that must be free (else `FileExistsError`); checked and renamed in one step."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:  # EEXIST among them
            raise
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # the name is taken from here on
        try:
            os.replace(temporary, path)
        except BaseException:
            path.unlink()
            raise


class AtomicOutputs:
    """Files and folders that appear together, each whole or not at all, once the `with` block has ended well.

    All of them are flushed to the disk before the first is renamed.

    Raises:
        UsageError: at the end, something that may not be replaced has a final name.
        InputError: a path cannot be written; the message names what was written before.
    """

    def __init__(self) -> None:
        self._items: list[_File | _Folder] = []

    def file(self, path: Path, *, overwrite: bool) -> Path:
        """Return the temporary path of a file; it ends in the target's suffix, by which writers choose a format."""
        return self._add(_File(path, overwrite=overwrite))

    def folder(self, path: Path, *, overwrite: bool, own: re.Pattern[str]) -> Path:
        """Return the temporary path of a folder; refused where the folder that is there holds what is not `own`."""
        return self._add(_Folder(path, overwrite=overwrite, own=own))

    def _add(self, item: _File | _Folder) -> Path:
        self._items.append(item)
        with writing(item.path):
            return item.create()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._publish()
        finally:
            for item in self._items:
                item.clear()

    def _publish(self) -> None:
        written: list[Path] = []
        item: _File | _Folder
        try:
            for item in self._items:
                item.flush()
            for item in self._items:
                item.publish()
                written.append(item.path)
        except OSError as error:
            if not item.overwrite and os.path.lexists(item.path):
                appeared = f"{item.path} appeared while its content was being made, and is kept"
                advice = "Choose another output, or pass --overwrite."
                raise UsageError(f"{appeared}; {_describe_written(written)}. {advice}") from error
            raise output_path_error(item.path, error, written=written) from error


@contextmanager
def whole_file(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary path with the suffix of `path` and rename it there once the block has ended well.

    An `OSError` of the block that names another file is left as it is; others are raised as by `AtomicOutputs`.
    """
    with AtomicOutputs() as outputs:
        temporary = outputs.file(path, overwrite=overwrite)
        try:
            yield temporary
        except OSError as error:
            if error.filename not in (None, temporary, str(temporary), str(path), str(path.parent)):
                raise  # the block met it elsewhere
            raise output_path_error(path, error) from error


@contextmanager
def whole_folder(path: Path, *, overwrite: bool, own: re.Pattern[str]) -> Iterator[Path]:
    """Yield a temporary folder and rename it to `path` once the block has ended well; see `refuse_existing`."""
    with AtomicOutputs() as outputs, writing(path):
        yield outputs.folder(path, overwrite=overwrite, own=own)


def write_bytes(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write `data` to `path`, whole or not at all; `UsageError` where something is there and `overwrite` is false."""
    with whole_file(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str, *, overwrite: bool = True) -> None:
    """Write `text` as UTF-8 to `path`; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"), overwrite=overwrite)


def write_json(path: Path, document: Any, *, overwrite: bool = True) -> None:
    """Write `document` as indented JSON to `path`; see `write_bytes`. NaN is refused, since JSON has none."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", overwrite=overwrite)
