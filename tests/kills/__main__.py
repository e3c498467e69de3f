"""Kills the commands at random file-system calls, resumes them, and counts what was lost.

`python -m tests.kills --kills 1000 --out FOLDER [--only NAME,…] [--seed N]` prints one JSON document: for every command
the kills, and of these lost checkpoints, folders that no command took, results that differ from those of a whole run,
and temporary files that were there after the next good run. All but the first are to be 0.
"""

import argparse
import importlib
import json
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import torch

from lsr_infer.io.digests import stated_digest
from lsr_train.runs.folder import CHECKPOINT_FILES
from tests.kills.scenarios import (
    Scenario,
    make_inputs,
    names,
    results,
    scenarios,
    trace_once,
    train_source,
    warm_children,
)
from tests.kills.supervisor import Ended, available, run

COUNTED = ("kills", "lost checkpoints", "folders no command takes", "other results", "temporary files")
LOADED = (
    "onnxruntime", "onnxscript", "optuna.storages", "torch._dynamo", "torch.distributed.fsdp",
    "torch.utils.tensorboard", "torch.onnx._internal.exporter._core", "lsr_train.autopilot.two_stages",
    "lsr_train.comparison.tables", "lsr_train.engine.train", "lsr_train.evaluation.evaluate",
)  # fmt: skip
"""What commands import when they need it; loaded once, before the forks."""
MOST = 6  # kills of one run, before it is let go on to its end


def known_checkpoints(folder: Path) -> dict[Path, int]:
    """Return the step of the last and of the best checkpoint of every run, by pointer; 0 where it is not whole."""
    found = {}
    for pointer in (*folder.glob("**/checkpoints/last"), *folder.glob("**/checkpoints/best")):
        checkpoint = pointer.with_name(pointer.read_text(encoding="utf-8").strip())
        files = [checkpoint / name for name in CHECKPOINT_FILES]
        try:
            whole = all(stated_digest(file) for file in files)
        except (OSError, ValueError):
            whole = False
        found[pointer] = int(checkpoint.name.removeprefix("step-")) if whole else 0
    return found


class Trial:
    """One run of a command in a folder of its own."""

    def __init__(self, name: str, scenario: Scenario, place: Path, counts: Counter[str]) -> None:
        self.name, self.scenario, self.counts = name, scenario, counts
        self.folder, self.log = place / name, place / f"{name}.log"
        self.known: dict[Path, int] = {}
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.log.write_text("", encoding="utf-8")

    def go(self, kill_at: int = 0, *, kill_all: bool = False) -> Ended:
        """Start the command, or go on."""
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"--- killed at {kill_at}\n")
        return run(lambda: self.scenario(self.folder), self.log, kill_at=kill_at, kill_all=kill_all)

    def fault(self, kind: str, what: object) -> None:
        """Count and show a fault; the folder is kept."""
        self.counts[kind] += 1
        kept = self.folder.with_name(f"{self.name}-fault-{sum(self.counts.values())}")
        shutil.copytree(self.folder, kept, symlinks=True)
        shutil.copy(self.log, f"{kept}.log")
        print(f"{self.name}: {kind}: {what} ({kept})", file=sys.stderr, flush=True)

    def check_known(self) -> None:
        """Count a run whose last or best checkpoint is damaged or older than it was."""
        found = known_checkpoints(self.folder)
        for pointer, step in found.items():
            if step < max(1, self.known.get(pointer, 0)):
                self.fault("lost checkpoints", pointer)
        for pointer in self.known.keys() - found.keys():
            self.fault("lost checkpoints", f"{pointer} is gone")
        self.known = found


def kill_series(name: str, scenario: Scenario, place: Path, kills: int, draw: random.Random) -> dict[str, int]:
    """Kill a command so many times, with a whole run after every few; return the counts."""
    counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
    whole = Trial(name, scenario, place, counts)
    ended = whole.go()
    if ended.code:
        raise RuntimeError(f"{name} fails without a kill, see {whole.log}")
    expected, there = results(whole.folder), names(whole.folder)
    print(f"{name}: {ended.calls} calls, {len(expected)} results", file=sys.stderr, flush=True)
    while counts["kills"] < kills:
        (place / f"{name}.json").write_text(json.dumps(counts), encoding="utf-8")  # so far
        trial = Trial(name, scenario, place, counts)
        last = None
        for _ in range(draw.randint(1, MOST)):
            at = draw.randint(1, ended.calls)
            last = trial.go(at, kill_all=draw.random() < 0.5)
            if last.calls < at:  # it ended before
                break
            counts["kills"] += 1
            trial.check_known()
            last = None
        last = last or trial.go()
        if last.code == 6:  # a command that had lost one of its processes says so; the next one does the rest
            last = trial.go()
        if last.code:
            trial.fault("folders no command takes", f"exit {last.code}, see its log")
            continue
        found = results(trial.folder)
        if found != expected:
            other = {path for path in {*found, *expected} if found.get(path) != expected.get(path)}
            trial.fault("other results", sorted(other)[:5])
        if names(trial.folder) != there:
            trial.fault("temporary files", sorted(names(trial.folder) ^ there)[:5])
    return dict(counts)


def main() -> int:
    """Run the series and print the counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True, help="a folder to work in")
    parser.add_argument("--only", default="", help="names of commands, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not available():
        raise SystemExit("this system does not let a process be asked about its calls (seccomp's user notifications)")
    for module in LOADED:
        importlib.import_module(module)
    torch.set_num_threads(1)
    warm_children()
    place = options.out.absolute()
    inputs = place / "inputs"
    if not (inputs / "source").exists():
        inputs.mkdir(parents=True)
        made = run(lambda: make_inputs(inputs) or train_source(inputs), place / "inputs.log")
        if made.code:
            raise SystemExit(f"the inputs cannot be made, see {place / 'inputs.log'}")
    trace_once(inputs / "source")
    chosen = {name: item for name, item in scenarios(inputs).items() if not options.only or name in options.only}
    found = {}
    for name, scenario in chosen.items():
        share = -(-options.kills // len(chosen))
        found[name] = kill_series(name, scenario, place, share, random.Random(f"{options.seed} {name}"))
        print(json.dumps({name: found[name]}), file=sys.stderr, flush=True)
    print(json.dumps(found, indent=2))
    return int(any(count for counts in found.values() for kind, count in counts.items() if kind != "kills"))


if __name__ == "__main__":
    sys.exit(main())
