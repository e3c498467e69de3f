"""Start the page in a process of its own, once for the tests of a module."""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FRAMES = REPOSITORY / "lsr_infer" / "models" / "toytown" / "images"
STREET = FRAMES / "camera_900001.jpg"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMIUM_OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]  # fmt: skip
_START_SECONDS = 120
_LIBC = ctypes.CDLL(None)


@dataclass
class Page:
    """A page that runs."""

    address: str
    process: "subprocess.Popen[bytes]"
    folder: Path
    log: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """The page's cache."""
        (found,) = self.folder.glob("lsr-demo-*")
        return found

    def status(self, path: str = "/", headers: Mapping[str, str] | None = None, data: bytes | None = None) -> int:
        """Return the status of one request."""
        try:
            request = urllib.request.Request(self.address + path, data, dict(headers or {}))
            with urllib.request.urlopen(request) as got:
                return int(got.status)
        except urllib.error.HTTPError as error:
            return error.code

    def client(self, **options: Any) -> Any:
        """Return a client of the page's API."""
        from gradio_client import Client

        return Client(self.address, verbose=False, **options)

    def results(self) -> list[Path]:
        """Return the folders that hold results."""
        return list({path.parent for path in self.folder.glob("lsr-demo-*/*/shares.csv")})

    def working(self) -> list[Path]:
        """Return the folders of clips, those that are still computed among them."""
        return list({path.parent for path in self.folder.glob("lsr-demo-*/*/masks.zip")})

    def workers(self) -> list[int]:
        """Return the processes that decode and segment."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        numbers = {int(number) for path in children for number in path.read_text(encoding="ascii").split()}
        return [number for number in numbers if b"worker.py" in Path(f"/proc/{number}/cmdline").read_bytes()]


def _as_in_a_terminal() -> None:
    """Receive Ctrl-C, and end with the process that started the page (1: PR_SET_PDEATHSIG)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _LIBC.prctl(1, signal.SIGTERM)


@contextmanager
def running_page(folder: Path, *options: str, command: tuple[str, ...] = ()) -> Iterator[Page]:
    """Start a page; end it as Ctrl-C in its terminal does, and check that nothing is left of it."""
    command = command or (sys.executable, str(REPOSITORY / "demo" / "app.py"))
    process = subprocess.Popen(
        [*command, "--port", "0", *options], cwd=folder, env=os.environ | {"TMPDIR": str(folder)},
        stderr=subprocess.PIPE, preexec_fn=_as_in_a_terminal, start_new_session=True,
    )  # fmt: skip
    killer = threading.Timer(_START_SECONDS, process.kill)
    killer.start()
    log: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            log.append(line.decode())
            found = re.search(r"the page is at (\S+)", log[-1])
            if found:
                break
        else:
            pytest.fail("the page did not start: " + "".join(log))
        killer.cancel()
        drain = threading.Thread(target=lambda: log.extend(line.decode() for line in process.stderr), daemon=True)
        drain.start()
        yield Page(found[1], process, folder, log)
    finally:
        killer.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    drain.join(60)
    assert not drain.is_alive(), "a process of the page lives on"
    process.stderr.close()
    assert process.returncode in (130, -signal.SIGKILL)
    assert not re.search("Traceback|ERROR", "".join(log)), "".join(log)[-4000:]
    if process.returncode == 130:
        assert not list(folder.glob("lsr-demo-*")), "files were left behind"


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page with the shipped networks, and limits that tests can reach."""
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    folder = tmp_path_factory.mktemp("page")
    (folder / "models").mkdir()
    options = ("--upload-bytes", "8000000", "--seconds", "30", "--frames", "500", "--pixels", "9000000")
    with running_page(folder, "--models", str(folder / "models"), *options) as running:
        yield running


@pytest.fixture(scope="session")
def clip_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Make a video of so many frames out of the package's."""
    folder = tmp_path_factory.mktemp("clips")

    def make(frames: int) -> Path:
        path = folder / f"drive_{frames}.mp4"
        if not path.exists():
            write_clip(path, frames, (256, 512))
        return path

    return make


def write_clip(path: Path, frames: int, size: tuple[int, int], fps: int = 10) -> Path:
    """Write a video of (height, width) that changes its picture twice a second."""
    from lsr_infer.video.writer import VideoWriter

    pictures = [cv2.resize(cv2.imread(str(name)), size[::-1]) for name in sorted(FRAMES.glob("camera_*.jpg"))]
    with VideoWriter(path, width=size[1], height=size[0], fps=Fraction(fps)) as writer:
        for number in range(frames):
            writer.write(pictures[2 * number // fps % len(pictures)])
    return path
