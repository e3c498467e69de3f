"""Reads image and label files strictly, resizes them, and writes palette PNGs.

A file is either decoded whole or refused with one line. Pixels are OpenCV's; where it fills what is missing (JPEG) or
gets it wrong (palette labels become colours, turned AVIF) other decoders give the same pixels.
"""

import logging
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from lsr_infer.errors import InputError
from lsr_infer.io import image_headers as headers
from lsr_infer.io.colors import in_bt709
from lsr_infer.io.image_headers import BrokenImageError, ImageHeader
from lsr_infer.system.process import usable_cores
from lsr_infer.system.progress import with_progress
from lsr_infer.text import folders_of

__all__ = [
    "IMAGE_SUFFIXES", "common_bits", "decode_image", "depth_note", "extra_pictures", "fit_mask", "image_size",
    "palette_png", "read_image", "read_label", "read_mask", "resize_frame", "resize_labels", "stretch_of", "used_bits",
]  # fmt: skip

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".heic", ".heif", ".hif",
)  # fmt: skip
"""Names, in lower case, that are looked for in a folder of frames."""


def _content(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():  # a pipe would be waited for
            raise InputError(f"{path}: is a pipe or a device, an image file is needed.")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: does not exist.") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder, an image file is needed.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _decode(data: bytes, flags: int) -> NDArray[Any]:
    """Decode with OpenCV."""
    headers.silence_decoders()
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error as error:
        raise BrokenImageError("cannot be decoded") from error
    if image is None or not image.size:
        raise BrokenImageError("cannot be decoded")
    return image


def _decode_frame(data: bytes, name: Path | str, bits: int | None) -> NDArray[np.uint8]:
    """Decode to 8 bits; of deeper samples the upper ones of `bits`, which None takes from the image itself."""
    image = _decode(data, _DEEP)
    if image.dtype == np.uint8:
        return image
    if image.dtype != np.uint16:
        raise BrokenImageError(f"holds {image.dtype} samples, which are not read; save it with 8 or 16 bits, unsigned")
    own = _bits_of(image)
    if bits is None:
        bits = own
        if note := depth_note(bits):
            logger.warning("%s: %s. %s", name, note, _BRIGHTER)
    elif own > bits:
        read = f"are read as of {bits} bits" if bits else "have 8 bits a sample"
        raise InputError(
            f"{name}: holds 16-bit samples of {own} bits, but the images of its set {read}. It changed since they were "
            "looked at: start the command again."
        )
    return np.asarray(image >> (bits - _DEPTHS[0]), dtype=np.uint8)


_DEEP = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
_DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras use of samples that are stored in 16."""
_MANY = 100
"""Deep images that take some seconds to be looked at."""
_BRIGHTER = "Where that is too bright, read them together with brighter images of their camera."


def _bits_of(image: NDArray[np.uint16]) -> int:
    highest = int(image.max())
    return next(bits for bits in _DEPTHS if highest < 1 << bits)


def depth_note(bits: int) -> str:
    """Say what 16-bit samples are taken for that use fewer `bits`; nothing where they use all, or are none."""
    return f"16-bit samples with nothing above {2**bits - 1} are read as of {bits} bits" if 0 < bits < 16 else ""


def used_bits(path: Path) -> int:
    """Return how many bits a file's 16-bit samples use: 8, 10, 12, 14 or 16; 0 of any other file, or a broken one."""
    try:
        image = _decode(headers.inspect_image(_content(path)).content, _DEEP) if headers.may_be_deep(path) else None
    except (BrokenImageError, InputError):
        return 0
    return _bits_of(image) if image is not None and image.dtype == np.uint16 else 0


def common_bits(
    files: Sequence[Path], used: Callable[[Path], int] = used_bits, tell: Callable[[str], object] = logger.warning
) -> int:
    """Return the most bits that the 16-bit samples of a set use, for reading all of it alike; 0 where none has such.

    Every such file is read, but for those beside one that uses all 16. What is taken for less is told: the set, or a
    folder of it that may be another camera's.

    Args:
        files: all images of a command or a data set.
        used: gives `used_bits` of a file.
        tell: takes one line.
    """
    full: set[Path] = set()

    def look(path: Path) -> int:
        bits = _DEPTHS[-1] if path.parent in full else used(path)
        if bits == _DEPTHS[-1]:
            full.add(path.parent)
        return bits

    candidates = [path for path in files if headers.may_be_deep(path)]
    if len(candidates) > _MANY:
        logger.info("%d images may have 16 bits: looking at how many of these they use", len(candidates))
    with ThreadPoolExecutor(usable_cores()) as pool:
        looked = with_progress(pool.map(look, candidates), "reading 16-bit images", len(candidates), unit="image")
        found = {path: bits for path, bits in zip(candidates, looked, strict=True) if bits}
    bits = max(found.values(), default=0)
    if note := depth_note(bits):
        tell(f"{folders_of(found)}: {note}. {_BRIGHTER}")
    brightest = {path.parent for path, own in found.items() if own == bits}
    if dark := [path for path in found if path.parent not in brightest]:
        tell(
            f"{folders_of(dark)}: {len(dark)} images of 16-bit samples use fewer than the {bits} bits that they are "
            "read as of, since others of their set do. Where that is too dark, read them by themselves."
        )
    return bits


_PADDING = re.compile(rb"(?<!\xff)\0{7,}\xff\xd9\Z")
"""Zeros that some cameras put before the end of a JPEG, more than its decoder takes for read ahead."""


def _decode_jpeg(content: bytes) -> NDArray[np.uint8]:
    """Decode as OpenCV does, bit by bit, but refuse what it fills with grey: data that ends early or too late."""
    problem = ""
    for samples in (content, _PADDING.sub(b"\xff\xd9", content)):
        try:
            return np.asarray(simplejpeg.decode_jpeg(samples, "BGR"))
        except ValueError as error:
            problem = str(error)
    if "subsampling" in problem and _fills_its_picture(content):  # a layout that this decoder does not know
        return np.asarray(_decode(content, cv2.IMREAD_COLOR), dtype=np.uint8)
    raise BrokenImageError("is damaged: some of its pixels cannot be decoded")


_READ_AHEAD = 8
"""Bytes of a scan that a JPEG decoder wants before it decodes the last ones."""


def _fills_its_picture(content: bytes) -> bool:
    """Whether a JPEG's last scan has all of its samples, but for the last six bytes.

    Decoders fill what is missing before an end marker. Without the marker Pillow waits for more, and says so. It waits
    for the marker itself in progressive files, of which none can be told from a cut one.
    """
    try:
        _decode_with_pillow(content.removesuffix(b"\xff\xd9") + bytes(_READ_AHEAD), "JPEG", "RGB")
    except BrokenImageError:
        return False
    return True


def _decode_with_pillow(content: bytes, kind: str, mode: str) -> NDArray[np.uint8]:
    try:
        return np.array(Image.open(BytesIO(content), formats=[kind]).convert(mode))
    except Exception as error:
        raise BrokenImageError("cannot be decoded") from error


def _decode_still(header: ImageHeader, name: Path | str, bits: int | None) -> NDArray[np.uint8]:
    """Decode a file, crop it, turn it upright and bring its colours to BT.709."""
    if header.format in ("JPEG", "MPO"):
        frame = _decode_jpeg(header.content)
    elif header.format in ("AVIF", "HEIF"):  # OpenCV neither crops nor turns them
        frame = _decode_with_pillow(header.content, header.format, "RGB")[..., ::-1]
    else:
        frame = _decode_frame(header.content, name, bits)
    return in_bt709(header.turn.applied(header.crop.applied(frame)), header.colors)


@contextmanager
def _naming(name: Path | str, needed: str = "") -> Iterator[None]:
    """Turn what is wrong with an image into an `InputError` that names it, and what is needed."""
    try:
        yield
    except BrokenImageError as error:
        raise InputError(f"{name}: {error}{needed}. Replace the file, or leave it out.") from error


def decode_image(data: bytes, name: Path | str, bits: int | None = None) -> NDArray[np.uint8]:
    """Decode the content of an image file, which messages call `name`; `InputError` where it is not a whole image.

    Args:
        data: the content.
        name: what messages call it.
        bits: how many of 16 bits deep samples use, `common_bits` of the set that the image belongs to; one that uses
            more is refused. None takes as many as this image needs, and warns where these are fewer than 16.

    Returns:
        Frame uint8 [H,W,3], BGR, cropped, mirrored and turned as the file says, in the colours of BT.709 or sRGB.
        Deeper samples are reduced to 8 bits. Alpha is dropped.
    """
    with _naming(name):
        return _decode_still(headers.inspect_image(data), name, bits)


def read_image(path: Path, bits: int | None = None) -> NDArray[np.uint8]:
    """Read an image file as a frame uint8 [H,W,3]; see `decode_image`."""
    return decode_image(_content(path), path, bits)


def extra_pictures(path: Path) -> int:
    """Return how many pictures of a file `read_image` leaves out: it gives the first frame or page alone."""
    return headers.walk_pictures(_content(path)).count - 1


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) as `read_image` would give it, without decoding where the header is enough.

    Damage that only decoding shows is not noticed in JPEG and PNG.
    """
    with _naming(path):
        header = headers.inspect_image(_content(path))
        if header.exact:
            return header.height, header.width
        height, width = _decode_still(header, path, _DEPTHS[-1]).shape[:2]
    return height, width


def read_label(path: Path) -> NDArray[Any]:
    """Read a label file, a PNG: the numbers in it; palette files give their indices, never their colours.

    Returns:
        uint8 or uint16, [H,W] for grey and palette files, [H,W,3] in **RGB** order for colour files. Alpha is dropped,
        an EXIF orientation is not applied.

    Raises:
        InputError: the file is missing, unreadable or no whole PNG.
    """
    data = _content(path)
    with _naming(path, "; label files are PNG"):
        header = headers.inspect_png(data)
        if header.color_type == 3:  # Pillow knows the indices of a palette and no 16-bit colours, OpenCV the reverse
            return _decode_with_pillow(data, "PNG", "P")
        raw = _decode(data, cv2.IMREAD_UNCHANGED)
    if header.color_type == 0:
        raw = raw if raw.ndim == 2 else raw[..., 0]
        return raw // (255 // ((1 << header.depth) - 1)) if header.depth < 8 else raw
    if header.color_type == 4:
        return np.ascontiguousarray(raw[..., 0])
    return np.ascontiguousarray(raw[..., 2::-1])


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read an ignore mask from any image: bool [H,W], true where it is not black; raises as `read_image`."""
    return np.asarray(read_image(path, used_bits(path)).max(axis=2) > 0)


def resize_frame(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize a frame the one way training, evaluation and the runtime share.

    Bilinear about pixel centres; where either side shrinks to half or less, the mean over the covered area instead,
    since bilinear would skip pixels there. A frame that has the size is returned itself.
    """
    rows, columns = frame.shape[:2]
    if (rows, columns) == (height, width):
        return frame
    halved = rows >= 2 * height or columns >= 2 * width
    enlarged = rows < height or columns < width
    interpolation = cv2.INTER_AREA if halved and not enlarged else cv2.INTER_LINEAR
    return cv2.resize(frame, (width, height), interpolation=interpolation).astype(np.uint8, copy=False)


def resize_labels(labels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize labels or a mask: each pixel takes the value at its own centre, as `resize_frame` takes its centre.

    OpenCV's INTER_NEAREST takes the corner instead and shifts labels by up to half a source pixel. Labels [H,W] uint8
    that have the size are returned themselves.
    """
    if labels.shape == (height, width):
        return labels
    return cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8, copy=False)


def fit_mask(mask: NDArray[np.bool_] | None, height: int, width: int) -> NDArray[np.bool_] | None:
    """Resize an ignore mask [H,W] to an image; a pixel is ignored where any ignored pixel touches it."""
    if mask is None or mask.shape == (height, width):
        return mask
    rows = _any_along_first(mask, height)  # [height,W]
    return np.ascontiguousarray(_any_along_first(rows.T, width).T)  # [height,width]


def _any_along_first(mask: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
    """Bring the first axis to a length: each place is true where any of those it covers is, be it in part."""
    before = len(mask)
    place = np.arange(length)
    first, end = place * before // length, -(-(place + 1) * before // length)
    counts = np.zeros((before + 1, *mask.shape[1:]), dtype=np.int32)
    np.cumsum(mask, axis=0, dtype=np.int32, out=counts[1:])
    return np.asarray(counts[end] > counts[first])


def stretch_of(size: tuple[int, int], fitted: tuple[int, int]) -> float:
    """Return the share by which width and height are stretched apart where a (rows, columns) becomes another."""
    factor = (fitted[1] * size[0]) / (size[1] * fitted[0])
    return max(factor, 1 / factor) - 1


_EFFORT = 3
"""zlib effort. Measured on class maps of 1280x720: 3 ms and 7 kB against 25 ms and 5 kB at 9."""


def palette_png(labels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """Return labels [H,W] uint8 as the content of a PNG with a palette [256,3] uint8, red, green, blue by label."""
    if labels.ndim != 2 or labels.dtype != np.uint8 or labels.size == 0:
        raise ValueError(f"labels are {labels.dtype} {list(labels.shape)}; needed: uint8 [H,W]")
    if palette.shape != (256, 3) or palette.dtype != np.uint8:
        raise ValueError(f"the palette is {palette.dtype} {list(palette.shape)}; needed: uint8 [256,3]")
    content = BytesIO()
    image = Image.frombytes("P", labels.shape[::-1], labels.tobytes())
    image.putpalette(palette.tobytes())
    image.save(content, "PNG", compress_level=_EFFORT)
    return content.getvalue()
