"""The demo page against the runtime alone: start, one picture, one clip, cancelling, and many visitors at once.

    python -m tests.benchmarks.demo_page [--rounds 5] [--clip CLIP.mp4] [--clients 20] [--minutes 5] [--programs]

Prints JSON. The page runs in a process of its own with the shipped networks and is asked through `gradio_client`,
uploads included. A picture and a clip take turns with the runtime's own work on the same files (`Segmenter`;
`lsr-infer` with the same results), and the figures are ratios of neighbours, so that what else runs on the machine hits
both. Without --clip a 720p clip of 10 s is made of the package's frames. The load: every client, with a session of its
own as a browser has, sends pictures, and now and then a clip that it cancels; with --programs they have no sessions and
share one turn.

Memory is looked at twice a second. Its level is the median of the thirty seconds after the first fifth of the time;
`rss_growth` is the highest single look after that fifth over the level, of all the page's processes together, and
`server_growth` the same of the server itself.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2

from lsr_infer.io.images import read_image
from lsr_infer.segmenter import Segmenter
from lsr_infer.video.writer import VideoWriter
from lsr_infer.web.models import shipped_models
from tests.demo.conftest import FRAMES, Page, running_page

SOURCE, ADAPTED = shipped_models()
CLIP_FRAMES = 250


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--programs", action="store_true")
    parser.add_argument("--only", choices=("start", "picture", "clip", "cancel", "load"), action="append")
    options = parser.parse_args()
    wanted = set(options.only or ("start", "picture", "clip", "cancel", "load"))
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture, clip = picture_of(folder), options.clip or clip_of(folder)
        if "start" in wanted:
            result["start"] = start(folder, options.rounds)
        with page_in(folder) as page:
            if "picture" in wanted:
                result["picture"] = one_picture(page, picture, 4 * options.rounds)
            if "clip" in wanted:
                result["clip"] = one_clip(page, clip, folder, max(1, options.rounds // 2))
            if "cancel" in wanted:
                result["cancel"] = cancelling(page, clip, options.rounds)
        if "load" in wanted:
            with page_in(folder) as page:
                load = Load(page, picture, clip, options.clients, 60 * options.minutes, sessions=not options.programs)
                result["load"] = load.run()
    print(json.dumps(result, indent=2))
    return 0


@contextmanager
def page_in(folder: Path) -> Iterator[Page]:
    """Run a page with a folder of its own for temporary files."""
    temporary = folder / f"page-{time.monotonic_ns()}"
    temporary.mkdir()
    with running_page(temporary, "--device", "cpu") as page:
        yield page


def picture_of(folder: Path) -> Path:
    """Make a picture of 1024x512."""
    path = folder / "street.jpg"
    frame = cv2.imread(str(FRAMES / "camera_900001.jpg"))
    cv2.imwrite(str(path), cv2.resize(frame, (1024, 512), interpolation=cv2.INTER_CUBIC))
    return path


def clip_of(folder: Path) -> Path:
    """Make 10 s of 720p."""
    path = folder / "drive.mp4"
    frames = [cv2.resize(cv2.imread(str(name)), (1280, 720)) for name in sorted(FRAMES.glob("camera_*.jpg"))]
    with VideoWriter(path, width=1280, height=720, fps=Fraction(25)) as writer:
        for number in range(CLIP_FRAMES):
            writer.write(frames[number // 10 % len(frames)])
    return path


def client_of(page: Page, *, session: bool = False) -> Any:
    """Return a client of the page, where asked with a session of its own as a browser has."""
    from gradio_client import Client

    headers = {"Cookie": page.visit()} if session else None
    return Client(page.address, headers=headers, verbose=False)


def handled(path: Path) -> Any:
    """Return a file as the client sends it."""
    from gradio_client import handle_file

    return handle_file(path)


def timed(work: Callable[[], object]) -> float:
    """Return how long something takes, in seconds."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def start(folder: Path, rounds: int) -> dict[str, float]:
    """Time from the command to the page's first answer."""

    def once() -> float:
        begin = time.perf_counter()
        with page_in(folder) as page:
            page.ask("/")
            return time.perf_counter() - begin

    seconds = [once() for _ in range(rounds)]
    return {"median_seconds": statistics.median(seconds), "worst_seconds": max(seconds)}


def one_picture(page: Page, picture: Path, rounds: int) -> dict[str, float]:
    """Compare a picture's answer with the bare segmenter on the decoded frame."""
    segmenter, frame, client = Segmenter(ADAPTED, "cpu"), read_image(picture), client_of(page)

    def bare() -> object:
        return segmenter(frame).classes

    def asked() -> object:
        return client.predict(handled(picture), model=ADAPTED.name, api_name="/segment_image")

    bare(), asked()
    pairs = [(timed(bare), timed(asked)) for _ in range(rounds)]
    return {
        "bare_milliseconds": 1000 * statistics.median(one for one, _ in pairs),
        "page_milliseconds": 1000 * statistics.median(other for _, other in pairs),
        "ratio_after_150_milliseconds": statistics.median((other - 0.15) / one for one, other in pairs),
    }


def one_clip(page: Page, clip: Path, folder: Path, rounds: int) -> dict[str, float]:
    """Compare a clip with `lsr-infer`, both with overlays side by side and masks."""
    client, number = client_of(page), iter(range(rounds + 1))
    words = ["--model", str(ADAPTED), "--side-by-side", str(SOURCE), "--save", "overlay,mask", "--device", "cpu"]

    def bare() -> object:
        program = Path(sys.executable).with_name("lsr-infer")
        command = [program, clip, *words, "--output", folder / f"out-{next(number)}"]
        return subprocess.run(command, check=True, capture_output=True)

    def asked() -> object:
        return list(client.submit(handled(clip), ADAPTED.name, SOURCE.name, api_name="/segment_video"))

    pairs = [(timed(bare), timed(asked)) for _ in range(rounds)]
    return {
        "lsr_infer_seconds": statistics.median(one for one, _ in pairs),
        "page_seconds": statistics.median(other for _, other in pairs),
        "ratio": statistics.median(other / one for one, other in pairs),
    }


def cancelling(page: Page, clip: Path, rounds: int) -> dict[str, float]:
    """Time from asking a running clip to stop until the page says that it has."""
    seconds = [cancelled(page, client_of(page), clip) for _ in range(rounds)]
    return {"median_seconds": statistics.median(seconds), "worst_seconds": max(seconds)}


def cancelled(page: Page, client: Any, clip: Path) -> float:
    """Cancel a clip once it runs; return how long that took."""
    begin = None
    for document in client.submit(handled(clip), ADAPTED.name, SOURCE.name, api_name="/segment_video"):
        if begin is None and document["state"] == "busy" and document["frames"]:
            begin = time.perf_counter()
            page.ask(document["cancel"], b"", {"x-session-key": document["key"]}, "POST")
        if document["state"] == "cancelled" and begin is not None:
            return time.perf_counter() - begin
    raise RuntimeError("the clip was done before it could be cancelled; name a longer one with --clip")


class Load:
    """Many clients at once.

    Args:
        page: what they ask.
        picture: what they send.
        clip: what they send now and then, and cancel.
        clients: how many.
        seconds: for how long.
        sessions: each has a session of its own.
    """

    _CLIP_EVERY = 25
    _LEVEL_SECONDS = 30.0

    def __init__(
        self, page: Page, picture: Path, clip: Path, clients: int, seconds: float, *, sessions: bool = True
    ) -> None:
        self._page, self._picture, self._clip = page, picture, clip
        self._clients, self._seconds, self._sessions = clients, seconds, sessions
        self._lock = threading.Lock()
        self._ended: Counter[str] = Counter()
        self._waits: list[float] = []
        self._cancels: list[float] = []
        self._rss: list[tuple[float, int, int]] = []

    def run(self) -> dict[str, Any]:
        """Let the clients run, and watch the page's memory."""
        begin = time.monotonic()
        threads = [threading.Thread(target=self._client, args=(begin, number)) for number in range(self._clients)]
        for thread in threads:
            thread.start()
        while time.monotonic() - begin < self._seconds:
            self._rss.append((time.monotonic() - begin, *resident(self._page.process.pid)))
            time.sleep(0.5)
        for thread in threads:
            thread.join()
        (_, own_growth), (level, growth) = self._memory(1), self._memory(2)
        return {
            "clients": self._clients,
            "sessions": self._sessions,
            "minutes": self._seconds / 60,
            "ended": dict(self._ended),
            "wait_median_seconds": statistics.median(self._waits),
            "wait_worst_over_median": max(self._waits) / statistics.median(self._waits),
            "cancel_worst_seconds": max(self._cancels, default=None),
            "rss_level_mib": level / 2**20,
            "rss_growth": growth,
            "server_growth": own_growth,
            "answers_at_the_end": self._page.ask("/lsr/health").status,
            "files_at_the_end": len(self._page.files()),
        }

    def _memory(self, column: int) -> tuple[float, float]:
        """Return the level in bytes, and the highest look over it."""
        begin = self._seconds / 5
        looks = [(look[0] - begin, look[column]) for look in self._rss if look[0] >= begin]
        level = statistics.median(size for at, size in looks if at < self._LEVEL_SECONDS)
        return level, max(size for _, size in looks) / level

    def _client(self, begin: float, number: int) -> None:
        client = client_of(self._page, session=self._sessions)
        count = number  # so that their clips do not come all at once
        while time.monotonic() - begin < self._seconds:
            count += 1
            try:
                if count % self._CLIP_EVERY == 0:
                    took = cancelled(self._page, client, self._clip)
                    self._note("cancelled clip", self._cancels, took)
                else:
                    took = timed(lambda: client.predict(handled(self._picture), api_name="/segment_image"))
                    self._note("picture", self._waits, took)
            except Exception as error:  # noqa: BLE001 - whatever a client sees is counted by what it says
                self._note(f"{type(error).__name__}: {error}"[:120], [], 0.0)

    def _note(self, what: str, into: list[float], seconds: float) -> None:
        with self._lock:
            self._ended[what] += 1
            into.append(seconds)


def resident(pid: int) -> tuple[int, int]:
    """Return the memory of a process, and with all below it, in bytes; pages they share count once each."""
    sizes, found = {pid: 0}, [pid]
    while found:
        process = found.pop()
        try:
            for task in Path(f"/proc/{process}/task").iterdir():
                found += map(int, (task / "children").read_text(encoding="ascii").split())
            sizes[process] = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * 4096
        except OSError:
            continue
    return sizes[pid], sum(sizes.values())


if __name__ == "__main__":
    sys.exit(main())
