"""Walks the structure of a video file without decoding it: its cropping, whether it is whole, its number of packets.

libav ends a file that is cut off without an error and skips what is damaged in silence. What a container states of its
own pieces tells both. Mostly headers are read: a file of an hour takes a fraction of a second. A transport stream
and an Ogg file are read whole.
"""

import re
import struct
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import SEEK_END
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from lsr_infer.io.image_headers import Crop, clean_aperture, walk_pictures

__all__ = ["FileStructure", "find_crops", "walk_file"]


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


_CUT_OFF = "its end is missing"
_DEEPEST = 16
"""Pieces within pieces; whole files have half as many."""


class _StructureError(Exception):
    """A piece is no piece, or reaches beyond what holds it."""


def walk_file(place: Path | str, formats: frozenset[str]) -> FileStructure:
    """Walk a file of one of libav's formats; whatever else there is tells nothing, and seems whole.

    No file can be opened by an address; what libav has read and cannot be opened again tells nothing either.
    """
    found = FileStructure()
    walk = next((walk for name, walk in _WALKERS.items() if name in formats), None)
    if walk is not None:
        try:
            with suppress(OSError), Path(place).open("rb") as file:
                walk(_Pieces(file), found)
        except _StructureError as error:
            found.damage, found.packets = str(error), []
    return found


def find_crops(place: Path | str, formats: frozenset[str]) -> list[Crop]:
    """Return the hidden edges of each video stream of a file; none where its format states none, or it is damaged."""
    with suppress(OSError, _StructureError), Path(place).open("rb") as file:
        pieces = _Pieces(file)
        if "matroska" in formats:
            tracks = next((list(_tracks(pieces, end)) for name, end in _segment(pieces) if name == _TRACKS), [])
            return [Crop(**track.crop) for track in tracks if track.kind == _VIDEO_TYPE]
        if "mov" in formats:
            return [_clean_aperture(track.get(b"stsd", b"")) for track in _picture_tracks(pieces, b"hdlr", b"stsd")]
    return []


class _Pieces:
    """A file that is read piece by piece; `_StructureError` where it ends too early."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, SEEK_END)
        self.move(0)

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
_ROOM = 0xEC


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
            for number, packets in _blocks(pieces, end):
                counts[number] += packets
    if not tracks or set(counts) - {track.number for track in tracks}:
        raise _StructureError("some of its packets belong to no stream")
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


def _blocks(pieces: _Pieces, end: int | None) -> Iterator[tuple[int, int]]:
    """Yield the number of the track, and how many packets there are, of each block in a cluster."""
    for name, element_end in _elements(pieces, end, _IN_CLUSTER):
        inner = _elements(pieces, element_end) if name == _BLOCK_GROUP else iter([(name, element_end)])
        for block, block_end in inner:
            if block in (_SIMPLE_BLOCK, _BLOCK):
                number = _without_marker(_ebml_number(pieces, 8))
                is_laced = pieces.take(3)[2] & _LACED
                yield number, 1 + pieces.take(1)[0] if is_laced else 1
            elif block == _ROOM and pieces.place != block_end and pieces.take(1) != b"\0":
                raise _damaged(pieces.place)  # what was a block


# AVI (RIFF): chunks of a name, a length and a content that is padded to an even length.
_LISTS = (b"RIFF", b"LIST")
_IN_MOVIE = re.compile(rb"\d\d[a-zA-Z]{2}|ix\d\d|JUNK|LIST")


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


def _walk_chunks(
    pieces: _Pieces, end: int, kinds: list[bytes], counts: "Counter[bytes]", *, depth: int = 0, movie: bool = False
) -> None:
    """Note the kinds of the streams, and count the pictures with content of each."""
    if depth > _DEEPEST:
        raise _damaged(pieces.place)
    while end - pieces.place >= 8:
        at = pieces.place
        name = pieces.take(4)
        (length,) = pieces.unpack("<I")
        chunk_end = pieces.place + length
        is_numbered = name[:2].isdigit()
        is_other = movie and (not _IN_MOVIE.fullmatch(name) or (is_numbered and int(name[:2]) >= len(kinds)))
        if chunk_end > end or not name.isascii() or is_other:
            raise _damaged(at)
        if name in _LISTS:
            is_movie = pieces.take(4) == b"movi" or movie
            _walk_chunks(pieces, chunk_end, kinds, counts, depth=depth + 1, movie=is_movie)
        elif name == b"strh":
            kinds.append(pieces.take(4))
        elif name[2:] in (b"dc", b"db") and length:
            counts[name[:2]] += 1
        pieces.move(min(chunk_end + length % 2, end))


# MP4 and QuickTime (ISO/IEC 14496-12): boxes of a length, a name and a content.
_HELD_BOXES = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf"})
_FRAGMENT_BOXES = (b"moof", b"mfhd", b"traf", b"tfhd", b"trun", b"mvex")
_BESIDE_SAMPLES = frozenset(
    {b"tfdt", b"saiz", b"saio", b"sbgp", b"sgpd", b"subs", b"senc", b"sdtp", b"uuid", b"free", b"skip"}
)
_TABLES = (b"mvhd", b"tkhd", b"mdhd", b"hdlr", b"elst", b"stts", b"ctts", b"stsz")
_HEADERS = {b"mvhd": (100, 112), b"tkhd": (84, 96), b"mdhd": (24, 36)}
"""Their bytes, by their version."""
_USUAL_TICKS = 100
"""Writers count a movie's time in multiples of it, such as 600, 1000 or 90,000 in a second, or as the track does."""
_NO_CONTENT = -1  # time of an edit that delays the next


def _boxes(
    pieces: _Pieces, end: int, held: frozenset[bytes] = _HELD_BOXES, *, depth: int = 0
) -> Iterator[tuple[bytes, int]]:
    """Yield the name and the end of each box, those that others hold after these."""
    if depth > _DEEPEST:
        raise _damaged(pieces.place)
    while end - pieces.place >= 8:
        at = pieces.place
        length, name = struct.unpack(">I4s", pieces.take(8))
        if length == 1:
            (length,) = pieces.unpack(">Q")
        if not length and depth:
            raise _damaged(at)
        box_end = at + length if length else end
        if box_end > end and end == pieces.size:
            raise _StructureError(_CUT_OFF)
        if not pieces.place <= box_end <= end or not name.strip(b"\0"):
            raise _damaged(at)
        yield name, box_end
        if name in held:
            yield from _boxes(pieces, box_end, held, depth=depth + 1)
        pieces.move(box_end)


def _picture_tracks(pieces: _Pieces, *names: bytes) -> list[dict[bytes, bytes]]:
    """Return some boxes of each track of pictures, with those of the movie that come before it."""
    movie: dict[bytes, bytes] = {}
    tracks: list[dict[bytes, bytes]] = []
    for name, end in _boxes(pieces, pieces.size):
        if name == b"trak":
            tracks.append(dict(movie))
        elif name in names:
            boxes = tracks[-1] if tracks else movie
            boxes.setdefault(name, pieces.take(end - pieces.place))  # QuickTime has a further handler
    return [track for track in tracks if track.get(b"hdlr", b"")[8:12] == b"vide"]


def _walk_mp4(pieces: _Pieces, found: FileStructure) -> None:
    with suppress(_StructureError):
        found.fragmented = any(name == b"moof" for name, _ in _boxes(pieces, pieces.size, frozenset()))
    pieces.move(0)
    fragments = _fragments(pieces, found)
    pieces.move(0)
    tracks = _picture_tracks(pieces, *_TABLES)
    try:
        found.packets = [_shown_samples(track, fragments, pieces.size) for track in tracks]
    except (struct.error, ValueError, LookupError) as error:  # libav reads what it can, or does without
        raise _StructureError("a table of its times is short or missing") from error


def _fragments(pieces: _Pieces, found: FileStructure) -> dict[int, list[tuple[int, int]]]:
    """Return, by the number of a track, how many samples each of its fragments holds, and the delay of the first."""
    fragments: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    numbers: set[int] = set()
    number = fragment_end = 0
    for name, end in _boxes(pieces, pieces.size):
        at = pieces.place
        found.fragmented |= name in _FRAGMENT_BOXES
        if name == b"tkhd":
            head = pieces.take(24)
            numbers.add(struct.unpack_from(">I", head, 20 if head[0] else 12)[0])
        elif name == b"tfhd":
            _, number = pieces.unpack(">II")
        elif name == b"trun":
            flags, count = pieces.unpack(">II")
            pieces.take(4 * (flags & 5).bit_count())
            if end - pieces.place != 4 * count * (flags & 0xF00).bit_count():
                raise _damaged(pieces.place)
            sample = pieces.take(min(end - pieces.place, 4 * (flags & 0xF00).bit_count()))
            fragments[number].append((count, struct.unpack(">i", sample[-4:])[0] if sample and flags & 0x800 else 0))
        elif name == b"traf":
            fragment_end = end
        elif found.fragmented and name not in _HELD_BOXES:
            is_inside = at < fragment_end and name not in _BESIDE_SAMPLES
            if _is_of_fragment(pieces.take(min(end - at, 16)), end - at, is_inside=is_inside):
                raise _damaged(at - 8)
    if found.fragmented and pieces.place < pieces.size:
        raise _StructureError(_CUT_OFF)
    if set(fragments) - numbers:
        raise _StructureError("some of its packets belong to no stream")
    return fragments


def _is_of_fragment(content: bytes, length: int, *, is_inside: bool) -> bool:
    """Whether a box of another name reads as one of a fragment, or as its samples' if it is inside of one.

    Libav passes over a box whose name is damaged.
    """
    if content[4:8] in _FRAGMENT_BOXES and 8 <= int.from_bytes(content[:4], "big") <= length:
        return True
    if not is_inside or length < 12:
        return False
    flags, count = struct.unpack_from(">II", content)
    has_only = flags & 0xF01 > 0 and not flags & ~0x1000F05
    return has_only and length == 8 + 4 * (flags & 5).bit_count() + 4 * count * (flags & 0xF00).bit_count()


def _shown_samples(track: dict[bytes, bytes], fragments: dict[int, list[tuple[int, int]]], most: int) -> int:
    """Return how many pictures the only edit of a track shows, 0 where it is not known.

    Who trims a video without encoding it again keeps pictures that are not shown; so does damage to a table of times,
    which then contradicts what others state.
    """
    sizes = track.get(b"stsz", bytes(12))  # one for all, the number of samples, and the size of each without the first
    uniform, count = struct.unpack_from(">II", sizes, 4)
    if any(name in track and len(track[name]) < least[track[name][0]] for name, least in _HEADERS.items()):
        raise _StructureError("the header of a track is damaged")
    version, entries = track.get(b"elst", bytes(8))[0], track.get(b"elst", bytes(8))[8:]
    edits = [edit for edit in struct.iter_unpack(">QqI" if version else ">IiI", entries) if edit[1] != _NO_CONTENT]
    pieces = fragments.get(struct.unpack_from(">I", track[b"tkhd"], 20 if track[b"tkhd"][0] else 12)[0], [])
    if not edits or (pieces and len(edits) == 1 and edits[0][1] <= pieces[0][1]):
        return int(count) + sum(number for number, _ in pieces)
    if not 0 < count <= (most // uniform if uniform else len(sizes) // 4) or len(edits) > 1 or pieces:
        return 0
    lengths = _by_sample(track[b"stts"], count)
    times = np.cumsum(lengths) - lengths
    delays = _by_sample(track[b"ctts"], count).astype(np.int32) if b"ctts" in track else np.zeros(count, np.int32)
    times += delays
    (movie_scale, _), (scale, stated) = _scale_and_length(track[b"mvhd"]), _scale_and_length(track[b"mdhd"])
    tick = scale / max(movie_scale, 1)
    length, begin = edits[0][:2]
    end = begin + round(length * tick)
    is_shown = (times >= begin) & (times < end)
    shown = int(np.count_nonzero(is_shown))
    if shown == count:
        return shown
    header = track[b"tkhd"]
    (track_length,) = struct.unpack_from(">Q", header, 28) if header[0] else struct.unpack_from(">I", header, 20)
    longest, all_lengths = int(lengths.max()), int(lengths.sum())
    if (
        not all_lengths - longest / 2 < stated < int((times + lengths).max()) + longest / 2  # writers state either
        or abs(track_length - length) * tick >= longest / 2
        or _is_odd(movie_scale, scale, length, int((times + lengths).max()) - begin, longest)
        or not _fill(np.sort(times[is_shown]), begin, end, longest, delays[is_shown])
    ):
        raise _StructureError("its tables of times contradict each other")
    return shown


def _is_odd(movie_scale: int, scale: int, length: int, rest: int, longest: int) -> bool:
    """Whether a movie's ticks of a second are no usual number, and its edit shows all that is left with one that is."""
    if movie_scale == scale or movie_scale % _USUAL_TICKS == 0:
        return False
    usual = _USUAL_TICKS * round(length * scale / rest / _USUAL_TICKS) if rest > 0 else 0
    return usual > 0 and abs(length * scale / usual - rest) < longest


def _fill(times: NDArray[np.int64], begin: int, end: int, longest: int, delays: NDArray[np.int32]) -> bool:
    """Whether pictures of some times, in order, fill an edit.

    The first may be left out where a part of it is shown; of the last some are lost where a video is cut undecoded.
    """
    if not len(times) or times[0] - begin >= longest or end - (times[-1] + longest) >= longest / 2:
        return False
    is_settled = times[1:] <= times[-1] - np.ptp(delays)
    return not (np.diff(times)[is_settled] > 1.5 * longest).any()


def _by_sample(table: bytes, count: int) -> NDArray[np.int64]:
    """Return the value of each sample, from runs of a length and a value."""
    runs = np.frombuffer(table, ">u4", offset=8).reshape(-1, 2).astype(np.int64)
    run = np.searchsorted(np.cumsum(runs[:, 0]), np.arange(count), side="right")
    return np.asarray(runs[np.minimum(run, len(runs) - 1), 1])


def _scale_and_length(header: bytes) -> tuple[int, int]:
    """Return the ticks of a second, and the length in them, of the header of a movie or of a track's media."""
    scale, length = struct.unpack_from(*((">IQ", header, 20) if header[0] else (">II", header, 12)))
    return scale, length


def _clean_aperture(entry: bytes) -> Crop:
    """Return the hidden edges that the description of a track's samples states."""
    width, height = struct.unpack_from(">HH", entry.ljust(44), 40)
    return clean_aperture(entry, width, height)


_AUDIO, _PICTURES, _SCRIPT = 8, 9, 18
_FLV_FLAGS = {_AUDIO: 4, _PICTURES: 1}
_NAMED = {_AUDIO: 0x90, _PICTURES: 0x80}
"""Bits of a tag's first byte by which four letters behind it name the codec (enhanced RTMP)."""
_SEVERAL_TRACKS = {_AUDIO: 5, _PICTURES: 6}
"""Kinds of packets that put more before these letters: this one and those above."""


def _walk_flv(pieces: _Pieces, found: FileStructure) -> None:
    """Follow the tags of a Flash video, each of which ends in its own length; those of a kind have one codec."""
    flags = pieces.take(5)[4]
    (place,) = pieces.unpack(">I")
    pieces.move(place + 4)
    codecs: dict[int, bytes] = {}
    while pieces.place < pieces.size:
        at = pieces.place
        head = pieces.take(11)
        kind, length = head[0] & 0x1F, int.from_bytes(head[1:4], "big")
        end = pieces.place + length
        is_kind = kind == _SCRIPT or (kind in _FLV_FLAGS and (not flags or flags & _FLV_FLAGS[kind]))
        if not is_kind or head[8:] != b"\0\0\0":
            raise _damaged(at)
        content = pieces.take(min(length, 6))
        if content and _is_other(kind, content, length, codecs):
            raise _damaged(at)
        if kind == _SCRIPT:
            _, is_stated, stated = (content + pieces.take(end - pieces.place)).partition(b"\0\x08filesize\0")
            if is_stated and struct.unpack(">d", stated[:8].ljust(8, b"\0"))[0] > pieces.size:
                raise _StructureError(_CUT_OFF)
        pieces.move(end)
        pieces.take(4)


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


_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


def _walk_asf(pieces: _Pieces, found: FileStructure) -> None:
    """Compare the size of an ASF or WMV file with the one that its properties state, and follow its packets."""
    pieces.take(16)
    (head_length,) = pieces.unpack("<Q")
    pieces.take(6)
    size = 0
    for _ in range(64):
        at = pieces.place
        if at >= head_length:
            break
        name = pieces.take(16)
        (length,) = pieces.unpack("<Q")
        if name == _ASF_PROPERTIES:
            pieces.take(16)
            (stated,) = pieces.unpack("<Q")
            if stated > pieces.size:
                raise _StructureError(_CUT_OFF)
            pieces.take(40)
            _, least, size = pieces.unpack("<III")
            size *= least == size
        pieces.move(at + max(24, length))
    name, length, _, count = struct.unpack("<16sQ16sQ2x", pieces.take(50))
    if name == _ASF_DATA and size:
        state: dict[int, tuple[int, int, int]] = {}
        for _ in range(min(count, (pieces.size - pieces.place) // size)):
            at = pieces.place
            try:
                _follow_payloads(pieces.take(size), state)
            except (LookupError, ValueError) as error:
                raise _damaged(at) from error
        if any(there != whole for _, there, whole in state.values()):
            raise _StructureError(_CUT_OFF)


class _Numbers:
    """The numbers of an ASF packet; `LookupError` where there are no more."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def next(self, length: int) -> int:
        """Read a number of so many bytes."""
        self.place += length
        if self.place > len(self.data):
            raise LookupError
        return int.from_bytes(self.data[self.place - length : self.place], "little")

    def sized(self, kinds: int, place: int) -> int:
        """Read a number whose length two bits tell."""
        return self.next((0, 1, 2, 4)[kinds >> place & 3])


def _follow_payloads(packet: bytes, state: dict[int, tuple[int, int, int]]) -> None:
    """Check that the payloads of an ASF packet go on where those before ended; `ValueError` where one is missing.

    `state` holds the number of each stream's last media object, how much of it there is, and how much it is.
    """
    numbers = _Numbers(packet)
    flags = numbers.next(1)
    if flags & 0x80:  # bytes for the correction of errors
        if flags != 0x82 or numbers.next(2):
            raise ValueError("libav passes over packets with others than two zeros")
        flags = numbers.next(1)
    kinds = numbers.next(1)
    numbers.sized(flags, 5)
    numbers.sized(flags, 1)
    padding = numbers.sized(flags, 3)
    numbers.next(6)
    several = numbers.next(1) if flags & 1 else 1
    if kinds >> 6 != 1:
        raise ValueError("a stream has a number of one byte")
    for _ in range(several & 63):
        stream = numbers.next(1) & 127
        number, offset, copied = numbers.sized(kinds, 4), numbers.sized(kinds, 2), numbers.sized(kinds, 0)
        whole = numbers.next(4) if copied >= 8 else 0
        numbers.next(max(0, copied - 4) if copied >= 8 else copied)
        left = len(packet) - numbers.place - padding
        length = numbers.sized(several, 6) if flags & 1 else left
        numbers.next(max(0, length))
        if copied < 8:  # several small objects in one, or none of a known length
            state.pop(stream, None)
            continue
        last, there, last_whole = state.get(stream, (number - 1, 0, 0))
        digits = (1 << 8 * (0, 1, 2, 4)[kinds >> 4 & 3]) - 1
        if offset == 0 and there == last_whole:
            last, there = last + 1, 0
        if (number - last) & digits or offset != there or length > whole - offset or length < 0:
            raise ValueError("a payload is missing")
        state[stream] = (number, offset + length, whole)


_TS_PACKETS = {188: 0, 192: 4, 204: 0}
"""Sizes of the packets of transport streams, and where in them the mark 0x47 stands."""
_TS_START, _TS_BLOCK = 1 << 16, 1 << 15
_PICTURE_IDS = (*range(0xE0, 0xF0), 0xFD)


def _walk_transport_stream(pieces: _Pieces, found: FileStructure) -> None:
    """Check that a transport stream is made of whole packets, and that none of its pictures' is damaged or missing."""
    start = pieces.take(min(pieces.size, _TS_START))
    size, mark = max(_TS_PACKETS.items(), key=lambda each: start[each[1] :: each[0]].count(0x47) * each[0])
    ids, counts = np.zeros(1 << 13, np.uint8), np.zeros(1 << 13, np.int64)
    last = np.empty((0, 188), np.uint8)  # packet of each stream before the block
    for at in range(0, pieces.size - size + 1, _TS_BLOCK * size):
        pieces.move(at)
        block = np.frombuffer(pieces.take(min(_TS_BLOCK, (pieces.size - at) // size) * size), np.uint8)
        packets = np.concatenate([last, block.reshape(-1, size)[:, mark : mark + 188]])
        number = np.asarray((packets[:, 1] & 0x1F).astype(np.uint16) << 8 | packets[:, 2], np.uint16)
        is_damaged, begins = _look_at(packets, number, ids)
        if (damaged := np.flatnonzero(is_damaged)).size:
            raise _damaged(at + (int(damaged[0]) - len(last)) * size)
        np.add.at(counts, number[len(last) :][begins[len(last) :]], 1)
        _, from_end = np.unique(number[::-1], return_index=True)
        last = packets[np.sort(len(packets) - 1 - from_end)]
    found.packets = counts.tolist()
    if pieces.size % size:
        raise _StructureError(_CUT_OFF)


def _look_at(
    packets: NDArray[np.uint8], number: NDArray[np.uint16], ids: NDArray[np.uint8]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which packets [N,188] of a transport stream (ISO/IEC 13818-1) are damaged, and which begin a picture.

    One that follows a missing one is damaged. `ids` [8192] holds what the pieces of each stream of pictures begin with,
    by its number; it learns new ones.
    """
    rows, counter = np.arange(len(packets)), packets[:, 3] & 15
    starts, control = packets[:, 1] & 0x40 > 0, packets[:, 3] >> 4  # 1 content, 2 a field, 3 both; more is encrypted
    has_field = control & 2 > 0
    place = 4 + has_field * (1 + packets[:, 4].astype(np.int64))
    head = packets[rows[:, None], np.minimum(place[:, None] + np.arange(8), 187)]
    is_readable = (control & 1 > 0) & (place <= 184)
    has_code = is_readable & (head[:, :3] == (0, 0, 1)).all(axis=1)
    first = starts & has_code & np.isin(head[:, 3], _PICTURE_IDS)
    ids[number[first]] = head[first, 3]
    is_wrong = is_readable & (starts != (has_code & (head[:, 3] == ids[number])))
    is_wrong |= first & (place <= 180) & ((head[:, 6] >> 6 != 2) | (head[:, 7] >> 6 == 1))  # bits that are fixed
    is_wrong |= (
        (packets[:, 1] >= 0x80) | (control == 0) | (control > 3) | (place > 188) | (control == 2) & (place < 188)
    )

    order = np.argsort(number, kind="stable")
    before = np.full(len(packets), -1)
    before[order[1:]] = np.where(number[order[1:]] == number[order[:-1]], order[:-1], -1)
    step = np.where(before < 0, 1, (counter - counter[before]) & 15)
    breaks = (step > 1) & ~(has_field & (packets[:, 4] > 0) & (packets[:, 5] >= 0x80))  # unless it is announced
    is_new_table = (number == 0) & starts & (breaks | (counter == 0))  # recordings begin with a table of their streams
    is_wrong |= breaks & (np.maximum.accumulate(np.where(is_new_table, rows, -1)) < before)
    is_damaged = (packets[:, 0] != 0x47) | (is_wrong & (ids[number] > 0))
    return is_damaged, first & (step > 0) & (place <= 180) & (head[:, 7] >= 0x80)  # with a time, and not repeated


_PS_PACK, _PS_END = 0xBA, 0xB9
_PS_MOST_ZEROS = 64  # between packs; a Video CD has 20


def _walk_program_stream(pieces: _Pieces, found: FileStructure) -> None:
    """Follow the packs and packets of a program stream (ISO/IEC 11172-1, 13818-1), each of which states its length."""
    while pieces.place < pieces.size:
        at = pieces.place
        room = pieces.take(min(_PS_MOST_ZEROS + 2, pieces.size - at))
        if not room.strip(b"\0") and _only_zeros(pieces):
            return
        at += max(0, len(room) - len(room.lstrip(b"\0")) - 2)  # a code begins with two
        pieces.move(at)
        code = pieces.take(min(4, pieces.size - at))
        if len(code) < 4 and b"\0\0\1".startswith(code[:3]):
            raise _StructureError(_CUT_OFF)
        if code[:3] != b"\0\0\1" or code[3] < _PS_END:
            if at == 0:
                return  # of a disc, whose sectors have heads
            raise _damaged(at)
        if code[3] == _PS_PACK:
            first = pieces.take(1)[0]
            stuffing = pieces.take(9)[8] & 7 if first >> 6 == 1 else 0
            if first >> 6 != 1:
                if first >> 4 != 2:
                    raise _damaged(at)
                pieces.take(7)
            pieces.move(pieces.place + stuffing)
        elif code[3] != _PS_END:
            (length,) = pieces.unpack(">H")
            pieces.move(pieces.place + length)


def _only_zeros(pieces: _Pieces) -> bool:
    """Whether nothing but zeros follows, as at the end of a file that fills the last sector of a disc."""
    while pieces.place < pieces.size:
        if pieces.take(min(1 << 16, pieces.size - pieces.place)).strip(b"\0"):
            return False
    return True


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_OGG_FIRST, _OGG_LAST = 2, 4


def _walk_ogg(pieces: _Pieces, found: FileStructure) -> None:
    """Check the checksum, the number and the end of each stream of the pages of an Ogg file (RFC 3533)."""
    numbers: dict[int, int] = {}
    unfinished: set[int] = set()
    while pieces.place < pieces.size:
        at = pieces.place
        head = pieces.take(27)
        if not head.startswith(b"OggS"):
            raise _damaged(at)
        _, kind, _, stream, number, checksum, segments = struct.unpack("<4sxBqIIIB", head)
        lengths = pieces.take(segments)
        page = head[:22] + bytes(4) + head[26:] + lengths + pieces.take(sum(lengths))
        # zlib's checksum goes from the lowest bit to the highest, and begins with ones
        found_sum = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
        if int(f"{found_sum:032b}"[::-1], 2) != checksum:
            raise _damaged(at)
        if not kind & _OGG_FIRST and (number - numbers.get(stream, -1)) & 0xFFFFFFFF != 1:
            raise _damaged(at)
        numbers[stream] = number
        (unfinished.discard if kind & _OGG_LAST else unfinished.add)(stream)
    if unfinished:
        raise _StructureError(_CUT_OFF)


def _walk_jpegs(pieces: _Pieces, found: FileStructure) -> None:
    """Check that pictures without a container begin where the file does: otherwise they had one, which is damaged."""
    if pieces.take(2) != b"\xff\xd8":
        raise _damaged(0)


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
    "mjpeg": _walk_jpegs,
    "gif": _walk_animation,
    "apng": _walk_animation,
}
