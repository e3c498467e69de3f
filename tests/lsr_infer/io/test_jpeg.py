"""JPEGs: pixels are OpenCV's, cameras' oddities are read over, and nothing that is missing is made up."""

import io
import re
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lsr_infer.errors import InputError
from lsr_infer.io.images import decode_image, image_size, read_image


def street(height: int = 120, width: int = 168) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0:height, 0:width]
    ramps = np.stack([255 * columns // width, 255 * rows // height, rows * columns % 256], axis=2)
    return np.clip(ramps + np.random.default_rng(3).normal(0, 9, ramps.shape), 0, 255).astype(np.uint8)


def encoded(**options: object) -> bytes:
    content = io.BytesIO()
    mode = str(options.pop("mode", "RGB"))
    Image.fromarray(street()).convert(mode).save(content, str(options.pop("format", "JPEG")), **options)
    return content.getvalue()


def by_opencv(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), dtype=np.uint8)


def uniform(*factors: int, height: int = 64, width: int = 64) -> bytes:
    """A grey JPEG with any sampling factors, whose blocks take two bits each."""
    components = b"".join(bytes([number, factor, 0]) for number, factor in enumerate(factors, 1))
    side = [max(factor >> shift & 15 for factor in factors) for shift in (4, 0)]
    units = -(-width // (8 * side[0])) * -(-height // (8 * side[1]))
    bits = 2 * units * sum((factor >> 4) * (factor & 15) for factor in factors)
    one_code = b"\1" + bytes(15) + b"\0"
    return b"".join([
        b"\xff\xd8\xff\xdb\0\x43\0", b"\1" * 64,
        b"\xff\xc0", struct.pack(">HBHHB", 8 + 3 * len(factors), 8, height, width, len(factors)), components,
        b"\xff\xc4\0\x14\0", one_code, b"\xff\xc4\0\x14\x10", one_code,
        b"\xff\xda\0\x0c\3\1\0\2\0\3\0\0\x3f\0", bytes(bits // 8), bytes([0xFF >> bits % 8]) if bits % 8 else b"",
        b"\xff\xd9",
    ])  # fmt: skip


KINDS = {
    "4:2:0": {"subsampling": "4:2:0"},
    "4:4:4": {"subsampling": "4:4:4", "quality": 98},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 5},
    "grey": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
    "RGB inside": {"keep_rgb": True},
    "several pictures": {"format": "MPO", "save_all": True, "append_images": [Image.new("RGB", (9, 9))]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_opencv(kind: str) -> None:
    data = encoded(**KINDS[kind])
    assert np.array_equal(decode_image(data, "x"), by_opencv(data))


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_that_of_opencv_and_known_to_the_size(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "x.jpg"
    file.write_bytes(encoded(exif=exif))
    expected = by_opencv(file.read_bytes())
    assert np.array_equal(read_image(file), expected)
    assert image_size(file) == expected.shape[:2]


@pytest.mark.parametrize(
    "factors", [(0x11, 0x11, 0x11), (0x22, 0x11, 0x11), (0x42, 0x11, 0x11), (0x22, 0x12, 0x21), (0x12, 0x21, 0x11)]
)
def test_every_layout_of_samples_is_read(factors: tuple[int, ...]) -> None:
    data = uniform(*factors)
    assert (decode_image(data, "x") == 128).all()
    start = scan(data)
    for kept in (0, 2, (len(data) - start) // 2, len(data) - start - 10):
        with pytest.raises(InputError, match="x: is damaged"):
            decode_image(data[: start + kept] + b"\xff\xd9", "x")


def scan(data: bytes) -> int:
    start = data.index(b"\xff\xda")
    return start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")


@pytest.mark.parametrize("kind", ["4:2:0", "4:4:4", "progressive", "restart markers", "grey", "CMYK"])
@pytest.mark.parametrize("damage", ["gap", "zeros", "repeated"])
def test_data_that_does_not_fill_the_picture_is_damaged(kind: str, damage: str) -> None:
    data = encoded(**KINDS[kind])
    middle = (scan(data) + len(data)) // 2
    head, tail = data[:middle], data[middle:]
    damaged = {"gap": head + tail[400:], "zeros": head + bytes(400) + tail[400:], "repeated": head + head[-400:] + tail}
    assert by_opencv(damaged[damage]) is not None
    with pytest.raises(InputError, match=r"x: is damaged: .* Replace the file, or leave it out\."):
        decode_image(damaged[damage], "x")


def test_what_cameras_write_beside_the_samples_is_read_over() -> None:
    data = encoded()
    start = scan(data)
    careless = {
        "a scan's coefficients": data[: start - 3] + bytes(3) + data[start:],
        "another version": data.replace(b"JFIF\0\1", b"JFIF\0\2"),
        "zeros before the end": data[:-2] + bytes(32) + data[-2:],
        "fill before the end": data[:-2] + b"\xff" * 32 + data[-2:],
        "zeros between segments": data[:20] + bytes(3) + data[20:],
        "bytes behind the end": data + b"abc" * 99,
        "a second picture": data + encoded(mode="L"),
        "a profile without end": data[:20] + b"\xff\xe2\0\x20ICC_PROFILE\0\3\1" + bytes(16) + data[20:],
    }
    for name, content in careless.items():
        assert np.array_equal(decode_image(content, name), by_opencv(data)), name


def test_a_table_that_a_byte_was_put_into_is_damaged() -> None:
    data = encoded()
    table = data.rindex(b"\xff\xc4") + 60
    with pytest.raises(InputError, match="x: is damaged"):
        decode_image(data[:table] + b"\7" + data[table:], "x")


def test_what_looks_like_metadata_within_a_scan_is_damage() -> None:
    data = encoded(mode="L")
    middle = (scan(data) + len(data)) // 2
    with pytest.raises(InputError, match="x: is damaged"):
        decode_image(data[:middle] + b"\xff\xe1\0\4ab" + data[middle:], "x")


def test_nothing_is_said_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    data = encoded()
    with pytest.raises(InputError):
        decode_image(data[:-400] + data[-2:], "x")
    assert capfd.readouterr().err == ""


def test_a_flat_picture_may_end_in_zeros() -> None:
    assert re.search(rb"\0{30}\xff\xd9\Z", uniform(0x11, 0x11, 0x11, height=128))
    assert (decode_image(uniform(0x11, 0x11, 0x11, height=128), "x") == 128).all()
