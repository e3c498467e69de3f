"""A real page in a process of its own, started once for the tests of a module."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FRAMES = REPOSITORY / "lsr_infer" / "models" / "toytown" / "images"
_START_SECONDS = 120
_LIBC = ctypes.CDLL(None)


@dataclass
class Answer:
    """What a page answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Page:
    """A page that runs."""

    address: str
    process: "subprocess.Popen[bytes]"
    folder: Path

    def ask(
        self, path: str, data: bytes | None = None, headers: Mapping[str, str] | None = None, method: str | None = None
    ) -> Answer:
        """Send one request as a program without cookies would."""
        request = urllib.request.Request(self.address + path, data, dict(headers or {}), method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error.read())

    def visit(self) -> str:
        """Open the page as a browser would; return its cookie."""
        return self.ask("/").headers["set-cookie"].partition(";")[0]

    def files(self) -> set[Path]:
        """Return all files that lie on the disk for sessions."""
        return {path for path in self.folder.glob("lsr-demo-*/sessions/**/*") if path.is_file()}


def _as_in_a_terminal() -> None:
    """Hear Ctrl-C, which a shell's background does not, and end with whoever started the page (1: PR_SET_PDEATHSIG)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _LIBC.prctl(1, signal.SIGTERM)


@contextmanager
def running_page(folder: Path, *options: str) -> Iterator[Page]:
    """Start a page; end it as Ctrl-C in its terminal does, and see that nothing is left of it."""
    command = [sys.executable, str(REPOSITORY / "demo" / "app.py"), "--port", "0", *options]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=os.environ | {"TMPDIR": str(folder)}, stderr=subprocess.PIPE,
        preexec_fn=_as_in_a_terminal, start_new_session=True,
    )  # fmt: skip
    killer = threading.Timer(_START_SECONDS, process.kill)
    killer.start()
    said = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line.decode())
            found = re.search(r"the page is at (\S+)", said[-1])
            if found:
                break
        else:
            pytest.fail("the page did not start: " + "".join(said))
        killer.cancel()
        drain = threading.Thread(target=lambda: said.extend(line.decode() for line in process.stderr), daemon=True)
        drain.start()
        yield Page(found[1], process, folder)
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
    assert not re.search("Traceback|ERROR", "".join(said)), "".join(said)[-4000:]
    assert not list(folder.glob("lsr-demo-*")), "files were left behind"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page with the shipped networks, and limits that tests can reach."""
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    options = ("--upload-bytes", "8000000", "--seconds", "30", "--frames", "500", "--pixels", "9000000")
    with running_page(tmp_path_factory.mktemp("page"), *options) as running:
        yield running


@pytest.fixture
def street() -> Path:
    """A frame that comes with the package."""
    return FRAMES / "camera_900001.jpg"


@pytest.fixture(scope="session")
def clip_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Make a video of so many frames out of the package's."""
    from fractions import Fraction

    import cv2

    from lsr_infer.video.writer import VideoWriter

    folder = tmp_path_factory.mktemp("clips")

    def make(frames: int) -> Path:
        path = folder / f"drive_{frames}.mp4"
        if not path.exists():
            pictures = [cv2.imread(str(name)) for name in sorted(FRAMES.glob("camera_*.jpg"))]
            with VideoWriter(path, width=512, height=256, fps=Fraction(10)) as writer:
                for number in range(frames):
                    writer.write(pictures[number // 5 % len(pictures)])
        return path

    return make
