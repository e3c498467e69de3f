"""Checks the pages of an Ogg file (RFC 3533): their checksums, numbers, and the end of each stream."""

import struct
import zlib

from lsr_infer.video.structure.byte_reader import CUT_OFF, ByteReader, FileStructure, StructureError, damaged

__all__ = ["walk_ogg"]

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_FIRST, _LAST = 2, 4


def walk_ogg(reader: ByteReader, found: FileStructure) -> None:
    """Check the checksum and the number of each page, and that each stream ends."""
    numbers: dict[int, int] = {}
    unfinished: set[int] = set()
    while reader.position < reader.size:
        at = reader.position
        head = reader.read(27)
        if not head.startswith(b"OggS"):
            raise damaged(at)
        _, kind, _, stream, number, checksum, segments = struct.unpack("<4sxBqIIIB", head)
        lengths = reader.read(segments)
        page = head[:22] + bytes(4) + head[26:] + lengths + reader.read(sum(lengths))
        # zlib's checksum goes from the lowest bit to the highest, and begins with ones
        found_sum = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
        if int(f"{found_sum:032b}"[::-1], 2) != checksum:
            raise damaged(at)
        if not kind & _FIRST and (number - numbers.get(stream, -1)) & 0xFFFFFFFF != 1:
            raise damaged(at)
        numbers[stream] = number
        (unfinished.discard if kind & _LAST else unfinished.add)(stream)
    if unfinished:
        raise StructureError(CUT_OFF)
