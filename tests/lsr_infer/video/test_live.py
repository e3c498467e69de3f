"""Live sources against real servers that are slow, fall silent, die and come back."""

import json
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.cli import main
from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.addresses import file_name_for, is_address, without_secrets
from lsr_infer.io.sources import find_sources
from lsr_infer.pipeline.options import Selection
from lsr_infer.system.threads import FairLock
from lsr_infer.video.containers import VideoInfo
from lsr_infer.video.live import LiveOptions, LivePicture, LiveReader, camera_pictures, stream_pictures
from lsr_infer.video.reader import read_frames
from tests.lsr_infer.streamserver import FPS, StreamServer, rtsp_serving, serving, silent_port, transport_stream

Shared = Callable[[str], Path]
QUICK = LiveOptions(timeout_seconds=0.6, reconnects=8, pause_seconds=0.05)


@pytest.fixture(scope="module")
def stream() -> bytes:
    return transport_stream()


def reader(address: str, options: LiveOptions = QUICK) -> LiveReader:
    return LiveReader("road", partial(stream_pictures, address), options)


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


def test_a_slow_taker_gets_the_newest_frame_and_the_rest_is_counted(stream: bytes) -> None:
    with serving(stream, rate=4 * len(stream)) as server, reader(server.address) as live:
        times = []
        frames = live.frames()
        for _ in range(6):
            item = next(frames)
            times.append(item.time)
            assert item.frame.shape == (48, 64, 3)
            time.sleep(0.1)
        live.stop()
        assert list(frames) == []
    assert times == sorted(times)
    assert live.dropped > 6
    assert live.received - live.dropped in (6, 7)  # the last one may still lie there
    assert live.reconnects == 0


def test_a_server_that_dies_and_comes_back_is_found_again(stream: bytes) -> None:
    first = StreamServer(stream, rate=2 * len(stream))
    with reader(first.address) as live:
        frames = live.frames()
        before = [next(frames) for _ in range(3)]
        first.kill()
        second = StreamServer(stream, rate=2 * len(stream), port=first.port)
        deadline = time.monotonic() + 20
        after = []
        while live.reconnects == 0 or len(after) < 3:
            assert time.monotonic() < deadline
            after.append(next(frames))
        second.kill()
    assert (live.reconnects, second.connections) == (1, 1)
    times = [item.time for item in (*before, *after)]
    assert times == sorted(times)  # although the new connection's clock began again


def test_a_silent_server_is_left_and_asked_again(stream: bytes) -> None:
    with serving(stream, rate=2 * len(stream)) as server, reader(server.address) as live:
        frames = live.frames()
        next(frames)
        server.stall.set()
        deadline = time.monotonic() + 20
        while server.connections < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.stall.clear()
        while live.reconnects == 0:
            assert time.monotonic() < deadline
            next(frames)


def test_patience_ends(stream: bytes) -> None:
    server = StreamServer(stream, rate=2 * len(stream))
    options = LiveOptions(timeout_seconds=0.5, reconnects=2, pause_seconds=0.02)
    with reader(server.address, options) as live:
        frames = live.frames()
        next(frames)
        server.kill()
        with pytest.raises(InputError, match="2 attempts to connect again failed"):
            list(frames)


def test_several_readers_halt_together(stream: bytes) -> None:
    halt = threading.Event()
    with serving(stream, rate=2 * len(stream)) as server:
        connect = partial(stream_pictures, server.address)
        with LiveReader("a", connect, QUICK, halt=halt) as one, LiveReader("b", connect, QUICK, halt=halt) as other:
            halt.set()
            assert list(one.frames()) == list(other.frames()) == []


def test_only_some_frames_are_wanted(stream: bytes) -> None:
    picker, asked = Selection(every=5).picker(), []

    def keep(time: float) -> bool:
        asked.append(picker(time))
        return asked[-1]

    with (
        serving(stream, rate=4 * len(stream)) as server,
        LiveReader("road", partial(stream_pictures, server.address), QUICK, keep=keep) as live,
    ):
        found = [item for item, _ in zip(live.frames(), range(4), strict=False)]
    assert len(found) == 4
    assert live.received == sum(asked) <= len(asked) / 5 + 1  # what was not wanted is neither received nor dropped
    assert live.received - 1 <= len(found) + live.dropped <= live.received  # one may be waiting to be fetched


def test_frames_that_arrive_in_a_burst_keep_their_distances() -> None:
    data = transport_stream(3 * FPS) + transport_stream(FPS, first=3600 * FPS)
    times: list[float] = []
    enough = threading.Event()

    def keep(time: float) -> bool:
        times.append(time)
        if len(times) == 4 * FPS:
            enough.set()
        return not enough.is_set()

    with serving(data) as server, LiveReader("road", partial(stream_pictures, server.address), QUICK, keep=keep):
        assert enough.wait(20)
    for part in (times[: 3 * FPS], times[3 * FPS : 4 * FPS]):
        assert np.diff(part) == pytest.approx(1 / FPS, abs=1e-3)
    assert times[3 * FPS] < 60  # a clock that leaps an hour ahead is not followed


def stream_info(data: bytes) -> Generator[VideoInfo, None, None]:
    """What a stream says about itself."""
    with serving(data) as server:
        yield next(stream_pictures(server.address, 5.0)).info


def test_a_new_connection_has_a_clock_of_its_own(stream: bytes) -> None:
    """Its stamps lie a few seconds after those of the lost one; they are those of another clock all the same."""
    info = next(stream_info(stream))
    stamps = iter([(100.0, 100.04, 100.08), (109.0, 109.04)])

    def connect(timeout_seconds: float) -> Generator[LivePicture, None, None]:
        for stamp in next(stamps):
            yield LivePicture(np.zeros((48, 64, 3), np.uint8), stamp, info)
        raise InputError("road: lost.")

    times: list[float] = []

    def keep(time: float) -> bool:
        times.append(time)
        return True

    options = LiveOptions(timeout_seconds=1, reconnects=1, pause_seconds=0.01)
    with LiveReader("road", connect, options, keep=keep) as live:
        while len(times) < 5:
            next(live.frames())
    assert times[:3] == pytest.approx([0, 0.04, 0.08])
    assert times[3] - times[2] < 8  # by the source's stamps it would be 8.92
    assert times[4] - times[3] == pytest.approx(0.04)


class SlowCamera:
    """A camera (hardware, so a stand-in) that takes its time for each picture."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def get(self, what: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, np.ndarray]:
        time.sleep(0.1)
        return True, np.zeros((48, 64, 3), np.uint8)

    def release(self) -> None:
        self.released.set()


def test_a_camera_is_given_back_before_it_is_left() -> None:
    camera = SlowCamera()
    pictures = camera_pictures(0, 10.0, lambda index: camera)
    next(pictures)
    pictures.close()
    assert camera.released.is_set()  # whoever opens it next would be refused


class HangingCamera:
    """A camera (hardware, so a stand-in) that gives some pictures and then never answers again."""

    def __init__(self, pictures: int, answer: threading.Event) -> None:
        self.left = pictures
        self.answer = answer
        self.released = threading.Event()

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def get(self, what: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, np.ndarray]:
        if not self.left:
            assert self.answer.wait(30)
        self.left -= 1
        return True, np.zeros((48, 64, 3), np.uint8)

    def release(self) -> None:
        self.released.set()


def test_a_camera_that_hangs_is_left_opened_again_and_given_back() -> None:
    answer = threading.Event()
    cameras = [HangingCamera(pictures, answer) for pictures in (3, 2, 0)]
    opened = iter(cameras)
    options = LiveOptions(timeout_seconds=0.3, reconnects=1, pause_seconds=0.01)
    connect = partial(camera_pictures, 0, open_capture=lambda index: next(opened))
    with LiveReader("camera:0", connect, options) as live:
        with pytest.raises(InputError, match=r"gave nothing for 0\.3 s.*1 attempts to connect again failed"):
            list(live.frames())
        assert (live.received, live.reconnects) == (5, 1)
    assert not any(camera.released.is_set() for camera in cameras)
    answer.set()
    assert all(camera.released.wait(10) for camera in cameras)


def test_a_camera_that_never_opens_is_left() -> None:
    answer = threading.Event()
    connect = partial(camera_pictures, 3, open_capture=lambda index: answer.wait(30))
    with (
        pytest.raises(InputError, match=r"camera:3: gave nothing for 0\.2 s"),
        LiveReader("camera:3", connect, LiveOptions(timeout_seconds=0.2)),
    ):
        pass
    answer.set()


def test_pauses_grow(caplog: pytest.LogCaptureFixture) -> None:
    begun: list[float] = []

    def connect(timeout_seconds: float) -> Generator[LivePicture, None, None]:
        begun.append(time.monotonic())
        if len(begun) == 1:
            yield from camera_pictures(0, timeout_seconds, lambda index: HangingCamera(1, threading.Event()))
        raise InputError("road: gone.")

    options = LiveOptions(timeout_seconds=0.05, reconnects=3, pause_seconds=0.05)
    with LiveReader("road", connect, options) as live, pytest.raises(InputError, match="3 attempts"):
        list(live.frames())
    assert len(begun) == 4
    assert [f"attempt {n} in {pause} s" in caplog.text for n, pause in ((1, 0.1), (2, 0.1), (3, 0.2))] == [True] * 3
    assert begun[2] - begun[1] >= 0.1  # a pause can only be longer than asked for
    assert begun[3] - begun[2] >= 0.2


def test_a_camera_is_read_until_it_stops(shared: Shared) -> None:
    clip = shared("data/clips/camvid_0016E5_15fps.mp4")
    pictures = camera_pictures(0, 5.0, lambda index: cv2.VideoCapture(str(clip)))
    for _ in range(101):
        picture = next(pictures)
        assert picture.time is None
    assert (picture.info.width, picture.info.fps) == (480, 15)
    with pytest.raises(InputError, match="gives no picture any more"):
        next(pictures)


def test_a_missing_camera_and_dead_addresses_are_exit_4(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", model, "-o", tmp_path / "out", "--timeout", "0.5")
    with silent_port() as port:
        for source in (f"rtsp://user:secret@127.0.0.1:{port}/road", f"http://127.0.0.1:{port}/road", "camera:99"):
            assert run(source, *words) == 4
            error = capsys.readouterr().err
            assert "secret" not in error
            assert error.count("error: ") == 1
            assert "Traceback" not in error
    assert run("http://127.0.0.1:1/road", *words) == 4
    assert run("gopher://127.0.0.1/road", *words) == 2
    assert not (tmp_path / "out").exists()


def test_a_playlist_reaches_no_other_protocol(
    stream: bytes, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret.ts"
    secret.write_bytes(stream)
    with silent_port() as port:
        for inside in (secret.as_uri(), str(secret), f"tcp://127.0.0.1:{port}", f"concat:{secret}|{secret}"):
            with serving(vod_playlist(inside), whole=True) as server:
                address = server.address.replace("/road", "/list.m3u8")
                code = run(
                    address, "--model", model, "-o", tmp_path / "out", "--timeout", "2", "--reconnects", "0",
                    "--max-frames", "3",
                )  # fmt: skip
            assert code == 4, inside
            assert server.asked[0] == "/list.m3u8"
    capsys.readouterr()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", ["/list", "/list.mp4"])
def test_a_script_behind_an_address_leads_nowhere(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    with serving(b"ffconcat version 1.0\nfile other.ts\n", whole=True) as server:
        address = server.address.replace("/road", path)
        assert run(address, "--model", model, "-o", tmp_path / "out", "--timeout", "2") == 4
        assert set(server.asked) == {path}
    assert "only leads to other places" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_four_streams_at_once_and_a_file_beside_them(
    stream: bytes, model: Path, tmp_path: Path, shared: Shared, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = shared("data/clips/udacity_test_video.mp4")
    with serving(stream, rate=2 * len(stream)) as server:
        addresses = [f"{server.address}?camera={n}" for n in range(4)]
        code = run(
            *addresses, clip, "--model", model, "-o", tmp_path / "out", "--duration", "1.0", "--json",
            "--save", "overlay,json",
        )  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    assert (code, document["found"], document["done"]) == (0, 5, 5)
    names = set()
    for report in document["sources"]:
        assert "camera=" not in report["source"]
        names.update(report["outputs"])
        video = next(path for path in report["outputs"] if path.endswith(".mp4"))
        assert len(list(read_frames(video))) == report["frames"] > 0
        if report["kind"] == "stream":
            assert report["reconnects"] == 0
            assert report["frames"] + report["dropped"] >= 25  # every frame of that second is accounted for
        else:
            assert report["frames"] == 25  # a file drops none
    assert [report["kind"] for report in document["sources"]] == ["stream"] * 4 + ["video"]
    assert len(names) == 10


def test_a_stream_lost_for_good_keeps_its_frames_and_is_partial(
    stream: bytes, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = StreamServer(stream, rate=2 * len(stream))
    threading.Timer(1.5, server.kill).start()
    code = run(
        server.address, "--model", model, "-o", tmp_path / "out", "--timeout", "0.5", "--reconnects", "1", "--json"
    )
    captured = capsys.readouterr()
    (report,) = json.loads(captured.out)["sources"]
    assert (code, report["status"]) == (6, "partial")
    assert "connect again failed" in report["error"]
    (video,) = report["outputs"]
    assert len(list(read_frames(video))) == report["frames"] > 0
    assert "Traceback" not in captured.err


def test_a_file_behind_an_address_loses_no_frame(
    model: Path, tmp_path: Path, shared: Shared, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shared("data/clips/camvid_0016E5_15fps.mp4").read_bytes()
    with serving(data, whole=True) as server:
        address = server.address.replace("/road", "/clip.mp4?token=secret")
        assert run(address, "--model", model, "-o", tmp_path / "out", "--json") == 0
    (report,) = json.loads(capsys.readouterr().out)["sources"]
    assert (report["kind"], report["frames"]) == ("video", 101)
    assert "secret" not in json.dumps(report)


def test_rtsp_is_live_whatever_its_name(
    stream: bytes, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with rtsp_serving(stream, rate=2 * len(stream)) as address:
        words = (f"{address}.mp4", "--model", model, "-o", tmp_path / "out", "--max-frames", "5", "--json")
        assert run(*words, "--timeout", "5") == 0
    (report,) = json.loads(capsys.readouterr().out)["sources"]
    assert (report["kind"], report["frames"], report["reconnects"]) == ("stream", 5, 0)


@pytest.mark.parametrize("path", ["/clip", "/clip.ts", "/clip?format=mp4"])
def test_a_recording_behind_any_name_loses_no_frame(
    stream: bytes, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    with serving(stream, whole=True) as server:
        address = server.address.replace("/road", path)
        assert run(address, "--model", model, "-o", tmp_path / "out", "--save", "overlay,json", "--json") == 0
        assert run(address, "--model", model, "-o", tmp_path / "out") == 2  # what exists is not replaced
    (report,) = json.loads(capsys.readouterr().out)["sources"]
    assert (report["kind"], report["frames"], "dropped" in report) == ("video", 50, False)


def test_a_recording_and_a_dead_address_are_told_apart(
    stream: bytes, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(stream, whole=True) as server:
        code = run(
            "http://127.0.0.1:1/road", server.address, "--model", model, "-o", tmp_path / "out", "--json",
        )  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    assert (code, document["done"], document["failed"]) == (6, 1, 1)
    assert [(report["kind"], report["frames"]) for report in document["sources"]] == [("stream", 0), ("video", 50)]


def vod_playlist(*segments: str, seconds: int = 2) -> bytes:
    head = f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:{seconds}\n#EXT-X-PLAYLIST-TYPE:VOD\n"
    return (head + "".join(f"#EXTINF:{seconds},\n{segment}\n" for segment in segments) + "#EXT-X-ENDLIST\n").encode()


@pytest.mark.parametrize("gone", [None, 0, 1, 2])
def test_a_recording_behind_a_playlist_is_partial_where_a_piece_is_missing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], gone: int | None
) -> None:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serving(transport_stream(2 * FPS, first=2 * FPS * n), whole=True)) for n in range(3)
        ]
        playlist = vod_playlist(*(f"{server.address}.ts" for server in servers))
        address = stack.enter_context(serving(playlist, whole=True)).address
        if gone is not None:
            servers[gone].kill()
        code = run(f"{address}.m3u8", "--model", model, "-o", tmp_path / "out", "--json")
    (report,) = json.loads(capsys.readouterr().out)["sources"]
    whole = gone is None
    assert (code, report["kind"], report["status"]) == (0 if whole else 6, "video", "done" if whole else "partial")
    assert report["frames"] == (150 if whole else 100)
    assert len(list(read_frames(report["outputs"][0]))) == report["frames"]
    if not whole:
        assert "ends after 100 frames (2.0 s of what its playlist promises did not come)" in report["error"]


def test_addresses_are_taken_for_streams_unless_they_end_as_videos() -> None:
    words = {
        "http://a/b.m3u8": "stream", "http://a/b": "stream", "https://a/b.mp4?x=1": "video", "http://a/b.TS": "video",
        "rtsp://a/b.mp4": "stream", "rtsps://a/b": "stream", "camera:7": "camera",
    }  # fmt: skip
    assert {source.place: source.kind for source in find_sources(list(words)).sources} == {
        7 if word == "camera:7" else word: kind for word, kind in words.items()
    }
    (stream,) = find_sources(["http://a/b"]).sources
    (rtsp,) = find_sources(["rtsp://a/b"]).sources
    assert [stream.opened(finite=finite).kind for finite in (True, False)] == ["video", "stream"]
    assert rtsp.opened(finite=True).kind == "stream"
    assert stream.opened(finite=True) == stream  # still the same source


@pytest.mark.parametrize(
    "address",
    ["http://[bad", "http://bad]/x", "rtsp://host:notaport/", "http://host:99999/", "http:///road", "rtsp://:554/x",
     "rtsp://me:pass/secret@host/one", "gopher://[bad"],
)  # fmt: skip
def test_a_malformed_address_is_one_line(
    address: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(address, "--model", model, "-o", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == error.count("error: ") == 1
    assert "Traceback" not in error
    assert "secret" not in error


def test_addresses() -> None:
    assert is_address("RTSP://127.0.0.1/a")
    assert not is_address("C:/clips/a.mp4")
    assert not is_address("clips/a:b.mp4")
    with pytest.raises(UsageError, match="rtsp"):
        is_address("file:///etc/passwd")
    assert without_secrets("rtsp://me:word@cam:554/one?key=1") == "rtsp://cam:554/one"
    assert file_name_for("rtsp://me:word@cam:554/one/two.sdp?key=1") == "cam_554_one_two"


def test_turns_are_taken_in_order() -> None:
    turns, order = FairLock(), []

    def take(number: int) -> None:
        with turns:
            order.append(number)

    with turns:
        threads = []
        for number in range(6):
            threads.append(threading.Thread(target=take, args=(number,)))
            threads[-1].start()
            time.sleep(0.01)
        assert order == []
    for thread in threads:
        thread.join()
    assert order == list(range(6))
