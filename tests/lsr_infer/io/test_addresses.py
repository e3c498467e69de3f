"""Addresses: what may be a secret is never shown, a wrong host never asked, and pictures are read from them."""

import base64
import http.server
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

import lsr_infer
from lsr_infer.cli import main
from lsr_infer.errors import InputError, UsageError, exit_status, stderr_handler
from lsr_infer.io.addresses import file_name_for, is_address, label, without_secrets
from lsr_infer.io.download import download
from lsr_infer.io.images import read_label
from lsr_infer.io.sources import find_sources
from lsr_infer.video.reader import probe


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


MISREAD = {  # address: what may be said of it
    "rtsp://admin:12/34secret@host/s": "rtsp://host",
    "rtsp://admin:77#secret@host/s": "rtsp://host",
    "rtsp://admin:hun?secret@host/s": "rtsp://host",
    "rtsp://admin:1/secret@half@host:554/s": "rtsp://host:554",
    "rtsp://secret/admin:12@host": "rtsp://host",
    "http://admin:a/b?c#secret@host:80/snap.jpg": "http://host:80",
    "http://host/clip.mp4?mail=a@b&key=secret": "http://b",
    "HTTPS://admin:1?secret/@[::1]:443/x": "https://[::1]:443",
    "rtsp://admin:100%secret@host/s": "rtsp://host",
    "rtsp://admin:5%@secret%zz@host/s": "rtsp://host",
    "rtsp://admin:secret@:554/s": "rtsp://",
    "rtsp://admin:secret@host:port/s": "rtsp://host",
    "gopher://admin:secret@host/s": "gopher://host",
}


@pytest.mark.parametrize("address", MISREAD)
def test_a_password_that_would_end_the_host_is_refused_and_not_shown(
    address: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert run(address, "--model", model, "-o", tmp_path / "out", "--json") == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"error: {MISREAD[address]}: ")
    assert shown.err.count("\n") == 1
    assert not any(word in shown.err + shown.out + caplog.text for word in ("secret", "admin", "12/34", "/s:", "key="))
    assert shown.out == ""
    if not address.startswith("gopher"):
        assert all(f" is %{code}" in shown.err for code in ("2F", "3F", "23", "40", "3A", "25"))


def test_good_addresses_pass_and_show_no_secret() -> None:
    for address, shown, name in (
        ("rtsp://me:s%2Fe%23c%3Fr%40e%25t@cam:554/one?key=1", "rtsp://cam:554/one", "cam_554_one"),
        ("rtsp://me:a@b@cam/one", "rtsp://cam/one", "cam_one"),
        ("rtsp://10.0.0.5:554/user=me&password=word&channel=1.sdp", "rtsp://10.0.0.5:554/", "10.0.0.5_554"),
        ("http://cam/live/user%3Dme;password%3Dword/7", "http://cam/live//7", "cam_live_7"),
        ("http://192.168.0.1", "http://192.168.0.1", "192.168.0.1"),
        ("http://host/%40me/clip.mp4#t=3", "http://host/%40me/clip.mp4", "host_40me_clip"),
    ):
        assert is_address(address)
        assert (without_secrets(address), label(address), file_name_for(address)) == (shown, shown, name)


def test_the_value_of_another_option_shows_no_secret_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["rtsp:/me:secret@cam/s"], ["x.png", "--model", "rtsp://me:secret@cam/s"]):
        assert run(*words, "-o", tmp_path / "out") in (2, 4)
        assert "secret" not in capsys.readouterr().err

    def fail() -> None:
        handler = stderr_handler()
        handler.emit(logging.LogRecord("a", 20, "b", 1, "%s is lost", ("rtsps://me:sec/ret@half@cam:1/s",), None))
        raise InputError("no folder rtsp://me:secret@cam/s and http://you:secret@cam/s.")

    assert exit_status(fail) == 4
    assert capsys.readouterr().err == ("rtsps://cam:1/s is lost\nerror: no folder rtsp://cam/s and http://cam/s.\n")


MISTYPED = {  # word: what is shown of it
    "rtsp:/admin:my secret@host/s": "rtsp:/host/s",
    "rtsp//admin:secret@host/s": "host/s",
    "rtsp:admin:secret@host/s": "host/s",
    "rtsp;//admin:a secret/b@admin: c@host/s": "host/s",
    "admin:secret@10.0.0.1/stream": "10.0.0.1/stream",
    "ad min:'secret\\admin@10.0.0.1": "10.0.0.1",
}


@pytest.mark.parametrize("word", MISTYPED)
def test_a_mistyped_address_shows_no_password(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = Path(lsr_infer.__file__).parent / "models" / "toytown" / "images"
    for option in ([word], [shipped, "-m", word], [shipped, f"-m{word}"], [shipped, f"--model={word}"]):
        assert run(*option, "-o", tmp_path / "out") in (2, 4)
        error = capsys.readouterr().err
        assert f"error: {MISTYPED[word]}: " in error
        assert "secret" not in error
        assert "admin" not in error


def test_a_file_may_be_called_as_an_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "12:30@front.png"
    file.write_bytes(b"no picture")
    assert run(file, "-o", tmp_path / "out") == 4
    assert str(file) in capsys.readouterr().err


PICTURE = np.zeros((40, 60, 3), np.uint8)
PICTURE[:, 30:] = (0, 0, 255)


class Camera(http.server.BaseHTTPRequestHandler):
    """Sends a picture at /snap.jpg, to who knows the password at /locked.png, and leads elsewhere from /away…"""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/away"):
            self.send_response(302)
            self.send_header("Location", "https://me:secret@elsewhere.example/cam.mp4?token=secret")
            self.end_headers()
        elif path == "/near.jpg":
            self.send_response(302)
            self.send_header("Location", "/snap.jpg")
            self.end_headers()
        elif path == "/locked.png" and self.headers.get("Authorization") != (
            f"Basic {base64.b64encode(b'me:s/e?c@ret').decode()}"
        ):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
        elif path == "/stream.jpg":
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=x")
            self.end_headers()
        elif path == "/slow.jpg":
            self.send_response(200)
            self.end_headers()
            with suppress(ConnectionError):
                for _ in range(60):
                    self.wfile.write(b"\xff")
                    time.sleep(0.05)
        elif path in ("/snap.jpg", "/locked.png", "/cut.jpg"):
            content = cv2.imencode(".jpg", PICTURE)[1].tobytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: -100 if path == "/cut.jpg" else None])
        else:
            self.send_error(404)

    def log_message(self, *words: object) -> None:
        pass


@contextmanager
def camera() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_snapshot_address_gives_its_picture(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with camera() as host:
        words = [f"http://{host}/snap.jpg?key=secret", f"http://me:s%2Fe%3Fc%40ret@{host}/locked.png",
                 f"http://{host}/near.jpg"]  # fmt: skip
        assert [source.kind for source in find_sources(words).sources] == ["image"] * 3
        out = tmp_path / "out"
        assert run(*words, "--model", model, "-o", out, "--save", "mask", "--json") == 0
        assert run(words[0], "--model", model, "-o", tmp_path / "one", "--save", "mask") == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert "secret" not in shown.out + shown.err
    for source in document["sources"]:
        mask = read_label(Path(source["outputs"][0]))
        assert mask.shape == (40, 60)
        assert mask[20, 5] != mask[20, 55]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("away.jpg", "leads to https://elsewhere.example"), ("away", "leads to https://elsewhere.example"),
        ("away.mp4", "leads to https://elsewhere.example"), ("gone.jpg", "HTTP status 404"),
        ("locked.png", "HTTP status 401"), ("stream.jpg", "sends a stream"), ("cut.jpg", "ended after"),
    ],
)  # fmt: skip
def test_what_an_address_does_not_give_is_said(
    path: str, why: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with camera() as host:
        words = ("--model", model, "-o", tmp_path / "out", "--reconnects", "0", "--timeout", "5")
        assert run(f"http://me:secret@{host}/{path}?token=secret", *words) == 4
    error = capsys.readouterr().err.splitlines()[-1]
    assert why in error
    assert "secret" not in error


def test_nobody_answers() -> None:
    with pytest.raises(InputError, match=r"^http://127.0.0.1:9/a.jpg: cannot be read \(connection refused\)"):
        download("http://me:secret@127.0.0.1:9/a.jpg?b=secret", 1.0)
    with pytest.raises(InputError, match="Check the address"):
        probe("http://127.0.0.1:9/away.mp4")
    with pytest.raises(UsageError):
        probe("http://me:se/cret@127.0.0.1:9/away.mp4")


def test_a_server_that_sends_byte_by_byte_is_not_waited_for() -> None:
    with camera() as host, pytest.raises(InputError, match=r"slow\.jpg: was not there whole after 0\.2 s"):
        download(f"http://{host}/slow.jpg", 0.2)
