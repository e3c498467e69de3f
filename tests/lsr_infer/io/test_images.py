"""Images and labels are read whole and for what they are, or refused with one line."""

import csv
import io
import json
import math
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lsr_infer.cli import main
from lsr_infer.errors import InputError
from lsr_infer.io.image_headers import Pictures, is_one_picture, walk_pictures
from lsr_infer.io.images import (
    decode_image,
    fit_mask,
    image_size,
    read_image,
    read_label,
    read_mask,
    resize_frame,
    resize_labels,
)
from lsr_infer.io.sources import find_sources
from lsr_infer.video.reader import read_frames


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth frame that survives JPEG nearly unchanged."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 3 % 256, columns * 2 % 256, (rows + columns) % 256], axis=2).astype(np.uint8)


def png(samples: np.ndarray, *, depth: int, color_type: int, palette: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG written by hand: `samples` are rows of packed bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, packed = samples.shape
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color_type]
    width = packed * 8 // (depth * channels)
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    table = chunk(b"PLTE", palette) if palette else b""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + table + extra + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def attempt(data: bytes) -> tuple[np.ndarray | None, str]:
    """The frame, or the line that refused it."""
    try:
        return decode_image(data, "file"), ""
    except InputError as error:
        return None, str(error)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".webp", ".jpg"])
def test_what_was_written_is_read(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"käse 1{suffix}"
    frame = picture()
    file.write_bytes(cv2.imencode(suffix, frame, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes())
    read = read_image(file)
    assert read.shape == frame.shape
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - frame).mean() < (6 if suffix == ".jpg" else 1e-9)
    assert image_size(file) == (48, 64)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".jpg"])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_truncation_is_refused_or_harmless(suffix: str, progressive: bool) -> None:
    frame = picture(96, 128)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1] if progressive and suffix == ".jpg" else []
    data = cv2.imencode(suffix, frame, options)[1].tobytes()
    whole = decode_image(data, "whole")
    refused = 0
    for length in {0, 1, 5, 20, *range(30, len(data) - 1, max(1, len(data) // 60)), len(data) - 1}:
        cut, message = attempt(data[:length])
        assert cut is None or np.array_equal(cut, whole), f"{length} of {len(data)} bytes"
        assert "\n" not in message
        refused += cut is None
    assert refused > 30


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_a_tiff_whose_data_breaks_off_is_damaged(compression: str) -> None:
    content = io.BytesIO()
    Image.fromarray(picture(240, 320)).save(content, "TIFF", compression=compression)
    data = content.getvalue()
    middle = len(data) // 2
    assert attempt(data)[0] is not None
    assert attempt(data[:middle] + b"\xff" * 100 + data[middle + 100 :])[1].startswith("file: is damaged. ")


def test_a_thumbnail_inside_a_jpeg_does_not_end_it(tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", picture())[1].tobytes()
    segment = b"Exif\0\0" + b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 0) + data
    with_thumbnail = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    assert np.array_equal(decode_image(with_thumbnail, "x"), decode_image(data, "y"))
    with pytest.raises(InputError, match="truncated"):
        decode_image(with_thumbnail[: len(segment) + 400], "x")
    assert decode_image(data + b"trailing", "z").shape == (48, 64, 3)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("color_type", [0, 3])
@pytest.mark.parametrize("transparent", [False, True])
def test_labels_are_indices_at_every_depth(tmp_path: Path, depth: int, color_type: int, transparent: bool) -> None:
    rng = np.random.default_rng(depth)
    values = rng.integers(0, 1 << depth, (9, 16), dtype=np.uint8)
    bits = ((values[..., None] >> np.arange(depth)[::-1]) & 1).astype(np.uint8)
    palette = rng.integers(0, 256, 3 << depth, dtype=np.uint8).tobytes() if color_type == 3 else b""
    extra = b""
    if transparent and color_type == 3:
        kind, body = b"tRNS", bytes([0, 128])
        extra = struct.pack(">I", 2) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    file = tmp_path / "label.png"
    packed = np.packbits(bits.reshape(9, -1), axis=1)
    file.write_bytes(png(packed, depth=depth, color_type=color_type, palette=palette, extra=extra))
    read = read_label(file)
    assert read.dtype == np.uint8
    assert np.array_equal(read, values)


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (6, 4), (4, 2)])
@pytest.mark.parametrize("depth", [8, 16])
def test_labels_of_several_channels_come_as_rgb(tmp_path: Path, color_type: int, channels: int, depth: int) -> None:
    values = np.random.default_rng(3).integers(0, 1 << depth, (5, 7, channels)).astype(f">u{depth // 8}")
    file = tmp_path / "label.png"
    file.write_bytes(png(values.reshape(5, -1).view(np.uint8), depth=depth, color_type=color_type))
    read = read_label(file)
    expected = values[..., 0] if channels < 3 else values[..., :3]
    assert read.dtype == (np.uint8 if depth == 8 else np.uint16)
    assert np.array_equal(read, expected)


@pytest.mark.parametrize("suffix", [".heic", ".HIF", ".avif"])
def test_pictures_of_phones_and_cameras_are_read(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"phone{suffix}"
    image = Image.fromarray(np.ascontiguousarray(picture()[..., ::-1]))
    if suffix != ".avif":
        pillow_heif.from_pillow(image).save(file, quality=95)
    else:
        image.save(file, quality=95)
    (source,) = find_sources([str(tmp_path)]).sources
    assert source.kind == "image"
    assert np.abs(read_image(file).astype(int) - picture()).mean() < 6
    assert image_size(file) == (48, 64)
    cut, message = attempt(file.read_bytes()[:-200])
    assert cut is None
    assert message.count("\n") == 0


def test_a_label_file_that_is_no_png_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "label.png"
    file.write_bytes(cv2.imencode(".jpg", picture())[1].tobytes())
    with pytest.raises(InputError, match="label files are PNG"):
        read_label(file)


@pytest.mark.parametrize("read", [read_image, read_label, image_size])
def test_what_cannot_be_opened_is_one_line(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "none.png")
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match="is empty"):
        read(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("hello", encoding="utf-8")
    with pytest.raises(InputError, match=r"is no (image|PNG)"):
        read(tmp_path / "text.png")


@pytest.mark.parametrize(
    "begin", [b"\0\0\0\x20ftypisom\0\0\2\0", b"\x1aE\xdf\xa3\x9fB\x86\x81", b"RIFF\0\1\0\0AVI LIST"]
)
def test_a_video_is_called_a_video(tmp_path: Path, begin: bytes) -> None:
    (tmp_path / "drive.jpg").write_bytes(begin + bytes(100))
    with pytest.raises(InputError, match="is a video, no image"):
        read_image(tmp_path / "drive.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(b"x")
    file.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        read_image(file)


def test_a_small_file_that_claims_a_huge_picture_is_refused(tmp_path: Path) -> None:
    data = bytearray(png(np.zeros((1, 1), dtype=np.uint8), depth=8, color_type=0))
    data[16:24] = struct.pack(">II", 30000, 30000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    file = tmp_path / "bomb.png"
    file.write_bytes(data)
    for read in (read_image, read_label, image_size):
        with pytest.raises(InputError, match="claims 30000x30000"):
            read(file)  # type: ignore[operator]


def test_a_flipped_bit_in_a_png_is_seen(tmp_path: Path) -> None:
    data = bytearray(cv2.imencode(".png", picture())[1].tobytes())
    data[len(data) // 2] ^= 4
    with pytest.raises(InputError, match="checksum"):
        decode_image(bytes(data), "x")


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_damage_never_ends_in_another_error(data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from([".png", ".jpg", ".bmp", ".webp", ".tif", ".ppm", ".gif"]))
    content = bytearray(cv2.imencode(suffix, picture(16, 16))[1].tobytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    assert "\n" not in attempt(bytes(content[: data.draw(st.integers(0, len(content)))]))[1]


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from([b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"GIF89a", b"P6 ", b"RIFF", b""]),
    st.binary(max_size=300),
)
def test_noise_is_refused(start: bytes, noise: bytes) -> None:
    with pytest.raises(InputError):
        decode_image(start + noise, "noise")


FILLED = {"derived/bitflip.jpg", "pillow/hopper_bad_exif.jpg"}
"""JPEGs of which both decoders make up what their data does not give."""


def test_collected_bad_files_end_as_decoders_agree(shared: Callable[[str], Path]) -> None:
    folder = shared("data/badmedia")
    seen = {True: 0, False: 0}
    with (folder / "BEHAVIOUR.tsv").open(encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table, delimiter="\t") if row["decoder_a"] == "pil"]
    for row in rows:
        both = row["result_a"].startswith("ok") and row["result_b"].startswith("ok") and row["file"] not in FILLED
        neither = not row["result_a"].startswith("ok") and not row["result_b"].startswith("ok")
        frame, message = attempt((folder / row["file"]).read_bytes())
        assert not ((neither or row["file"] in FILLED) and frame is not None), row["file"]
        assert not (both and frame is None), f"{row['file']}: {message}"
        assert "\n" not in message
        if frame is not None:
            assert image_size(folder / row["file"]) == frame.shape[:2]
        seen[both] += 1
    assert seen[True] > 50
    assert seen[False] > 50
    with pytest.raises(InputError, match="truncated"):
        read_image(folder / "pillow" / "truncated_jpeg.jpg")


def animation(pictures: int) -> bytes:
    """A GIF of so many pictures of noise, without a table of colours of their own."""
    target = io.BytesIO()
    rng = np.random.default_rng(2)
    with av.open(target, "w", format="gif") as container:
        stream = container.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8"
        for n in range(pictures):
            picture = av.VideoFrame.from_ndarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), format="rgb24")
            picture = picture.reformat(format="rgb8")
            picture.pts, picture.time_base = n, Fraction(1, 10)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return target.getvalue()


def test_a_damaged_animation_is_no_picture(tmp_path: Path) -> None:
    data = animation(6)
    assert walk_pictures(data) == Pictures(count=6, whole=True)
    half = walk_pictures(data[: len(data) // 2])
    assert not half.whole
    assert 3 <= half.count <= 4
    assert walk_pictures(data[:-1]) == Pictures(count=6, whole=False)
    place = tmp_path / "one.gif"
    place.write_bytes(animation(1))
    assert is_one_picture(place)
    for end in (len(data) // 2, len(data) - 1):
        place.write_bytes(data[:end])
        assert not is_one_picture(place), end


@pytest.mark.parametrize("left", [0.02, 0.3, 0.6, 0.999])
def test_a_still_gif_that_is_cut_off_is_refused_as_an_image(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], left: float
) -> None:
    data, source = animation(1), tmp_path / "still.gif"
    source.write_bytes(data[: math.floor(left * len(data))])
    assert main([str(source), "--model", str(model), "-o", str(tmp_path / "out"), "--json"]) == 4
    (report,) = json.loads(capsys.readouterr().out)["sources"]
    assert (report["kind"], report["status"], report["outputs"]) == ("image", "failed", [])


@pytest.mark.parametrize("kind", ["gif", "apng"])
def test_a_hole_in_an_animation_is_noticed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"clip.{kind}"
    if kind == "gif":
        data = animation(6)
    else:
        noise = np.random.default_rng(3).integers(0, 255, (6, 48, 64, 3), dtype=np.uint8)
        images = [Image.fromarray(each) for each in noise]
        images[0].save(path, format="PNG", save_all=True, append_images=images[1:])
        data = path.read_bytes()
    path.write_bytes(data)
    assert len(list(read_frames(path))) == 6
    for part in range(1, 12):
        at = len(data) * part // 12
        for hole in (bytes(200), b""):
            path.write_bytes(data[:at] + hole + data[at + (len(hole) or 3) :])
            with pytest.raises(InputError):
                list(read_frames(path))


def test_a_cut_off_animation_keeps_its_frames_and_is_partial(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "clip.gif"
    data = animation(6)
    source.write_bytes(data[: len(data) // 2])
    assert main([str(source), "--model", str(model), "-o", str(tmp_path / "out"), "--json"]) == 6
    (report,) = json.loads(capsys.readouterr().out)["sources"]
    assert (report["kind"], report["status"]) == ("video", "partial")
    assert len(list(read_frames(report["outputs"][0]))) == report["frames"] >= 2
    assert "its end is missing" in report["error"]


def test_opencv_says_nothing_beside_our_line(tmp_path: Path, model: Path) -> None:
    source = tmp_path / "still.png"
    source.write_bytes(animation(2)[: 48 * 64])  # a GIF by its content, that OpenCV finds broken
    code = "import sys; from lsr_infer.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, str(source), "--model", str(model), "-o", str(tmp_path / "out")]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 4
    assert "[ERROR" not in ended.stderr
    assert ended.stderr.count("error: ") == 1


def test_native_labels_are_ids(shared: Callable[[str], Path]) -> None:
    gta5 = read_label(shared("data/native/gta5/labels/00001.png"))
    assert gta5.ndim == 2
    assert set(np.unique(gta5)) <= set(range(35))
    synthia = read_label(shared("data/native/synthia/GT/LABELS/0000000.png"))
    assert synthia.dtype == np.uint16
    assert synthia.shape == (760, 1280, 3)
    assert set(np.unique(synthia[..., 0])) <= set(range(23))
    assert len(np.unique(synthia[..., 0])) > 10


def test_a_mask_is_where_it_is_not_black(tmp_path: Path) -> None:
    mask = np.zeros((6, 8), dtype=np.uint8)
    mask[4:] = 1
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask > 0)


def touched(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Which pixels of another size share some area with an ignored one: pixel by pixel, in whole numbers."""
    found = np.zeros((height, width), dtype=bool)
    rows, columns = mask.shape
    for y, x in np.argwhere(mask).tolist():
        for row in range(height):
            for column in range(width):
                beside = (row + 1) * rows <= y * height or row * rows >= (y + 1) * height
                above = (column + 1) * columns <= x * width or column * columns >= (x + 1) * width
                found[row, column] |= not (beside or above)
    return found


side = st.integers(1, 40)


@given(side, side, st.integers(1, 12), st.integers(1, 12), st.data())
def test_a_pixel_is_ignored_where_any_ignored_one_touches_it(
    rows: int, columns: int, height: int, width: int, data: st.DataObject
) -> None:
    mask = np.zeros((rows, columns), dtype=bool)
    for _ in range(data.draw(st.integers(0, 3))):
        mask[data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))] = True
    before = mask.copy()
    fitted = fit_mask(mask, height, width)
    np.testing.assert_array_equal(fitted, touched(mask, height, width))
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize("place", [(0, 0), (1079, 1919), (538, 77)])
def test_a_single_ignored_pixel_survives_any_shrinking(place: tuple[int, int]) -> None:
    mask = np.zeros((1080, 1920), dtype=bool)
    mask[place] = True
    for size in ((540, 960), (100, 200), (7, 11), (1, 1), (1080, 3), (2000, 40)):
        fitted = fit_mask(mask, *size)
        assert fitted is not None
        assert fitted.shape == size
        assert fitted.any(), size


@pytest.mark.parametrize("size", [(24, 32), (36, 48), (50, 70), (48, 64), (12, 16), (96, 20)])
def test_frames_and_labels_are_resized_about_the_same_centres(size: tuple[int, int]) -> None:
    rows, _ = np.mgrid[0:48, 0:64]
    frame = np.repeat((rows * 4 + 8)[..., None], 3, axis=2).astype(np.uint8)
    labels = (rows * 4 + 8).astype(np.uint8)
    resized, nearest = resize_frame(frame, *size), resize_labels(labels, *size)
    assert resized.shape == (*size, 3)
    assert nearest.shape == size
    inner = slice(2, -2)
    error = nearest[inner].astype(float) - resized[inner, :, 0]
    assert np.abs(error).max() <= 4 * 0.5 + 1.01  # at most half a source row apart, plus rounding
    assert abs(error.mean()) <= 2.01
    assert set(np.unique(nearest)) <= set(np.unique(labels))


def test_resizing_to_the_same_size_is_the_same() -> None:
    frame = picture()
    assert resize_frame(frame, 48, 64) is frame
    assert resize_labels(frame[..., 0], 48, 64).base is frame


def test_strong_shrinking_averages() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[::2] = 200
    assert np.abs(resize_frame(stripes, 16, 16).astype(int) - 100).max() <= 1
