"""Reads clips and writes results where an archive keeps them: the one module that knows what a place is.

Everything appears under its name whole or not at all, and is readable by any number of processes at once.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from lsr_infer.errors import InputError
from lsr_infer.io.files import check_output_folder, file_status, whole_file, whole_folder, write_bytes, writing
from lsr_infer.io.temporary import discard, sweep

__all__ = ["ResultPlace", "clip_file", "clip_stamp"]

_RESULTS = re.compile(
    r"[^/]*(_overlay\.mp4|_side_by_side\.mp4|_mask\.mkv|_classes\.jsonl|_mask|_confidence)|[^/]*/\d{6,}\.png", re.DOTALL
)
"""What the folder of a clip's results holds; where it holds anything else it is not replaced."""


class ResultPlace:
    """The folder in which results and records of an archive appear; names below it have `/` between their parts."""

    def __init__(self, top: str) -> None:
        self.top = Path(top)

    def prepare(self) -> None:
        """Make the place where it is missing; `InputError` unless it can be written."""
        check_output_folder(self.top)

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file, None where there is none; `InputError` where it cannot be read."""
        try:
            return (self.top / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InputError(f"{self.top / name}: cannot be read ({error.strerror or error}).") from error

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, whole or not at all, over what is there."""
        path = self._in_its_folder(name)
        write_bytes(path, data)

    def holds(self, name: str) -> bool:
        """Whether there is a file or folder of this name."""
        return os.path.lexists(self.top / name)

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """Yield an empty local folder, which takes the place of the one of this name once the block has ended well.

        Raises:
            UsageError: the folder that is there holds what is no result.
            InputError: it cannot be written.
        """
        with whole_folder(self._in_its_folder(name), overwrite=True, own=_RESULTS) as folder:
            yield folder

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Yield a local path for a file, which takes the place of the one of this name; see `folder`."""
        with whole_file(self._in_its_folder(name), overwrite=True) as path:
            yield path

    def local(self, name: str) -> Path:
        """Return a local path with the content of a folder of this name."""
        return self.top / name

    def remove(self, name: str) -> None:
        """Remove a folder with all it holds, where it is there."""
        with writing(self.top / name):
            if self.holds(name):
                discard(self.top / name)

    def _in_its_folder(self, name: str) -> Path:
        """Return the path of a name, whose folder is there and holds nothing that a kill left."""
        path = self.top / name
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        _swept(path.parent)
        return path


@cache
def _swept(folder: Path) -> None:
    """Remove what killed processes left in a folder, once a process: many results lie in one."""
    sweep(folder)


def clip_stamp(place: str) -> str:
    """Return what changes with a clip without reading it: size and time of change; `InputError` where it is gone."""
    status = file_status(Path(place))
    if status is None:
        raise InputError(f"{place}: does not exist.")
    return f"{status.st_size}-{status.st_mtime_ns}"


@contextmanager
def clip_file(place: str) -> Iterator[Path]:
    """Yield a local file with a clip's content."""
    yield Path(place)
