"""Images of every kind that cameras write: deep and floating-point samples, turned AVIF, HEIC under any name."""

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lsr_infer.errors import InputError
from lsr_infer.io.images import read_image
from lsr_infer.io.sources import find_sources
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


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".ppm"])
def test_deep_samples_are_never_black(tmp_path: Path, bits: int, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / f"deep{suffix}"
    cv2.imwrite(str(path), deep(street(), bits))
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(read_image(path), street())
    assert (f"read as of {bits} bits" in caplog.text) == (bits < 16)


def test_a_dark_image_is_read_as_the_others_of_its_folder(tmp_path: Path) -> None:
    dark = street() // 8
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), deep(dark if number == 2 else street(), 12))
    assert np.array_equal(read_image(tmp_path / "2.png"), dark)
    assert np.array_equal(read_image(tmp_path / "3.png"), street())


def test_grey_deep_images_are_scaled(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), deep(street()[..., 0], 12))
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(street()[..., :1], 3, axis=2))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(32, 48), (32, 48, 3)])
def test_floating_point_samples_are_refused_by_their_name(
    tmp_path: Path, kind: type[np.floating], shape: tuple[int, ...]
) -> None:
    path = tmp_path / "float.tif"
    cv2.imwrite(str(path), np.ones(shape, dtype=kind))
    with pytest.raises(InputError, match=r"float|floating"):
        read_image(path)


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
