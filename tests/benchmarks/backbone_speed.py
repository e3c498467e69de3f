"""How fast networks of random weights are in ONNX Runtime on this processor, in FP32 and INT8, against the first one.

    python -m tests.benchmarks.backbone_speed [resnet50,width=0.5,stem=caffe efficientnet-lite0 …] [--profile]

A network is its backbone and fields of `NetworkSpec`; stride 16 and 11 classes are the defaults, `dilations=6+12` names
several. Prints JSON: milliseconds a frame and how many times faster than the first network's FP32 file, by processor
seconds and by the clock, each the median over all runs; every file runs in a process of its own, in turn. INT8 is
calibrated by min-max on the shipped frames: this measures speed, not accuracy. With --profile also the milliseconds of
each layer of each file, as ONNX Runtime's profiler gives them.
"""

import argparse
import json
import os
import statistics
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lsr_infer.commands.parser import parse_size
from lsr_infer.system.process import import_onnxruntime
from tests.in_turn import in_turn, middle, print_runs

NETWORKS = ["resnet50,width=0.5,stem=caffe,normalization=caffe-bgr"]
NETWORKS += [f"efficientnet-lite0,normalization=lite-rgb{more}" for more in ("", ",dilations=6+12", ",output_stride=8")]
NETWORKS += ["efficientnet-lite2,normalization=lite-rgb"]
PRECISIONS = ("fp32", "int8")


def fields(text: str) -> dict[str, Any]:
    """Return the fields of a `NetworkSpec` that a word names."""
    backbone, *more = text.split(",")
    values: dict[str, Any] = {"backbone": backbone, "output_stride": 16, "num_classes": 11}
    for part in more:
        name, value = part.split("=")
        values[name] = float(value) if name == "width" else int(value) if name == "output_stride" else value
        if name == "dilations":
            values[name] = tuple(map(int, value.split("+")))
    return values


def make(text: str, size: tuple[int, int], folder: Path) -> None:
    """Write a network's graphs in float32 and INT8 (U8S8), made as the export makes them; there is no gate."""
    import onnx
    import torch

    from lsr_infer.io.images import resize_frame
    from lsr_infer.parity.frame_set import shipped_frames
    from lsr_train.exporting.calibration import CALIBRATIONS, gather
    from lsr_train.exporting.graph import trace
    from lsr_train.exporting.precisions import SCHEMES, Rewriting, quantise, tensors_to_quantise
    from lsr_train.network import DeepLabV2, NetworkSpec

    torch.manual_seed(0)
    graph = trace(DeepLabV2(NetworkSpec(**fields(text))).eval(), fixed=None)
    how = Rewriting.of(graph, SCHEMES["onnxruntime"])
    images = (resize_frame(frame, *size)[None] for frame in shipped_frames(4).frames)
    spreads = gather(graph, tensors_to_quantise(graph, how), images)
    onnx.save(graph, str(folder / "fp32.onnx"))
    integers = quantise(graph, {tensor: CALIBRATIONS["minmax"](spread) for tensor, spread in spreads.items()}, how)
    onnx.save(integers, str(folder / "int8.onnx"))


def session(file: Path, **settings: Any) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    for name, value in ({"log_severity_level": 4} | settings).items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def layer_times(file: Path, images: np.ndarray, threads: int, runs: int) -> dict[str, float]:
    """Return the median milliseconds of each node, the longest first."""
    profiled = session(
        file, enable_profiling=True, profile_file_prefix=str(file.with_suffix("")), intra_op_num_threads=threads
    )
    for _ in range(runs + 3):
        profiled.run(None, {"image": images})
    events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
    found: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            found[event["name"].removesuffix("_kernel_time")].append(event["dur"] / 1e3)
    times = {name: round(statistics.median(taken), 3) for name, taken in found.items()}
    return dict(sorted(times.items(), key=lambda item: -item[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="the one to compare with first")
    parser.add_argument("--size", default="320x240", metavar="WxH")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=10, help="in each process, after three that warm up")
    parser.add_argument("--profile", action="store_true", help="also the time of each layer")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = parse_size(options.size)
    images = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    if options.worker is not None:
        timed = session(options.worker, intra_op_num_threads=options.threads)
        print_runs(lambda: timed.run(None, {"image": images}), options.runs, warm_up=3)
        return
    with TemporaryDirectory() as temporary:
        files = {}
        for place, text in enumerate(options.networks):
            folder = Path(temporary, str(place))
            folder.mkdir()
            make(text, size, folder)
            files |= {f"{text} {precision}": folder / f"{precision}.onnx" for precision in PRECISIONS}
        same = ("--size", options.size, "--threads", options.threads, "--runs", options.runs)
        workers = {name: ("--worker", file, *same) for name, file in files.items()}
        runs = in_turn("tests.benchmarks.backbone_speed", workers, threads=options.threads, rounds=options.rounds)
        found = {name: middle(taken) for name, taken in runs.items()}
        first = next(iter(found.values()))
        result = {
            name: {
                "processor_ms": round(1e3 * taken.processor, 2),
                "wall_ms": round(1e3 * taken.wall, 2),
                "times_faster_by_processor": round(first.processor / taken.processor, 2),
                "times_faster_by_wall": round(first.wall / taken.wall, 2),
            }
            for name, taken in found.items()
        }
        profiled = files if options.profile else {}
        layers = {name: layer_times(file, images, options.threads, options.runs) for name, file in profiled.items()}
    print(json.dumps({"load_average": os.getloadavg()[0], "networks": result, "layer_ms": layers}, indent=2))


if __name__ == "__main__":
    main()
