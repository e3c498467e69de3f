"""Follows the packets of ASF and WMV, and the payloads in them."""

import struct
from io import BytesIO

from lsr_infer.video.structure.byte_reader import CUT_OFF, ByteReader, FileStructure, StructureError, damaged

__all__ = ["walk_asf"]

_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_LENGTHS = (0, 1, 2, 4)
"""Bytes of a number, by the two bits that tell."""
_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


def walk_asf(reader: ByteReader, found: FileStructure) -> None:
    """Compare the size of an ASF or WMV file with the one that its properties state, and follow its packets."""
    (head_length,) = reader.unpack("<16xQ6x")
    size = 0
    for _ in range(64):
        at = reader.position
        if at >= head_length:
            break
        name, length = struct.unpack("<16sQ", reader.read(24))
        if name == _PROPERTIES:
            (stated,) = reader.unpack("<16xQ")
            if stated > reader.size:
                raise StructureError(CUT_OFF)
            _, least, size = reader.unpack("<40x3I")
            size *= least == size
        reader.seek(at + max(24, length))
    name, length, _, count = struct.unpack("<16sQ16sQ2x", reader.read(50))
    if name == _DATA and size:
        state: dict[int, tuple[int, int, int]] = {}
        for _ in range(min(count, (reader.size - reader.position) // size)):
            at = reader.position
            try:
                _follow_payloads(ByteReader(BytesIO(reader.read(size))), state)
            except (StructureError, ValueError) as error:
                raise damaged(at) from error
        if any(there != whole for _, there, whole in state.values()):
            raise StructureError(CUT_OFF)


def _follow_payloads(packet: ByteReader, state: dict[int, tuple[int, int, int]]) -> None:
    """Check that the payloads of an ASF packet go on where those before ended; `ValueError` where one is missing.

    `state` holds the number of each stream's last media object, how much of it there is, and how much it is.
    """

    def number(length: int) -> int:
        return int.from_bytes(packet.read(length), "little")

    def sized(kinds: int, shift: int) -> int:
        return number(_LENGTHS[kinds >> shift & 3])

    flags = number(1)
    if flags & 0x80:  # bytes for the correction of errors
        if flags != 0x82 or number(2):
            raise ValueError("libav passes over packets with others than two zeros")
        flags = number(1)
    kinds = number(1)
    sized(flags, 5)
    sized(flags, 1)
    padding = sized(flags, 3)
    packet.read(6)
    several = number(1) if flags & 1 else 1
    if kinds >> 6 != 1:
        raise ValueError("a stream has a number of one byte")
    for _ in range(several & 63):
        stream = number(1) & 127
        current, offset, copied = sized(kinds, 4), sized(kinds, 2), sized(kinds, 0)
        whole = number(4) if copied >= 8 else 0
        packet.read(max(0, copied - 4) if copied >= 8 else copied)
        left = packet.size - packet.position - padding
        length = sized(several, 6) if flags & 1 else left
        packet.read(max(0, length))
        if copied < 8:  # several small objects in one, or none of a known length
            state.pop(stream, None)
            continue
        last, there, last_whole = state.get(stream, (current - 1, 0, 0))
        digits = (1 << 8 * _LENGTHS[kinds >> 4 & 3]) - 1
        if offset == 0 and there == last_whole:
            last, there = last + 1, 0
        if (current - last) & digits or offset != there or length > whole - offset or length < 0:
            raise ValueError("a payload is missing")
        state[stream] = (current, offset + length, whole)
