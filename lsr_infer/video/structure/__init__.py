"""Walks the structure of a video file without decoding it: its cropping, whether it is whole, its number of packets.

libav ends a file that is cut off without an error and skips what is damaged in silence. What a container states of its
own parts tells both. Mostly headers are read: a file of an hour takes a fraction of a second. A transport stream,
an Ogg file, an animation and a sequence of JPEGs are read whole.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lsr_infer.io.image_headers import Crop
from lsr_infer.video.structure.asf import walk_asf
from lsr_infer.video.structure.avi import walk_avi
from lsr_infer.video.structure.byte_reader import ByteReader, FileStructure, StructureError
from lsr_infer.video.structure.flv import walk_flv
from lsr_infer.video.structure.matroska import matroska_crops, walk_matroska
from lsr_infer.video.structure.mp4 import mp4_crops, walk_mp4
from lsr_infer.video.structure.ogg import walk_ogg
from lsr_infer.video.structure.picture_sequence import walk_animation, walk_jpegs, walk_y4m
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


_WALKERS: dict[str, Callable[[ByteReader, FileStructure], None]] = {
    "matroska": walk_matroska,
    "avi": walk_avi,
    "mov": walk_mp4,
    "flv": walk_flv,
    "asf": walk_asf,
    "mpegts": walk_transport_stream,
    "mpeg": walk_program_stream,
    "ogg": walk_ogg,
    "mjpeg": walk_jpegs,
    "yuv4mpegpipe": walk_y4m,
    "gif": walk_animation,
    "apng": walk_animation,
}
