"""Walks the chunks of an AVI (RIFF): each is a name, a length and a content that is padded to an even length."""

import re
from collections import Counter

from lsr_infer.video.structure.byte_reader import CUT_OFF, MAX_DEPTH, ByteReader, FileStructure, StructureError, damaged

__all__ = ["walk_avi"]

_LISTS = (b"RIFF", b"LIST")
_IN_MOVIE = re.compile(rb"\d\d[a-zA-Z]{2}|ix\d\d|JUNK|LIST")


def walk_avi(reader: ByteReader, found: FileStructure) -> None:
    """Count the pictures with content of each video stream."""
    kinds: list[bytes] = []
    counts: Counter[bytes] = Counter()
    while reader.size - reader.position >= 12:  # less behind the last part is padding
        if reader.read(4) != b"RIFF":
            break  # further bytes are no part of the video
        (length,) = reader.unpack("<I")
        if not length:
            raise StructureError(CUT_OFF)  # a recording that was never finished
        end = reader.position + length
        if end > reader.size:
            raise StructureError(CUT_OFF)
        reader.read(4)
        _walk_chunks(reader, end, kinds, counts)
        reader.seek(min(end + length % 2, reader.size))
    numbers = [index for index, kind in enumerate(kinds) if kind == b"vids"]
    found.packets = [counts[b"%02d" % number] for number in numbers]


def _walk_chunks(
    reader: ByteReader, end: int, kinds: list[bytes], counts: "Counter[bytes]", *, depth: int = 0, movie: bool = False
) -> None:
    """Note the kinds of the streams, and count the pictures with content of each."""
    if depth > MAX_DEPTH:
        raise damaged(reader.position)
    while end - reader.position >= 8:
        at = reader.position
        name = reader.read(4)
        (length,) = reader.unpack("<I")
        chunk_end = reader.position + length
        is_numbered = name[:2].isdigit()
        is_other = movie and (not _IN_MOVIE.fullmatch(name) or (is_numbered and int(name[:2]) >= len(kinds)))
        if chunk_end > end or not name.isascii() or is_other:
            raise damaged(at)
        if name in _LISTS:
            is_movie = reader.read(4) == b"movi" or movie
            _walk_chunks(reader, chunk_end, kinds, counts, depth=depth + 1, movie=is_movie)
        elif name == b"strh":
            kinds.append(reader.read(4))
        elif name[2:] in (b"dc", b"db") and length:
            counts[name[:2]] += 1
        reader.seek(min(chunk_end + length % 2, end))
