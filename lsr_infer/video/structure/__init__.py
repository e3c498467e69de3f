"""Walks the structure of a video file without decoding it: its cropping, whether it is whole, its number of packets.

libav ends a file that is cut off without an error and skips what is damaged in silence. What a container states of its
own parts tells both. Mostly headers are read: a file of an hour takes a fraction of a second. A transport stream
and an Ogg file are read whole.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lsr_infer.io.image_headers import Crop, all_decode, walk_pictures
from lsr_infer.video.structure.asf import walk_asf
from lsr_infer.video.structure.avi import walk_avi
from lsr_infer.video.structure.byte_reader import CUT_OFF, ByteReader, FileStructure, StructureError, damaged
from lsr_infer.video.structure.flv import walk_flv
from lsr_infer.video.structure.matroska import matroska_crops, walk_matroska
from lsr_infer.video.structure.mp4 import mp4_crops, walk_mp4
from lsr_infer.video.structure.ogg import walk_ogg
from lsr_infer.video.structure.program_stream import walk_program_stream
from lsr_infer.video.structure.transport_stream import walk_transport_stream

__all__ = ["FileStructure", "find_crops", "walk_file"]


def walk_file(place: Path | str, formats: frozenset[str]) -> FileStructure:
    """Walk a file of one of libav's formats; whatever else there is tells nothing, and seems whole.

    No file can be opened by an address; what libav has read and cannot be opened again tells nothing either.
    """
    found = FileStructure()
    walk = next((walk for name, walk in _WALKERS.items() if name in formats), None)
    if walk is not None:
        try:
            with suppress(OSError), Path(place).open("rb") as file:
                walk(ByteReader(file), found)
        except StructureError as error:
            found.damage, found.packets = str(error), []
    return found


def find_crops(place: Path | str, formats: frozenset[str]) -> list[Crop]:
    """Return the hidden edges of each video stream of a file; none where its format states none, or it is damaged."""
    for name, read_crops in (("matroska", matroska_crops), ("mov", mp4_crops)):
        if name in formats:
            with suppress(OSError, StructureError), Path(place).open("rb") as file:
                return read_crops(ByteReader(file))
    return []


def _walk_jpegs(reader: ByteReader, found: FileStructure) -> None:
    """Check that pictures without a container begin where the file does: otherwise they had one, which is damaged."""
    if reader.read(2) != b"\xff\xd8":
        raise damaged(0)


def _walk_animation(reader: ByteReader, found: FileStructure) -> None:
    """Count the pictures of a GIF or an animated PNG."""
    data = reader.read(reader.size)
    pictures = walk_pictures(data)
    if not pictures.whole or not all_decode(data):
        raise StructureError(f"{CUT_OFF}, or one of its pictures is damaged")
    found.packets = [pictures.count]


_WALKERS: dict[str, Callable[[ByteReader, FileStructure], None]] = {
    "matroska": walk_matroska,
    "avi": walk_avi,
    "mov": walk_mp4,
    "flv": walk_flv,
    "asf": walk_asf,
    "mpegts": walk_transport_stream,
    "mpeg": walk_program_stream,
    "ogg": walk_ogg,
    "mjpeg": _walk_jpegs,
    "gif": _walk_animation,
    "apng": _walk_animation,
}
