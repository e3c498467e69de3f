"""Checks image files before they are decoded: format, size, whether they are whole, and how many pictures they hold.

Pillow reads the headers but tells neither checksums of PNGs nor whether a JPEG or an animation reaches its end.
"""

import re
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from lsr_infer.io.colors import UNSPECIFIED, UNTAGGED, StillColors, unread

__all__ = [
    "MAX_PIXELS", "UNCROPPED", "UPRIGHT", "BrokenImageError", "Crop", "ImageHeader", "Pictures", "PngHeader",
    "Turn", "all_decode", "clean_aperture", "inspect_image", "inspect_png", "is_one_picture", "is_still", "may_be_deep",
    "silence_decoders", "walk_pictures",
]  # fmt: skip

MAX_PIXELS = 1 << 26
"""Largest image that is decoded, in pixels (8192 x 8192): a file of a few bytes can claim far more."""

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JFIF = b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0"
_SEQUENTIAL, _ALL_COEFFICIENTS = (0xC0, 0xC1, 0xC9), b"\x00\x3f\x00"
_METADATA = frozenset({*range(0xE0, 0xEE), 0xEF, 0xFE})
"""Application segments but for Adobe's, which tells the colour space, and comments."""
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_VIDEO_STARTS = re.compile(rb".{4}ftyp(?!avi[fs]|he[iv][cx]|m[is]f1)|\x1aE\xdf\xa3|RIFF.{4}AVI ", re.DOTALL)
"""Of MP4 and QuickTime (whose container pictures share, ISO/IEC 23008-12), Matroska and WebM, and AVI."""
_HEIC_START = re.compile(rb".{4}ftyp(?:he[iv][cx]|m[is]f1)", re.DOTALL)
_FLOAT_START = rb"P[Ff]\n|#\?R|v/1\x01"
"""Of PFM, Radiance HDR and OpenEXR."""
_STILL_START = re.compile(rb".{4}ftyp(?:avif|hei[cx]|mif1)|II[*+]\0|MM\0[*+]|" + _FLOAT_START, re.DOTALL)
_CODED_COLORS = re.compile(rb"(?:cICP|colrnclx\0)(.)\0?(.)", re.DOTALL)
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339
_SAMPLE_KINDS = {2: "signed integer", 3: "floating-point", 5: "complex", 6: "complex"}
"""Kinds of samples in a TIFF, by its number, that are not read."""
_MOST_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Rows and columns at the edges of the stored picture that are not shown."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def applied(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return what is shown of a frame [H,W,3]."""
        return frame[self.top : frame.shape[0] - self.bottom, self.left : frame.shape[1] - self.right]


UNCROPPED = Crop()


class Turn(NamedTuple):
    """How a stored picture is shown: its rows become columns, then columns are reversed, and rows."""

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    def applied(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a frame [H,W,3] as it is shown."""
        shown: Any = np.ascontiguousarray(frame)
        if self.transposed:
            shown = cv2.transpose(shown)  # numpy takes twice as long
        if self.mirrored or self.flipped:
            shown = cv2.flip(shown, -1 if self.mirrored and self.flipped else int(self.mirrored))
        return np.asarray(shown, dtype=np.uint8)


UPRIGHT = Turn()
_EXIF_TURNS = {
    2: Turn(mirrored=True),
    3: Turn(mirrored=True, flipped=True),
    4: Turn(flipped=True),
    5: Turn(transposed=True),
    6: Turn(transposed=True, mirrored=True),
    7: Turn(transposed=True, mirrored=True, flipped=True),
    8: Turn(transposed=True, flipped=True),
}


def clean_aperture(data: bytes, width: int, height: int) -> Crop:
    """Return the edges that the first box `clap` hides (ISO/IEC 14496-12): width, height, offsets, as fractions."""
    at = data.find(b"\0\0\0\x28clap")
    if at < 0 or len(data) < at + 40:
        return UNCROPPED
    numbers = struct.unpack_from(">IIIIiIiI", data, at + 8)
    if not all(numbers[1::2]):
        return UNCROPPED
    shown_width, shown_height, right, down = (numbers[at] / numbers[at + 1] for at in range(0, 8, 2))
    left, top = round((width - shown_width) / 2 + right), round((height - shown_height) / 2 + down)
    edges = (top, height - round(shown_height) - top, left, width - round(shown_width) - left)
    if min(edges) < 0 or min(shown_width, shown_height) < 1:
        return UNCROPPED
    return Crop(top=edges[0], bottom=edges[1], left=edges[2], right=edges[3])


class BrokenImageError(ValueError):
    """A file is not a whole image; the message says in which way."""


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """The claims of an image file, sides as shown where they are `exact`.

    `format` is in Pillow's words, `content` is what is decoded; `crop` and `turn` are what its decoder leaves to do.
    """

    format: str
    height: int
    width: int
    content: bytes
    exact: bool = False
    crop: Crop = UNCROPPED
    turn: Turn = UPRIGHT
    colors: StillColors = UNTAGGED


@dataclass(frozen=True, kw_only=True)
class PngHeader:
    """The header of a PNG: `depth` in bits, `color_type` 0 grey, 2 RGB, 3 palette, 4 grey and 6 RGB with alpha."""

    height: int
    width: int
    depth: int
    color_type: int
    exif: bool
    icc: bool


def inspect_png(data: bytes) -> PngHeader:
    """Walk the chunks of a PNG; `BrokenImageError` unless it is whole, by checksums too, and at most `MAX_PIXELS`."""
    if not data.startswith(_PNG_SIGNATURE):
        raise BrokenImageError("is no PNG" if data else "is empty")
    view = memoryview(data)
    place, kinds = len(_PNG_SIGNATURE), list[bytes]()
    while b"IEND" not in kinds[-1:]:
        if place + 12 > len(data):
            raise BrokenImageError("is truncated")
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            raise BrokenImageError("is truncated")
        is_essential = not kind[0] & 0x20 or kind in _ANIMATION  # an upper-case first letter
        if is_essential and zlib.crc32(view[place + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise BrokenImageError(f"is damaged (checksum of {kind.decode('latin-1')!r})")
        if not kinds and (kind != b"IHDR" or length != 13):
            raise BrokenImageError("is damaged (no header)")
        kinds.append(kind)
        place = end
    if b"IDAT" not in kinds:
        raise BrokenImageError("holds no pixels")
    width, height, depth, color_type = struct.unpack_from(">IIBB", data, 16)
    _check_claimed_size(height, width)
    exif, icc = b"eXIf" in kinds, b"iCCP" in kinds
    return PngHeader(height=height, width=width, depth=depth, color_type=color_type, exif=exif, icc=icc)


def inspect_image(data: bytes) -> ImageHeader:
    """Return the claims of an image file, after checking that it is whole as far as that is known without its pixels.

    Raises:
        BrokenImageError: it is no whole image of a known format and at most `MAX_PIXELS`.
    """
    if not data:
        raise BrokenImageError("is empty")
    if _VIDEO_STARTS.match(data):
        raise BrokenImageError("is a video, no image")
    if data.startswith(_PNG_SIGNATURE):
        png = inspect_png(data)
        colors = _colors(data, "PNG", _open_with_pillow(data) if png.icc else None)
        return ImageHeader(
            format="PNG", height=png.height, width=png.width, exact=not png.exif, content=data, colors=colors
        )
    content = _jpeg_samples(data) if data.startswith(b"\xff\xd8") else data
    _check_samples(data)
    image = _open_with_pillow(data)
    if image is None:
        raise BrokenImageError("is no image, or damaged (JPEG, PNG, BMP, WebP, TIFF, GIF, PNM, AVIF and HEIC are read)")
    _check_claimed_size(image.height, image.width)
    kind = image.format or ""
    exact = kind in ("JPEG", "MPO")
    if not exact and kind not in ("AVIF", "HEIF"):  # those have strict decoders
        _check_loads(image)
    if kind == "GIF" and not walk_pictures(data).whole:
        raise BrokenImageError("is truncated or damaged")
    turn = _exif_turn(image) if exact or kind == "AVIF" else UPRIGHT
    height, width = image.size if turn.transposed else image.size[::-1]
    return ImageHeader(
        format=kind,
        height=height,
        width=width,
        exact=exact,
        content=content,
        crop=clean_aperture(data, image.width, image.height) if kind == "AVIF" else UNCROPPED,
        turn=turn,
        colors=_colors(data, kind, image),
    )


def _colors(data: bytes, kind: str, image: Image.Image | None) -> StillColors:
    """Return what a file says of its colours, by numbers (in HEIC, AVIF and PNG) and by an ICC profile."""
    info: dict[Any, Any] = {} if image is None else image.info
    nclx = info.get("nclx_profile") or {}
    primaries, transfer = nclx.get("color_primaries", UNSPECIFIED), nclx.get("transfer_characteristics", UNSPECIFIED)
    found = _CODED_COLORS.search(data[: 1 << 16]) if kind in ("AVIF", "PNG") else None
    if found:
        primaries, transfer = found[1][0], found[2][0]
    if problem := unread(transfer, primaries):
        raise BrokenImageError(f"has colours that are not read ({problem})")
    return StillColors(transfer=transfer, primaries=primaries, icc=info.get("icc_profile") or b"")


def _check_claimed_size(height: int, width: int) -> None:
    """Raise `BrokenImageError` for a size that is none or larger than `MAX_PIXELS`."""
    if height < 1 or width < 1:
        raise BrokenImageError(f"claims {width}x{height} pixels")
    if height * width > MAX_PIXELS:
        raise BrokenImageError(f"claims {width}x{height} pixels; at most {MAX_PIXELS} pixels are read")


def _open_with_pillow(data: bytes) -> Image.Image | None:
    silence_decoders()
    formats = ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "AVIF"]
    if _HEIC_START.match(data):
        import pillow_heif

        pillow_heif.register_heif_opener()
        formats.append("HEIF")
    try:
        return Image.open(BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        raise BrokenImageError(f"claims too many pixels; at most {MAX_PIXELS} pixels are read") from error
    except Exception:  # noqa: BLE001 - its readers raise many types on damaged files
        return None


def _check_samples(data: bytes) -> None:
    """Raise `BrokenImageError` for a file whose samples are of a type that is not read, and say which."""
    depths, formats = _tiff_samples(BytesIO(data))
    kind = f"{max(depths)}-bit" if max(depths) > _MOST_BITS else ""
    kind = "floating-point" if re.match(_FLOAT_START, data) else _SAMPLE_KINDS.get(formats[0], kind)
    if kind:
        raise BrokenImageError(f"holds {kind} samples, which are not read; save it with 8 or 16 bits, unsigned")


def _tiff_samples(file: BinaryIO) -> tuple[Sequence[int], Sequence[int]]:
    """Return bits and kind of the samples of a TIFF's first page; Pillow opens few kinds of them."""
    silence_decoders()
    try:
        start = file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(start + (file.read(8) if b"+" in start else b""))
        file.seek(tags.next)
        tags.load(file)
        return tags.get(_BITS_PER_SAMPLE, (1,)), tags.get(_SAMPLE_FORMAT, (1,))
    except Exception:  # noqa: BLE001 - its reader raises many types on damaged files, and on what is no TIFF
        return (1,), (1,)


def may_be_deep(path: Path) -> bool:
    """Whether a file begins as an image with samples of 16 bits; those of PNM are told by decoding alone."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            start = file.read(25)
            if start.startswith(_PNG_SIGNATURE):
                return start[24] == _MOST_BITS
            file.seek(0)
            return start.startswith((b"P2", b"P3", b"P5", b"P6")) or _MOST_BITS in _tiff_samples(file)[0]
    except (OSError, IndexError):
        return False


def _exif_turn(image: Image.Image) -> Turn:
    """Return how EXIF says a picture is shown; damaged EXIF counts as none."""
    exif = Image.Exif()  # `getexif` would ask XMP too, which viewers do not
    try:
        exif.load(image.info.get("exif") or b"")
        return _EXIF_TURNS.get(exif.get(_ORIENTATION, 1), UPRIGHT)
    except Exception:  # noqa: BLE001 - its reader raises many types on damaged files
        return UPRIGHT


def _check_loads(image: Image.Image) -> None:
    """Raise for a file whose pixels Pillow cannot read to the end; OpenCV makes up what is missing of some."""
    try:
        image.load()
    except Exception as error:
        raise BrokenImageError(f"is {'truncated' if 'trunc' in str(error) else 'damaged'}") from error


def _jpeg_samples(data: bytes) -> bytes:
    """Walk the segments of a JPEG to its end marker; return what its samples need, so that decoders may be strict.

    Cameras write the rest carelessly: zeros between segments, the version of JFIF, the range of coefficients of scans
    that hold all. It is left out or put right, as viewers read it.
    """
    parts, place, in_scan, holds_all, scans = [b"\xff\xd8"], 2, False, False, 0
    while True:
        found = _JPEG_MARKER.search(data, place)
        if found is None:
            raise BrokenImageError("is truncated")
        between = data[place : found.start()]
        parts.append(between if in_scan else between.strip(b"\0"))
        marker, place = data[found.start() + 1], found.end()
        if marker == 0xD9:
            break
        if marker in (0x01, 0xD8):
            parts.append(found[0])
            continue
        length = int.from_bytes(data[place : place + 2], "big")
        if length < 2 or place + length > len(data):
            raise BrokenImageError("is truncated or damaged")
        segment = data[found.start() : place + length]
        in_scan = marker == 0xDA
        scans += in_scan
        holds_all |= marker in _SEQUENTIAL
        if in_scan and holds_all:
            segment = segment[:-3] + _ALL_COEFFICIENTS
        elif marker in _METADATA and not scans:  # within a scan it is damage
            segment = _JFIF if segment.startswith(b"JFIF\0", 4) and marker == 0xE0 else b""
        parts.append(segment)
        place += length
    if not scans:
        raise BrokenImageError("holds no pixels")
    return b"".join([*parts, b"\xff\xd9"])


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The number of frames or pages of a file, at least 1 (of a damaged one up to the damage), and its state."""

    count: int
    whole: bool


def walk_pictures(data: bytes) -> Pictures:
    """Count the pictures of an image file, and tell whether it is whole as far as its structure tells."""
    count, whole = 1, True
    try:
        if data.startswith(_PNG_SIGNATURE):
            found = re.search(rb"acTL(....)", data[: data.find(b"IDAT")], re.DOTALL)
            count = int.from_bytes(found[1], "big") if found else 1
            inspect_png(data)
        elif data[:6] in (b"GIF87a", b"GIF89a"):
            count, whole = _gif_pictures(data)
        elif data.startswith((b"II*\0", b"MM\0*")) or (data.startswith(b"RIFF") and data[8:12] == b"WEBP"):
            image = _open_with_pillow(data)
            count, whole = getattr(image, "n_frames", 1), image is not None
    except (BrokenImageError, struct.error, IndexError, OSError, SyntaxError, ValueError):
        whole = False
    return Pictures(count=max(1, count), whole=whole)


def is_still(path: Path) -> bool:
    """Whether a file begins as HEIC, AVIF, TIFF and pictures of floating-point samples do.

    Video readers take their pictures, or tiles, for a video's.
    """
    try:
        with path.open("rb") as file:
            return _STILL_START.match(file.read(16)) is not None
    except OSError:
        return False


def is_one_picture(path: Path) -> bool:
    """Whether a file holds a single picture, be it cut off; one that cannot be read does not."""
    try:
        return walk_pictures(path.read_bytes()).count == 1
    except OSError:
        return False


def all_decode(data: bytes) -> bool:
    """Whether Pillow, which is strict, decodes every frame of an animation: video decoders pass over damage."""
    try:
        image: Any = _open_with_pillow(data)
        for number in range(getattr(image, "n_frames", 0)):
            image.seek(number)
            image.load()
    except Exception:  # noqa: BLE001 - its readers raise many types on damaged files
        return False
    return image is not None


def _gif_pictures(data: bytes) -> tuple[int, bool]:
    """Walk the blocks of a GIF; return the number of its images, and whether its end was reached behind whole ones.

    Pillow takes the place where an animation is cut off for its end.
    """

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
                count += 1
                place = after_blocks(place + 10 + table(data[place + 9]) + 1)
            else:
                return count, False
    except IndexError:
        return count, False
    return count, True


@cache
def silence_decoders() -> None:
    """Keep the decoders' own lines, several for each damaged file, off stderr for good: our errors say what matters."""
    log: Any = cv2.utils.logging
    log.setLogLevel(log.LOG_LEVEL_SILENT)
    warnings.filterwarnings("ignore", module=r"PIL\b")
