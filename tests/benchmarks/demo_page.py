"""The demo page against the runtime alone: start, one picture, one clip, cancelling, and many visitors at once.

    python -m tests.benchmarks.demo_page [--rounds 5] [--clip CLIP.mp4] [--clients 10] [--minutes 3]

Prints JSON. The page runs in a process of its own with the shipped networks and is asked through `gradio_client`,
uploads included. A picture and a clip alternate with the runtime's own work on the same files (`Segmenter`;
`lsr-infer` with the same results), and the figures are ratios of neighbours, so that what else runs on the machine hits
both. Without --clip a 720p clip of 10 s is made of the package's frames. The load: every client sends pictures, and now
and then a clip that it cancels. Memory is that of all the page's processes, shared pages counted once. It swings with
what is computed, so three ratios are given: the highest value after the first minute (the first third of a shorter
load) over that minute's highest and over the median of its second half, and the last minute's median over that median,
which would show growth. A picture's answer ends with its addresses: the client downloads no files.
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
from pathlib import Path
from typing import Any

import cv2
from gradio_client import Client, handle_file

from lsr_infer.io.images import read_image
from lsr_infer.segmenter import Segmenter
from tests.demo.conftest import REPOSITORY, STREET, Page, running_page, write_clip

MODELS = REPOSITORY / "lsr_infer" / "models"
SOURCE, ADAPTED = MODELS / "toytown-source.onnx", MODELS / "toytown.onnx"


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each figure is measured")
    parser.add_argument("--clip", type=Path, help="a video; without one a clip of the package's frames is made")
    parser.add_argument("--clients", type=int, default=10, help="visitors at once; 0 leaves the load out")
    parser.add_argument("--minutes", type=float, default=3.0, help="length of the load")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = options.clip or write_clip(folder / "drive.mp4", 250, (720, 1280), fps=25)
        picture = picture_of(folder)
        figures: dict[str, Any] = {"start": start(folder, options.rounds)}
        with page_in(folder) as page:
            figures["picture"] = one_picture(page, picture, options.rounds)
            figures["clip"] = one_clip(page, clip, folder, options.rounds)
            figures["cancel"] = summary([cancelled(page.client(), clip) for _ in range(options.rounds)])
        if options.clients:
            with page_in(folder) as page:
                figures["load"] = Load(page, picture, clip, options.clients, 60 * options.minutes).run()
    print(json.dumps(figures, indent=2))
    return 0


@contextmanager
def page_in(folder: Path) -> Iterator[Page]:
    """Run a page that writes into a folder of its own."""
    with (
        tempfile.TemporaryDirectory(dir=folder) as name,
        running_page(Path(name), "--device", "cpu", "--client-queue", "20") as page,
    ):
        yield page


def picture_of(folder: Path) -> Path:
    """Make a picture of 1024x512."""
    path = folder / "street.jpg"
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(STREET)), (1024, 512), interpolation=cv2.INTER_CUBIC))
    return path


def timed(work: Callable[[], object]) -> float:
    """Return how long something takes, in seconds."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def summary(seconds: list[float]) -> dict[str, float]:
    """Return the median and the worst of several times."""
    return {"median_seconds": statistics.median(seconds), "worst_seconds": max(seconds)}


def start(folder: Path, rounds: int) -> dict[str, float]:
    """Time from the command to the page's first answer."""

    def once() -> float:
        begin = time.perf_counter()
        with page_in(folder) as page:
            assert page.status() == 200
            return time.perf_counter() - begin

    return summary([once() for _ in range(rounds)])


def one_picture(page: Page, picture: Path, rounds: int) -> dict[str, float]:
    """Compare a picture's answer with the bare segmenter on the decoded frame."""
    segmenter, frame, client = Segmenter(ADAPTED, "cpu"), read_image(picture), page.client(download_files=False)

    def bare() -> object:
        return segmenter(frame).classes

    def asked() -> object:
        return client.predict(handle_file(picture), before="", after=ADAPTED.name, api_name="/segment_image")

    bare(), asked()
    pairs = [(timed(bare), timed(asked)) for _ in range(max(rounds, 10))]
    return {
        "bare_milliseconds": 1000 * statistics.median(one for one, _ in pairs),
        "page_milliseconds": 1000 * statistics.median(other for _, other in pairs),
        "ratio_after_400_milliseconds": statistics.median((other - 0.4) / one for one, other in pairs),
    }


def one_clip(page: Page, clip: Path, folder: Path, rounds: int) -> dict[str, float]:
    """Compare a clip with `lsr-infer`, both with overlays side by side and masks."""
    client, number = page.client(), iter(range(rounds))
    argv = ["--model", str(ADAPTED), "--side-by-side", str(SOURCE), "--save", "overlay,mask", "--device", "cpu"]

    def bare() -> object:
        program = Path(sys.executable).with_name("lsr-infer")
        command = [program, clip, *argv, "--output", folder / f"out-{next(number)}"]
        return subprocess.run(command, check=True, capture_output=True)

    def asked() -> object:
        return client.predict(handle_file(clip), SOURCE.name, ADAPTED.name, api_name="/segment_video")

    pairs = [(timed(bare), timed(asked)) for _ in range(rounds)]
    return {
        "lsr_infer_seconds": statistics.median(one for one, _ in pairs),
        "page_seconds": statistics.median(other for _, other in pairs),
        "ratio": statistics.median(other / one for one, other in pairs),
    }


def cancelled(client: Client, clip: Path) -> float:
    """Cancel a clip once it runs; return how long that took."""
    job = client.submit(handle_file(clip), SOURCE.name, ADAPTED.name, api_name="/segment_video")
    while not (job.status().progress_data and job.status().progress_data[0].index):
        if job.done():
            raise RuntimeError("the clip was done before it could be cancelled; name a longer one with --clip")
        time.sleep(0.02)
    return timed(job.cancel)  # answered once the process is gone


class Load:
    """Many clients at once.

    Args:
        page: what they ask.
        picture: what they send.
        clip: what they send now and then, and cancel.
        clients: how many.
        seconds: for how long.
    """

    _CLIP_EVERY = 25

    def __init__(self, page: Page, picture: Path, clip: Path, clients: int, seconds: float) -> None:
        self._page, self._picture, self._clip = page, picture, clip
        self._clients, self._seconds = clients, seconds
        self._lock = threading.Lock()
        self._ended: Counter[str] = Counter()
        self._waits: list[float] = []
        self._cancels: list[float] = []
        self._memory: list[tuple[float, int]] = []

    def run(self) -> dict[str, Any]:
        """Let the clients run, and record the page's memory."""
        begin = time.monotonic()
        threads = [threading.Thread(target=self._client, args=(begin, number)) for number in range(self._clients)]
        for thread in threads:
            thread.start()
        while time.monotonic() - begin < self._seconds:
            self._memory.append((time.monotonic() - begin, proportional_memory(self._page.process.pid)))
            time.sleep(0.5)
        for thread in threads:
            thread.join()
        settled = min(60.0, self._seconds / 3)
        median = statistics.median(size for at, size in self._memory if settled / 2 <= at < settled)
        highest = max(size for at, size in self._memory if at < settled)
        later = max(size for at, size in self._memory if at >= settled)
        last = statistics.median(size for at, size in self._memory if at >= self._seconds - settled)
        return {
            "clients": self._clients,
            "minutes": self._seconds / 60,
            "ended": dict(self._ended),
            "wait_median_seconds": statistics.median(self._waits),
            "wait_worst_seconds": max(self._waits),
            "cancel_worst_seconds": max(self._cancels, default=None),
            "highest_memory_mib": max(highest, later) / 2**20,
            "memory_over_median_of_first_minute": later / median,
            "memory_over_highest_of_first_minute": later / highest,
            "median_memory_of_last_over_first_minute": last / median,
            "status_at_the_end": self._page.status(),
        }

    def _client(self, begin: float, number: int) -> None:
        client = self._page.client(download_files=False)
        count = number * self._CLIP_EVERY // self._clients  # so that clips come from the beginning, one by one
        while time.monotonic() - begin < self._seconds:
            count += 1
            try:
                if count % self._CLIP_EVERY == 0:
                    self._note("cancelled clip", self._cancels, cancelled(client, self._clip))
                else:
                    took = timed(lambda: client.predict(handle_file(self._picture), api_name="/segment_image"))
                    self._note("picture", self._waits, took)
            except Exception as error:  # noqa: BLE001 - whatever a client sees is counted by what it says
                self._note(f"{type(error).__name__}: {error}"[:120], [], 0.0)

    def _note(self, what: str, into: list[float], seconds: float) -> None:
        with self._lock:
            self._ended[what] += 1
            into.append(seconds)


def proportional_memory(pid: int) -> int:
    """Return the memory of a process and of all below it, in bytes; each page shared by N of them counts 1/N each."""
    total, found = 0, [pid]
    while found:
        process = found.pop()
        try:
            for task in Path(f"/proc/{process}/task").iterdir():
                found += map(int, (task / "children").read_text(encoding="ascii").split())
            lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
            total += 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])
        except OSError:
            continue
    return total


if __name__ == "__main__":
    sys.exit(main())
