"""A real RTSP server, GStreamer's: password, TCP and UDP, a new size, and a server that dies and comes back."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import psutil
import pytest

from lsr_infer.errors import InputError
from lsr_infer.video.live import LiveOptions, LiveReader, stream_pictures

SERVER = Path(__file__).parents[1] / "rtsp_server.py"
PYTHON = "/usr/bin/python3"
"""GStreamer's bindings belong to the system's Python (Debian: gir1.2-gst-rtsp-server-1.0, python3-gi, the plugins)."""


@cache
def has_server() -> bool:
    """Whether the system's Python has the server and the encoder."""
    text = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer, Gst; "
    text += "Gst.init(None); assert Gst.ElementFactory.find('x264enc')"
    return Path(PYTHON).exists() and subprocess.run([PYTHON, "-c", text], capture_output=True).returncode == 0


@pytest.fixture(autouse=True)
def needs_server() -> None:
    if not has_server():
        pytest.skip("GStreamer's RTSP server is not installed (gir1.2-gst-rtsp-server-1.0, python3-gi, x264enc)")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(port: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [PYTHON, str(SERVER), "--port", str(port), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()


def reader(address: str, *, reconnects: int = 0, timeout_seconds: float = 20.0) -> LiveReader:
    options = LiveOptions(timeout_seconds=timeout_seconds, reconnects=reconnects, pause_seconds=0.1)
    return LiveReader("camera", partial(stream_pictures, address), options)


def sizes(live: LiveReader, count: int) -> list[tuple[int, ...]]:
    found = []
    for item in live.frames():
        found.append(item.frame.shape[:2])
        if len(found) == count:
            break
    return found


@pytest.mark.parametrize("options", [(), ("--udp",)])
def test_frames_come_by_tcp_and_where_a_server_has_none_by_udp(options: tuple[str, ...]) -> None:
    port = free_port()
    with serving(port, *options), reader(f"rtsp://127.0.0.1:{port}/road") as live:
        assert sizes(live, 10) == [(240, 320)] * 10


@pytest.mark.parametrize("options", [(), ("--udp",)])
def test_a_password_opens_and_a_wrong_one_is_refused_without_being_shown(options: tuple[str, ...]) -> None:
    port = free_port()
    with serving(port, "--password", "admin:road66", *options):
        with reader(f"rtsp://admin:road66@127.0.0.1:{port}/road") as live:
            assert sizes(live, 3) == [(240, 320)] * 3
        for login in ("admin:wrong7788@", "other:road66@", ""):
            with pytest.raises(InputError) as raised, reader(f"rtsp://{login}127.0.0.1:{port}/road"):
                pass
            assert f"rtsp://127.0.0.1:{port}/road" in str(raised.value)
            for secret in ("wrong7788", "road66", "admin"):
                assert secret not in str(raised.value)


def test_a_stream_that_changes_its_size_goes_on() -> None:
    port = free_port()
    with serving(port, "--change", "160x128"), reader(f"RTSP://127.0.0.1:{port}/road") as live:
        met = set()
        for item in live.frames():
            met.add(item.frame.shape[:2])
            if len(met) == 2 or item.time > 20:
                break
    assert met == {(240, 320), (128, 160)}


@pytest.mark.slow
def test_a_server_that_dies_ten_times_is_found_again_without_leaks() -> None:
    port, process = free_port(), psutil.Process()
    with serving(port) as server:
        live = reader(f"rtsp://127.0.0.1:{port}/road", reconnects=100, timeout_seconds=5)
        with live:
            frames = live.frames()
            next(frames)
            memory = descriptors = 0
            for death in range(10):
                server.kill()
                server.wait()
                with serving(port, "--size", "160x128" if death % 2 == 0 else "320x240") as server:
                    deadline = time.monotonic() + 60
                    while live.reconnects <= death:
                        next(frames)
                        assert time.monotonic() < deadline
                    for _ in range(10):
                        next(frames)
                    if death == 1:
                        memory, descriptors = process.memory_info().rss, process.num_fds()
            assert live.reconnects == 10
            assert process.num_fds() <= descriptors + 2
            assert process.memory_info().rss < 1.25 * memory


@pytest.mark.slow
def test_two_hours_of_frames_at_speed_leave_memory_and_descriptors_flat() -> None:
    port, process = free_port(), psutil.Process()
    frames_of_two_hours = 2 * 3600 * 25
    with serving(port, "--size", "96x64", "--fps", "1000"), reader(f"rtsp://127.0.0.1:{port}/road") as live:
        memory = descriptors = 0
        deadline = time.monotonic() + 1800
        for _ in live.frames():
            if not memory and live.received > frames_of_two_hours // 20:
                memory, descriptors = process.memory_info().rss, process.num_fds()
            if live.received > frames_of_two_hours:
                break
            assert time.monotonic() < deadline
        assert process.num_fds() == descriptors
        assert process.memory_info().rss < 1.1 * memory
