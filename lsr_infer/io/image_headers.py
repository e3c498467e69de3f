"""What an image file says about itself: format, size, and whether it is whole.

Decoders are lenient: OpenCV hands out a truncated JPEG as a finished picture. These functions walk the structure of a
file without decoding a pixel, so that a damaged or oversized file is refused before a decoder sees it.
"""

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "BrokenImageError",
    "ImageHeader",
    "Pictures",
    "PngHeader",
    "count_pictures",
    "inspect_image",
    "inspect_png",
    "is_one_picture",
    "walk_pictures",
]

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class BrokenImageError(ValueError):
    """A file is not a whole image; the message says in which way."""


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What the file claims.

    Args:
        format: `JPEG`, `PNG` and so on.
        height: pixel rows as stored.
        width: pixel columns as stored.
        turned: whether an EXIF orientation swaps height and width; None where this was not looked for.
    """

    format: str
    height: int
    width: int
    turned: bool | None = None


@dataclass(frozen=True, kw_only=True)
class PngHeader:
    """The parts of a PNG that decide what its numbers mean.

    Args:
        height: pixel rows.
        width: pixel columns.
        depth: bits of a sample.
        color_type: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha.
        palette: place of the PLTE and tRNS chunks as (start, end) in the file.
        exif: whether there is an eXIf chunk.
    """

    height: int
    width: int
    depth: int
    color_type: int
    palette: tuple[tuple[int, int], ...]
    exif: bool


def inspect_png(data: bytes) -> PngHeader:
    """Walk the chunks of a PNG.

    Raises:
        BrokenImageError: it ends early, a checksum of an essential chunk is wrong, or it is no PNG.
    """
    if not data.startswith(_PNG_SIGNATURE):
        raise BrokenImageError("is no PNG")
    view = memoryview(data)
    place, header, palette, exif, pixels = len(_PNG_SIGNATURE), None, [], False, False
    while True:
        if place + 12 > len(data):
            raise BrokenImageError("is truncated")
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            raise BrokenImageError("is truncated")
        if not kind[0] & 0x20:  # an upper-case first letter: essential
            (checksum,) = struct.unpack_from(">I", data, end - 4)
            if zlib.crc32(view[place + 4 : end - 4]) != checksum:
                raise BrokenImageError(f"is damaged (checksum of {kind.decode('latin-1')!r})")
        if header is None and (kind != b"IHDR" or length != 13):
            raise BrokenImageError("is damaged (no header)")
        if kind == b"IHDR":
            width, height, depth, color_type = struct.unpack_from(">IIBB", data, place + 8)
            header = (height, width, depth, color_type)
        elif kind in (b"PLTE", b"tRNS"):
            palette.append((place, end))
        elif kind == b"IDAT":
            pixels = True
        exif = exif or kind == b"eXIf"
        place = end
        if kind == b"IEND":
            break
    if not pixels:
        raise BrokenImageError("holds no pixels")
    assert header is not None
    return PngHeader(
        height=header[0], width=header[1], depth=header[2], color_type=header[3], palette=tuple(palette), exif=exif
    )


def _png(data: bytes) -> ImageHeader:
    header = inspect_png(data)
    return ImageHeader(format="PNG", height=header.height, width=header.width, turned=None if header.exif else False)


def _exif_turns(segment: bytes) -> bool:
    """Whether the EXIF orientation in a JPEG's APP1 segment swaps height and width; damaged EXIF counts as none."""
    if not segment.startswith(b"Exif\x00\x00"):
        return False
    tiff = segment[6:]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        if order is None:
            return False
        (place,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, place)
        for index in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, place + 2 + 12 * index)
            if tag == 0x0112:
                return bool(5 <= value <= 8)
    except struct.error:
        return False
    return False


def _jpeg(data: bytes) -> ImageHeader:
    """Walk the segments of a JPEG to its end marker."""
    place, size, turned, scans = 2, None, False, 0
    while True:
        found = _JPEG_MARKER.search(data, place)
        if found is None:
            raise BrokenImageError("is truncated")
        marker, place = data[found.start() + 1], found.end()
        if marker == 0xD9:
            break
        if marker in (0x01, 0xD8):
            continue
        if place + 2 > len(data):
            raise BrokenImageError("is truncated")
        (length,) = struct.unpack_from(">H", data, place)
        if length < 2 or place + length > len(data):
            raise BrokenImageError("is truncated or damaged")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if length < 8:
                raise BrokenImageError("is damaged (no size)")
            size = struct.unpack_from(">HH", data, place + 3)
        elif marker == 0xE1:
            turned = turned or _exif_turns(data[place + 2 : place + length])
        elif marker == 0xDA:
            scans += 1
        place += length
    if size is None or not scans:
        raise BrokenImageError("holds no pixels")
    return ImageHeader(format="JPEG", height=size[0], width=size[1], turned=turned)


def _bmp(data: bytes) -> ImageHeader:
    (header_size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
    (start,) = struct.unpack_from("<I", data, 10)
    if start >= len(data):
        raise BrokenImageError("is truncated")
    if header_size > 12:
        depth, compression = struct.unpack_from("<HI", data, 28)
        if compression in (0, 3) and start + (abs(width) * depth + 31) // 32 * 4 * abs(height) > len(data):
            raise BrokenImageError("is truncated")
    return ImageHeader(format="BMP", height=abs(height), width=abs(width))


def _gif(data: bytes) -> ImageHeader:
    width, height = struct.unpack_from("<HH", data, 6)
    return ImageHeader(format="GIF", height=height, width=width)


def _webp(data: bytes) -> ImageHeader:
    (length,) = struct.unpack_from("<I", data, 4)
    if length + 8 > len(data):
        raise BrokenImageError("is truncated")
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return ImageHeader(format="WebP", height=height, width=width)


def _pnm(data: bytes) -> ImageHeader:
    words = re.sub(rb"#[^\n]*", b"", data[:4096]).split(maxsplit=3)
    return ImageHeader(format="PNM", height=int(words[2]), width=int(words[1]))


def _tiff(data: bytes) -> ImageHeader:
    """Read the first directory of a TIFF and check that its strips or tiles are inside the file."""
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, place)
    values: dict[int, tuple[int, ...]] = {}
    for index in range(count):
        tag, kind, number = struct.unpack_from(f"{order}HHI", data, place + 2 + 12 * index)
        if tag in (256, 257, 273, 279, 324, 325) and kind in (3, 4):
            letter = "H" if kind == 3 else "I"
            at = place + 10 + 12 * index
            if number * struct.calcsize(letter) > 4:
                (at,) = struct.unpack_from(f"{order}I", data, at)
            if number > len(data):
                raise BrokenImageError("is damaged")
            values[tag] = struct.unpack_from(f"{order}{number}{letter}", data, at)
    for offsets, counts in ((273, 279), (324, 325)):
        for start, length in zip(values.get(offsets, ()), values.get(counts, ()), strict=False):
            if start + length > len(data):
                raise BrokenImageError("is truncated")
    return ImageHeader(format="TIFF", height=values[257][0], width=values[256][0])


def _avif(data: bytes) -> ImageHeader:
    """Take the largest of the sizes an AVIF's header names."""
    sizes = [struct.unpack_from(">II", data, found.end() + 4) for found in re.finditer(b"ispe", data[: 1 << 16])]
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return ImageHeader(format="AVIF", height=height, width=width)


_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1")
"""Of the container that pictures share with MP4 (ISO/IEC 23008-12)."""


def _is_video(data: bytes) -> bool:
    """Whether a file begins as MP4 and QuickTime, Matroska and WebM, or AVI do."""
    if data[4:8] == b"ftyp":
        return data[8:12] not in _PICTURE_BRANDS
    return data[:4] == b"\x1aE\xdf\xa3" or (data[:4] == b"RIFF" and data[8:12] == b"AVI ")


_FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], ImageHeader]], ...] = (
    (lambda data: data.startswith(b"\xff\xd8"), _jpeg),
    (lambda data: data.startswith(_PNG_SIGNATURE), _png),
    (lambda data: data.startswith(b"BM"), _bmp),
    (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp),
    (lambda data: data[:4] in (b"II*\x00", b"MM\x00*"), _tiff),
    (lambda data: data[:6] in (b"GIF87a", b"GIF89a"), _gif),
    (lambda data: data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace(), _pnm),
    (lambda data: data[4:8] == b"ftyp", _avif),
)
"""How a format is known by its first bytes, and how its header is read."""


def inspect_image(data: bytes) -> ImageHeader:
    """Say what an image file claims to be, after checking that it is whole as far as its structure tells.

    Args:
        data: the file's content.

    Raises:
        BrokenImageError: it is empty, truncated, damaged, of no size, a video, or of no known format (JPEG, PNG, BMP,
            WebP, TIFF, GIF, PNM, AVIF).
    """
    if not data:
        raise BrokenImageError("is empty")
    if _is_video(data):
        raise BrokenImageError("is a video, no image")
    for known, read in _FORMATS:
        if known(data):
            try:
                header = read(data)
            except (struct.error, IndexError, KeyError, ValueError) as error:
                raise error if isinstance(error, BrokenImageError) else BrokenImageError("is damaged") from error
            if header.height < 1 or header.width < 1:
                raise BrokenImageError(f"claims {header.width}x{header.height} pixels")
            return header
    raise BrokenImageError("is no image (JPEG, PNG, BMP, WebP, TIFF, GIF, PNM and AVIF are read)")


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The pictures of an image file.

    Args:
        count: frames of an animation or pages of a TIFF, of a damaged file those before the damage; at least 1.
        whole: the structure was walked to its end.
    """

    count: int
    whole: bool


def walk_pictures(data: bytes) -> Pictures:
    """Return how many pictures an image file holds, and whether it is whole as far as its structure tells.

    Args:
        data: the file's content.
    """
    count, whole = 1, True
    try:
        if data.startswith(_PNG_SIGNATURE):
            found = re.search(rb"acTL(....)", data[: data.find(b"IDAT")], re.DOTALL)
            count = int.from_bytes(found[1], "big") if found else 1
            inspect_png(data)
        elif data[:6] in (b"GIF87a", b"GIF89a"):
            count, whole = _gif_pictures(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            count = data.count(b"ANMF") if data[12:16] == b"VP8X" and data[20] & 2 else 1
        elif data[:4] in (b"II*\x00", b"MM\x00*"):
            count = _tiff_pages(data)
    except (struct.error, IndexError, BrokenImageError):
        whole = False
    return Pictures(count=max(1, count), whole=whole)


def count_pictures(data: bytes) -> int:
    """Return how many pictures an image file holds, see `Pictures`.

    Args:
        data: the file's content.
    """
    return walk_pictures(data).count


def is_one_picture(path: Path) -> bool:
    """Whether a file holds a single picture, and that whole; one that cannot be read does not."""
    try:
        return walk_pictures(path.read_bytes()) == Pictures(count=1, whole=True)
    except OSError:
        return False


def _gif_pictures(data: bytes) -> tuple[int, bool]:
    """Walk the blocks of a GIF; return the number of its whole images and whether its end was reached."""

    def after_blocks(place: int) -> int:
        while data[place]:
            place += data[place] + 1
        return place + 1

    def table(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    count = 0
    try:
        place = 13 + table(data[10])
        while data[place] != 0x3B:
            if data[place] == 0x21:
                place = after_blocks(place + 2)
            elif data[place] == 0x2C:
                place = after_blocks(place + 10 + table(data[place + 9]) + 1)
                count += 1
            else:
                return count, False
    except IndexError:
        return count, False
    return count, True


def _tiff_pages(data: bytes) -> int:
    """Follow the chain of a TIFF's directories, which may loop."""
    order = "<" if data[:2] == b"II" else ">"
    seen: set[int] = set()
    (place,) = struct.unpack_from(f"{order}I", data, 4)
    while place and place not in seen:
        (entries,) = struct.unpack_from(f"{order}H", data, place)
        seen.add(place)
        (place,) = struct.unpack_from(f"{order}I", data, place + 2 + 12 * entries)
    return len(seen)
