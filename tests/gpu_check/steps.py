"""The steps of the GPU check, each of which runs in a process of its own.

    python -m tests.gpu_check.steps NAME --out FOLDER [--dry]

A step uses the commands that people use, and writes its figures as JSON to the file that GPU_CHECK_RESULT names. With
--dry, the CPU stands for the GPU, and a small network at a small size for ResNet-101.
"""

import argparse
import csv
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

from tests.gpu_check.bundle import render

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "torch",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
    "nvidia-cudnn-cu13",
    "accelerate",
    "numpy",
    "lsr-road",
)
ADAPTED, DEEP = "adapted", "resnet101"
SHIPPED = ("street", "toytown")


class Skipped(Exception):  # noqa: N818 - no error: there is nothing to try
    """A step that cannot be tried here, and the reason."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a step works, and whether the CPU stands for the GPU."""

    out: Path
    dry: bool

    @property
    def device(self) -> str:
        """The device, as `train.device` and `lsr-infer --device` call it."""
        return "cpu" if self.dry else "cuda"

    @property
    def size(self) -> str:
        """Width x height at which networks are timed."""
        return "128x64" if self.dry else "1024x512"

    def runnable(self, precision: str) -> str:
        """Return the precision that a training runs in: the CPU has no fp16, and bf16 stands for it."""
        return "bf16" if self.dry and precision == "fp16" else precision

    @property
    def frames(self) -> Path:
        """Frames of the sizes of GTA5 and Cityscapes, `game` and `camera`."""
        bundled = self.out / "content" / "frames"
        return bundled if bundled.is_dir() else self.out / "frames"

    def run_folder(self, name: str) -> Path:
        """Return the place of a run."""
        return self.out / "runs" / name


def python(*words: object) -> str:
    """Run a module or script of the project and return its stdout; what fails ends this step with its message."""
    command = [sys.executable, *map(str, words)]
    print("$", *command, flush=True)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    if done.returncode not in (0, 6):
        raise SystemExit(done.returncode)
    return done.stdout


# -- what there is ----------------------------------------------------------------------------------------------------


def machine(place: Place) -> dict[str, Any]:
    """Return the card's name, the driver and the versions."""
    import torch

    system = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
    found: dict[str, Any] = dict(system)
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    found |= {"torch": torch.__version__, "cuda": torch.version.cuda}
    if place.dry:
        return {**found, "gpu": "none: a dry run on the CPU"}
    if not torch.cuda.is_available():
        raise SystemExit("error: torch sees no CUDA device. Install a CUDA build of torch that the driver supports.")
    about = torch.cuda.get_device_properties(0)
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    with suppress(OSError, subprocess.CalledProcessError):
        found["driver"] = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return {
        **found, "gpu": about.name, "compute_capability": f"{about.major}.{about.minor}",
        "memory_gib": round(about.total_memory / 2**30, 1), "cudnn": torch.backends.cudnn.version(),
    }  # fmt: skip


def tests(place: Place) -> dict[str, Any]:
    """Run every test marked gpu and count what became of them."""
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    report = place.out / "results" / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run([*command, *files], cwd=ROOT, check=False)
    cases = list(ElementTree.parse(report).iter("testcase"))
    skipped = [case.find("skipped") for case in cases]
    reasons = Counter(str(item.get("message")) for item in skipped if item is not None)
    broken = [f"{case.get('classname')}.{case.get('name')}" for case in cases
              if case.find("failure") is not None or case.find("error") is not None]  # fmt: skip
    passed = len(cases) - sum(reasons.values()) - len(broken)
    write({"passed": passed, "failed": broken, "skipped": dict(reasons)})
    if broken or done.returncode:
        raise SystemExit(f"error: {len(broken)} of {len(cases)} tests failed: {', '.join(broken[:3])}")
    if not passed and not place.dry:
        raise SystemExit("error: no test ran, so nothing is proved.")
    if not passed:
        raise Skipped(f"no CUDA device: {len(cases)} tests were collected, and none ran")
    return {"passed": passed, "failed": [], "skipped": dict(reasons)}


# -- training ---------------------------------------------------------------------------------------------------------


def small_run(place: Place, precision: str, steps: int) -> list[str]:
    """Return the options of a short run on Toytown."""
    limit = 8 if place.dry else 64
    words = {
        "train.device": place.device, "train.precision": place.runnable(precision), "train.steps": steps,
        "train.checkpoint_every": steps, "data.source.limit": limit, "data.target.limit": limit,
        "data.batch_size": 2 if place.dry else 4, "selection.every": steps, "selection.frames": 4,
        "network.batch_norm_frames": 4, "log.every": max(steps // 4, 1), "log.tensorboard": "false",
    }  # fmt: skip
    if place.dry:
        of_side = {f"data.{domain}.{side}": pixels for domain in ("source", "target")
                   for side, pixels in (("height", 64), ("width", 128))}  # fmt: skip
        words |= {"data.workers": 0, **of_side}
    return [f"--{name}={value}" for name, value in words.items()]


def figures(folder: Path) -> dict[str, Any]:
    """Return the cross-entropy and the speed of a finished run; ends this step where a figure is not finite."""
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wrong = {name for row in rows for name, value in row.items() if not math.isfinite(float(value))}
    if wrong or not rows:
        raise SystemExit(f"error: {folder / 'metrics.csv'}: not finite: {', '.join(sorted(wrong)) or 'no row at all'}.")
    first, last = rows[0], rows[-1]
    return {
        "steps": int(last["step"]), "first_cross_entropy": float(first["cross_entropy"]),
        "last_cross_entropy": float(last["cross_entropy"]),
        "images_per_second": float(last["source_images_per_second"]),
    }  # fmt: skip


def train(place: Place, precision: str) -> dict[str, Any]:
    """Train a source network on Toytown and adapt it, both in a precision."""
    steps = 4 if place.dry else 60
    source, adapted = place.run_folder(f"source-{precision}"), place.run_folder(f"adapted-{precision}")
    options = small_run(place, precision, steps)
    python("-m", "lsr_train", "pretrain", "--recipe", "toytown_source", "--out", source, *options)
    python("-m", "lsr_train", "adapt", "--recipe", "toytown_lsr_em", "--init", source, "--out", adapted, *options)
    ran = {"precision": place.runnable(precision)}
    return {**ran, "pretrain": figures(source), "adapt": figures(adapted)}


def two_processes(place: Place) -> dict[str, Any]:
    """Adapt with two processes that share the one GPU; gloo carries the sums, since NCCL wants a GPU for each."""
    source, adapted = place.run_folder("source-bf16"), place.run_folder("two-processes")
    if not source.exists():
        raise Skipped("there is no source network: the step `train bf16` did not finish")
    words = ["adapt", "--recipe", "toytown_lsr_em", "--init", source, "--out", adapted]
    words += small_run(place, "bf16", 4 if place.dry else 20)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "tests.gpu_check.rank")
    python(*launch, *words)
    return {"backend": "gloo", "processes": 2, **figures(adapted)}


def frames(place: Place) -> dict[str, Any]:
    """Render frames of GTA5's size where the bundle brought none."""
    if place.frames.is_dir():
        return {"from": "the bundle"}
    with TemporaryDirectory(dir=place.out) as temporary:
        render(Path(temporary) / "frames", 2, part=8 if place.dry else 1)
        (Path(temporary) / "frames").rename(place.frames)
    return {"from": "rendered here"}


def random_checkpoint(place: Place) -> Path:
    """Return a checkpoint of ResNet-101 with random weights."""
    import torch

    from lsr_train.data.labels import LABEL_SPACES
    from lsr_train.network import DeepLabV2, NetworkSpec
    from lsr_train.runs.checkpoint import ModelInfo, save_model

    checkpoint = place.out / f"{DEEP}.safetensors"
    if not checkpoint.is_file():
        torch.manual_seed(0)
        small = {"backbone": "resnet18", "width": 0.25} if place.dry else {"backbone": "resnet101"}
        space = LABEL_SPACES["cityscapes19"]
        network = DeepLabV2(NetworkSpec(num_classes=space.num_classes, **small))
        save_model(checkpoint, network, ModelInfo(label_space=space, height=512, width=1024))
    return checkpoint


def memory(place: Place, precision: str) -> dict[str, Any]:
    """Take three steps of the GTA5 recipe at its own sizes in this process, and read the peak of the memory."""
    import torch

    from lsr_train.commands.dispatch import run

    if not place.frames.is_dir():
        raise Skipped("there are no frames: the step `frames` did not finish")
    folder = place.run_folder(f"memory-{precision}")
    words = {
        "source": place.frames / "game",
        "target": place.frames / "camera",
        "out": folder,
        "data.source.ids": "cityscapes-trainid",
        "data.target.layout": "frames",
        "data.target.split": "",
        "data.workers": 0 if place.dry else 2,
        "init": random_checkpoint(place),
        "network.weights": "none",
        "train.device": place.device,
        "train.precision": precision,
        "train.steps": 3,
        "train.checkpoint_every": 3,
        "selection.signal": "none",
        "log.every": 1,
        "log.tensorboard": "false",
    }
    if place.dry:
        words |= {"network.backbone": "resnet18", "network.width": 0.25, "data.source.height": 90,
                  "data.source.width": 160, "data.target.height": 64, "data.target.width": 128}  # fmt: skip
    code = run(["adapt", "--recipe", "gta5_cityscapes_lsr", *(f"--{name}={value}" for name, value in words.items())])
    if code:
        raise SystemExit(code)
    found = {"precision": precision, "batch": "1 source and 1 target image", **figures(folder)}
    if place.dry:
        return {**found, "peak_gib": None}
    peak, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {**found, "peak_gib": round(peak / 2**30, 2), "reserved_gib": round(reserved / 2**30, 2)}


# -- exported files ---------------------------------------------------------------------------------------------------


def export(place: Place) -> dict[str, Any]:
    """Export the adapted network, and one of ResNet-101 whose weights are random, in FP32 and FP16."""
    from export.to_onnx import main as to_onnx
    from lsr_infer.errors import exit_status

    checkpoint = random_checkpoint(place)
    written, refused = {}, {}
    for name, model in ((ADAPTED, place.run_folder("adapted-bf16")), (DEEP, checkpoint)):
        for precision in ("fp32", "fp16"):
            file = onnx_file(place, name, precision)
            # random weights leave no margins between classes, and few steps small ones
            bar = ["--agreement", "0.5"] if name == DEEP else ["--agreement", "0.95"]
            words = [str(model), "-o", str(file), "--precision", precision, "--num-frames", "2", *bar]
            # in this process: torch and its exporter take half a minute to load
            code = exit_status(partial(to_onnx, [*words, "--working-size", place.size]))
            if code == 0:
                written[file.name] = round(file.stat().st_size / 1e6, 1)
            else:
                refused[file.name] = f"exit {code}"
    write({"megabytes": written, "refused": refused})
    if refused:
        raise SystemExit(f"error: not written: {', '.join(refused)}")
    return {"megabytes": written}


def onnx_file(place: Place, name: str, precision: str) -> Path:
    return place.out / f"{name}_{precision}.onnx"


def exported(place: Place) -> list[Path]:
    """Return the files of `export` that are there."""
    files = [onnx_file(place, name, precision) for name in (ADAPTED, DEEP) for precision in ("fp32", "fp16")]
    return [file for file in files if file.is_file()]


def shipped() -> list[Path]:
    """Return the networks that come with the package, INT8 for ONNX Runtime."""
    return [ROOT / "lsr_infer" / "models" / f"{name}.onnx" for name in SHIPPED]


def parity(place: Place) -> dict[str, Any]:
    """Compare ONNX Runtime on the device with ONNX Runtime on the CPU, on the frames that come with the package."""
    import numpy as np

    from lsr_infer.errors import QualityGateError
    from lsr_infer.parity.frame_set import shipped_frames
    from lsr_infer.parity.meter import BARS, ParityMeter, check_bar
    from lsr_infer.segmenter import Segmenter

    files = [*(file for file in exported(place) if not file.name.startswith(DEEP)), *shipped()]
    frames, found, missed = shipped_frames(4), {}, []
    for file in files:
        with Segmenter(file, place.device) as one, Segmenter(file, "cpu") as other:
            bar = BARS[one.manifest.precision]
            meter = ParityMeter(one.label_space, margin=bar.margin)
            for frame in frames.frames:
                candidate, reference = one(frame), other(frame)
                assert candidate.logits is not None
                assert reference.logits is not None
                meter.update(reference.logits, candidate.logits, reference.classes, candidate.classes)
            result = meter.result(reference="CPU", frames_from=frames.origin)
            found[file.name] = {
                "device": one.device, "precision": one.manifest.precision, "agreement": result.agreement,
                "max_logit_difference": float(np.float32(result.max_logit_difference or 0)),
            }  # fmt: skip
        try:
            check_bar(result, bar)
        except QualityGateError as error:
            missed.append(f"{file.name}: {error}")
    write(found)
    if missed:
        raise SystemExit(f"error: {missed[0]}")
    return found


def bench(file: Path, place: Place) -> dict[str, Any]:
    """Return what `lsr-infer bench` measures of a file: the network alone, in milliseconds a frame."""
    code = "import sys; from lsr_infer.cli import main; sys.exit(main())"
    words = ["--device", place.device, "--size", place.size, "--frames", 3 if place.dry else 40, "--json"]
    report = json.loads(python("-c", code, "bench", file, *words))
    infer = report["latency_ms"]["infer"]
    return {"runtime": report["backend"], "device": report["device"], "p50_ms": infer["p50"], "p90_ms": infer["p90"],
            "overlapped_fps": report["throughput"]["overlapped"]}  # fmt: skip


def torch_latency(place: Place) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield what torch takes for a frame with the network of ResNet-101, by precision."""
    import torch

    from lsr_infer.commands.parser import parse_size
    from lsr_train.device import autocast
    from lsr_train.runs.checkpoint import load_model

    device = torch.device(place.device)
    network, _ = load_model(place.out / f"{DEEP}.safetensors")
    network = network.to(device, memory_format=torch.channels_last).eval()
    frame = torch.randint(0, 256, (1, *parse_size(place.size), 3), dtype=torch.uint8)
    for precision in ("fp32", "bf16"):
        taken = []
        for _ in range(4 if place.dry else 40):
            started = time.perf_counter()
            with torch.inference_mode(), autocast(device, precision):  # type: ignore[arg-type]
                network(network.normalize(frame.to(device))).logits.cpu()  # waits for the device
            taken.append(1e3 * (time.perf_counter() - started))
        warm = sorted(taken[len(taken) // 4 :])
        about = {"runtime": "torch", "device": place.device, "p50_ms": warm[len(warm) // 2]}
        yield f"{DEEP}, torch {precision}", {**about, "p90_ms": warm[int(0.9 * len(warm))]}


def latency(place: Place) -> dict[str, Any]:
    """Time every network; what fails is named, and the others are timed all the same."""
    found: dict[str, Any] = {}
    failed = []
    for file in [*exported(place), *shipped()]:
        try:
            found[file.name] = bench(file, place)
        except (SystemExit, ValueError) as error:
            failed.append(f"{file.name} ({error})")
        write(found)
    if (place.out / f"{DEEP}.safetensors").is_file():
        found |= dict(torch_latency(place))
        write(found)
    if failed or not found:
        raise SystemExit(f"error: not timed: {', '.join(failed) or 'nothing is there'}")
    return found


def tensorrt(place: Place) -> dict[str, Any]:
    """Build, compare and time engines of the exported files, with whichever flavour of TensorRT is installed."""
    from lsr_infer.errors import DeviceError
    from lsr_infer.tensorrt.flavour import load_library

    reasons = []
    for flavour in ("tensorrt", "rtx"):
        try:
            library = load_library(flavour)
            break
        except DeviceError as error:
            reasons.append(str(error))
    else:
        raise Skipped(" ".join(reasons))
    if place.dry:
        raise Skipped(f"no CUDA device: {library.title} is installed, and an engine is compared on a GPU alone")
    found: dict[str, Any] = {"library": library.title}
    for file in reversed(exported(place)):  # FP16 first, the adapted network last: it is the quickest
        engine = file.with_suffix(".engine")
        bar = ["--agreement", "0.5" if file.name.startswith(DEEP) else "0.95"]
        options = ["--flavour", flavour, "--shapes", f"1x{place.size}", "--num-frames", 2, "--overwrite"]
        python("export/to_trt.py", file, "-o", engine, *options, *bar)
        found[engine.name] = bench(engine, place)
        write(found)
    if len(found) == 1:
        raise Skipped("there is no ONNX file: the step `export` did not finish")
    return found


STEPS: dict[str, Callable[[Place], dict[str, Any]]] = {
    "machine": machine,
    "tests": tests,
    "train bf16": partial(train, precision="bf16"),
    "train fp16": partial(train, precision="fp16"),
    "two processes": two_processes,
    "frames": frames,
    "memory bf16": partial(memory, precision="bf16"),
    "memory fp32": partial(memory, precision="fp32"),
    "export": export,
    "parity": parity,
    "latency": latency,
    "tensorrt": tensorrt,
}


def write(result: dict[str, Any]) -> None:
    """Write the figures of this step, so far."""
    file = Path(os.environ["GPU_CHECK_RESULT"])
    temporary = file.with_name(f".{file.name}")
    temporary.write_text(json.dumps(result), encoding="utf-8")
    temporary.replace(file)


def main() -> None:
    """Run a step."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_check.steps", allow_abbrev=False)
    parser.add_argument("name", choices=tuple(STEPS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    try:
        write(STEPS[options.name](Place(out=options.out.absolute(), dry=options.dry)))
    except Skipped as reason:
        write({"skipped": str(reason)})


if __name__ == "__main__":
    main()
