"""Files that one process at a time may hold; the operating system lets go of them however a process ends."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lsr_infer.io.paths import place_error

__all__ = ["claim", "exclusive", "is_held"]

_EVERY = 0.2
"""Seconds between two tries."""


def claim(path: Path) -> IO[str] | None:
    """Hold a file; the lock ends when what is returned is closed.

    Args:
        path: of the lock; its folder is there.

    Returns:
        None where another process, or another claim of this one, holds it.

    Raises:
        InputError: it cannot be written, or its file system has no locks.
    """
    try:
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise place_error(path, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        file.close()
        raise place_error(path, error) from error
    return file


def is_held(path: Path) -> bool:
    """Whether another process holds a lock; False where there is no such file."""
    if not path.is_file():
        return False
    file = claim(path)
    if file is not None:
        file.close()
    return file is None


@contextmanager
def exclusive(path: Path, give_up: Callable[[], bool], waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a file for a block, and wait for it.

    Args:
        path: of the lock; its folder is there.
        give_up: whether to wait no longer; then the block is entered without it.
        waiting: called once where it has to be waited for.

    Raises:
        InputError: it cannot be written.
    """
    file = claim(path)
    if file is None:
        waiting()
    while file is None and not give_up():
        time.sleep(_EVERY)
        file = claim(path)
    try:
        yield
    finally:
        if file is not None:
            file.close()
