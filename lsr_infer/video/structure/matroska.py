"""Walks the elements of Matroska and WebM (RFC 9559): each is a name, a length and a content."""

from collections import Counter
from collections.abc import Iterator

from lsr_infer.io.image_headers import Crop
from lsr_infer.video.structure.byte_reader import CUT_OFF, ByteReader, FileStructure, StructureError, damaged

__all__ = ["matroska_crops", "walk_matroska"]

_SEGMENT, _CLUSTER, _TRACKS, _TRACK, _VIDEO = 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE, 0xE0
_NUMBER, _TYPE, _SIMPLE_BLOCK, _BLOCK_GROUP, _BLOCK = 0xD7, 0x83, 0xA3, 0xA0, 0xA1
_CROPS = {0x54BB: "top", 0x54AA: "bottom", 0x54CC: "left", 0x54DD: "right"}
_IN_SEGMENT = frozenset({_CLUSTER, _TRACKS, 0x114D9B74, 0x1549A966, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367})
_IN_CLUSTER = frozenset({_SIMPLE_BLOCK, _BLOCK_GROUP, 0xE7, 0xA7, 0xAB, 0xAF, 0x5854})
_ROOM = 0xEC
_ANYWHERE = frozenset({_ROOM, 0xBF})  # and checksums
_VIDEO_TYPE = 1
_LONGEST_NUMBER = 8
_LACED = 0x06


def _ebml_number(reader: ByteReader, longest: int) -> int:
    """Read a number whose first byte tells its length by its highest bit, which is kept."""
    at = reader.position
    first = reader.read(1)
    length = 9 - first[0].bit_length()
    if length > longest:
        raise damaged(at)
    return int.from_bytes(first + reader.read(length - 1), "big")


def _without_marker(number: int) -> int:
    return number & ~(1 << (number.bit_length() - 1))


def _elements(
    reader: ByteReader, end: int | None, allowed: frozenset[int] | None = None
) -> Iterator[tuple[int, int | None]]:
    """Yield the name and the end of each element up to `end`; what the caller leaves of one is passed over.

    An end of None is unknown, as a live recording writes it: it lies where the segment's next element begins. A name
    that is not `allowed` is damage.
    """
    while reader.position < (reader.size if end is None else end):
        at = reader.position
        name = _ebml_number(reader, 4)
        if end is None and name in _IN_SEGMENT:
            reader.seek(at)
            return
        length = _ebml_number(reader, _LONGEST_NUMBER)
        is_unknown = length & (length + 1) == 0  # all ones
        content_end = None if is_unknown else reader.position + _without_marker(length)
        if content_end is not None and content_end > reader.size:
            raise StructureError(CUT_OFF)
        if is_unknown and name not in (_SEGMENT, _CLUSTER):
            raise damaged(at)
        if (end and content_end and content_end > end) or (allowed and name not in allowed | _ANYWHERE):
            raise damaged(at)
        yield name, content_end
        if content_end is not None:
            reader.seek(content_end)


def walk_matroska(reader: ByteReader, found: FileStructure) -> None:
    """Count the packets of each video track."""
    tracks: list[dict[int, int]] = []
    counts: Counter[int] = Counter()
    for name, end in _segment(reader):
        if name == _TRACKS:
            tracks = list(_tracks(reader, end))
        elif name == _CLUSTER:
            for number, packets in _blocks(reader, end):
                counts[number] += packets
    if not tracks or set(counts) - {track.get(_NUMBER, 0) for track in tracks}:
        raise StructureError("some of its packets belong to no stream")
    found.packets = [counts[track.get(_NUMBER, 0)] for track in tracks if track.get(_TYPE) == _VIDEO_TYPE]


def matroska_crops(reader: ByteReader) -> list[Crop]:
    """Return the hidden edges of each video track."""
    tracks = next((list(_tracks(reader, end)) for name, end in _segment(reader) if name == _TRACKS), [])
    edges = [
        {_CROPS[name]: track[name] for name in _CROPS.keys() & track}
        for track in tracks
        if track.get(_TYPE) == _VIDEO_TYPE
    ]
    return [Crop(**each) for each in edges]


def _segment(reader: ByteReader) -> Iterator[tuple[int, int | None]]:
    """Yield the elements of the first segment, which holds the whole video."""
    for name, end in _elements(reader, reader.size):
        if name == _SEGMENT:
            try:  # players read on behind the end that is stated
                yield from _elements(reader, reader.size, _IN_SEGMENT)
            except StructureError:
                if end is None or reader.position <= end:
                    raise
            return


def _tracks(reader: ByteReader, end: int | None) -> Iterator[dict[int, int]]:
    """Yield the short elements of each track as numbers, by their names."""
    for name, track_end in _elements(reader, end):
        if name == _TRACK:
            yield dict(_numbers(reader, track_end))


def _numbers(reader: ByteReader, end: int | None) -> Iterator[tuple[int, int]]:
    for name, element_end in _elements(reader, end):
        length = (element_end or reader.position) - reader.position
        if name == _VIDEO:
            yield from _numbers(reader, element_end)
        elif length <= _LONGEST_NUMBER:
            yield name, int.from_bytes(reader.read(length), "big")


def _blocks(reader: ByteReader, end: int | None) -> Iterator[tuple[int, int]]:
    """Yield the number of the track, and how many packets there are, of each block in a cluster."""
    for name, element_end in _elements(reader, end, _IN_CLUSTER):
        inner = _elements(reader, element_end) if name == _BLOCK_GROUP else iter([(name, element_end)])
        for block, block_end in inner:
            if block in (_SIMPLE_BLOCK, _BLOCK):
                number = _without_marker(_ebml_number(reader, _LONGEST_NUMBER))
                is_laced = reader.read(3)[2] & _LACED
                yield number, 1 + reader.read(1)[0] if is_laced else 1
            elif block == _ROOM and reader.position != block_end and reader.read(1) != b"\0":
                raise damaged(reader.position)  # what was a block
