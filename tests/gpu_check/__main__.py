"""Runs what only a machine with a GPU can tell: each step in a process with a time limit, and none stops another.

    python -m tests.gpu_check [--bundle gpu-bundle] [--out runs/gpu-check] [--dry]

With a bundle (`make gpu-bundle`) its wheels are installed first, without a network; else this Python's packages are
used. `OUT/gpu-check.json` holds the card's name, versions, and every step's state and figures, and is written anew
after each step. With --dry the same steps run on the CPU at tiny sizes, to try the check itself.

Exit codes: 0 every step passed or had a reason to be skipped, 2 OUT is there already, 6 a step failed, ran out of
time, or was not run for lack of it. This module runs on the standard library alone: the packages come with the first
step.
"""

import argparse
import json
import os
import signal
import site
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 470
"""Of all steps together: the whole command is to stay below 8 minutes."""
DRY_PATIENCE = 5
"""How many times as long a dry run may take: nothing is measured, and other programs may use the machine."""
LEAST_SECONDS = 5
FAILED = ("failed", "timed out", "not run")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing to find out: its name, words for people, the seconds it may take, and the words after `python`."""

    name: str
    about: str
    seconds: float
    words: tuple[str, ...]


def _of_project(name: str, about: str, seconds: float, *words: str) -> Step:
    return Step(name=name, about=about, seconds=seconds, words=("-m", "tests.gpu_check.steps", name, *words))


STEPS = (
    _of_project("machine", "the card, the driver and the versions", 40),
    _of_project("tests", "every test marked gpu", 150),
    _of_project("train bf16", "a training and a short adaptation in bf16", 90),
    _of_project("train fp16", "a training and a short adaptation in fp16", 90),
    _of_project("two processes", "an adaptation by two processes on the one GPU, over gloo", 90),
    _of_project("frames", "frames of the size of GTA5's, if the bundle has none", 60),
    _of_project("memory bf16", "peak memory of a step at the size of GTA5 in bf16", 90),
    _of_project("memory fp32", "peak memory of a step at the size of GTA5 in fp32", 90),
    _of_project("export", "ONNX files of the adapted network and of ResNet-101", 120),
    _of_project("parity", "ONNX Runtime on CUDA against the CPU", 90),
    _of_project("latency", "milliseconds a frame at 1024x512", 120),
    _of_project("tensorrt", "TensorRT engines: built, compared and timed", 150),
)
"""What is asked of the packages, in the order of what matters most if time runs out."""


def _run(command: Sequence[str], log: Path, seconds: float, environment: Mapping[str, str]) -> int | None:
    """Run a command in a group of its own; return its exit code, None where its time ran out and it was killed."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it left behind
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)  # a driver may hold a process for good


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["no output"])[-1].removeprefix("error: ")[:500]


def run_step(
    step: Step, words: Sequence[str], out: Path, seconds: float, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Run a step and return its record: state, reason, seconds, and what the step wrote as its result.

    Args:
        step: what is run.
        words: the command, which may write JSON to the file that `GPU_CHECK_RESULT` names.
        out: folder of the logs and results.
        seconds: after which it is killed.
        environment: of its process.
    """
    about = {"name": step.name, "about": step.about, "limit_seconds": round(seconds)}
    stem = step.name.replace(" ", "-")
    log, file = out / "logs" / f"{stem}.log", out / "results" / f"{stem}.json"
    started = time.monotonic()
    try:
        code = _run(words, log, seconds, {**environment, "GPU_CHECK_RESULT": str(file)})
    except OSError as error:  # the environment was not made
        return {**about, "state": "failed", "reason": str(error)}
    record = {**about, "seconds": round(time.monotonic() - started, 1)}
    result: dict[str, Any] = {}
    with suppress(FileNotFoundError, ValueError):  # it wrote nothing, or was killed within
        result = json.loads(file.read_text(encoding="utf-8"))
    if code is None:
        return {**record, "state": "timed out", "reason": f"killed after {seconds:.0f} seconds", "result": result}
    if code != 0:
        how = f"signal {-code}" if code < 0 else f"exit {code}"
        return {**record, "state": "failed", "reason": f"{_last_line(log)} ({how}; {log})", "result": result}
    if "skipped" in result:
        return {**record, "state": "skipped", "reason": result["skipped"]}
    return {**record, "state": "passed", "result": result}


def _libraries() -> str:
    """Return the folders of CUDA's and TensorRT's libraries among this Python's packages, for the loader.

    ONNX Runtime searches them beside itself, and it lies in the environment above.
    """
    found = [
        str(folder)
        for place in (*site.getsitepackages(), site.getusersitepackages())
        for pattern in ("nvidia/*/lib", "tensorrt_libs")
        for folder in sorted(Path(place).glob(pattern))
    ]
    return ":".join([*found, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])


def check(
    out: Path,
    steps: Sequence[tuple[Step, Sequence[str]]],
    environment: Mapping[str, str],
    *,
    dry: bool,
    log: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Run steps one after the other, whatever becomes of each, and keep the document of all in `out/gpu-check.json`."""
    for folder in ("logs", "results"):
        (out / folder).mkdir(parents=True)
    patience = DRY_PATIENCE if dry else 1
    started = time.monotonic()
    document: dict[str, Any] = {"kind": "gpu-check", "format": 1, "dry": dry, "machine": {}, "steps": []}
    document["started"] = datetime.now(UTC).isoformat(timespec="seconds")
    for step, words in steps:
        left = patience * LIMIT_SECONDS - (time.monotonic() - started)
        if left >= LEAST_SECONDS:
            record = run_step(step, words, out, min(patience * step.seconds, left), environment)
        else:
            reason = f"the {LIMIT_SECONDS} seconds of the whole check are used up"
            record = {"name": step.name, "about": step.about, "state": "not run", "reason": reason}
        log(f"{record.get('seconds', 0):6.1f} s  {record['state']:9}  {step.name}: {record.get('reason', step.about)}")
        if step.name == "machine":
            document["machine"] = record.pop("result", {})
        document["steps"].append(record)
        document["seconds"] = round(time.monotonic() - started, 1)
        temporary = out / ".gpu-check.json"
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        temporary.replace(out / "gpu-check.json")
    return document


def main() -> int:
    """Install, run every step, and say where the results are."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_check", allow_abbrev=False)
    parser.add_argument("--bundle", type=Path, default=Path("gpu-bundle"), help="what `make gpu-bundle` made")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-check"), help="folder of the results")
    parser.add_argument("--dry", action="store_true", help="the same steps on the CPU, at tiny sizes")
    options = parser.parse_args()
    out = options.out.absolute()
    if out.exists():
        print(f"{options.out} is there already. Move it away, or choose another with CHECKED=…", file=sys.stderr)
        return 2
    python, steps = sys.executable, []
    if options.bundle.is_dir():
        python = str(out / "environment/bin/python")
        step = Step(name="install", about="the bundle's wheels, without a network", seconds=150, words=())
        words = ["-m", "tests.gpu_check.bundle", "install", str(options.bundle.absolute()), str(out)]
        steps.append((step, [sys.executable, *words]))
    dry = ["--dry"] if options.dry else []
    steps += [(step, [python, *step.words, "--out", str(out), *dry]) for step in STEPS]
    environment = {**os.environ, "LD_LIBRARY_PATH": _libraries(), "PYTHONUNBUFFERED": "1"}
    document = check(out, steps, environment, dry=options.dry)
    print(f"{document['seconds']:.0f} s in all: {out / 'gpu-check.json'}; logs are in {out / 'logs'}")
    return 6 if any(step["state"] in FAILED for step in document["steps"]) else 0


if __name__ == "__main__":
    sys.exit(main())
