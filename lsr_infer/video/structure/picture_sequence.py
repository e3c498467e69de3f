"""Checks pictures that follow each other: JPEGs and YUV4MPEG2, which have no container, and animations."""

import re

from lsr_infer.io.image_headers import all_decode, walk_pictures
from lsr_infer.video.structure.byte_reader import CUT_OFF, ByteReader, FileStructure, StructureError, damaged

__all__ = ["walk_animation", "walk_jpegs", "walk_y4m"]

_START, _MARKER = b"\xff\xd8", re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_END, _SCAN = 0xD9, 0xDA
_BEHIND_SCANS = frozenset({_END, _SCAN, 0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xFE})
"""Markers of tables and comments; of others a picture has none behind its first scan."""
_LAYOUT = re.compile(rb"(420|422|411|440|444|mono)(jpeg|mpeg2|paldv|alpha)?p?(\d*)")
_CHROMA = {b"420": (2, 2), b"422": (2, 1), b"411": (4, 1), b"440": (1, 2), b"444": (1, 1)}
"""Columns and rows that share one sample of chroma."""
_LONGEST_LINE = 256


def walk_jpegs(reader: ByteReader, found: FileStructure) -> None:
    """Follow the segments of each picture of an MJPEG stream to its end marker, behind which the next one begins."""
    data, at, count = reader.map(), 0, 0
    while at < len(data):
        if data[at : at + 2] != _START:
            raise damaged(at)
        at, in_scan, scans, marker = at + 2, False, 0, 0
        while marker != _END:
            next_marker = _MARKER.search(data, at)
            if next_marker is None:
                raise StructureError(CUT_OFF)
            marker = data[next_marker.start() + 1]
            is_behind = not in_scan and data[at : next_marker.start()].strip(b"\0\xff")
            if is_behind or marker == _START[1] or (scans and marker not in _BEHIND_SCANS):
                raise damaged(at)
            at, in_scan = next_marker.end(), marker == _SCAN
            scans += in_scan
            at += 0 if marker == _END else int.from_bytes(data[at : at + 2], "big")
        count += 1
        padding = re.compile(rb"\0*").match(data, at)
        at = padding.end() if padding else at
    found.packets = [count]


def walk_y4m(reader: ByteReader, found: FileStructure) -> None:
    """Count the frames of a YUV4MPEG2 file, which all have one size."""
    size = _frame_size(_line(reader))
    found.packets = [0]
    while reader.position < reader.size:
        at = reader.position
        if not re.match(rb"FRAME( |$)", _line(reader)):
            raise damaged(at)
        reader.seek(reader.position + size)
        found.packets[0] += 1


def _line(reader: ByteReader) -> bytes:
    at = reader.position
    line, is_ended, _ = reader.read(min(_LONGEST_LINE, reader.size - at)).partition(b"\n")
    reader.seek(at + len(line) + len(is_ended))
    return line


def _frame_size(header: bytes) -> int:
    """Return the bytes of a frame, from the fields of the first line."""
    fields = {field[:1]: field[1:] for field in reversed(header.split()[1:])}
    layout = _LAYOUT.fullmatch(fields.get(b"C", b"420jpeg"))
    if layout is None or not (fields.get(b"W", b"").isdigit() and fields.get(b"H", b"").isdigit()):
        raise damaged(0)
    width, height = int(fields[b"W"]), int(fields[b"H"])
    size = width * height * (2 if layout[2] == b"alpha" else 1)
    if layout[1] in _CHROMA:
        columns, rows = _CHROMA[layout[1]]
        size += 2 * -(-width // columns) * -(-height // rows)
    return size * (2 if layout[3] else 1)


def walk_animation(reader: ByteReader, found: FileStructure) -> None:
    """Count the pictures of a GIF or an animated PNG."""
    data = reader.read(reader.size)
    pictures = walk_pictures(data)
    if not pictures.whole or not all_decode(data):
        raise StructureError(f"{CUT_OFF}, or one of its pictures is damaged")
    found.packets = [pictures.count]
