"""Real clips and broken files read and written; every frame, its time, its colour and its place on the screen."""

import contextlib
import csv
import errno
import http.server
import resource
import signal
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from lsr_infer.errors import InputError, UsageError
from lsr_infer.pipeline.options import Selection
from lsr_infer.video.containers import ColorTags, VideoFrame, VideoInfo
from lsr_infer.video.reader import probe, read_frames
from lsr_infer.video.writer import MaskVideoWriter, VideoOptions, VideoWriter
from tests.lsr_infer.streamserver import serving, silent_port, transport_stream
from tests.lsr_infer.video.test_writer import clip_with_sound

Shared = Callable[[str], Path]


def gradient(height: int, width: int, shift: int = 0) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([(columns + shift) % 256, rows % 256, np.full_like(rows, 90)], axis=2).astype(np.uint8)


def write(path: Path, frames: list[np.ndarray], times: list[float] | None = None, **options: Any) -> Path:
    height, width = frames[0].shape[:2]
    common = {"width": width, "height": height, "fps": Fraction(25), "overwrite": options.pop("overwrite", False)}
    with VideoWriter(path, **common, options=VideoOptions(**options)) as writer:
        for n, frame in enumerate(frames):
            writer.write(frame, None if times is None else times[n])
    return path


@pytest.mark.parametrize("name", ["udacity_test_video.mp4", "camvid_0016E5_15fps.mp4"])
def test_every_frame_of_a_clip_is_read_with_its_time(shared: Shared, name: str) -> None:
    path = shared(f"data/clips/{name}")
    info = probe(path)
    capture = cv2.VideoCapture(str(path))
    count = 0
    for item in read_frames(path):
        there, other = capture.read()
        assert there
        assert item.index == count
        assert item.time == pytest.approx(count / info.fps, abs=1e-6)
        assert item.frame.shape == (info.height, info.width, 3)
        assert np.abs(item.frame.astype(int) - other).mean() < 6  # OpenCV knows no BT.709
        count += 1
    assert not capture.read()[0]
    assert count == info.frames


def test_broken_media_raise_and_whole_media_come_out_whole(shared: Shared) -> None:
    folder = shared("data/badmedia")
    rows = csv.DictReader((folder / "BEHAVIOUR.tsv").read_text(encoding="utf-8").splitlines(), delimiter="\t")
    videos = [row for row in rows if row["decoder_b"] == "av"]
    assert len(videos) > 20
    for row in videos:
        count, error = 0, None
        try:
            for _ in read_frames(folder / row["file"]):
                count += 1
        except InputError as raised:
            error = str(raised)
        if row["result_a"].startswith("ok") and row["result_b"].startswith("ok"):
            expected = int(row["result_b"].split("frames=")[1].split()[0])
            assert (count, error) == (expected, None), row["file"]
        else:
            assert error is not None, row["file"]
            assert "\n" not in error
            assert row["file"] in error


def test_claimed_and_unreadable_frames_are_counted(shared: Shared) -> None:
    folder = shared("data/badmedia/mp4parse")
    with pytest.raises(InputError, match=r"no readable frame.*5544 claimed"):
        list(read_frames(folder / "invalid_userdata.mp4"))
    good: list[VideoFrame] = []
    with pytest.raises(InputError, match="12 packets could not be decoded"):
        good.extend(read_frames(folder / "no_timescale.mp4"))
    with pytest.raises(InputError):
        probe(folder / "invalid_userdata.mp4")


def test_a_file_cut_off_behind_its_header_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    path = write(tmp_path / "whole.mp4", [rng.integers(0, 255, (64, 96, 3), dtype=np.uint8) for _ in range(40)])
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    good: list[VideoFrame] = []
    with pytest.raises(InputError, match=r"ends after|broken after"):
        good.extend(read_frames(cut))
    assert 5 < len(good) < 40


def test_a_cut_off_file_is_noticed_after_a_start_too(tmp_path: Path) -> None:
    path = write(tmp_path / "whole.mp4", [gradient(64, 96, 3 * n) for n in range(100)])
    with av.open(str(path)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[: ends[59]])  # between two packets: none of them is broken
    for start in (0.2, 1.0, 2.0):
        good: list[VideoFrame] = []
        with pytest.raises(InputError, match=r"ends after \d+ frames \(100 claimed\); the file is cut off"):
            good.extend(read_frames(cut, start=start))
        assert good[0].time == pytest.approx(start, abs=1e-3)
        assert len(good) == 60 - round(25 * start)
    assert len(list(read_frames(cut, start=0.2, duration=0.4))) == 10  # what is asked for is whole


FORMATS = [
    ("mp4", "libx264", "yuv420p"), ("matroska", "libx264", "yuv420p"), ("webm", "libvpx", "yuv420p"),
    ("flv", "libx264", "yuv420p"), ("avi", "mpeg4", "yuv420p"), ("apng", "apng", "rgb24"), ("gif", "gif", "rgb8"),
]  # fmt: skip


def noise(path: Path, kind: str, codec: str, pixels: str = "yuv420p", *, group: int = 250, sound: bool = False) -> Path:
    """A clip whose frames are of like size, without delay, at 30 frames a second; its sound is silence."""
    rng = np.random.default_rng(5)
    with av.open(str(path), "w", format=kind, options={"movflags": "faststart"} if kind == "mp4" else {}) as container:
        options = {"tune": "zerolatency", "sc_threshold": "0"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=30, options={"g": str(group)} | options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        if sound:
            audio = container.add_stream("aac", rate=32000, layout="mono")
        for n in range(60):
            if sound:
                piece = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = 32000, 1024 * n, Fraction(1, 32000)
                container.mux(audio.encode(piece))
            picture = av.VideoFrame.from_ndarray(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8), format="bgr24")
            picture = picture.reformat(format=pixels)
            picture.pts, picture.time_base = n, Fraction(1, 30)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if sound:
            container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize(("kind", "codec", "pixels"), FORMATS)
def test_a_cut_off_file_of_any_format_keeps_its_frames_and_says_so(
    tmp_path: Path, kind: str, codec: str, pixels: str
) -> None:
    path = noise(tmp_path / "whole", kind, codec, pixels)
    assert len(list(read_frames(path))) == 60
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    for end in (path.stat().st_size * 6 // 10, places[54]):
        cut = tmp_path / "cut"
        cut.write_bytes(path.read_bytes()[:end])
        good: list[VideoFrame] = []
        with pytest.raises(InputError, match=r"after \d+ frames"):
            good.extend(read_frames(cut))
        whole = sum(place < end for place in places)
        assert whole - 4 <= len(good) <= whole


@pytest.mark.parametrize("hurt", [20, 55])
def test_a_file_whose_last_frames_cannot_be_found_says_so(tmp_path: Path, hurt: int) -> None:
    path = noise(tmp_path / "clip.mkv", "matroska", "libx264")
    with av.open(str(path)) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][hurt]
    data = bytearray(path.read_bytes())
    data[place - 8 : place - 2] = b"\xff\x01\x02\xff\xaa\x00"  # the head of a block
    path.write_bytes(bytes(data))
    good: list[VideoFrame] = []
    with pytest.raises(InputError, match=rf"ends after {hurt} frames \(damaged at byte \d+\)") as raised:
        good.extend(read_frames(path))
    assert place - 8 <= int(str(raised.value).split("byte ")[1].split(")")[0]) < place
    assert len(good) == hurt


@pytest.mark.parametrize(
    ("kind", "codec", "sound"),
    [("matroska", "libx264", False), ("matroska", "libx264", True), ("webm", "libvpx", False)],
)
def test_frames_lost_in_the_middle_of_a_file_are_missed(tmp_path: Path, kind: str, codec: str, sound: bool) -> None:
    """Its reader goes on with the next cluster, and the end of the file is where it should be."""
    path = noise(tmp_path / "clip", kind, codec, group=12, sound=sound)
    assert len(list(read_frames(path))) == 60
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    data[places[32] - 8 : places[32] - 2] = b"\xff\x01\x02\xff\xaa\x00"  # the head of a block
    path.write_bytes(bytes(data))
    good: list[VideoFrame] = []
    with pytest.raises(InputError, match=r"\(damaged at byte \d+\)") as raised:
        good.extend(read_frames(path))
    assert places[32] - 8 <= int(str(raised.value).split("byte ")[1].split(")")[0]) < places[32]
    assert 32 < len(good) < 60
    assert good[-1].time == pytest.approx(59 / 30, abs=1e-3)


def test_what_stands_between_packets_beside_them_is_no_damage(tmp_path: Path) -> None:
    path = noise(tmp_path / "clip.mkv", "matroska", "libx264", group=12)
    head, *clusters = path.read_bytes().split(b"\x1f\x43\xb6\x75")
    assert len(clusters) > 3
    void = b"\xec\x47\xd0" + bytes(2000)
    path.write_bytes((void + b"\x1f\x43\xb6\x75").join([head, *clusters]))
    assert len(list(read_frames(path))) == 60


@pytest.mark.parametrize("kind", ["mkv", "mp4", "ts", "mov", "avi", "asf"])
def test_a_file_whose_sound_outlasts_its_pictures_is_whole(tmp_path: Path, kind: str) -> None:
    path = clip_with_sound(tmp_path / f"clip.{kind}", seconds=5)
    assert len(list(read_frames(path))) == 30
    assert len(list(read_frames(path, start=1.0))) >= 19


def test_a_length_that_is_guessed_from_the_size_is_no_claim(tmp_path: Path) -> None:
    path = tmp_path / "raw.m1v"
    rng = np.random.default_rng(1)
    with av.open(str(path), "w", format="mpeg1video") as container:
        limits = {"b": "100k", "maxrate": "100k", "bufsize": "200k"}  # which noise cannot keep
        stream = container.add_stream("mpeg1video", rate=30, options=limits)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(60):
            picture = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
    assert probe(path).duration > 4
    assert len(list(read_frames(path))) == 60


def test_a_header_cut_anywhere_is_one_line(tmp_path: Path) -> None:
    whole = clip_with_sound(tmp_path / "whole.mov").read_bytes()
    cut, said = tmp_path / "cut.mov", set()
    for end in range(len(whole) * 8 // 10, len(whole) - 61, 61):  # the header is at the end
        cut.write_bytes(whole[:end])
        with contextlib.suppress(InputError):  # and no other
            probe(cut)
        try:
            assert len(list(read_frames(cut))) == 30
        except InputError as error:
            said.add(str(error))
    assert not [line for line in said if "\n" in line]
    assert any("its codec is unknown" in line for line in said)


@pytest.mark.parametrize("again", [0, 3600, 7])
def test_times_go_on_where_the_clock_of_a_file_starts_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, again: int
) -> None:
    path = tmp_path / "clip.ts"
    parts = [transport_stream(75, first=25 * first) for first in (10, again, again)]
    path.write_bytes(b"".join(parts))
    times = [item.time for item in read_frames(path)]
    assert len(times) == 225
    assert np.diff(times) == pytest.approx(1 / 25, abs=1e-3)
    assert "its clock starts again" in caplog.text
    late = [item.time for item in read_frames(path, start=2)]
    assert late == times[50:]
    assert [item.time for item in read_frames(path, start=2, duration=4)] == times[50:150]
    picked = [item.time for item in read_frames(path, keep=Selection(fps=5).picker())]
    assert picked == pytest.approx(times[::5], abs=1e-3)


def test_a_pause_is_no_new_clock(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "clip.mp4"
    write(path, [gradient(32, 32, n) for n in range(3)], [0.0, 30.0, 7200.0])
    assert [item.time for item in read_frames(path)] == pytest.approx([0, 30, 7200], abs=1e-3)
    with MaskVideoWriter(tmp_path / "clip.mkv", width=32, height=32, fps=Fraction(25)) as writer:
        for time in (0.0, 30.0, 7200.0):
            writer.write(np.zeros((32, 32), np.uint8), time)
    assert [item.time for item in read_frames(writer.path)] == pytest.approx([0, 30, 7200], abs=1e-3)
    path = tmp_path / "clip.ts"
    path.write_bytes(transport_stream(25) + transport_stream(25, first=25 * 6))
    times = [item.time for item in read_frames(path)]
    assert times[25] - times[24] == pytest.approx(5 + 1 / 25, abs=1e-3)
    assert "its clock" not in caplog.text


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_a_connection_that_breaks_costs_no_delivered_frame(tmp_path: Path, threads: int) -> None:
    path = noise(tmp_path / "clip.mp4", "mp4", "libx264")
    with av.open(str(path)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
    good: list[VideoFrame] = []
    with serving(path.read_bytes(), until=ends[13]) as server, pytest.raises(InputError, match="broken after 14"):
        good.extend(read_frames(f"{server.address}.mp4", threads=threads))
    assert [item.time for item in good] == pytest.approx([n / 30 for n in range(14)], abs=1e-3)


def test_a_recording_that_falls_silent_is_lost_when_we_say(tmp_path: Path) -> None:
    path = noise(tmp_path / "clip.mp4", "mp4", "libx264")
    silent = r"sent nothing for 0\.5 s\. Check the address and the source\.$"
    good: list[VideoFrame] = []
    with serving(path.read_bytes(), until=path.stat().st_size * 6 // 10) as server:
        server.stall.set()
        with pytest.raises(InputError, match=rf"road\.mp4: broken after \d+ frames, it {silent}"):
            good.extend(read_frames(f"{server.address}.mp4", timeout_seconds=0.5))
    assert len(good) > 30
    with silent_port() as port, pytest.raises(InputError, match=rf"clip\.mp4: {silent}"):
        probe(f"http://127.0.0.1:{port}/clip.mp4", timeout_seconds=0.5)


@pytest.mark.parametrize(("kind", "codec"), [("h264", "libx264"), ("hevc", "libx265")])
@pytest.mark.parametrize("rate", [25, 50])
def test_a_start_in_a_file_without_stamps_counts_its_frames(tmp_path: Path, kind: str, codec: str, rate: int) -> None:
    path = tmp_path / f"raw.{kind}"
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, options={"g": "12", "bf": "2", "x265-params": "log-level=none"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for n in range(50):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(gradient(64, 64, 4 * n), format="bgr24")))
        container.mux(stream.encode(None))
    every = list(read_frames(path))
    step = 1 / float(probe(path).fps)
    assert [item.time for item in every] == pytest.approx([n * step for n in range(50)])
    for first in (1, 13, 49):
        late = list(read_frames(path, start=first * step))
        assert [item.time for item in late] == [item.time for item in every[first:]]
        assert [item.index for item in late] == list(range(50 - first))
        np.testing.assert_array_equal(late[0].frame, every[first].frame)
    assert len(list(read_frames(path, start=10 * step, duration=5 * step))) == 5
    with pytest.raises(InputError, match="no frame lies"):
        list(read_frames(path, start=50 * step))


def test_missing_files_folders_and_noise_are_one_line(tmp_path: Path) -> None:
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes())
    for path in (tmp_path / "absent.mp4", tmp_path, noise):
        with pytest.raises(InputError) as caught:
            probe(path)
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError):
            list(read_frames(path))


def test_a_playlist_reads_nothing_from_the_network(tmp_path: Path) -> None:
    """The server is real and has the segment; nobody may ask for it."""
    asked: list[str] = []
    segment = tmp_path / "a.ts"
    with av.open(str(segment), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(gradient(48, 64), format="bgr24")))
        container.mux(stream.encode(None))
    data = segment.read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        playlist = tmp_path / "list.m3u8"
        address = f"HTTP://127.0.0.1:{server.server_port}/a.ts"
        head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-PLAYLIST-TYPE:VOD"
        playlist.write_text(f"{head}\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n", encoding="utf-8")
        with pytest.raises(InputError):
            list(read_frames(playlist))
        server.shutdown()
    assert not asked


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n"),
        ("script.mp4", "ffconcat version 1.0\nfile other.ts\n"),
        ("numbered_%d.ppm", "P6"),
    ],
)
def test_a_file_that_leads_to_other_files_is_refused(tmp_path: Path, name: str, text: str) -> None:
    with av.open(str(tmp_path / "other.ts"), "w", format="mpegts") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(gradient(48, 64), format="bgr24")))
        container.mux(stream.encode(None))
    for n in range(3):
        assert cv2.imwrite(str(tmp_path / f"numbered_{n}.ppm"), gradient(48, 64, n))
    assert len(list(read_frames(tmp_path / "other.ts"))) == 1
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read as video") as caught:
        list(read_frames(path))
    assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(InputError, match="cannot be read as video"):
        probe(path)


@pytest.mark.parametrize("angle", [0, 90, 180, -90])
def test_rotation_is_applied(tmp_path: Path, angle: int) -> None:
    frame = gradient(48, 80)
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        if angle:
            stream.set_display_rotation(angle)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode(None))
    info = probe(path)
    (item,) = read_frames(path)
    there, other = cv2.VideoCapture(str(path)).read()
    assert there
    assert item.frame.shape == other.shape == (info.height, info.width, 3)
    assert np.abs(item.frame.astype(int) - other).mean() < 4


def test_rotation_of_a_real_file_agrees_with_opencv(shared: Shared) -> None:
    path = shared("data/badmedia/mp4parse/video_rotation_90.mp4")
    (item,) = read_frames(path)
    np.testing.assert_array_equal(item.frame, cv2.VideoCapture(str(path)).read()[1])
    assert (probe(path).width, probe(path).height) == (60, 100)


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (2, 2), (1, 1)])
def test_what_is_written_is_read_back(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = [gradient(*size, shift=3 * n) for n in range(7)]
    path = write(tmp_path / "out.mp4", frames, crf=4)
    info = probe(path)
    assert (info.height, info.width) == tuple(side + side % 2 for side in size)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    back = list(read_frames(path))
    assert [item.time for item in back] == pytest.approx([n / 25 for n in range(7)])
    for frame, item in zip(frames, back, strict=True):
        assert np.abs(frame.astype(int) - item.frame[: size[0], : size[1]]).mean() < 12


@pytest.mark.parametrize("matrix", [1, 2, 5, 9])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_survive_by_the_tags_of_the_source(tmp_path: Path, matrix: int, full_range: bool) -> None:
    info = VideoInfo(
        width=32, height=32, fps=Fraction(25), frames=None, duration=None, time_base=Fraction(1, 1000),
        color=ColorTags(matrix=matrix, full_range=full_range),
    )  # fmt: skip
    frame = np.full((32, 32, 3), (40, 200, 90), dtype=np.uint8)
    path = write(tmp_path / "out.mp4", [frame] * 2, like=info, crf=1)
    tags = probe(path).color
    assert (tags.full_range, tags.matrix) == (full_range, matrix)
    assert np.abs(next(iter(read_frames(path))).frame.astype(int) - frame).max() <= 6


def test_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    times = [0.5, 0.52, 0.75, 0.75, 1.9, 4.0]
    info = VideoInfo(
        width=32, height=32, fps=Fraction(30000, 1001), frames=None, duration=None,
        time_base=Fraction(1, 1000),
    )  # fmt: skip
    path = write(tmp_path / "vfr.mp4", [gradient(32, 32, n) for n in range(6)], times, like=info)
    expected = [0.5, 0.52, 0.75, 0.751, 1.9, 4.0]
    assert [item.time for item in read_frames(path)] == pytest.approx(expected, abs=1e-4)
    late = list(read_frames(path, start=0.2, duration=0.3))  # counted from the first frame
    assert [item.time for item in late] == pytest.approx([0.75, 0.751], abs=1e-4)
    assert late[0].index == 0
    with pytest.raises(InputError, match="no frame lies"):
        list(read_frames(path, start=100))


@pytest.mark.parametrize("fragmented", [False, True])
def test_a_video_of_irregular_times_is_whole(tmp_path: Path, fragmented: bool) -> None:
    """The length in its header counts in decoding order, where the last frame to be shown is not the last one."""
    info = VideoInfo(width=32, height=32, fps=Fraction(25), frames=None, duration=None, time_base=Fraction(1, 90_000))
    for case, pauses in enumerate(((1,), (0, 1), (2,), (1, 4), (28,), (29,), ())):
        steps = np.full(30, 0.04)
        steps[list(pauses)] = 3.0
        times = np.cumsum(steps).tolist()
        frames = [np.full((32, 32, 3), 40 + 2 * n, np.uint8) for n in range(30)]
        path = write(tmp_path / f"{case}.mp4", frames, times, like=info, fragmented=fragmented)
        assert [item.time for item in read_frames(path)] == pytest.approx(times, abs=1e-3)
        assert len(list(read_frames(path, start=times[20] - times[0]))) == 10


def test_seeking_agrees_with_skipping(shared: Shared) -> None:
    path = shared("data/clips/camvid_0016E5_15fps.mp4")
    sought = list(read_frames(path, start=3.0, duration=0.5))
    skipped = [item for item in read_frames(path) if 3.0 - 1e-6 <= item.time < 3.5 - 1e-6]
    assert [item.time for item in sought] == [item.time for item in skipped]
    for one, other in zip(sought, skipped, strict=True):
        np.testing.assert_array_equal(one.frame, other.frame)


def test_frames_are_the_callers_to_keep(shared: Shared) -> None:
    frames = [item.frame for item in read_frames(shared("data/clips/camvid_0016E5_15fps.mp4"), duration=0.5)]
    sums = [int(frame.sum()) for frame in frames]
    frames[0][:] = 0
    assert [int(frame.sum()) for frame in frames[1:]] == sums[1:]
    assert all(frame.flags.c_contiguous and frame.flags.writeable for frame in frames)


def test_a_failed_or_empty_video_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with pytest.raises(ZeroDivisionError), VideoWriter(path, width=32, height=32, fps=Fraction(25)) as writer:
        writer.write(gradient(32, 32), 1 / writer.frames)
    with pytest.raises(InputError, match="no frame"), VideoWriter(path, width=32, height=32, fps=Fraction(25)):
        pass
    with pytest.raises(InputError, match="frame 0"), VideoWriter(path, width=8, height=8, fps=Fraction(25)) as writer:
        writer.write(gradient(32, 32))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_video_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="overwrite"):
        VideoWriter(path, width=32, height=32, fps=Fraction(25))
    with pytest.raises(RuntimeError), VideoWriter(path, width=32, height=32, fps=Fraction(25), overwrite=True):
        raise RuntimeError
    assert path.read_bytes() == b"mine"
    write(path, [gradient(32, 32)], overwrite=True)
    assert probe(path).frames == 1
    with pytest.raises(InputError, match="folder does not exist"):
        write(tmp_path / "absent" / "out.mp4", [gradient(32, 32)])


def test_a_full_place_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file size stands for the full disk: the same failing write, another errno."""
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 255, (256, 256, 3), dtype=np.uint8) for _ in range(30)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(InputError, match="cannot be written") as caught:
            write(tmp_path / "out.mp4", frames, crf=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_cannot_start_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"the old one")
    options = VideoOptions(preset="no such preset")
    writer = VideoWriter(path, width=32, height=32, fps=Fraction(10), overwrite=True, options=options)
    with pytest.raises(InputError), writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
    assert path.read_bytes() == b"the old one"
    assert [item.name for item in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("kind", ["mpegts", "avi", "mp4", "matroska"])
def test_no_start_loses_a_frame(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"clip.{kind}"
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "12", "bf": "2"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for level in range(30):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 8 * level, np.uint8), format="bgr24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    every = [item.time for item in read_frames(path)]
    assert len(every) == 30
    for start in (0.1, 0.2, 0.5, 0.9):
        wanted = [time for time in every if time >= every[0] + start - 1e-6]
        found = [item.time for item in read_frames(path, start=start)]
        assert abs(len(found) - len(wanted)) <= 1, (start, len(found), len(wanted))  # the origin may be a stamp before
        assert found == every[-len(found) :]


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
@pytest.mark.parametrize("delayed", [0, 2])
def test_a_start_in_a_stream_that_is_refreshed_bit_by_bit_loses_nothing(
    tmp_path: Path, kind: str, delayed: int
) -> None:
    path = tmp_path / f"clip.{kind}"
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (64, 320, 3), np.uint8)
    with av.open(str(path), "w", format=kind) as container:
        refresh = {"g": "20", "x264-params": f"intra-refresh=1:bframes={delayed}"}
        stream = container.add_stream("libx264", rate=25, options=refresh)
        stream.width, stream.height, stream.pix_fmt = 320, 64, "yuv420p"
        for number in range(60):
            picture = av.VideoFrame.from_ndarray(np.roll(noise, 3 * number, axis=1), format="bgr24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    every = [(item.time, item.frame) for item in read_frames(path)]
    assert len(every) == 60
    for number in (1, 19, 21, 25, 38, 41, 59):
        found = [(item.time, item.frame) for item in read_frames(path, start=every[number][0])]
        assert [time for time, _ in found] == [time for time, _ in every[number:]]
        assert np.array_equal(found[0][1], every[number][1])


def test_what_is_wrong_with_an_address_is_not_mended_by_encoding(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"connection refused\. Check the address and the source\.$"):
        probe("http://127.0.0.1:9/clip.mp4")
    (tmp_path / "notes.md").write_text("# no video", encoding="utf-8")
    with pytest.raises(InputError, match=r"it is none, or damaged at its beginning\. Encode it again, or leave it out"):
        probe(tmp_path / "notes.md")
