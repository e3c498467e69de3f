"""Images of every kind that cameras write: deep and floating-point samples, turned AVIF, HEIC under any name."""

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lsr_infer.errors import InputError
from lsr_infer.io.images import common_bits, read_image, read_mask, used_bits
from lsr_infer.io.sources import find_sources
from lsr_infer.pipeline.task import read_source_image
from lsr_infer.video.reader import read_frames

Shared = Callable[[str], Path]


def street(height: int = 32, width: int = 48) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([255 * columns // width, 255 * rows // height, np.full_like(rows, 90)], axis=2).astype(np.uint8)


def deep(picture: np.ndarray, bits: int) -> np.ndarray:
    return picture.astype(np.uint16) << (bits - 8)


def test_twelve_bits_in_sixteen_look_like_their_twin(shared: Shared) -> None:
    folder = shared("data/cases/media")
    assert np.array_equal(read_image(folder / "deep_12in16.png"), read_image(folder / "deep_8bit_twin.png"))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_deep_samples_are_never_black(tmp_path: Path, bits: int, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / f"deep{suffix}"
    cv2.imwrite(str(path), deep(street(), bits))
    assert used_bits(path) == bits
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(read_image(path), street())
    assert caplog.text.count(f"are read as of {bits} bits") == (bits < 16)


def as_found(*arguments: Path) -> dict[str, np.ndarray]:
    """Read images as a command does that names these places."""
    sources = find_sources([str(one) for one in arguments]).sources
    return {str(source.name): read_source_image(source, 1.0) for source in sources}


def test_one_bright_image_tells_how_its_whole_set_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dark = street() // 8
    for number in range(40):
        folder = tmp_path / ("day" if number % 2 else "night")
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{number}.png"), deep(street() if number == 37 else dark, 12))
    with caplog.at_level(logging.WARNING):
        read = as_found(tmp_path)
    assert {name for name, frame in read.items() if not np.array_equal(frame, dark)} == {"day/37"}
    assert np.array_equal(read["day/37"], street())
    told = caplog.text.splitlines()
    assert "16-bit samples with nothing above 4095 are read as of 12 bits" in told[0]
    assert f"{tmp_path}/night: 20 images of 16-bit samples use fewer than the 12 bits" in told[1]
    assert len(told) == 2
    alone = as_found(tmp_path / "night")
    assert np.array_equal(alone["0"], 4 * dark), "read as of 10 bits, by themselves"
    assert np.array_equal(as_found(tmp_path / "night", tmp_path / "day/37.png")["0"], dark)


def test_what_became_brighter_since_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = [tmp_path / "0.png", tmp_path / "1.png"]
    for path in files:
        cv2.imwrite(str(path), deep(street(), 10))
    sources = find_sources([str(tmp_path)]).sources
    cv2.imwrite(str(files[1]), deep(street(), 14))
    caplog.clear()
    assert np.array_equal(read_source_image(sources[0], 1.0), street())
    with pytest.raises(InputError, match=r"1.png: holds 16-bit samples of 14 bits, .* read as of 10 bits. .* start"):
        read_source_image(sources[1], 1.0)
    cv2.imwrite(str(files[0]), street())
    assert np.array_equal(as_found(files[0])["0"], street())
    assert not caplog.records, "what was said of the set is not said again"
    (source,) = find_sources([str(files[0])]).sources
    cv2.imwrite(str(files[0]), deep(street(), 12))
    with pytest.raises(InputError, match="images of its set have 8 bits a sample"):
        read_source_image(source, 1.0)


def test_whole_sets_of_sixteen_bits_are_not_read_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = [tmp_path / f"{number}.png" for number in range(60)]
    for path in files:
        cv2.imwrite(str(path), deep(street(4, 6), 16))
    looked: list[Path] = []
    assert common_bits(files, lambda path: looked.append(path) or used_bits(path)) == 16
    assert len(looked) < 20
    assert not caplog.records


def test_damaged_and_missing_files_decide_nothing(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), deep(street(), 12))
    cv2.imwrite(str(tmp_path / "1.png"), deep(street(), 16))
    data = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(data[:60] + b"\xff" + data[61:])
    (tmp_path / "2.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "3.png").write_bytes(data[:20])
    (tmp_path / "4.tif").write_bytes(b"II*\0")
    assert common_bits(sorted(tmp_path.iterdir())) == 12


def test_a_mask_of_deep_samples_keeps_its_smallest_ones(tmp_path: Path) -> None:
    mask = np.zeros((4, 6), dtype=np.uint16)
    mask[1:3] = 1
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask > 0)


def test_grey_deep_images_are_scaled(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), deep(street()[..., 0], 12))
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(street()[..., :1], 3, axis=2))


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("grey.tif", np.float32, "floating-point"), ("colour.tif", np.float32, "floating-point"),
        ("grey.tif", np.float64, "floating-point"), ("grey.tif", np.int32, "signed integer"),
        ("grey.tif", np.int16, "signed integer"), ("grey.pfm", np.float32, "floating-point"),
        ("colour.pfm", np.float32, "floating-point"), ("colour.hdr", np.float32, "floating-point"),
    ],
)  # fmt: skip
def test_samples_that_are_not_read_are_named(tmp_path: Path, name: str, kind: type[np.generic], words: str) -> None:
    assert cv2.imwrite(str(tmp_path / name), np.ones((32, 48, 3) if "colour" in name else (32, 48), dtype=kind))
    (source,) = find_sources([str(tmp_path / name)]).sources
    with pytest.raises(InputError, match=f"{name}: holds {words} samples, which are not read; save it with 8 or 16 bi"):
        read_source_image(source, 1.0)


def test_unsigned_samples_of_32_bits_are_named(tmp_path: Path) -> None:
    Image.fromarray(np.ones((32, 48), dtype=np.int32)).save(tmp_path / "a.tif")
    signed, data = b"\x53\x01\x03\0\x01\0\0\0\x02", (tmp_path / "a.tif").read_bytes()
    assert signed in data
    (tmp_path / "a.tif").write_bytes(data.replace(signed, signed[:-1] + b"\x01"))
    with pytest.raises(InputError, match="holds 32-bit samples, which are not read"):
        read_image(tmp_path / "a.tif")


def test_the_floating_point_file_of_the_cases_is_refused_by_its_name(shared: Shared) -> None:
    with pytest.raises(InputError, match="holds floating-point samples, which are not read"):
        read_image(shared("data/cases/media/float32.tif"))


@pytest.mark.parametrize("name", ["avif_rotate90.avif", "avif_exif6.avif"])
def test_avif_is_turned(shared: Shared, name: str) -> None:
    path = shared(f"data/cases/media/{name}")
    stored = np.asarray(Image.open(path).convert("RGB"))[..., ::-1]
    assert np.array_equal(read_image(path), np.rot90(stored, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_avif_is_that_of_jpeg(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(street()[..., ::-1])
    picture.save(tmp_path / "a.jpg", quality=98, subsampling=0, exif=exif)
    picture.save(tmp_path / "a.avif", quality=95, subsampling="4:4:4", exif=exif)  # takes the orientation out of it
    avif, jpeg = read_image(tmp_path / "a.avif"), read_image(tmp_path / "a.jpg")
    assert avif.shape == jpeg.shape
    assert np.abs(avif.astype(int) - jpeg).mean() < 4


@pytest.mark.parametrize("name", ["photo.heic", "photo.mp4", "photo", "photo.bin"])
def test_a_photo_in_tiles_is_read_whole_under_any_name(shared: Shared, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(shared("data/cases/media/heic_grid.heic").read_bytes())
    (source,) = find_sources([str(path)]).sources
    assert source.kind == "image"
    assert read_image(path).shape == (64, 64, 3)  # a tile has 64 columns too, in colour; the photo is grey
    assert np.ptp(read_image(path).astype(int), axis=2).max() == 0
    with pytest.raises(InputError, match="is a still picture, no video"):
        next(iter(read_frames(path)))


def test_an_avif_under_a_videos_name_is_an_image(tmp_path: Path) -> None:
    Image.fromarray(street()).save(tmp_path / "still.avif")
    path = (tmp_path / "still.avif").rename(tmp_path / "still.mov")
    (source,) = find_sources([str(path)]).sources
    assert source.kind == "image"
    assert read_image(path).shape == (32, 48, 3)
