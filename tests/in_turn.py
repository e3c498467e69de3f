"""Times of several things that run each in a process of its own, in turn, so that none slows another."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Seconds(NamedTuple):
    """What one run took, or the middle of many.

    Args:
        wall: by the clock.
        processor: of all threads, robust where others use the machine too.
    """

    wall: float
    processor: float


def print_runs(run: Callable[[], object], runs: int, *, warm_up: int) -> None:
    """Time `run` in this process, after some runs that warm up, and print what `in_turn` reads."""
    for _ in range(warm_up):
        run()
    taken = []
    for _ in range(runs):
        wall, processor = time.perf_counter(), time.process_time()
        run()
        taken.append(Seconds(time.perf_counter() - wall, time.process_time() - processor))
    print(json.dumps(taken))  # noqa: T201 - what `in_turn` reads


def in_turn(
    module: str, workers: dict[str, Iterable[object]], *, threads: int, rounds: int
) -> dict[str, list[Seconds]]:
    """Start `python -m module WORDS` for every worker, round by round.

    Args:
        module: whose process calls `print_runs`.
        workers: words of each, by name.
        threads: of each process (OMP_NUM_THREADS).
        rounds: how often each is started.

    Returns:
        All runs of each worker.

    Raises:
        subprocess.CalledProcessError: a worker failed.
    """
    found: dict[str, list[Seconds]] = {name: [] for name in workers}
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    for _ in range(rounds):
        for name, words in workers.items():
            command = [sys.executable, "-m", module, *map(str, words)]
            done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            found[name] += [Seconds(*run) for run in json.loads(done.stdout)]
    return found


def middle(runs: Iterable[Seconds]) -> Seconds:
    """Return the medians."""
    return Seconds(*(statistics.median(part) for part in zip(*runs, strict=True)))
