"""Every container says where it is cut off or damaged, and no whole one does."""

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from lsr_infer.errors import InputError
from lsr_infer.video.containers import VideoFrame
from lsr_infer.video.reader import read_frames
from lsr_infer.video.structure import walk_file

Shared = Callable[[str], Path]
FORMATS = [
    ("mkv", "libx264", {}), ("mkv", "libx264", {"live": "1"}), ("webm", "libvpx", {}), ("avi", "mpeg4", {}),
    ("mp4", "libx264", {}), ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}), ("flv", "libx264", {}),
    ("asf", "mpeg4", {}), ("ts", "libx264", {}), ("mpg", "mpeg2video", {}), ("ogv", "libvpx", {}),
]  # fmt: skip
FRAMES = 24


def clip(path: Path, codec: str, options: dict[str, str]) -> Path:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25, options={"g": "6"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for n in range(FRAMES):
            picture = av.VideoFrame.from_ndarray(np.roll(base, 3 * n, axis=1), format="rgb24")
            picture.pts = n
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def read(path: Path) -> tuple[int, str | None]:
    """Return how many frames are read, and how reading ended."""
    count = 0
    try:
        for _ in read_frames(path):
            count += 1
    except InputError as error:
        return count, str(error)
    return count, None


@pytest.mark.parametrize(("kind", "codec", "options"), FORMATS)
def test_no_cut_loses_a_frame_in_silence(tmp_path: Path, kind: str, codec: str, options: dict[str, str]) -> None:
    path = clip(tmp_path / f"whole.{kind}", codec, options)
    data = path.read_bytes()
    assert read(path) == (FRAMES, None)
    # A transport or program stream that is cut between two packets is a shorter one.
    packet = {"ts": 188, "mpg": 2048}.get(kind, 1)
    for part in range(1, 60):
        length = len(data) * part // 60
        cut = tmp_path / f"cut.{kind}"
        cut.write_bytes(data[:length])
        count, problem = read(cut)
        assert problem is not None or count == FRAMES or (packet > 1 and length % packet == 0), length


@pytest.mark.parametrize(
    ("kind", "head", "tail"),
    [("avi", b"RIFF%sAVI ", b"LIST%smovi"), ("mov", b"", b"%smoov")],
)
def test_pieces_within_pieces_end_somewhere(tmp_path: Path, kind: str, head: bytes, tail: bytes) -> None:
    order = "<I" if kind == "avi" else ">I"
    data = b""
    for _ in range(5000):
        data = tail % struct.pack(order, len(data) + (4 if kind == "avi" else 8)) + data
    data = head % struct.pack(order, len(data) + 4) + data if head else data
    path = tmp_path / f"deep.{kind}"
    path.write_bytes(data)
    assert "damaged at byte" in str(walk_file(path, frozenset({kind})).damage)


@pytest.mark.parametrize("size", [2365, 2316, 3000, 7245])
def test_a_cut_matroska_file_is_partial(shared: Shared, tmp_path: Path, size: int) -> None:
    data = shared("data/cases/media/mkv_whole_24_frames.mkv").read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(data[:size])
    count, problem = read(path)
    assert count < 24
    assert problem is not None
    assert "cut off or damaged" in problem


def test_a_damaged_cluster_is_noticed(shared: Shared) -> None:
    count, problem = read(shared("data/cases/media/mkv_damaged_cluster.mkv"))
    assert count < 24
    assert problem is not None
    assert "cut off or damaged" in problem


@pytest.mark.parametrize("kind", ["mkv", "avi", "webm"])
def test_heads_of_packets_that_are_overwritten_lose_nothing_in_silence(tmp_path: Path, kind: str) -> None:
    path = clip(tmp_path / f"whole.{kind}", {"avi": "mpeg4", "webm": "libvpx"}.get(kind, "libx264"), {})
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = path.read_bytes()
    for number, place in enumerate(places[1:], start=1):
        path.write_bytes(data[: place - 6] + b"\x51\xa7\x0e\x99" + data[place - 2 :])
        count, problem = read(path)
        assert problem is not None or count == FRAMES, number


def test_an_undecodable_packet_is_passed_over_and_counted(shared: Shared) -> None:
    frames: list[VideoFrame] = []
    with pytest.raises(InputError, match="1 packet could not be decoded; the other 5 frames are kept"):
        frames.extend(read_frames(shared("data/cases/media/bad_packet_all_keyframes.mp4")))
    assert [round(30 * item.time) for item in frames] == [0, 2, 3, 4, 5]


def test_several_undecodable_packets_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        rng = np.random.default_rng(1)
        for _ in range(12):
            picture = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for place, size in (packets[3], packets[7], packets[8]):
        data[place : place + size] = b"\xff" * size
    path.write_bytes(bytes(data))
    count, problem = read(path)
    assert count == 9
    assert problem is not None
    assert "3 packets could not be decoded" in problem


@pytest.mark.parametrize(("kind", "codec", "options"), FORMATS[:4])
def test_packets_are_counted_as_libav_reads_them(
    tmp_path: Path, kind: str, codec: str, options: dict[str, str]
) -> None:
    path = clip(tmp_path / f"clip.{kind}", codec, options)
    with av.open(str(path)) as container:
        found = walk_file(path, frozenset(container.format.name.split(",")))
    assert (found.damage, found.packets) == (None, [FRAMES])
