"""What Ray costs beside `lsr-infer` alone, how the driver's memory grows with the clips, how many workers it carries.

    python -m tests.benchmarks.archive_scale [--clips 2,6] [--rounds 2] [--units 300,30000] [--model MODEL.onnx]
        [--workers 2,200] [--sleep 5]

Prints JSON. Clips of 10 seconds are segmented by `lsr-infer` and by `lsr-infer archive` with one worker, on the same
cores and in turn; what a further clip takes is the difference between many and few of them, so that no start counts.
Memory is what the driver's process has written to at its peak, each number of units in a process of its own; the work
is empty. Workers whose work is `--sleep` seconds of sleep are simulated on two nodes that claim a core for each: up to
40 are processes, of more each stands for several and sleeps that much shorter, so that the driver has as many units a
second on its hands. How many end is taken over the middle half of them, and compared with workers that never wait.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import psutil

from lsr_infer.archive.clip_table import ClipTable
from lsr_infer.archive.clip_work import ArchiveJob, Unit, new_job
from lsr_infer.archive.cluster import RayRunner, WorkerPool
from lsr_infer.archive.driver import Driver
from lsr_infer.archive.ledger import ClipRecord
from lsr_infer.archive.places import result_place
from lsr_infer.parity.frame_set import shipped_frames
from lsr_infer.pipeline.options import SegmentOptions
from lsr_infer.shipped import model_path
from lsr_infer.video.writer import VideoWriter

COMMAND = "import sys; from lsr_infer.cli import main; sys.exit(main())"
FPS, SECONDS = 25, 10
_POLL_SECONDS = 0.2
_PROCESSES = 40
"""Simulated workers that are processes: each holds 130 MB."""


class IdleWorker:
    """Says of every unit that it is done after so many seconds, with as many shares as a clip of 19 classes has."""

    def __init__(self, job: ArchiveJob, *, seconds: float) -> None:
        self._run, self._seconds = job.run, seconds

    def work(self, unit: Unit) -> ClipRecord:
        time.sleep(self._seconds)
        shares = {f"class {number}": 0.05 for number in range(19)}
        return ClipRecord(
            name=unit.name, source=unit.place, recipe="", run=self._run, status="done", frames=250, shares=shares
        )


def make_clips(folder: Path, number: int) -> Path:
    """Write clips of 10 seconds from shipped frames."""
    frames = shipped_frames(12).frames
    folder.mkdir()
    for clip in range(number):
        height, width = frames[0].shape[:2]
        with VideoWriter(folder / f"{clip:03d}.mp4", width=width, height=height, fps=Fraction(FPS)) as writer:
            for frame in range(FPS * SECONDS):
                writer.write(frames[(clip + frame // 10) % len(frames)])
    return folder


def timed(words: list[str]) -> tuple[float, float]:
    """Run `lsr-infer` and return its wall-clock time, and the processor time of all its processes."""
    seconds: dict[int, float] = {}
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *words], stderr=subprocess.PIPE)
    own = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            for each in (own, *own.children(recursive=True)):
                times = each.cpu_times()
                seconds[each.pid] = times.user + times.system
        except psutil.NoSuchProcess:
            pass
        time.sleep(_POLL_SECONDS)
    if process.returncode:
        raise SystemExit(f"{words} ended with {process.returncode}: {process.stderr and process.stderr.read()!r}")
    return time.monotonic() - started, sum(seconds.values())


def overhead(folder: Path, clips: tuple[int, int], rounds: int, model: Path) -> dict[str, Any]:
    """Return what a further clip takes with Ray, over what it takes without."""
    few, many = (make_clips(folder / f"clips{number}", number) for number in clips)
    taken: dict[str, list[tuple[float, float]]] = {"alone": [], "archive": []}
    for turn in range(rounds):
        for name, first in (("alone", []), ("archive", ["archive", "--workers", "1", "--threads", "2"])):
            words = [*first, "--model", str(model), "--save", "overlay,json"]
            times = [timed([*words, str(place), "--output", str(folder / f"{name}{turn}{place.name}")])
                     for place in (few, many)]  # fmt: skip
            further = clips[1] - clips[0]
            taken[name].append(tuple((b - a) / further for a, b in zip(*times, strict=True)))  # type: ignore[arg-type]
            print(f"{name}: {taken[name][-1]}", file=sys.stderr, flush=True)
    wall, processor = (
        {name: round(statistics.median(one[kind] for one in found), 2) for name, found in taken.items()}
        for kind in (0, 1)
    )
    ratios = {kind: round(of["archive"] / of["alone"], 3) for kind, of in (("wall", wall), ("processor", processor))}
    return {"seconds_a_clip": wall, "processor_seconds_a_clip": processor, "ratio": ratios, "rounds": rounds}


def own_bytes() -> int:
    """Return the memory that this process has written to, without what it reads of files, which others may share."""
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    return 1024 * int(next(line for line in rollup.splitlines() if line.startswith("Anonymous:")).split()[1])


def drive(folder: Path, number: int, pool: WorkerPool, seconds: float) -> dict[str, Any]:
    """Drive so many idle units; return the peak of this process's own memory and how many ended a second."""
    options = SegmentOptions(sources=(), output=folder / "out", model=model_path("toytown"))
    job = replace(new_job(options, run="idle", range_seconds=float("inf"), retry=False))
    place = result_place(job.place)
    place.prepare()
    peak, ended = [0], Event()

    def watch() -> None:
        while not ended.wait(0.1):
            peak[0] = max(peak[0], own_bytes())

    started, ended_at = time.monotonic(), {}
    first, last = number // 4, number // 4 + number // 2
    with RayRunner(job, pool, worker=partial(IdleWorker, seconds=seconds)) as runner:
        Thread(target=watch, daemon=True).start()
        units = (Unit(place=f"/archive/drives/day/{n:08d}.mp4", name=f"drives/day/{n:08d}.mp4") for n in range(number))
        with ClipTable(place, [f"class {each}" for each in range(19)], job.run) as table:
            for ends, (_, record) in enumerate(Driver(runner).records(units)):
                table.add(record)
                if ends in (first, last):
                    ended_at[ends] = time.monotonic()
        ended.set()
    assert table.clips == number
    rate = (last - first) / (ended_at[last] - ended_at[first])
    return {
        "units": number,
        "workers": pool.workers,
        "peak_mb": round(peak[0] / 1e6, 1),
        "seconds": round(time.monotonic() - started, 1),
        "units_a_second": round(rate, 2),
    } | ({"busy": round(rate * seconds / pool.workers, 3)} if seconds else {})


def drive_simulated(folder: Path, workers: int, seconds: float) -> dict[str, Any]:
    """Drive workers that sleep, half of them on each of two nodes, which claim a core for each."""
    from ray.cluster_utils import Cluster

    processes = min(workers, _PROCESSES)
    shape = {"num_cpus": -(-processes // 2), "object_store_memory": 200 << 20}
    cluster = Cluster(initialize_head=True, connect=False, head_node_args={**shape, "include_dashboard": False})
    try:
        cluster.add_node(**shape)
        pool = WorkerPool(workers=processes, cores=1, address=cluster.address)
        found = drive(folder, 20 * workers, pool, seconds * processes / workers)
        return found | {"workers": workers, "processes": processes}
    finally:
        cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", default="2,6")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--units", default="300,30000")
    parser.add_argument("--model", default="street")
    parser.add_argument("--workers", default="2,200")
    parser.add_argument("--sleep", type=float, default=5.0)
    parser.add_argument("--drive", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--simulate", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        if options.drive:
            print(json.dumps(drive(folder, options.drive, WorkerPool(workers=2, cores=1), 0)))
            return
        if options.simulate:
            print(json.dumps(drive_simulated(folder, options.simulate, options.sleep)))
            return
        memory = [alone("--drive", number) for number in filter(None, options.units.split(","))]
        simulated = [
            alone("--simulate", number, "--sleep", str(options.sleep))
            for number in filter(None, options.workers.split(","))
        ]
        few, many = map(int, options.clips.split(","))
        cost = overhead(folder, (few, many), options.rounds, model_path(options.model)) if options.rounds else None
    ratio = round(memory[-1]["peak_mb"] / memory[0]["peak_mb"], 3) if memory else None
    result = {"overhead": cost, "driver_memory": memory, "driver_memory_ratio": ratio, "simulated": simulated}
    print(json.dumps(result, indent=2))


def alone(*words: str) -> dict[str, Any]:
    """Return what this script measures with these words in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.archive_scale", *words]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ).stdout
    found: dict[str, Any] = json.loads(said.splitlines()[-1])  # Ray may say something before
    print(found, file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    main()
