"""Pictures as players show them: the display matrix, cropping, HDR and wide gamuts, and the stream that is taken."""

import logging
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from lsr_infer.errors import InputError
from lsr_infer.io.colors import to_bt709
from lsr_infer.io.image_headers import UNCROPPED, Crop, clean_aperture
from lsr_infer.video.containers import BT709
from lsr_infer.video.reader import probe, read_frames

Shared = Callable[[str], Path]
_IDENTITY = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)


def corner_picture(height: int = 48, width: int = 96) -> NDArray[np.uint8]:
    """Grey with a bright upper left quarter and a middling upper right one, unlike in every orientation."""
    picture = np.full((height, width, 3), 40, dtype=np.uint8)
    picture[: height // 2, : width // 2] = 220
    picture[: height // 2, width // 2 :] = 130
    return picture


def clip(path: Path, picture: NDArray[np.uint8], *, frames: int = 3, **tags: int) -> Path:
    """Write a clip of one picture, by libx265 in 10 bits where it has colour tags."""
    with av.open(str(path), "w") as container:
        options = {"crf": "4", "x265-params": "log-level=none"} if tags else {"crf": "4"}
        stream = container.add_stream("libx265" if tags else "libx264", rate=30, options=options)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p10le" if tags else "yuv420p"
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
    return path


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Replace the display matrix of the video track of an MP4."""
    data = path.read_bytes()
    at = data.index(_IDENTITY, data.index(b"tkhd"))
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:at] + matrix + data[at + 36 :])
    return path


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), lambda p: p),
        ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
        ((1, 0, 0, -1), lambda p: p[::-1]),
        ((-1, 0, 0, -1), lambda p: p[::-1, ::-1]),
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
        ((0, -1, 1, 0), lambda p: np.rot90(p)),
        ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda p: np.rot90(p, 2).transpose(1, 0, 2)),
    ],
)
def test_the_whole_display_matrix_is_applied(
    tmp_path: Path, matrix: tuple[int, int, int, int], shown: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> None:
    path = with_matrix(clip(tmp_path / "clip.mp4", corner_picture()), *matrix)
    expected = shown(corner_picture())
    info = probe(path)
    for item in read_frames(path):
        assert item.frame.shape == expected.shape == (info.height, info.width, 3)
        assert np.abs(item.frame.astype(int) - expected).mean() < 6


def test_a_mirrored_clip_is_mirrored_and_not_turned(shared: Shared) -> None:
    path = shared("data/cases/media/matrix_hflip.mp4")
    stored = next(av.open(str(path)).decode(video=0)).to_ndarray(format="bgr24")
    assert np.array_equal(next(iter(read_frames(path))).frame, stored[:, ::-1])


def test_hidden_rows_of_matroska_are_cropped(shared: Shared) -> None:
    path = shared("data/cases/media/pixelcrop.mkv")
    stored = next(av.open(str(path)).decode(video=0)).to_ndarray(format="bgr24")
    assert (probe(path).height, probe(path).width) == (128, 256)
    assert np.array_equal(next(iter(read_frames(path))).frame, stored[16:-16])


def clean_aperture_box(width: int, height: int, right: int = 0, down: int = 0) -> bytes:
    return struct.pack(">I4sIIIIiIiI", 40, b"clap", width, 1, height, 1, right, 1, down, 1)


@pytest.mark.parametrize(
    ("box", "crop"),
    [
        (clean_aperture_box(100, 40), Crop(top=10, bottom=10, left=10, right=10)),
        (clean_aperture_box(100, 40, right=-4, down=6), Crop(top=16, bottom=4, left=6, right=14)),
        (clean_aperture_box(120, 60), UNCROPPED),
        (clean_aperture_box(130, 60), UNCROPPED),  # larger than the picture: damaged
        (clean_aperture_box(0, 0), UNCROPPED),
        (clean_aperture_box(100, 40)[:30], UNCROPPED),
    ],
)
def test_a_clean_aperture_hides_edges(box: bytes, crop: Crop) -> None:
    assert clean_aperture(b"stsd and others" + box, 120, 60) == crop


def test_the_clean_aperture_of_an_mp4_is_cropped(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", corner_picture())
    data = path.read_bytes()
    grown = len(clean_aperture_box(80, 40))
    sample_entry = data.index(b"avc1", data.index(b"stsd")) - 4
    end = sample_entry + struct.unpack_from(">I", data, sample_entry)[0]
    out = bytearray(data[:end] + clean_aperture_box(80, 40) + data[end:])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):  # the index follows the pictures
        at = out.index(box) - 4
        out[at : at + 4] = struct.pack(">I", struct.unpack_from(">I", out, at)[0] + grown)
    out[sample_entry : sample_entry + 4] = struct.pack(">I", end - sample_entry + grown)
    path.write_bytes(bytes(out))
    frame = next(iter(read_frames(path))).frame
    assert frame.shape == (40, 80, 3) == (probe(path).height, probe(path).width, 3)
    assert np.abs(frame.astype(int) - corner_picture()[4:-4, 8:-8]).mean() < 6


def test_hlg_looks_like_its_twin_and_is_tagged_as_what_it_is(shared: Shared) -> None:
    hdr, twin = (shared(f"data/cases/media/{name}.mp4") for name in ("hdr_hlg", "hdr_sdr_twin"))
    assert probe(hdr).color == BT709
    for one, other in zip(read_frames(hdr), read_frames(twin), strict=True):
        assert np.abs(one.frame.astype(int) - other.frame).mean() < 2.5


@pytest.mark.parametrize(
    "tags",
    [
        {"color_trc": 8}, {"color_trc": 9}, {"color_trc": 17}, {"color_primaries": 10}, {"colorspace": 8},
        {"colorspace": 10, "color_trc": 14, "color_primaries": 9}, {"colorspace": 14, "color_trc": 16},
    ],
)  # fmt: skip
def test_colours_that_would_come_out_wrong_are_refused(tmp_path: Path, tags: dict[str, int]) -> None:
    path = clip(tmp_path / "clip.mp4", corner_picture(), **tags)
    with pytest.raises(InputError, match=r"clip\.mp4: has colours that are not read .* Convert it to BT\.709"):
        list(read_frames(path))


def coded(picture: NDArray[np.uint8], transfer: int, primaries: int) -> NDArray[np.uint8]:
    """Code a picture of BT.709 anew, by the inverses of the mappings of ITU-R BT.2100 and BT.2408."""
    light = (picture[..., ::-1] / 255) ** 2.4
    if primaries == 9:
        light = light @ np.linalg.inv(np.array([
            [1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187],
        ])).T  # fmt: skip
    if transfer == 16:
        power = (np.maximum(light, 0) * 203 / 10_000) ** (2610 / 16384)
        light = ((107 / 128 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    elif transfer == 18:
        display = np.maximum(light, 1e-9) * 0.203
        luma = (display @ np.array([0.2627, 0.6780, 0.0593]))[..., None]
        scene = display * luma ** (1 / 1.2 - 1)
        light = np.where(
            scene <= 1 / 12,
            np.sqrt(3 * scene),
            0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
        )
    else:
        light = np.maximum(light, 0) ** (1 / 2.4)
    return np.round(255 * light[..., ::-1]).astype(np.uint8)


@pytest.mark.parametrize(("transfer", "primaries"), [(16, 9), (18, 9), (1, 9), (16, 1)])
def test_other_transfers_and_primaries_are_brought_to_bt709(tmp_path: Path, transfer: int, primaries: int) -> None:
    rng = np.random.default_rng(3)
    picture = np.repeat(np.repeat(rng.integers(60, 225, (3, 6, 3), dtype=np.uint8), 16, axis=0), 16, axis=1)
    path = clip(
        tmp_path / "clip.mp4", coded(picture, transfer, primaries), color_trc=transfer, color_primaries=primaries
    )
    frame = next(iter(read_frames(path))).frame
    centres = (slice(8, None, 16), slice(8, None, 16))
    assert np.abs(frame[centres].astype(int) - picture[centres]).max() <= 12  # 4:2:0, and 8 bits before the coding
    assert probe(path).color == BT709


@pytest.mark.parametrize("transfer", [16, 18])
def test_the_mapping_rises_and_keeps_grey(transfer: int) -> None:
    steps = np.linspace(0, 1, 200)
    mapped = to_bt709(np.repeat(steps[:, None], 3, axis=1), transfer, 9)
    assert np.ptp(mapped, axis=1).max() < 2e-3
    assert (np.diff(mapped[:, 0]) >= 0).all()
    assert mapped[0, 0] == pytest.approx(0, abs=1e-3)
    assert mapped[-1, 0] > 0.999


def test_the_default_stream_is_read_and_named(shared: Shared, caplog: pytest.LogCaptureFixture) -> None:
    path = shared("data/cases/media/two_video_streams.mp4")
    with caplog.at_level(logging.WARNING):
        frames = list(read_frames(path))
    assert frames[0].frame.shape == (128, 256, 3)
    assert "holds 2 video streams (128x72, 256x128); number 2 is read" in caplog.text


def test_of_equal_streams_the_first_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=30) for _ in range(2)]
        for number, stream in enumerate(streams):
            stream.width, stream.height, stream.pix_fmt = 64 + 32 * number, 48, "yuv420p"
        for stream in streams:
            picture = np.zeros((48, stream.width, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
            container.mux(stream.encode(None))
    with caplog.at_level(logging.WARNING):
        assert [item.frame.shape for item in read_frames(path)] == [(48, 64, 3)]
    assert "number 1 is read" in caplog.text
