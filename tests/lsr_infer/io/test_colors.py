"""Stills in HDR and wide gamuts look as videos do: in the colours of BT.709 and sRGB."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from lsr_infer.errors import InputError
from lsr_infer.io.colors import to_bt709
from lsr_infer.io.images import decode_image
from lsr_infer.video.reader import read_frames

Shared = Callable[[str], Path]

P3 = ((0.51512, 0.29198, 0.15710), (0.24120, 0.69225, 0.06657), (-0.00105, 0.04189, 0.78407))
ADOBE = ((0.60974, 0.20528, 0.14919), (0.31111, 0.62567, 0.06322), (0.01947, 0.06087, 0.74457))
"""XYZ of D50 by rows, from linear RGB."""


def profile(to_xyz: tuple[tuple[float, ...], ...], gamma: float = 2.2) -> bytes:
    """An ICC profile of three primaries and a gamma."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    white = (0.9642, 1.0, 0.8249)
    columns = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), zip(*to_xyz, strict=True), strict=True))
    tags = {name: b"XYZ \0\0\0\0" + fixed(*values) for name, values in {b"wtpt": white, **columns}.items()}
    curve = b"curv\0\0\0\0\0\0\0\1" + struct.pack(">Hxx", round(gamma * 256))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    tags[b"desc"] = b"desc\0\0\0\0\0\0\0\2x\0" + bytes(82)
    at, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s", at + len(body), 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return head + bytes(28) + fixed(*white) + bytes(48) + table + body


def street(height: int = 64, width: int = 96) -> NDArray[np.uint8]:
    """RGB of medium saturation, so that every gamut holds it."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([40 + 170 * columns // width, 60 + 150 * rows // height, 90 + columns // 2], axis=2).astype(
        np.uint8
    )


def saved(picture: NDArray[np.uint8], kind: str, **options: object) -> bytes:
    pillow_heif.register_heif_opener()
    content = io.BytesIO()
    exact: dict[str, object] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    if kind in ("HEIF", "AVIF"):
        exact = {"quality": 100, "chroma" if kind == "HEIF" else "subsampling": "4:4:4" if kind == "AVIF" else "444"}
    Image.fromarray(picture).save(content, kind, **exact, **options)
    return content.getvalue()


def far(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
@pytest.mark.parametrize("gamut", [P3, ADOBE])
def test_a_profile_is_applied(kind: str, gamut: tuple[tuple[float, ...], ...]) -> None:
    icc = profile(gamut)
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), io.BytesIO(icc), "RGB", "RGB")
    coded = np.asarray(ImageCms.applyTransform(Image.fromarray(street()), transform))
    assert far(coded, street()) > 5
    assert far(decode_image(saved(coded, kind, icc_profile=icc), "x")[..., ::-1], street()) < 1.5


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_is_srgb_or_no_profile_of_rgb_changes_nothing(kind: str) -> None:
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain = decode_image(saved(street(), kind), "x")
    for icc in (own, lab, b"no profile", profile(P3)[:200]):
        assert np.array_equal(decode_image(saved(street(), kind, icc_profile=icc), "x"), plain)


def shown(picture: NDArray[np.uint8], transfer: int, primaries: int) -> NDArray[np.uint8]:
    light = to_bt709(picture.reshape(-1, 3) / 255, transfer, primaries)
    return np.round(255 * light.reshape(picture.shape)).astype(np.uint8)


def png_with_numbers(picture: NDArray[np.uint8], transfer: int, primaries: int) -> bytes:
    data = saved(picture, "PNG")
    chunk = b"cICP" + bytes([primaries, transfer, 0, 1])
    return data[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


def avif_with_numbers(picture: NDArray[np.uint8], transfer: int, primaries: int) -> bytes:
    data = saved(picture, "AVIF")
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


def heic_with_numbers(picture: NDArray[np.uint8], transfer: int, primaries: int) -> bytes:
    numbers = {"color_primaries": primaries, "transfer_characteristics": transfer, "matrix_coefficients": 6}
    return saved(picture, "HEIF", **numbers, full_range_flag=1)


WRITERS = [png_with_numbers, avif_with_numbers, heic_with_numbers]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(("transfer", "primaries"), [(16, 9), (18, 9), (1, 9), (13, 12)])
def test_numbers_of_hdr_and_wide_gamuts_are_applied(
    write: Callable[[NDArray[np.uint8], int, int], bytes], transfer: int, primaries: int
) -> None:
    picture = street() if primaries == 12 or transfer == 1 else street() // 2 + 30
    expected = shown(picture, transfer, primaries)
    assert far(expected, picture) > 3
    assert far(decode_image(write(picture, transfer, primaries), "x")[..., ::-1], expected) < 3


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(("transfer", "primaries"), [(8, 1), (9, 1), (17, 9), (13, 10)])
def test_numbers_that_would_come_out_wrong_are_refused(
    write: Callable[[NDArray[np.uint8], int, int], bytes], transfer: int, primaries: int
) -> None:
    with pytest.raises(InputError, match="has colours that are not read"):
        decode_image(write(street(), transfer, primaries), "x")


@pytest.mark.parametrize("write", WRITERS)
def test_ordinary_numbers_change_nothing(write: Callable[[NDArray[np.uint8], int, int], bytes]) -> None:
    assert far(decode_image(write(street(), 13, 1), "x")[..., ::-1], street()) < 1.5


@pytest.mark.parametrize("write", WRITERS)
def test_a_still_of_an_hdr_video_looks_like_its_frame(
    shared: Shared, write: Callable[[NDArray[np.uint8], int, int], bytes]
) -> None:
    path = shared("data/cases/media/hdr_hlg.mp4")
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0))
        coded = picture.to_ndarray(format="rgb24")
        still = write(coded, int(picture.color_trc), int(picture.color_primaries))
    assert far(decode_image(still, "x"), next(iter(read_frames(path))).frame) < 3
