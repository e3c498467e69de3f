"""Every container says where it is cut off or damaged, and no whole one does."""

import math
import re
import struct
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lsr_infer.errors import InputError
from lsr_infer.video.containers import VideoFrame
from lsr_infer.video.reader import read_frames
from lsr_infer.video.structure import walk_file
from tests.lsr_infer.video.damaged_clip import damaged_video

Shared = Callable[[str], Path]
FORMATS = [
    ("mkv", "libx264", {}), ("mkv", "libx264", {"live": "1"}), ("webm", "libvpx", {}), ("avi", "mpeg4", {}),
    ("mp4", "libx264", {}), ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}), ("flv", "libx264", {}),
    ("asf", "mpeg4", {}), ("ts", "libx264", {}), ("mpg", "mpeg2video", {}), ("ogv", "libvpx", {}),
    ("mjpeg", "mjpeg", {}), ("y4m", "wrapped_avframe", {}),
]  # fmt: skip
FRAMES = 24
HEADS = ("flv", "avi", "mp4", "ogv", "asf", "ts", "mpg", "mjpeg", "y4m")
"""Formats of which libav's place of a packet is that of its head, or that have no other."""


def clip(
    path: Path, codec: str, options: dict[str, str], *, sound: str | bool = False, form: str | None = None
) -> Path:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    with av.open(str(path), "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=25, options={"g": "6"} | quiet)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if sound:
            rate = 8000 if sound is True else 48000
            audio = container.add_stream("aac" if sound is True else sound, rate=rate)
            tone = av.AudioFrame.from_ndarray(np.zeros((1, rate), np.float32), format="fltp", layout="mono")
            tone.sample_rate = rate
            container.mux(audio.encode(tone))
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


UNITS = {"ts": 188, "mpg": 2048, "asf": 3200}
"""Bytes of what a container is made of, where all are of one size."""


def units(kind: str, data: bytes) -> list[int]:
    """Return where the parts of a file begin, behind its header, and its end."""
    if kind == "ogv":
        return [*(match.start() for match in re.finditer(b"OggS", data)), len(data)][3:]
    unit = UNITS[kind]
    begin = data.index(bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")) + 50 if kind == "asf" else 4 * unit
    return list(range(begin, len(data) + 1, unit))


DAMAGED = [("ogv", "libvpx"), ("asf", "mpeg4"), ("asf", "wmv2"), ("mpg", "mpeg2video"), ("mpg", "mpeg1video")]


@pytest.mark.parametrize(("kind", "codec"), DAMAGED)
@pytest.mark.parametrize("sound", [False, True])
def test_parts_that_are_cut_off_zeroed_or_missing_lose_nothing_in_silence(
    tmp_path: Path, kind: str, codec: str, sound: bool
) -> None:
    path = clip(tmp_path / f"whole.{kind}", codec, {}, sound="mp2" if sound and kind != "ogv" else "flac" * sound)
    data = path.read_bytes()
    assert read(path) == (FRAMES, None)
    places = units(kind, data)
    assert len(places) > 4
    places = places[: -1 if kind == "mpg" else None]  # zeros at the end of a program stream fill a disc's sector
    for at, end in pairwise(places):
        damaged = [data[:at] + bytes(end - at) + data[end:]]
        if kind != "mpg":  # whose packs have no number
            damaged += [data[:at], data[:at] + data[end:]]
        for content in damaged:
            path.write_bytes(content)
            count, problem = read(path)
            assert problem is not None or count == FRAMES, (at, len(content))


@pytest.mark.parametrize(("kind", "codec", "options"), FORMATS)
def test_a_bit_of_the_head_of_a_packet_loses_nothing_in_silence(
    tmp_path: Path, kind: str, codec: str, options: dict[str, str]
) -> None:
    path = clip(tmp_path / f"whole.{kind}", codec, options)
    with av.open(str(path)) as container:
        found = [packet.pos for packet in container.demux(video=0) if packet.size and packet.pos is not None]
    data = path.read_bytes()
    for at in found[1::7]:
        for place in range(at, at + 3) if kind in HEADS else range(at - 4, at):
            content = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
            path.write_bytes(content)
            count, problem = read(path)
            assert problem is not None or count == FRAMES, place


@pytest.mark.parametrize(("kind", "hole"), [("mjpeg", b""), ("y4m", b""), ("y4m", bytes(900))])
def test_holes_in_pictures_without_a_container_lose_nothing_in_silence(tmp_path: Path, kind: str, hole: bytes) -> None:
    path = clip(tmp_path / f"clip.{kind}", {"y4m": "wrapped_avframe"}.get(kind, kind), {})
    data = path.read_bytes()
    for part in range(1, 20):
        at = len(data) * part // 20
        path.write_bytes(data[:at] + hole + data[at + (len(hole) or 3) :])
        count, problem = read(path)
        assert problem is not None or count == FRAMES, at


@pytest.mark.parametrize("layout", ["yuv411p", "yuv422p", "yuv444p", "gray", "yuv420p10le", "yuva444p", "gray16le"])
def test_a_y4m_of_any_layout_is_whole(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "clip.y4m"
    with av.open(str(path), "w", options={"strict": "-1"}) as container:
        stream = container.add_stream("wrapped_avframe", rate=25)
        stream.width, stream.height, stream.pix_fmt = 97, 63, layout
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame(97, 63, layout)))
    assert read(path) == (3, None)
    path.write_bytes(path.read_bytes()[:-1])
    assert read(path)[1] is not None


@pytest.mark.parametrize(
    ("kind", "codec"),
    [("h264", "libx264"), ("hevc", "libx265"), ("m4v", "mpeg4"), ("m2v", "mpeg2video"), ("mjpeg", "mjpeg")],
)
def test_a_stream_of_which_nothing_tells_its_length_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, codec: str
) -> None:
    path = clip(tmp_path / f"clip.{kind}", codec, {}, form={"m2v": "mpeg2video"}.get(kind, kind))
    assert read(path) == (FRAMES, None)
    assert caplog.text.count("does not say how many pictures it has; missing ones are not noticed") == 1


@pytest.mark.parametrize(
    ("kind", "codec"), [("mxf", "mpeg2video"), ("nut", "mpeg4"), ("ivf", "libvpx"), ("rm", "rv20")]
)
def test_a_format_whose_wholeness_is_not_checked_is_refused(tmp_path: Path, kind: str, codec: str) -> None:
    path = clip(tmp_path / f"a clip.{kind}", codec, {})
    count, problem = read(path)
    assert count == 0
    assert f"ffmpeg -i '{path}' -c copy" in str(problem)


@pytest.mark.parametrize("sound", ["", "mp2", "ac3"])
@pytest.mark.parametrize(("form", "codec"), [("vcd", "mpeg1video"), ("svcd", "mpeg2video"), ("dvd", "mpeg2video")])
def test_a_program_stream_of_a_disc_is_whole(tmp_path: Path, form: str, codec: str, sound: str) -> None:
    path = clip(tmp_path / "clip.mpg", codec, {}, sound=sound, form=form)
    assert read(path) == (FRAMES, None)
    path.write_bytes(path.read_bytes() + bytes(3000))
    assert read(path) == (FRAMES, None)


@pytest.mark.parametrize("size", [500, 3200, 20000])
@pytest.mark.parametrize("codec", ["msmpeg4", "wmv1", "mjpeg", "libx264"])
def test_an_asf_file_of_any_packets_is_whole(tmp_path: Path, codec: str, size: int) -> None:
    path = clip(tmp_path / "clip.asf", codec, {"packet_size": str(size)}, sound="mp2")
    assert read(path) == (FRAMES, None)


@pytest.mark.parametrize(
    ("kind", "head", "tail"),
    [("avi", b"RIFF%sAVI ", b"LIST%smovi"), ("mov", b"", b"%smoov")],
)
def test_chunks_within_chunks_end_somewhere(tmp_path: Path, kind: str, head: bytes, tail: bytes) -> None:
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


@pytest.mark.parametrize(
    ("taken", "kept"), [({"duration": 0.15}, 4), ({"duration": 0.05}, 1), ({"start": 0.02, "duration": 0.09}, 2),
                        ({"most": 4}, 4), ({"duration": 5.0}, 5)],
)  # fmt: skip
def test_a_lost_packet_is_counted_where_reading_ends_early(shared: Shared, taken: dict[str, Any], kept: int) -> None:
    frames: list[VideoFrame] = []
    with pytest.raises(InputError, match=f"1 packet could not be decoded; the other {kept} frames are kept"):
        frames.extend(read_frames(shared("data/cases/media/bad_packet_all_keyframes.mp4"), **taken))
    assert len(frames) == kept


@pytest.mark.parametrize("taken", [{"duration": 0.03}, {"most": 1}, {"start": 0.06, "duration": 0.07}])
def test_a_lost_packet_that_was_not_asked_for_is_not_told(shared: Shared, taken: dict[str, Any]) -> None:
    assert list(read_frames(shared("data/cases/media/bad_packet_all_keyframes.mp4"), **taken))


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi", "ts"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mpeg2video"])
def test_a_whole_video_of_which_a_part_is_read_is_whole(tmp_path: Path, kind: str, codec: str) -> None:
    path = clip(tmp_path / f"clip.{kind}", codec, {})
    for start in (None, 0.2, 0.5):
        assert len(list(read_frames(path, start=start, duration=0.24))) in (5, 6)  # the origin may be a stamp before
        assert len(list(read_frames(path, start=start, most=7))) == 7


def test_frames_behind_a_damaged_keyframe_are_missed_where_reading_ends_early(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", "libx264", {})
    with av.open(str(path)) as container:
        keys = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size and packet.is_keyframe]
    data, (place, size) = bytearray(path.read_bytes()), keys[1]
    assert place is not None
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    with pytest.raises(InputError, match="could not be decoded"):
        list(read_frames(path, duration=0.8))
    with pytest.raises(InputError, match="could not be decoded"):
        list(read_frames(path, most=14))


def test_several_undecodable_packets_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    damaged_video(path, 12, (3, 7, 8))
    count, problem = read(path)
    assert count == 9
    assert problem is not None
    assert "3 packets could not be decoded" in problem


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
@pytest.mark.parametrize(("form", "sound"), [("mpeg", False), ("vob", False), ("dvd", False)])
def test_packs_that_are_missing_in_the_middle_are_noticed(tmp_path: Path, codec: str, form: str, sound: bool) -> None:
    path = clip(tmp_path / "clip.mpg", codec, {}, form=form, sound="mp2" if sound else "")
    data = path.read_bytes()
    assert read(path) == (FRAMES, None)
    last = data.rindex(b"\0\0\1\xe0") // 2048 * 2048  # the end of the pictures is no middle
    for at in range(3 * 2048, last - 3 * 2048, 2048):
        path.write_bytes(data[:at] + data[at + 2048 :])
        count, problem = read(path)
        assert problem is not None or count == FRAMES, at
    path.write_bytes(data + data)
    assert read(path) == (2 * FRAMES, None)


CODECS = [
    ("mp4", "libsvtav1"), ("mkv", "libsvtav1"), ("mp4", "libvpx-vp9"), ("mp4", "libx265"),
    ("mov", "libx264"), ("mkv", "mpeg2video"), ("mkv", "ffv1"), ("avi", "wmv2"), ("avi", "mpeg4"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "codec"), CODECS)
def test_every_picture_that_a_decoder_drops_in_silence_is_counted(tmp_path: Path, kind: str, codec: str) -> None:
    path = clip(tmp_path / f"clip.{kind}", codec, {})
    data = path.read_bytes()
    with av.open(str(path)) as container:
        found = [(data.index(bytes(packet)), packet.size) for packet in container.demux(video=0) if packet.size]
    for number, (at, size) in enumerate(found[1:-1:3], start=1):
        for keep, content in ((0, bytes(size)), (0, b"\xff" * size), (size // 2, bytes(size - size // 2))):
            path.write_bytes(data[: at + keep] + content + data[at + size :])
            count, problem = read(path)
            missing = FRAMES - count
            expected = f": {missing} packet{'s' if missing > 1 else ''} could not" if missing else "None"
            assert expected in str(problem), (number, keep)


@pytest.mark.parametrize("kind", ["avi", "asf"])
def test_a_part_of_a_video_whose_pictures_are_numbered_as_they_are_decoded_is_whole(tmp_path: Path, kind: str) -> None:
    path = clip(tmp_path / f"clip.{kind}", "libx264", {})
    for taken, kept in (({"most": 7}, 7), ({"duration": 0.4}, 10), ({"start": 0.2, "most": 9}, 9)):
        count = len(list(read_frames(path, **taken)))  # type: ignore[arg-type]
        assert abs(count - kept) <= 1  # their clock may begin at the first picture that is decoded


@pytest.mark.parametrize(("kind", "codec", "options"), FORMATS[:4])
def test_packets_are_counted_as_libav_reads_them(
    tmp_path: Path, kind: str, codec: str, options: dict[str, str]
) -> None:
    path = clip(tmp_path / f"clip.{kind}", codec, options)
    with av.open(str(path)) as container:
        found = walk_file(path, frozenset(container.format.name.split(",")))
    assert (found.damage, found.packets) == (None, [FRAMES])


def boxes(data: bytes, place: int, end: int, names: tuple[bytes, ...]) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, place and end of the content of each box of an MP4, and of those within the ones named."""
    while place < end:
        length, name = struct.unpack_from(">I4s", data, place)
        yield name, place + 8, place + length
        if name in names:
            yield from boxes(data, place + 8, place + length, names)
        place += length


def box(data: bytes, name: bytes, number: int = 0) -> int:
    """Return the place of the content of a box."""
    held = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf")
    return [at for found, at, _ in boxes(data, 0, len(data), held) if found == name][number]


def with_number(data: bytes, place: int, number: int) -> bytes:
    return data[:place] + struct.pack(">I", number) + data[place + 4 :]


@pytest.mark.parametrize(
    ("codec", "name", "offset", "number"),
    [
        ("libx264", b"stts", 12, 5120), ("mpeg4", b"stts", 12, 5120), ("libx264", b"elst", 8, 600),
        ("libx264", b"elst", 12, 5120), ("mpeg4", b"elst", 12, 5120), ("libx264", b"ctts", 12, 1 << 20),
        ("libx264", b"ctts", 8, 3), ("libx265", b"ctts", 12, 1 << 20), ("mpeg4", b"stsz", 12 + 4 * 20, 1 << 30),
    ],
)  # fmt: skip
def test_tables_of_times_that_hide_pictures_by_damage_are_noticed(
    tmp_path: Path, codec: str, name: bytes, offset: int, number: int
) -> None:
    path = clip(tmp_path / "clip.mp4", codec, {})
    data = path.read_bytes()
    path.write_bytes(with_number(data, box(data, name) + offset, number))
    count, problem = read(path)
    assert count < FRAMES
    assert problem is not None


@pytest.mark.parametrize(("name", "offset"), [(b"tfdt", 4), (b"tfdt", 8), (b"tfhd", 16), (b"trun", 4), (b"tfhd", 4)])
def test_a_fragment_whose_numbers_are_damaged_is_noticed(tmp_path: Path, name: bytes, offset: int) -> None:
    path = clip(tmp_path / "clip.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"})
    data = path.read_bytes()
    for number in (0, 1, 1 << 22, (1 << 31) - 1, 1 << 31):
        path.write_bytes(with_number(data, box(data, name, 1) + offset, number))
        count, problem = read(path)
        assert problem is not None or count == FRAMES, number


@pytest.mark.parametrize(
    "movflags", ["frag_keyframe", "frag_keyframe+empty_moov", "frag_every_frame+default_base_moof"]
)
def test_a_box_of_a_fragment_whose_name_is_damaged_is_noticed(tmp_path: Path, movflags: str) -> None:
    path = clip(tmp_path / "clip.mp4", "libx264", {"movflags": movflags})
    data = path.read_bytes()
    assert read(path) == (FRAMES, None)
    for name in (b"moof", b"traf", b"trun"):
        for number in (0, 1, 2):
            at = box(data, name, number) - 4
            for bit in (1, 1 << 11, 1 << 22, 1 << 28):
                path.write_bytes(with_number(data, at, int.from_bytes(name, "big") ^ bit))
                assert read(path)[1] is not None, (name, number, bit)


def test_a_fragment_of_no_track_and_a_box_that_holds_the_rest_are_damage(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", "libx264", {"movflags": "frag_keyframe"})
    data = path.read_bytes()
    for place, number in ((box(data, b"tkhd") + 12, 257), (box(data, b"mfhd", 1) - 8, 0)):
        path.write_bytes(with_number(data, place, number))
        assert read(path)[1] is not None
    for name in (b"stts", b"stsz", b"stsc"):
        path.write_bytes(with_number(data, box(data, name) - 8, 1 << 24))
        assert read(path)[1] is not None, name


@pytest.mark.parametrize(
    "movflags", ["frag_every_frame", "frag_every_frame+delay_moov", "dash+global_sidx", "cmaf", "empty_moov"]
)
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("sound", [False, True])
def test_a_video_in_fragments_is_whole(tmp_path: Path, movflags: str, codec: str, sound: bool) -> None:
    path = clip(tmp_path / "clip.mp4", codec, {"movflags": movflags}, sound=sound)
    assert read(path) == (FRAMES, None)


def test_a_cut_file_whose_header_knows_the_first_fragment_alone_is_partial(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", "libx264", {"movflags": "frag_keyframe"})
    data = path.read_bytes()
    at = box(data, b"moof", 1)
    for length in (at + 4, at + 30, box(data, b"mdat", 2) + 9, len(data) - 40):
        path.write_bytes(data[:length])
        count, problem = read(path)
        assert problem is not None, length
        assert count < FRAMES or length > len(data) - 60


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_damage_to_the_header_of_the_movie_hides_nothing_in_silence(tmp_path: Path, codec: str) -> None:
    path = clip(tmp_path / "clip.mp4", codec, {})
    data = path.read_bytes()
    at = box(data, b"mvhd")
    for place in (*range(at - 4, at + 1), *range(at + 12, at + 20)):
        for bit in range(8):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            count, problem = read(path)
            assert problem is not None or count == FRAMES, (place - at, bit)


@pytest.mark.parametrize("ticks", [600, 1000, 12800, 90_000, 25, 1001])
def test_a_movie_that_counts_its_time_in_any_unit_may_be_trimmed(tmp_path: Path, ticks: int) -> None:
    path = clip(tmp_path / "clip.mp4", "mpeg4", {"movie_timescale": str(ticks)})
    data = path.read_bytes()
    for name, offset in ((b"elst", 8), (b"tkhd", 20), (b"mvhd", 16)):
        data = with_number(data, box(data, name) + offset, 15 * ticks // 25)
    path.write_bytes(data)
    assert read(path) == (15, None)


@pytest.mark.parametrize("kind", ["mp4", "mov"])
@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "mjpeg"])
@pytest.mark.parametrize("start", [0.04, 0.204, 0.32])
def test_a_video_that_is_trimmed_by_its_edit_list_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, codec: str, start: float
) -> None:
    path = clip(tmp_path / f"clip.{kind}", codec, {})
    trimmed = tmp_path / f"trimmed.{kind}"
    with av.open(str(path)) as source, av.open(str(trimmed), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                packet.pts -= round(start / packet.time_base)
                packet.dts -= round(start / packet.time_base)
                packet.stream = copy
                target.mux(packet)
    hidden = math.ceil(25 * start - 1e-6)
    assert read(trimmed) == (FRAMES - hidden, None)
    assert f"edit list hides {hidden} of its {FRAMES} pictures" in caplog.text


def test_a_video_that_is_trimmed_at_its_end_or_in_several_pieces_is_whole(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", "mpeg4", {})
    data = path.read_bytes()
    shorter = data
    for name, offset in ((b"elst", 8), (b"tkhd", 20), (b"mvhd", 16)):
        shorter = with_number(shorter, box(shorter, name) + offset, 600)  # milliseconds
    path.write_bytes(shorter)
    assert read(path) == (15, None)
    at = box(data, b"elst")
    edits = struct.pack(">IIIiIIiI", 0, 2, 200, 0, 1 << 16, 240, 12800 * 16 // 25, 1 << 16)
    several = data[: at - 16] + struct.pack(">I4sI4s", 16 + len(edits), b"edts", 8 + len(edits), b"elst") + edits
    several += data[at + 20 :]
    for name in (b"moov", b"trak"):
        several = with_number(several, box(data, name) - 8, int.from_bytes(data[box(data, name) - 8 :][:4], "big") + 12)
    path.write_bytes(several)
    count, problem = read(path)
    assert (count, problem) == (11, None)


def tags(data: bytes) -> list[tuple[int, int]]:
    """Return the place and the length of the content of each tag of a Flash video."""
    found, place = [], 13
    while place < len(data):
        length = int.from_bytes(data[place + 1 : place + 4], "big")
        found.append((place, length))
        place += 15 + length
    return found


@pytest.mark.parametrize("codec", ["libx264", "libx265", "flv", "libvpx-vp9"])
@pytest.mark.parametrize("sound", [False, True])
def test_tags_of_another_kind_lose_nothing_in_silence(tmp_path: Path, codec: str, sound: bool) -> None:
    path = clip(tmp_path / "clip.flv", codec, {}, sound=sound)
    assert read(path) == (FRAMES, None)
    data = path.read_bytes()
    changes = [(0, bytes([kind])) for kind in (8, 9, 18)] + [(11, b"\x57"), (11, b"\x23"), (11, b"\xa7"), (12, b"\0")]
    for place, _ in tags(data)[::4]:
        for offset, content in changes:
            path.write_bytes(data[: place + offset] + content + data[place + offset + 1 :])
            count, problem = read(path)
            assert problem is not None or count == FRAMES, (place, offset, content)


@pytest.mark.parametrize(("codec", "sound"), [("libx264", True), ("libx265", False), ("mpeg2video", True)])
def test_packets_of_a_transport_stream_lose_nothing_in_silence(tmp_path: Path, codec: str, sound: bool) -> None:
    path = clip(tmp_path / "clip.ts", codec, {}, sound=sound)
    data = path.read_bytes()
    assert read(path) == (FRAMES, None)
    starts = [at for at in range(0, len(data), 188) if data[at + 1 : at + 3] == b"\x41\x00"]
    assert len(starts) == FRAMES
    for at in starts[1::5]:
        code = data.index(b"\0\0\1\xe0", at)
        changes = [
            (at + 1, 0x01),
            (at + 1, 0xC1),
            (at + 2, 0x77),
            (at + 3, 0xD0),
            (code, 1),
            (code + 2, 0),
            (code + 6, 0),
        ]
        for place, byte in changes:
            path.write_bytes(data[:place] + bytes([byte]) + data[place + 1 :])
            count, problem = read(path)
            assert problem is not None, (at, place, byte)
            assert count <= FRAMES
    path.write_bytes(data[: starts[3]] + data[starts[3] + 188 :])
    assert read(path)[1] is not None
    path.write_bytes(data + data)
    assert read(path) == (2 * FRAMES, None)


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("mkv", b"\xa3", b"\xec"), ("avi", b"00dc", b"01dc"), ("avi", b"00dc", b"strh"), ("avi", b"00dc", b")0dc"),
        ("ts", b"\0\0\1\x41", b"\0\0\3\x41"), ("ts", b"\0\0\1\x41", b"\0\0\1\0"),
    ],
)  # fmt: skip
def test_a_picture_whose_name_is_damaged_is_missed(tmp_path: Path, kind: str, old: bytes, new: bytes) -> None:
    path = clip(tmp_path / f"clip.{kind}", "mpeg4" if kind == "avi" else "libx264", {})
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size and packet.pos is not None]
    data = path.read_bytes()
    found = 0
    for place in places[1:]:
        at = data.find(old, place - 8 if kind != "ts" else place, place + 188)
        path.write_bytes(data[:at] + new + data[at + len(old) :])
        count, problem = read(path)
        found += at >= 0
        assert problem is not None or count == FRAMES, place
    assert found > FRAMES / 2


def test_blocks_of_several_packets_are_counted(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mkv", "libx264", {})
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size and packet.pos is not None]
    data = path.read_bytes()
    flags = data.index(b"\x81", places[5] - 1) + 3
    path.write_bytes(data[:flags] + b"\x02\x02" + data[flags + 2 :])
    assert walk_file(path, frozenset({"matroska"})).packets == [FRAMES + 2]
    assert read(path)[1] is not None


def test_a_table_that_is_missing_and_a_cut_between_tags_are_noticed(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", "libx264", {})
    data = bytearray(path.read_bytes().replace(b"mdhd", b"mdhf"))
    data[box(bytes(data), b"stsz") + 12 + 4 * 3] = 0x7F
    path.write_bytes(bytes(data))
    assert read(path)[1] is not None
    path = clip(tmp_path / "clip.flv", "libx264", {})
    place, _ = tags(path.read_bytes())[-2]
    path.write_bytes(path.read_bytes()[:place])
    assert read(path)[1] is not None


def test_pictures_of_a_container_whose_head_is_gone_are_missed(tmp_path: Path) -> None:
    for kind, codec, name in (("avi", "mjpeg", b"RIFF"), ("mkv", "libx264", b"\x18\x53\x80\x67")):
        path = clip(tmp_path / f"clip.{kind}", codec, {})
        data = path.read_bytes()
        at = data.index(name)
        path.write_bytes(data[:at] + bytes(4) + data[at + 4 :])
        assert read(path)[1] is not None, kind


def test_a_stream_that_begins_in_the_middle_ends_nothing(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.flv", "libx264", {})
    data = path.read_bytes()
    place, _ = tags(data)[-3]
    sound = b"\x08\0\0\x40" + data[place + 4 : place + 11] + b"\x2f" + bytes(63) + struct.pack(">I", 75)
    path.write_bytes(data[:4] + b"\5" + data[5:place] + sound * 3 + data[place:])
    assert read(path) == (FRAMES, None)
