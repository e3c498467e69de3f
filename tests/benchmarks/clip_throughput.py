"""The whole lsr-infer on a 720p clip against the bare session of the same model fed from memory.

    python tests/benchmarks/clip_throughput.py --clip CLIP [--model MODEL.onnx] [--small MODEL.onnx] [--frames 12]
        [--rounds 3] [--threads 2]

Prints JSON. The bare session is ONNX Runtime's own, with its own defaults and as many threads, on frames that already
have its size. Both take turns within one run, in blocks of `--frames` frames, and the ratio is that of each round's
neighbours; so what else runs on the machine hits both. Without --model a ResNet-50 with random weights is exported at
1024x512 first (needs the extra `export`), without --small a narrow ResNet-18. The breakdown tells what each stage costs
alone, in CPU milliseconds a frame, and which of them bounds the whole; the network's share of that is the ratio to
expect on cores that nobody else uses, and hardly depends on who does.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.io.files import AtomicOutputs
from lsr_infer.io.images import resize_frame
from lsr_infer.io.sources import find_sources
from lsr_infer.pipeline.frame_inference import Inference
from lsr_infer.pipeline.options import Selection
from lsr_infer.pipeline.outputs import open_sink, plan_outputs
from lsr_infer.pipeline.task import Task, segment_video
from lsr_infer.render.draw import DrawingOptions, DrawnFrame, MaskIds, SegmentedFrame
from lsr_infer.segmenter import Segmentation, Segmenter
from lsr_infer.video.containers import VideoFrame
from lsr_infer.video.reader import probe, read_frames

ROOT = Path(__file__).resolve().parents[2]
RANDOM = """
import sys, torch
from pathlib import Path
from lsr_train.runs.checkpoint import ModelInfo, save_model
from lsr_train.data.labels import CITYSCAPES_19
from lsr_train.network import DeepLabV2, NetworkSpec
torch.manual_seed(0)
spec = NetworkSpec(backbone=sys.argv[2], width=float(sys.argv[3]), num_classes=19, output_stride=8)
info = ModelInfo(label_space=CITYSCAPES_19, method="none", height=512, width=1024)
save_model(Path(sys.argv[1]), DeepLabV2(spec).eval(), info)
"""


@dataclass(frozen=True)
class Stage:
    """What one stage costs alone, a frame: milliseconds of wall clock, and of CPU over all threads."""

    wall_ms: float
    cpu_ms: float


def random_model(folder: Path, name: str, backbone: str, width: float) -> Path:
    """Export a network with random weights, in processes of their own: torch would take cores from the session."""
    checkpoint, model = folder / f"{name}.safetensors", folder / f"{name}.onnx"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    make = [sys.executable, "-c", RANDOM, str(checkpoint), backbone, str(width)]
    subprocess.run(make, check=True, cwd=ROOT, env=environment)
    words = ["export/to_onnx.py", str(checkpoint), "-o", str(model), "--size", "1024x512", "--num-frames", "1"]
    subprocess.run([sys.executable, *words, "--agreement", "0.9"], check=True, cwd=ROOT, env=environment)
    return model


def bare_session(model: Path, threads: int) -> Callable[[NDArray[np.uint8]], object]:
    """Return ONNX Runtime's session as it comes, with a number of threads."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})


def measured(work: Callable[[], object], frames: int) -> Stage:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    wall = 1e3 * (time.perf_counter() - started) / frames
    return Stage(round(wall, 2), round(1e3 * (time.process_time() - cpu) / frames, 2))


def whole(segmenter: Segmenter, clip: Path, folder: Path, frames: int) -> float:
    """Run what `lsr-infer CLIP` runs, from the file to the finished video; return frames a second."""
    (source,) = find_sources([str(clip)]).sources
    drawing = DrawingOptions(ids=MaskIds.of("train", segmenter.label_space))
    selection = Selection(max_frames=frames)
    task = Task(inference=Inference(segmenter), drawing=drawing, selection=selection, overwrite=True)
    started = time.perf_counter()
    outcome = segment_video(source, plan_outputs(source, folder, drawing), task)
    assert outcome.frames == frames
    return frames / (time.perf_counter() - started)


def compare(model: Path, clip: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Let the bare session and the whole command take turns."""
    segmenter = Segmenter(model, threads=options.threads)
    rows, columns = segmenter.manifest.working_size(*_first(clip).shape[:2])
    frames = [item.frame for item, _ in zip(read_frames(clip), range(options.frames), strict=False)]
    images = [resize_frame(frame, rows, columns)[None] for frame in frames]
    run = bare_session(model, options.threads)
    run(images[0])
    whole(segmenter, clip, folder, 1)

    def bare() -> float:
        started = time.perf_counter()
        for image in images:
            run(image)
        return len(images) / (time.perf_counter() - started)

    rates: dict[str, list[float]] = {"bare": [bare()], "whole": []}
    for _ in range(options.rounds):
        rates["whole"].append(whole(segmenter, clip, folder, len(images)))
        rates["bare"].append(bare())
    ratios = [
        2 * rate / (before + after)
        for rate, before, after in zip(rates["whole"], rates["bare"], rates["bare"][1:], strict=False)
    ]
    return {
        "model": model.name,
        "bare_session_frames_per_second": round(statistics.median(rates["bare"]), 3),
        "lsr_infer_frames_per_second": round(statistics.median(rates["whole"]), 3),
        "ratio": round(statistics.median(ratios), 4),
        "ratios_of_the_rounds": [round(ratio, 4) for ratio in ratios],
    }


def _first(clip: Path) -> NDArray[np.uint8]:
    return next(iter(read_frames(clip))).frame


def breakdown(model: Path, clip: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run each stage alone on all frames, then say which bounds the whole."""
    segmenter = Segmenter(model, threads=options.threads)
    stages: dict[str, Stage] = {}
    items: list[VideoFrame] = []
    found: list[Segmentation] = []
    (source,) = find_sources([str(clip)]).sources
    drawing = DrawingOptions(ids=MaskIds.of("train", segmenter.label_space))
    task = Task(inference=Inference(segmenter), drawing=drawing, overwrite=True)
    stages["decode"] = measured(lambda: items.extend(_some(clip, options.frames)), options.frames)
    size = segmenter.manifest.working_size(*items[0].frame.shape[:2])
    segmenter(items[0].frame)
    stages["resize"] = measured(lambda: [resize_frame(item.frame, *size) for item in items], len(items))
    images = [segmenter.prepare([item.frame]) for item in items]
    outputs: list[Any] = []
    stages["network"] = measured(lambda: outputs.extend(segmenter.run(image)[0] for image in images), len(items))
    found.extend(segmenter.interpret(one, *items[0].frame.shape[:2]) for one in outputs)
    stages["mask"] = measured(lambda: [one.classes for one in found], len(items))
    info = probe(clip)
    drawer = task.drawer(video=True, color=info.color)
    results = [
        SegmentedFrame(item, n, item.time, one, None) for n, (item, one) in enumerate(zip(items, found, strict=True))
    ]
    drawn: list[DrawnFrame] = []
    stages["draw"] = measured(lambda: drawn.extend(drawer(result) for result in results), len(items))
    path = plan_outputs(source, folder, drawing)["overlay"]

    def encode() -> None:
        frame = task.frame(source, info.height, info.width, info)
        with AtomicOutputs() as results, open_sink("overlay", path, frame, results) as sink:
            for one in drawn:
                sink(one)

    stages["encode"] = measured(encode, len(items))
    total = sum(stage.cpu_ms for stage in stages.values())
    most = max(stages, key=lambda name: stages[name].cpu_ms)
    return {
        "cpu_ms_a_frame": {name: stage.cpu_ms for name, stage in stages.items()},
        "wall_ms_a_frame_alone": {name: stage.wall_ms for name, stage in stages.items()},
        "cpu_ms_a_frame_in_all": round(total, 1),
        "network_share_of_cpu": round(stages["network"].cpu_ms / total, 3),
        "bound_by": f"{most}, {stages[most].cpu_ms / total:.0%} of the CPU time",
        "best_possible_frames_per_second": round(1e3 * (os.cpu_count() or 1) / total, 2),
    }


def _some(clip: Path, frames: int) -> Iterator[VideoFrame]:
    for item, _ in zip(read_frames(clip), range(frames), strict=False):
        yield item


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--small", type=Path)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or random_model(folder, "resnet50", "resnet50", 1.0)
        small = options.small or random_model(folder, "narrow_resnet18", "resnet18", 0.25)
        info = probe(options.clip)
        report: dict[str, Any] = {
            "clip": f"{info.width}x{info.height}, {options.frames} frames a round",
            "threads": options.threads,
            "large": compare(model, options.clip, folder, options) | breakdown(model, options.clip, folder, options),
            "small": compare(small, options.clip, folder, options) | breakdown(small, options.clip, folder, options),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
