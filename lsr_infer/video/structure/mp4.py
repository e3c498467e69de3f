"""Walks the boxes of MP4 and QuickTime (ISO/IEC 14496-12): each is a length, a name and a content."""

import struct
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from lsr_infer.io.image_headers import Crop, clean_aperture
from lsr_infer.video.structure.byte_reader import CUT_OFF, MAX_DEPTH, ByteReader, FileStructure, StructureError, damaged

__all__ = ["mp4_crops", "walk_mp4"]

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
    reader: ByteReader, end: int, held: frozenset[bytes] = _HELD_BOXES, *, depth: int = 0
) -> Iterator[tuple[bytes, int]]:
    """Yield the name and the end of each box, those that others hold after these."""
    if depth > MAX_DEPTH:
        raise damaged(reader.position)
    while end - reader.position >= 8:
        at = reader.position
        length, name = struct.unpack(">I4s", reader.read(8))
        if length == 1:
            (length,) = reader.unpack(">Q")
        if not length and depth:
            raise damaged(at)
        box_end = at + length if length else end
        if box_end > end and end == reader.size:
            raise StructureError(CUT_OFF)
        if not reader.position <= box_end <= end or not name.strip(b"\0"):
            raise damaged(at)
        yield name, box_end
        if name in held:
            yield from _boxes(reader, box_end, held, depth=depth + 1)
        reader.seek(box_end)


def _picture_tracks(reader: ByteReader, *names: bytes) -> list[dict[bytes, bytes]]:
    """Return some boxes of each track of pictures, with those of the movie that come before it."""
    movie: dict[bytes, bytes] = {}
    tracks: list[dict[bytes, bytes]] = []
    for name, end in _boxes(reader, reader.size):
        if name == b"trak":
            tracks.append(dict(movie))
        elif name in names:
            boxes = tracks[-1] if tracks else movie
            boxes.setdefault(name, reader.read(end - reader.position))  # QuickTime has a further handler
    return [track for track in tracks if track.get(b"hdlr", b"")[8:12] == b"vide"]


def walk_mp4(reader: ByteReader, found: FileStructure) -> None:
    """Count the samples that each track of pictures shows."""
    with suppress(StructureError):
        found.fragmented = any(name == b"moof" for name, _ in _boxes(reader, reader.size, frozenset()))
    reader.seek(0)
    fragments = _fragments(reader, found)
    reader.seek(0)
    tracks = _picture_tracks(reader, *_TABLES)
    try:
        found.packets = [_shown_samples(track, fragments, reader.size) for track in tracks]
    except (struct.error, ValueError, LookupError) as error:  # libav reads what it can, or does without
        raise StructureError("a table of its times is short or missing") from error


def _fragments(reader: ByteReader, found: FileStructure) -> dict[int, list[tuple[int, int]]]:
    """Return, by the number of a track, how many samples each of its fragments holds, and the delay of the first."""
    fragments: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    numbers: set[int] = set()
    number = fragment_end = 0
    for name, end in _boxes(reader, reader.size):
        at = reader.position
        found.fragmented |= name in _FRAGMENT_BOXES
        if name == b"tkhd":
            head = reader.read(24)
            numbers.add(struct.unpack_from(">I", head, 20 if head[0] else 12)[0])
        elif name == b"tfhd":
            _, number = reader.unpack(">II")
        elif name == b"trun":
            flags, count = reader.unpack(">II")
            reader.read(4 * (flags & 5).bit_count())
            if end - reader.position != 4 * count * (flags & 0xF00).bit_count():
                raise damaged(reader.position)
            sample = reader.read(min(end - reader.position, 4 * (flags & 0xF00).bit_count()))
            fragments[number].append((count, struct.unpack(">i", sample[-4:])[0] if sample and flags & 0x800 else 0))
        elif name == b"traf":
            fragment_end = end
        elif found.fragmented and name not in _HELD_BOXES:
            is_inside = at < fragment_end and name not in _BESIDE_SAMPLES
            if _is_of_fragment(reader.read(min(end - at, 16)), end - at, is_inside=is_inside):
                raise damaged(at - 8)
    if found.fragmented and reader.position < reader.size:
        raise StructureError(CUT_OFF)
    if set(fragments) - numbers:
        raise StructureError("some of its packets belong to no stream")
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
        raise StructureError("the header of a track is damaged")
    version, entries = track.get(b"elst", bytes(8))[0], track.get(b"elst", bytes(8))[8:]
    edits = [edit for edit in struct.iter_unpack(">QqI" if version else ">IiI", entries) if edit[1] != _NO_CONTENT]
    own = fragments.get(struct.unpack_from(">I", track[b"tkhd"], 20 if track[b"tkhd"][0] else 12)[0], [])
    if not edits or (own and len(edits) == 1 and edits[0][1] <= own[0][1]):
        return int(count) + sum(number for number, _ in own)
    if not 0 < count <= (most // uniform if uniform else len(sizes) // 4) or len(edits) > 1 or own:
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
        raise StructureError("its tables of times contradict each other")
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


def mp4_crops(reader: ByteReader) -> list[Crop]:
    """Return the hidden edges that the descriptions of each track's samples state."""
    entries = [track.get(b"stsd", b"") for track in _picture_tracks(reader, b"hdlr", b"stsd")]
    return [clean_aperture(entry, *struct.unpack_from(">HH", entry.ljust(44), 40)) for entry in entries]
