"""Live sources against real servers that are slow, fall silent, die and come back."""

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import pytest

from lsr_infer.addresses import is_address, is_live, name_of, shown
from lsr_infer.cli import main
from lsr_infer.errors import InputError, UsageError
from lsr_infer.live import LiveOptions, LiveReader, camera_pictures, stream_pictures
from lsr_infer.pipeline import Turns
from lsr_infer.selection import Selection
from lsr_infer.video import read_frames
from tests.lsr_infer.streamserver import StreamServer, serving, silent_port, transport_stream

Shared = Callable[[str], Path]
QUICK = LiveOptions(timeout_seconds=0.6, reconnects=8, pause_seconds=0.05)


@pytest.fixture(scope="module")
def stream() -> bytes:
    return transport_stream()


def reader(address: str, options: LiveOptions = QUICK) -> LiveReader:
    return LiveReader("road", partial(stream_pictures, address, options.timeout_seconds), options)


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
        connect = partial(stream_pictures, server.address, 1.0)
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
        LiveReader("road", partial(stream_pictures, server.address, 1.0), QUICK, keep=keep) as live,
    ):
        found = [item for item, _ in zip(live.frames(), range(4), strict=False)]
    assert len(found) == 4
    assert live.received == sum(asked) <= len(asked) / 5 + 1  # what was not wanted is neither received nor dropped
    assert live.received - 1 <= len(found) + live.dropped <= live.received  # one may be waiting to be fetched


def test_a_camera_is_read_until_it_stops(shared: Shared) -> None:
    clip = shared("data/clips/camvid_0016E5_15fps.mp4")
    pictures = camera_pictures(0, lambda index: cv2.VideoCapture(str(clip)))
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
        begun = time.monotonic()
        for source in (f"rtsp://user:secret@127.0.0.1:{port}/road", f"http://127.0.0.1:{port}/road", "camera:99"):
            assert run(source, *words) == 4
            error = capsys.readouterr().err
            assert "secret" not in error
            assert error.count("error: ") == 1
            assert "Traceback" not in error
        assert time.monotonic() - begun < 20
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
            head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-PLAYLIST-TYPE:VOD"
            text = f"{head}\n#EXTINF:2,\n{inside}\n#EXT-X-ENDLIST\n"
            with serving(text.encode(), whole=True) as server:
                address = server.address.replace("/road", "/list.m3u8")
                code = run(
                    address, "--model", model, "-o", tmp_path / "out", "--timeout", "2", "--reconnects", "0",
                    "--max-frames", "3",
                )  # fmt: skip
            assert code == 4, inside
            assert server.asked[0] == "/list.m3u8"
    capsys.readouterr()
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
        assert len(list(read_frames(video))) == report["frames"] > 2
        if report["kind"] == "stream":
            assert report["reconnects"] == 0
            assert report["dropped"] >= 0
        else:
            assert report["frames"] == 25  # a file drops none
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


def test_a_recording_behind_a_playlist_ends_where_it_ends(
    stream: bytes, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-PLAYLIST-TYPE:VOD"
    with serving(stream, whole=True) as segment:
        text = f"{head}\n#EXTINF:2,\n{segment.address}.ts\n#EXT-X-ENDLIST\n"
        with serving(text.encode(), whole=True) as server:
            address = server.address.replace("/road", "/list.m3u8")
            assert run(address, "--model", model, "-o", tmp_path / "out", "--json") == 0
    (report,) = json.loads(capsys.readouterr().out)["sources"]
    assert report["frames"] + report["dropped"] == 50
    assert report["reconnects"] == 0


def test_addresses() -> None:
    assert is_address("RTSP://127.0.0.1/a")
    assert not is_address("C:/clips/a.mp4")
    assert not is_address("clips/a:b.mp4")
    with pytest.raises(UsageError, match="rtsp"):
        is_address("file:///etc/passwd")
    assert is_live("http://a/b.m3u8")
    assert not is_live("https://a/b.mp4?x=1")
    assert shown("rtsp://me:word@cam:554/one?key=1") == "rtsp://cam:554/one"
    assert name_of("rtsp://me:word@cam:554/one/two.sdp?key=1") == "cam_554_one_two"


def test_turns_are_taken_in_order() -> None:
    turns, order = Turns(), []

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
