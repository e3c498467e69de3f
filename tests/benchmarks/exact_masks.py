"""The sparse mask against the whole float32 interpolation, on random and on real logits; and against graphs that do it.

    python -m tests.benchmarks.exact_masks [--cases 1000] [--model MODEL.onnx --frames FOLDER|VIDEO]

Prints JSON. `pixels_that_differ` counts against the argmax of the float32 interpolation that the mask is named after,
and must be 0. The graph versions are Resize and ArgMax in ONNX Runtime and OpenVINO, and torch: they round otherwise,
so pixels whose top two interpolated logits lie within 1e-5 may differ; those that differ elsewhere are counted. Times
are the best of several, all implementations in turn and with as many threads as the process may use; ratios are within
this run. Real cases are logits of a trained model on real frames; without --model they are left out.
"""

import argparse
import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from lsr_infer.commands.parser import parse_size
from lsr_infer.parity.frame_set import read_frame_set
from lsr_infer.render.masks import interpolate, upsample_argmax
from lsr_infer.segmenter import Segmenter
from lsr_infer.system.process import usable_cores
from tests.lsr_infer.onnxfile import block, node, number, port

HEIGHT, WIDTH = 1024, 2048
TIE = 1e-5
Mask = Callable[[np.ndarray], np.ndarray]


def blobs(rng: np.random.Generator, classes: int, h: int, w: int, coarse: int) -> np.ndarray:
    """Logits with regions and borders [C,h,w]."""
    small = rng.normal(scale=5, size=(classes, max(2, h // coarse), max(2, w // coarse))).astype(np.float32)
    return np.stack([cv2.resize(one, (w, h), interpolation=cv2.INTER_CUBIC) for one in small])


def random_cases(count: int) -> int:
    """Return how many pixels differ from the named interpolation over so many random cases, exact ties included."""
    rng = np.random.default_rng(0)
    different = 0
    for _ in range(count):
        h, w = (int(side) for side in rng.integers(2, 40, size=2))
        logits = blobs(rng, int(rng.integers(2, 20)), h, w, int(rng.integers(1, 6)))
        if rng.random() < 0.3:
            logits = np.round(logits)  # exact ties
        size = int(rng.integers(1, 12 * h)), int(rng.integers(1, 12 * w))
        different += int((upsample_argmax(logits, *size) != interpolate(logits, *size).argmax(0)).sum())
    return different


def text_attribute(name: str, value: str) -> bytes:
    """An AttributeProto: STRING (3)."""
    return block(5, block(1, name) + block(4, value) + number(20, 3))


def resize_graph(height: int, width: int) -> bytes:
    """An ONNX model: logits [1,C,h,w] to classes [1,1,height,width], bilinear with align_corners."""
    empty = block(5, number(1, 0) + number(2, 1) + block(8, "none"))
    sizes = block(5, number(1, 2) + number(2, 7) + block(8, "size") + block(9, struct.pack("<2q", height, width)))
    axes = block(5, block(1, "axes") + number(8, 2) + number(8, 3) + number(20, 7))
    resize = node(
        "Resize", ["logits", "none", "none", "size"], "full",
        text_attribute("mode", "linear"), text_attribute("coordinate_transformation_mode", "align_corners"), axes,
    )  # fmt: skip
    decide = node("ArgMax", ["full"], "classes", block(5, block(1, "axis") + number(3, 1) + number(20, 2)))
    graph = (
        resize + decide + block(2, "mask") + empty + sizes
        + port(11, "logits", 1, (1, "C", "h", "w")) + port(12, "classes", 7, (1, 1, height, width))
    )  # fmt: skip
    return number(1, 8) + block(7, graph) + block(8, number(2, 18))


def graphs(folder: Path) -> Iterator[tuple[str, Mask | str]]:
    """Yield each other implementation by name, or why it is not here."""
    path = folder / "mask.onnx"
    path.write_bytes(resize_graph(HEIGHT, WIDTH))
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = usable_cores()
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    yield "onnxruntime_graph", lambda logits: np.asarray(session.run(None, {"logits": logits[None]})[0])[0, 0]
    try:
        import openvino
    except ImportError:
        yield "openvino_graph", "openvino is not installed"
    else:
        hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": usable_cores()}
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(str(path)), "CPU", hints)
        yield "openvino_graph", lambda logits: np.asarray(compiled([logits[None]])[0])[0, 0]
    try:
        import torch
    except ImportError:
        yield "torch", "torch is not installed"
    else:

        def full(logits: np.ndarray) -> np.ndarray:
            wide = torch.nn.functional.interpolate(
                torch.from_numpy(logits)[None], size=(HEIGHT, WIDTH), mode="bilinear", align_corners=True
            )
            return np.asarray(wide.argmax(1)[0].numpy())

        yield "torch", full


def best_ms(work: Callable[[], object], times: int) -> float:
    """Return the shortest of several runs in milliseconds."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - started))
    return min(taken)


def mixed_share(logits: np.ndarray) -> float:
    """Return the share of cells whose corners do not all agree."""
    winner = logits.argmax(0)
    corners = np.stack([winner[:-1, :-1], winner[1:, :-1], winner[:-1, 1:], winner[1:, 1:]])
    return float((corners.min(0) != corners.max(0)).mean())


def compare(cases: list[np.ndarray], others: dict[str, Mask], times: int) -> dict[str, Any]:
    """Compare masks and times on a list of logits."""
    different, clear, sparse = 0, dict.fromkeys(others, 0), 0.0
    graph = dict.fromkeys(others, 0.0)
    for logits in cases:
        full = interpolate(logits, HEIGHT, WIDTH)
        mask = upsample_argmax(logits, HEIGHT, WIDTH)
        different += int((mask != full.argmax(0)).sum())
        top = np.partition(full, full.shape[0] - 2, axis=0)[-2:]
        apart = top[1] - top[0] > TIE
        sparse += best_ms(lambda logits=logits: upsample_argmax(logits, HEIGHT, WIDTH), times)  # type: ignore[misc]
        for name, other in others.items():
            clear[name] += int((other(logits) != mask)[apart].sum())
            graph[name] += best_ms(lambda logits=logits, other=other: other(logits), times)  # type: ignore[misc]
    return {
        "cases": len(cases),
        "logits": list(cases[0].shape),
        "mixed_cells": round(float(np.mean([mixed_share(logits) for logits in cases])), 3),
        "pixels_that_differ": different,
        "clear_pixels_that_differ_from": clear,
        "sparse_ms": round(sparse / len(cases), 2),
        "times_faster_than": {name: round(value / sparse, 2) for name, value in graph.items()},
    }


def real_logits(model: Path, frames: Path, count: int, size: tuple[int, int] | None) -> list[np.ndarray]:
    """Return the logits of a model on real frames."""
    with Segmenter(model, "cpu") as segmenter:
        found = [segmenter(frame, size=size).logits for frame in read_frame_set(frames, count).frames]
    return [logits for logits in found if logits is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="random cases")
    parser.add_argument("--model", type=Path, help="a trained model that gives logits")
    parser.add_argument("--frames", type=Path, help="real frames for it")
    parser.add_argument("--real-cases", type=int, default=100)
    parser.add_argument("--size", type=parse_size, metavar="WxH", help="at which they enter it (the model's own)")
    options = parser.parse_args()
    report: dict[str, Any] = {
        "random": {"cases": options.cases, "pixels_that_differ": random_cases(options.cases)},
        "threads": usable_cores(),
    }
    rng = np.random.default_rng(1)
    with TemporaryDirectory() as folder:
        there = dict(graphs(Path(folder)))
        others = {name: mask for name, mask in there.items() if not isinstance(mask, str)}
        report["missing"] = {name: reason for name, reason in there.items() if isinstance(reason, str)}
        for coarse in (12, 5):
            logits = blobs(rng, 19, 65, 129, coarse)
            report[f"blobs_{coarse}_to_1024x2048"] = compare([logits], others, 5)
        if options.model is None or options.frames is None:
            report["real_to_1024x2048"] = "left out: name a trained model with --model and real frames with --frames"
        else:
            cases = real_logits(options.model, options.frames, options.real_cases, options.size)
            report["real_to_1024x2048"] = compare(cases, others, 2)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
