"""Speed against accuracy of distilled students and their teacher, in ONNX Runtime on this processor.

    python -m tests.benchmarks.student_curve "teacher=RUN" "ResNet-18 x 0.5=RUN" … --shared ../shared

The first model is the teacher. Each is exported in FP32 and in INT8 (calibrated on CamVid's train images without their
labels), the exported file is scored on CamVid val, and all files are timed in turn, each in a process of its own, at
the size they were trained at. An INT8 file whose gate is closed has no entry but the reason. Prints JSON: milliseconds
a frame, how many times faster than the teacher's FP32 file that is, by processor seconds and by the clock, and mIoU.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.in_turn import ROOT, Seconds, in_turn, middle, print_runs

PRECISIONS = ("fp32", "int8")


def work(file: Path, threads: int, runs: int) -> None:
    """Time one file in this process and print its runs."""
    from lsr_infer.backends import BackendOptions
    from lsr_infer.manifest import Manifest
    from lsr_infer.segmenter import open_backend

    backend = open_backend(file, BackendOptions(device="cpu", threads=threads), name="onnxruntime")
    manifest = Manifest.from_metadata(backend.metadata)
    size = (1, manifest.height, manifest.width, 3)
    images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    print_runs(lambda: backend.run(images), runs, warm_up=3)


def command(*arguments: object) -> int:
    """Run a command of the project and return its exit code; its output goes to stderr."""
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, stdout=sys.stderr, check=False).returncode


def make(run: str, name: str, precision: str, folder: Path, camvid: Path) -> Path | None:
    """Export one file; None where its gate is closed."""
    path = folder / f"{name}_{precision}.onnx"
    more = ("--precision", "int8", "--calibrate", camvid / "images/train") if precision == "int8" else ()
    code = command("export/to_onnx.py", run, "-o", path, "--frames", camvid / "images/val", *more)
    if code not in (0, 5):
        raise SystemExit(f"{run}: the export ended with {code}")
    return path if code == 0 else None


def score(path: Path, camvid: Path) -> float:
    """Return the mean IoU of an exported file on CamVid val."""
    result = path.with_suffix(".json")
    options = ("--data", camvid, "--layout", "camvid", "--split", "val", "--label_space", "camvid11", "--out", result)
    code = command("-m", "lsr_train", "evaluate", path, *options)
    if code:
        raise SystemExit(f"{path}: evaluate ended with {code}")
    return float(json.loads(result.read_text(encoding="utf-8"))["miou"])


def timed(files: dict[str, Path], options: argparse.Namespace) -> dict[str, Seconds]:
    """Return each file's median seconds a frame."""
    workers = {
        name: ("--worker", path, "--threads", options.threads, "--runs", options.runs) for name, path in files.items()
    }
    found = in_turn("tests.benchmarks.student_curve", workers, threads=options.threads, rounds=options.rounds)
    return {name: middle(runs) for name, runs in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME=RUN", help="the teacher first")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=10, help="in each process, after three that warm up")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        work(options.worker, options.threads, options.runs)
        return
    if not options.models or not all("=" in model for model in options.models):
        parser.error("name each model as NAME=RUN, the teacher first")
    camvid = options.shared.resolve() / "data/camvid"
    runs = dict(model.split("=", 1) for model in options.models)
    if len(runs) < len(options.models):
        parser.error("two models have one name")
    load = os.getloadavg()[0]
    entries: list[dict[str, Any]] = []
    files: dict[str, Path] = {}
    with TemporaryDirectory() as temporary:
        for place, (name, run) in enumerate(runs.items()):
            for precision in PRECISIONS:
                path = make(str(Path(run).resolve()), str(place), precision, Path(temporary), camvid)
                entry: dict[str, Any] = {"model": name, "precision": precision}
                if path is None and not entries:
                    raise SystemExit(f"{run}: the teacher's FP32 file is not there to be compared with")
                if path is None:
                    entry["left_out"] = "the parity gate is closed"
                else:
                    entry |= {"miou": score(path, camvid), "file_mb": round(path.stat().st_size / 1e6, 2)}
                    files[f"{name} {precision}"] = path
                entries.append(entry)
        seconds = timed(files, options)
    first = entries[0]
    reference = seconds[f"{first['model']} {first['precision']}"]
    for entry in entries:
        taken = seconds.get(f"{entry['model']} {entry['precision']}")
        if taken is not None:
            entry["wall_ms"], entry["processor_ms"] = (round(1e3 * value, 2) for value in taken)
            entry["times_faster_by_wall"] = round(reference.wall / taken.wall, 2)
            entry["times_faster_by_processor"] = round(reference.processor / taken.processor, 2)
            entry["points_behind"] = round(100 * (first["miou"] - entry["miou"]), 2)
    print(json.dumps({"threads": options.threads, "load_average": load, "models": entries}, indent=2))


if __name__ == "__main__":
    main()
