"""How many times faster than torch each backend runs the same network on this processor.

    python -m tests.benchmarks.backend_speed [--backbone resnet101] [--size 1024x512] [--threads 2] [--rounds 3]

Prints JSON: for each backend its time and the ratio of torch eager float32's to it, by processor seconds (robust where
others use the machine too) and by the wall clock, each the median over all runs. Every backend runs in a process of its
own, since torch beside ONNX Runtime would slow it, and all of them in turn in every round. Weights are random, the INT8
file is calibrated by min-max on the shipped frames: this measures speed, not accuracy. Files are kept with --work.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lsr_infer.commands.parser import parse_size
from tests.in_turn import Seconds, in_turn, middle, print_runs

TORCH = "torch_fp32"
# Name: backend, precision, file.
BACKENDS: dict[str, tuple[str, str | None, str]] = {
    "onnxruntime_fp32": ("onnxruntime", None, "fp32.onnx"),
    "onnxruntime_int8": ("onnxruntime", None, "int8.onnx"),
    "openvino_fp32": ("openvino", "fp32", "fp32.onnx"),
    "openvino_bf16": ("openvino", "bf16", "fp32.onnx"),
    "openvino_int8_rest_bf16": ("openvino", "bf16", "int8.onnx"),
}
CALIBRATION_SIZE = (128, 256)


def make_models(folder: Path, backbone: str) -> None:
    """Write a checkpoint of random weights, and its graphs in float32 and INT8 (U8S8), made as the export makes them.

    There is no gate: random weights decide nothing, so it could not pass.
    """
    import onnx
    import torch

    from lsr_infer.io.images import resize_frame
    from lsr_infer.parity.frame_set import shipped_frames
    from lsr_train.data.labels import LABEL_SPACES
    from lsr_train.exporting.calibration import CALIBRATIONS, gather
    from lsr_train.exporting.graph import trace
    from lsr_train.exporting.precisions import SCHEMES, Rewriting, quantise, tensors_to_quantise
    from lsr_train.network import DeepLabV2, NetworkSpec
    from lsr_train.runs.checkpoint import ModelInfo, save_model

    torch.manual_seed(0)
    space = LABEL_SPACES["cityscapes19"]
    network = DeepLabV2(NetworkSpec(backbone=backbone, num_classes=space.num_classes)).eval()
    save_model(folder / "model.safetensors", network, ModelInfo(label_space=space, height=512, width=1024))
    graph = trace(network, fixed=None)
    onnx.save(graph, str(folder / "fp32.onnx"))
    how = Rewriting.of(graph, SCHEMES["onnxruntime"])
    images = (resize_frame(frame, *CALIBRATION_SIZE)[None] for frame in shipped_frames(4).frames)
    spreads = gather(graph, tensors_to_quantise(graph, how), images)
    ranges = {tensor: CALIBRATIONS["minmax"](spread) for tensor, spread in spreads.items()}
    onnx.save(quantise(graph, ranges, how), str(folder / "int8.onnx"))


def torch_run(folder: Path, threads: int) -> Callable[[np.ndarray], object]:
    """Return torch eager in float32."""
    import torch

    from lsr_train.runs.checkpoint import load_model

    torch.set_num_threads(threads)
    network, _ = load_model(folder / "model.safetensors")
    network.eval()

    def run(images: np.ndarray) -> object:
        with torch.inference_mode():
            return network(network.normalize(torch.from_numpy(images))).logits.numpy()

    return run


def backend_run(folder: Path, name: str, threads: int) -> Callable[[np.ndarray], object]:
    """Return a backend of the runtime."""
    from lsr_infer.backends import BackendOptions
    from lsr_infer.segmenter import open_backend

    backend, precision, file = BACKENDS[name]
    opened = open_backend(
        folder / file, BackendOptions(device="cpu", threads=threads, precision=precision), name=backend
    )
    return opened.run


def work(name: str, folder: Path, size: tuple[int, int], threads: int, runs: int) -> None:
    """Time one backend in this process and print its runs."""
    run = torch_run(folder, threads) if name == TORCH else backend_run(folder, name, threads)
    images = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    print_runs(lambda: run(images), runs, warm_up=1)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, list[Seconds]]:
    """Run every backend in a process of its own, round by round."""
    same = ("--work", folder, "--size", options.size, "--threads", options.threads, "--runs", options.runs)
    workers = {name: ("--worker", name, *same) for name in (TORCH, *BACKENDS)}
    return in_turn("tests.benchmarks.backend_speed", workers, threads=options.threads, rounds=options.rounds)


def report(found: dict[str, list[Seconds]], options: argparse.Namespace) -> dict[str, Any]:
    """Return medians and ratios."""
    middles = {name: middle(runs) for name, runs in found.items()}
    wall = {name: seconds.wall for name, seconds in middles.items()}
    processor = {name: seconds.processor for name, seconds in middles.items()}
    return {
        "backbone": options.backbone,
        "size": options.size,
        "threads": options.threads,
        "runs": {name: len(runs) for name, runs in found.items()},
        "wall_ms": {name: round(1e3 * value, 1) for name, value in wall.items()},
        "processor_ms": {name: round(1e3 * value, 1) for name, value in processor.items()},
        "times_faster_by_processor": {name: round(processor[TORCH] / processor[name], 2) for name in BACKENDS},
        "times_faster_by_wall": {name: round(wall[TORCH] / wall[name], 2) for name in BACKENDS},
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet101")
    parser.add_argument("--size", default="1024x512", metavar="WxH")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3, help="in each process, after one that warms up")
    parser.add_argument("--work", type=Path, help="folder of the models; they are made where they are missing")
    parser.add_argument("--worker", choices=(TORCH, *BACKENDS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        work(options.worker, options.work, parse_size(options.size), options.threads, options.runs)
        return
    with TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "int8.onnx").is_file():
            make_models(folder, options.backbone)
        print(json.dumps(report(measure(folder, options), options), indent=2))


if __name__ == "__main__":
    main()
