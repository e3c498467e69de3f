"""Follows the tags of a Flash video, each of which ends in its own length; those of a kind have one codec."""

import re
import struct

from lsr_infer.video.structure.byte_reader import CUT_OFF, ByteReader, FileStructure, StructureError, damaged

__all__ = ["walk_flv"]

_AUDIO, _PICTURES, _SCRIPT = 8, 9, 18
_FLV_FLAGS = {_AUDIO: 4, _PICTURES: 1}
_NAMED = {_AUDIO: 0x90, _PICTURES: 0x80}
"""Bits of a tag's first byte by which four letters behind it name the codec (enhanced RTMP)."""
_SEVERAL_TRACKS = {_AUDIO: 5, _PICTURES: 6}
"""Kinds of packets that put more before these letters: this one and those above."""


def walk_flv(reader: ByteReader, found: FileStructure) -> None:
    """Check that each tag is of its kind and ends where it says."""
    flags = reader.read(5)[4]
    (place,) = reader.unpack(">I")
    reader.seek(place + 4)
    codecs: dict[int, bytes] = {}
    while reader.position < reader.size:
        at = reader.position
        head = reader.read(11)
        kind, length = head[0] & 0x1F, int.from_bytes(head[1:4], "big")
        end = reader.position + length
        is_kind = kind == _SCRIPT or (kind in _FLV_FLAGS and (not flags or flags & _FLV_FLAGS[kind]))
        if not is_kind or head[8:] != b"\0\0\0":
            raise damaged(at)
        content = reader.read(min(length, 6))
        if content and _is_other(kind, content, length, codecs):
            raise damaged(at)
        if kind == _SCRIPT:
            _, is_stated, stated = (content + reader.read(end - reader.position)).partition(b"\0\x08filesize\0")
            if is_stated and struct.unpack(">d", stated[:8].ljust(8, b"\0"))[0] > reader.size:
                raise StructureError(CUT_OFF)
        reader.seek(end)
        reader.read(4)


def _is_other(kind: int, content: bytes, length: int, codecs: dict[int, bytes]) -> bool:
    """Whether the first bytes of a tag cannot be of its kind, or are of another codec than the tags before it."""
    first = content[0]
    if kind == _SCRIPT:
        return first != 2  # a text
    codec = bytes([first if kind == _AUDIO else first & 15])
    if first & _NAMED[kind] == _NAMED[kind]:
        if first & 15 >= _SEVERAL_TRACKS[kind]:  # further tracks may be of other codecs; finer times have three bytes
            return first & 15 > _SEVERAL_TRACKS[kind] and content[1:2] != b"\2"
        codec = content[1:5]
        if not re.fullmatch(rb"[\w-]{4}", codec):
            return True
    elif kind == _PICTURES and codec == b"\x07" and content[1:2] == b"\0" and content[5:] != b"\1":
        return True  # a picture of H.264 as the header of its stream
    if kind == _PICTURES and first >> 4 == 5 and length > len(content):
        return True  # a picture as a command, which is short
    return codecs.setdefault(kind, codec) != codec
