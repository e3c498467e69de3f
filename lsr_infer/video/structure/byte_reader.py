"""Reads the bytes of a file's structure, and holds what they tell."""

import mmap
import struct
from dataclasses import dataclass, field
from io import SEEK_END
from typing import BinaryIO

__all__ = ["CUT_OFF", "MAX_DEPTH", "ByteReader", "FileStructure", "StructureError", "damaged"]

CUT_OFF = "its end is missing"
MAX_DEPTH = 16
"""Boxes within boxes; whole files have half as many."""


@dataclass(kw_only=True)
class FileStructure:
    """What the structure of a file tells.

    Args:
        damage: in which way it is cut off or damaged; None where it seems whole.
        packets: of each video stream, in their order, or of each stream by its number in a transport stream, where
            one picture may be several; empty where the format is not counted, or damaged.
        fragmented: it is an MP4 in fragments, whose header need not know how many pictures there are.
    """

    damage: str | None = None
    packets: list[int] = field(default_factory=list)
    fragmented: bool = False

    def packets_of(self, number: int) -> int:
        """Return the packets of a video stream, 0 where they are not known."""
        return self.packets[number] if number < len(self.packets) else 0


class StructureError(Exception):
    """A part of a file is not what it should be, or reaches beyond what holds it."""


def damaged(position: int) -> StructureError:
    """Return the error for damage at a position."""
    return StructureError(f"damaged at byte {position}")


class ByteReader:
    """A file and the position in it; `StructureError` where it ends too early."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, SEEK_END)
        self.seek(0)

    def seek(self, position: int) -> None:
        """Go to a position, which may be the end of the file but lies not behind it."""
        if position > self.size:
            raise StructureError(CUT_OFF)
        self.position = self._file.seek(position)

    def read(self, count: int) -> bytes:
        """Read the next bytes, all of them."""
        data = self._file.read(count)
        self.position += len(data)
        if len(data) < count:
            raise StructureError(CUT_OFF)
        return data

    def map(self) -> mmap.mmap:
        """Return the whole file, of which the system reads what is looked at."""
        return mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def unpack(self, layout: str) -> tuple[int, ...]:
        """Read the next numbers."""
        return struct.unpack(layout, self.read(struct.calcsize(layout)))
