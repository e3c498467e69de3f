"""Kills workers, nodes and drivers of an archive at random, and counts what was lost or done twice.

`python -m tests.kills.archive --clips 300 --kills 30 --out FOLDER [--seed N]` makes short clips, segments them with
`lsr-infer` alone, and then with `lsr-infer archive` on two Ray nodes of this machine, of which a worker, a node or the
driver is killed by SIGKILL again and again. Each driver that is killed is started again as it was. One JSON document
says how many clips have no result, more than one, or another one than that of `lsr-infer`; all are to be 0.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from lsr_infer.video.writer import VideoWriter
from tests.lsr_infer.onnxfile import colour_model

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "import sys; from lsr_infer.cli import main; sys.exit(main())"
STORE_BYTES = 80 << 20
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


def make_clips(
    folder: Path, number: int, *, frames: int = 15, size: tuple[int, int] = (90, 160), seed: int = 0
) -> Path:
    """Write clips of smooth pictures that move, all different."""
    draw = np.random.default_rng(seed)
    for clip in range(number):
        place = folder / f"camera_{clip % 3}" / f"clip_{clip:05d}.mp4"
        place.parent.mkdir(parents=True, exist_ok=True)
        coarse = draw.integers(0, 256, (9, 16, 3)).repeat(-(-size[0] // 9), 0).repeat(size[1] // 16 + 1, 1)
        picture = coarse[: size[0], : size[1]].astype(np.uint8)
        with VideoWriter(place, width=size[1], height=size[0], fps=Fraction(15)) as writer:
            for frame in range(frames):
                writer.write(np.roll(picture, 3 * frame, axis=1))
    return folder


class TwoNodes:
    """A Ray cluster of two nodes with a core each; the second can be killed and comes back."""

    def __init__(self) -> None:
        os.environ |= QUIET
        from ray.cluster_utils import Cluster

        shape = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
        self._shape = shape
        self.cluster = Cluster(
            initialize_head=True, connect=False, head_node_args={**shape, "include_dashboard": False}
        )
        self.nodes = [self.cluster.head_node, self.cluster.add_node(**shape)]

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def kill_node(self) -> None:
        """Kill the second node with all its workers, and start another in its place."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)
        self.nodes.append(self.cluster.add_node(**self._shape))

    def workers(self) -> list[psutil.Process]:
        """Return the processes that segment clips."""
        raylets = [process.process.pid for node in self.nodes for process in node.all_processes.get("raylet", [])]
        found = []
        for raylet in raylets:
            try:
                children = psutil.Process(raylet).children(recursive=True)
                found += [child for child in children if "".join(child.cmdline()).startswith("ray::MapWorker")]
            except psutil.NoSuchProcess:
                continue
        return found

    def close(self) -> None:
        self.cluster.shutdown()


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    nodes = TwoNodes()
    try:
        yield nodes
    finally:
        nodes.close()


def start_driver(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as stderr:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, *words], cwd=ROOT, stdout=stderr, stderr=stderr, env=os.environ | QUIET
        )


def ended(out: Path) -> int:
    """Count the clips whose record says that they are done."""
    records = (out / ".archive/records").rglob("*.json")
    return sum(b'"status": "done"' in record.read_bytes() for record in records if not record.name.startswith("."))


def kill_one(kind: str, nodes: TwoNodes, driver: subprocess.Popen[bytes], draw: random.Random) -> bool:
    """Kill a worker, a node or the driver; return whether there was one."""
    if kind == "node":
        nodes.kill_node()
    elif kind == "driver":
        driver.kill()
        driver.wait()
    else:
        workers = nodes.workers()
        if not workers:
            return False
        draw.choice(workers).send_signal(signal.SIGKILL)
    return True


def run_under_kills(words: list[str], out: Path, clips: int, kills: int, draw: random.Random) -> dict[str, Any]:
    """Run an archive to its end while this kills what it consists of, each time after some more clips."""
    log, counts = out.with_suffix(".log"), Counter[str]()
    kinds = [("worker", "node", "driver")[n % 3] for n in range(kills)]
    draw.shuffle(kinds)
    after = sorted(draw.randrange(clips) for _ in kinds)
    started = time.monotonic()
    with two_nodes() as nodes:
        words = [*words, "--address", nodes.address]
        driver = start_driver(words, log)
        while True:
            code = driver.poll()
            if code is not None and code >= 0:
                break
            if code is not None:
                driver = start_driver(words, log)
            elif kinds and ended(out) >= after[0] and kill_one(kinds[0], nodes, driver, draw):
                counts[kinds.pop(0)] += 1
                after.pop(0)
                print(f"{ended(out)} of {clips} clips, kills: {dict(counts)}", file=sys.stderr, flush=True)
            time.sleep(0.5)
    return {"kills": dict(counts), "exit": driver.returncode, "seconds": round(time.monotonic() - started, 1)}


def faults(clips: Path, out: Path, alone: Path) -> dict[str, int]:
    """Compare the results of an archive with those of `lsr-infer`."""
    import pyarrow.parquet as pq

    found = Counter(
        dict.fromkeys(("without a result", "with another result", "twice in the table", "temporary files"), 0)
    )
    for clip in clips.rglob("*.mp4"):
        below = clip.relative_to(clips)
        folder = out / clips.name / below
        expected = {path.name: path.read_bytes() for path in (alone / below.parent).glob(f"{below.stem}_*")}
        there = {path.name: path.read_bytes() for path in folder.glob("*")} if folder.exists() else {}
        found["without a result"] += not there
        found["with another result"] += bool(there) and there != expected
    rows = Counter(pq.read_table(out / "summary.parquet", columns=["clip"]).column("clip").to_pylist())
    found["twice in the table"] = sum(count > 1 for count in rows.values())
    found["without a row"] = sum(str(clip) not in rows for clip in clips.rglob("*.mp4"))
    found["temporary files"] = sum(1 for _ in out.rglob("*.part*"))
    return dict(found)


def main() -> int:
    """Run the series and print the counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills.archive", allow_abbrev=False)
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="a folder to work in")
    options = parser.parse_args()
    place = options.out.absolute()
    shutil.rmtree(place, ignore_errors=True)
    clips, model = make_clips(place / "clips", options.clips), colour_model(place / "model.onnx")
    words = [str(clips), "--model", str(model), "--save", "overlay,json", "--threads", "1"]
    alone = [sys.executable, "-c", COMMAND, *words, "--output", str(place / "alone")]
    subprocess.run(alone, check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
    archive = ["archive", *words, "--output", str(place / "out")]
    series = run_under_kills(archive, place / "out", options.clips, options.kills, random.Random(options.seed))
    print(
        json.dumps(
            {"clips": options.clips, **series, "faults": faults(clips, place / "out", place / "alone")}, indent=2
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
