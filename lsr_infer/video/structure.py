"""Walks the structure of a video file without decoding it: its cropping, whether it is whole, its number of packets.

libav ends a file that is cut off without an error and skips what is damaged in silence. What a container states of its
own pieces tells both. Mostly headers are read: a file of an hour takes a fraction of a second, a transport stream is
read whole.
"""

import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from lsr_infer.io.image_headers import Crop, clean_aperture, walk_pictures

__all__ = ["FileStructure", "find_crops", "walk_file"]


@dataclass(kw_only=True)
class FileStructure:
    """What the structure of a file tells.

    Args:
        damage: in which way it is cut off or damaged; None where it seems whole.
        packets: of each video stream, in their order; empty where the format is not counted, or damaged.
    """

    damage: str | None = None
    packets: list[int] = field(default_factory=list)

    def packets_of(self, number: int) -> int:
        """Return the packets of a video stream, 0 where they are not known."""
        return self.packets[number] if number < len(self.packets) else 0


_CUT_OFF = "its end is missing"
_DEEPEST = 16
"""Pieces within pieces; whole files have half as many."""


class _StructureError(ValueError):
    """A piece is no piece, or reaches beyond what holds it."""


def walk_file(path: Path, formats: frozenset[str]) -> FileStructure:
    """Walk a file of one of libav's formats; those whose structure tells nothing seem whole.

    `OSError` where it cannot be read.
    """
    found = FileStructure()
    for name, walk in _WALKERS.items():
        if name in formats:
            with path.open("rb") as file:
                try:
                    walk(_Pieces(file, path.stat().st_size), found)
                except _StructureError as error:
                    found.damage, found.packets = str(error), []
    return found


def find_crops(path: Path, formats: frozenset[str]) -> list[Crop]:
    """Return the hidden edges of each video stream of a file; none where its format states none, or it is damaged.

    `OSError` where it cannot be read.
    """
    with suppress(_StructureError), path.open("rb") as file:
        pieces = _Pieces(file, path.stat().st_size)
        if "matroska" in formats:
            tracks = next((list(_tracks(pieces, end)) for name, end in _segment(pieces) if name == _TRACKS), [])
            return [Crop(**track.crop) for track in tracks if track.kind == _VIDEO_TYPE]
        if "mov" in formats:
            return list(_clean_apertures(pieces))
    return []


class _Pieces:
    """A file that is read piece by piece; `_StructureError` where it ends too early."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size
        self.place = 0

    def move(self, place: int) -> None:
        """Go to a place, which may be the end of the file but lies not behind it."""
        if place > self.size:
            raise _StructureError(_CUT_OFF)
        self._file.seek(place)
        self.place = place

    def take(self, count: int) -> bytes:
        """Read the next bytes, all of them."""
        data = self._file.read(count)
        self.place += len(data)
        if len(data) < count:
            raise _StructureError(_CUT_OFF)
        return data

    def unpack(self, layout: str) -> tuple[int, ...]:
        """Read the next numbers."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))


def _damaged(place: int) -> _StructureError:
    return _StructureError(f"damaged at byte {place}")


# Matroska and WebM (RFC 9559): elements of a name, a length and a content.
_SEGMENT, _CLUSTER, _TRACKS, _TRACK, _VIDEO = 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE, 0xE0
_NUMBER, _TYPE, _SIMPLE_BLOCK, _BLOCK_GROUP, _BLOCK = 0xD7, 0x83, 0xA3, 0xA0, 0xA1
_CROPS = {0x54BB: "top", 0x54AA: "bottom", 0x54CC: "left", 0x54DD: "right"}
_IN_SEGMENT = frozenset({_CLUSTER, _TRACKS, 0x114D9B74, 0x1549A966, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367})
_IN_CLUSTER = frozenset({_SIMPLE_BLOCK, _BLOCK_GROUP, 0xE7, 0xA7, 0xAB, 0xAF, 0x5854})
_ANYWHERE = frozenset({0xEC, 0xBF})  # room, and checksums
_VIDEO_TYPE = 1
_LACED = 0x06
_SEVERAL = -1


def _ebml_number(pieces: _Pieces, longest: int) -> int:
    """Read a number whose first byte tells its length by its highest bit, which is kept."""
    at = pieces.place
    first = pieces.take(1)
    length = 9 - first[0].bit_length()
    if length > longest:
        raise _damaged(at)
    return int.from_bytes(first + pieces.take(length - 1), "big")


def _without_marker(number: int) -> int:
    return number & ~(1 << (number.bit_length() - 1))


def _elements(
    pieces: _Pieces, end: int | None, allowed: frozenset[int] | None = None
) -> Iterator[tuple[int, int | None]]:
    """Yield the name and the end of each element up to `end`; what the caller leaves of one is passed over.

    An end of None is unknown, as a live recording writes it: it lies where the segment's next element begins. A name
    that is not `allowed` is damage.
    """
    while pieces.place < (pieces.size if end is None else end):
        at = pieces.place
        name = _ebml_number(pieces, 4)
        if end is None and name in _IN_SEGMENT:
            pieces.move(at)
            return
        length = _ebml_number(pieces, 8)
        is_unknown = length & (length + 1) == 0  # all ones
        content_end = None if is_unknown else pieces.place + _without_marker(length)
        if content_end is not None and content_end > pieces.size:
            raise _StructureError(_CUT_OFF)
        if is_unknown and name not in (_SEGMENT, _CLUSTER):
            raise _damaged(at)
        if (end and content_end and content_end > end) or (allowed and name not in allowed | _ANYWHERE):
            raise _damaged(at)
        yield name, content_end
        if content_end is not None:
            pieces.move(content_end)


@dataclass
class _Track:
    number: int = 0
    kind: int = 0
    crop: dict[str, int] = field(default_factory=dict)


def _walk_matroska(pieces: _Pieces, found: FileStructure) -> None:
    tracks: list[_Track] = []
    counts: Counter[int] = Counter()
    for name, end in _segment(pieces):
        if name == _TRACKS:
            tracks = list(_tracks(pieces, end))
        elif name == _CLUSTER:
            counts.update(_blocks(pieces, end))
    if set(counts) - {_SEVERAL, *(track.number for track in tracks)}:
        raise _StructureError("some of its packets belong to no stream")
    if not counts[_SEVERAL]:
        found.packets = [counts[track.number] for track in tracks if track.kind == _VIDEO_TYPE]


def _segment(pieces: _Pieces) -> Iterator[tuple[int, int | None]]:
    """Yield the elements of the first segment, which holds the whole video."""
    for name, end in _elements(pieces, pieces.size):
        if name == _SEGMENT:
            try:  # players read on behind the end that is stated
                yield from _elements(pieces, pieces.size, _IN_SEGMENT)
            except _StructureError:
                if end is None or pieces.place <= end:
                    raise
            return


def _tracks(pieces: _Pieces, end: int | None) -> Iterator[_Track]:
    for name, track_end in _elements(pieces, end):
        if name != _TRACK:
            continue
        track = _Track()
        for field_name, field_end in _elements(pieces, track_end):
            if field_name == _NUMBER:
                track.number = _integer(pieces, field_end)
            elif field_name == _TYPE:
                track.kind = _integer(pieces, field_end)
            elif field_name == _VIDEO:
                for crop_name, crop_end in _elements(pieces, field_end):
                    if crop_name in _CROPS:
                        track.crop[_CROPS[crop_name]] = _integer(pieces, crop_end)
        yield track


def _integer(pieces: _Pieces, end: int | None) -> int:
    return int.from_bytes(pieces.take((end or pieces.place) - pieces.place), "big")


def _blocks(pieces: _Pieces, end: int | None) -> Iterator[int]:
    """Yield the track's number of each block in a cluster, and `_SEVERAL` for a block of several packets."""
    for name, element_end in _elements(pieces, end, _IN_CLUSTER):
        inner = _elements(pieces, element_end) if name == _BLOCK_GROUP else iter([(name, element_end)])
        for block, _ in inner:
            if block in (_SIMPLE_BLOCK, _BLOCK):
                yield _without_marker(_ebml_number(pieces, 8))
                if pieces.take(3)[2] & _LACED:
                    yield _SEVERAL


# AVI (RIFF): chunks of a name, a length and a content that is padded to an even length.
_LISTS = (b"RIFF", b"LIST")


def _walk_avi(pieces: _Pieces, found: FileStructure) -> None:
    kinds: list[bytes] = []
    counts: Counter[bytes] = Counter()
    while pieces.size - pieces.place >= 12:  # less behind the last part is padding
        if pieces.take(4) != b"RIFF":
            break  # further bytes are no part of the video
        (length,) = pieces.unpack("<I")
        if not length:
            raise _StructureError(_CUT_OFF)  # a recording that was never finished
        end = pieces.place + length
        if end > pieces.size:
            raise _StructureError(_CUT_OFF)
        pieces.take(4)
        _walk_chunks(pieces, end, kinds, counts)
        pieces.move(min(end + length % 2, pieces.size))
    numbers = [index for index, kind in enumerate(kinds) if kind == b"vids"]
    found.packets = [counts[b"%02d" % number] for number in numbers]


def _walk_chunks(pieces: _Pieces, end: int, kinds: list[bytes], counts: "Counter[bytes]", *, depth: int = 0) -> None:
    """Note the kinds of the streams, and count the pictures with content of each."""
    if depth > _DEEPEST:
        raise _damaged(pieces.place)
    while end - pieces.place >= 8:
        at = pieces.place
        name = pieces.take(4)
        (length,) = pieces.unpack("<I")
        chunk_end = pieces.place + length
        if chunk_end > end or not name.isascii():
            raise _damaged(at)
        if name in _LISTS:
            pieces.take(4)
            _walk_chunks(pieces, chunk_end, kinds, counts, depth=depth + 1)
        elif name == b"strh":
            kinds.append(pieces.take(4))
        elif name[2:] in (b"dc", b"db") and length:
            counts[name[:2]] += 1
        pieces.move(min(chunk_end + length % 2, end))


# MP4 and QuickTime (ISO/IEC 14496-12): boxes of a length, a name and a content.
_HELD_BOXES = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})


def _boxes(pieces: _Pieces, end: int, *, depth: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yield the name and the end of each box, those held by others after these."""
    if depth > _DEEPEST:
        raise _damaged(pieces.place)
    while end - pieces.place >= 8:
        at = pieces.place
        length, name = struct.unpack(">I4s", pieces.take(8))
        if length == 1:
            (length,) = pieces.unpack(">Q")
        box_end = at + length if length else end
        if box_end > end and end == pieces.size:
            raise _StructureError(_CUT_OFF)
        if not pieces.place <= box_end <= end or not name.strip(b"\0"):
            raise _damaged(at)
        yield name, box_end
        if name in _HELD_BOXES:
            yield from _boxes(pieces, box_end, depth=depth + 1)
        pieces.move(box_end)


def _walk_mp4(pieces: _Pieces, found: FileStructure) -> None:
    for _ in _boxes(pieces, pieces.size):
        pass


def _clean_apertures(pieces: _Pieces) -> Iterator[Crop]:
    """Yield the hidden edges of each track of pictures."""
    kind = b""
    for name, end in _boxes(pieces, pieces.size):
        if name == b"trak":
            kind = b""
        elif name == b"hdlr":
            kind = kind or pieces.take(12)[8:]
        elif name == b"stsd" and kind == b"vide":
            entry = pieces.take(end - pieces.place)
            width, height = struct.unpack_from(">HH", entry.ljust(44), 40)
            yield clean_aperture(entry, width, height)


def _walk_flv(pieces: _Pieces, found: FileStructure) -> None:
    """Follow the tags of a Flash video, each of which ends in its own length."""
    pieces.move(5)
    (place,) = pieces.unpack(">I")
    pieces.move(place + 4)
    while pieces.place < pieces.size:
        at = pieces.place
        head = pieces.take(11)
        length = int.from_bytes(head[1:4], "big")
        if head[0] & 0x1F not in (8, 9, 18) or head[8:] != b"\0\0\0":
            raise _damaged(at)
        pieces.move(pieces.place + length)
        pieces.take(4)


_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def _walk_asf(pieces: _Pieces, found: FileStructure) -> None:
    """Compare the size of an ASF or WMV file with the one that its properties state."""
    pieces.take(30)
    for _ in range(64):
        at = pieces.place
        name = pieces.take(16)
        (length,) = pieces.unpack("<Q")
        if name == _ASF_PROPERTIES:
            pieces.take(16)
            (stated,) = pieces.unpack("<Q")
            if stated > pieces.size:
                raise _StructureError(_CUT_OFF)
            return
        pieces.move(at + max(24, length))


_TS_PACKETS = {188: 0, 192: 4, 204: 0}
"""Sizes of the packets of transport streams, and where in them the mark 0x47 stands."""
_TS_START, _TS_BLOCK = 1 << 16, 1 << 15


def _walk_transport_stream(pieces: _Pieces, found: FileStructure) -> None:
    """Check that a transport stream is made of whole packets."""
    start = pieces.take(min(pieces.size, _TS_START))
    size, mark = max(_TS_PACKETS.items(), key=lambda each: start[each[1] :: each[0]].count(0x47) * each[0])
    for at in range(0, pieces.size - size + 1, _TS_BLOCK * size):
        pieces.move(at)
        marks = pieces.take(min(_TS_BLOCK, (pieces.size - at) // size) * size)[mark::size]
        if (whole := len(marks) - len(marks.lstrip(b"\x47"))) < len(marks):
            raise _damaged(at + whole * size)
    if pieces.size % size:
        raise _StructureError(_CUT_OFF)


_PS_TAIL = 1 << 18


def _walk_program_stream(pieces: _Pieces, found: FileStructure) -> None:
    """Check that the last packet of a program stream is whole."""
    begin = max(0, pieces.size - _PS_TAIL)
    pieces.move(begin)
    tail = pieces.take(pieces.size - begin)
    starts = [match.start() for match in re.finditer(rb"\x00\x00\x01[\xb9-\xef]", tail)]
    if starts and tail[starts[-1] + 3] >= 0xBB:
        length = int.from_bytes(tail[starts[-1] + 4 : starts[-1] + 6], "big")
        if length and starts[-1] + 6 + length > len(tail):
            raise _StructureError(_CUT_OFF)


def _walk_ogg(pieces: _Pieces, found: FileStructure) -> None:
    """Follow the pages of an Ogg file."""
    while pieces.place < pieces.size:
        at = pieces.place
        head = pieces.take(27)
        if not head.startswith(b"OggS"):
            raise _damaged(at)
        lengths = pieces.take(head[26])
        pieces.move(pieces.place + sum(lengths))


def _walk_animation(pieces: _Pieces, found: FileStructure) -> None:
    """Count the pictures of a GIF or an animated PNG."""
    pictures = walk_pictures(pieces.take(pieces.size))
    if not pictures.whole:
        raise _StructureError(_CUT_OFF)
    found.packets = [pictures.count]


_WALKERS: dict[str, Callable[[_Pieces, FileStructure], None]] = {
    "matroska": _walk_matroska,
    "avi": _walk_avi,
    "mov": _walk_mp4,
    "flv": _walk_flv,
    "asf": _walk_asf,
    "mpegts": _walk_transport_stream,
    "mpeg": _walk_program_stream,
    "ogg": _walk_ogg,
    "gif": _walk_animation,
    "apng": _walk_animation,
}
