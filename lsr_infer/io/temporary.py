"""Names, holds and sweeps the temporary files and folders that stand beside results while these are written.

Who writes one holds an flock on it, which the system lets go of however the process ends, and which reaches into every
container on the machine. One that nobody holds was left by a kill. Where a file system has no locks, as NFS has none
for folders, one that has not changed for a day was.
"""

import ctypes
import errno
import fcntl
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["HeldPath", "discard", "exchange", "is_at", "sweep"]

logger = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{16}\.part(\.[^.]*)?", re.DOTALL)
_ASIDE = re.compile(r"\.(.+)\.[0-9a-f]{16}\.old", re.DOTALL)
_ASIDE_FOLDER = re.compile(r"\.(.+)\.[0-9a-f]{16}(\.part)?\.old", re.DOTALL)  # and as 0.1.0 called them
_NO_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
_ABANDONED_SECONDS = 86400.0
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux's fcntl.h and renameat2(2)


class HeldPath:
    """A temporary name beside a target, and the lock that shows that it is being written.

    The name is known before anything is there, so that an interruption at any instant clears it away.
    """

    def __init__(self, target: Path, suffix: str = "") -> None:
        self._target = target
        self._suffix = suffix
        self._descriptor: int | None = None
        self.path = self._free_name()

    def _free_name(self) -> Path:
        stem = self._target.name.removesuffix(self._suffix)[:40]
        return self._target.with_name(f".{stem}.{secrets.token_hex(8)}.part{self._suffix}")

    def create(self, make: Callable[[Path], object]) -> int:
        """Let `make` create the file or folder, and hold it; returns its mode."""
        while True:
            make(self.path)
            try:
                descriptor = _opened(self.path)
            except FileNotFoundError:  # somebody swept in this instant
                self.path = self._free_name()
                continue
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if is_at(descriptor, self.path):
                self._descriptor = descriptor
                return mode
            os.close(descriptor)  # somebody swept before the lock was there
            self.path = self._free_name()

    def aside(self) -> Path:
        """Return a name for what the target holds so far, from which `sweep` knows where it belongs."""
        return self._target.with_name(f".{self._target.name}.{secrets.token_hex(8)}.old")

    def clear(self) -> None:
        """Remove whatever is under the temporary name, and let go of the lock."""
        with suppress(OSError):  # it was renamed, or never there
            _remove(self.path)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _opened(path: Path) -> int:
    """Open a file or folder so that it can be locked: NFS locks what is open for writing."""
    access = os.O_RDONLY | os.O_DIRECTORY if path.is_dir() else os.O_RDWR
    return os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether a path still leads to the file that is open under a descriptor."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder, and put back a folder that one had moved aside.

    What cannot be listed, locked or removed stays, such as another user's.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        path = folder / name
        aside = (_ASIDE_FOLDER if path.is_dir() else _ASIDE).fullmatch(name)
        with suppress(OSError):
            if aside is not None and not os.path.lexists(folder / aside[1]):
                path.rename(folder / aside[1])
                logger.info("%s is there again: a killed command had moved it aside", folder / aside[1])
            elif aside is not None:  # what replaced it is in its place
                _remove(path)
            elif _TEMPORARY.fullmatch(name) is not None:
                _remove_unheld(path)


def _remove_unheld(path: Path) -> None:
    """Remove a temporary file or folder; `OSError` where somebody holds it, or may do so where there are no locks."""
    if path.is_symlink():
        path.unlink()
        return
    descriptor = _opened(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError) or time.time() - path.stat().st_mtime < _ABANDONED_SECONDS:
                raise
        _remove(path)
    finally:
        os.close(descriptor)


def discard(folder: Path) -> None:
    """Remove a folder, so that a kill leaves all of it or a temporary name that is swept."""
    temporary = HeldPath(folder).path
    descriptor = _opened(folder)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        folder.rename(temporary)
        with suppress(FileNotFoundError):  # somebody swept it there
            shutil.rmtree(temporary)
    finally:
        os.close(descriptor)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(other))
