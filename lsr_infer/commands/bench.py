"""`lsr-infer bench MODEL`: how fast a model is on this machine, and which step takes how much of the time."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lsr_infer.commands.parser import ArgumentParser, parse_size
from lsr_infer.errors import UsageError

__all__ = ["main"]


def main(words: Sequence[str]) -> None:
    """Run the command; raises `LsrError`."""
    parser = ArgumentParser(
        "lsr-infer bench",
        "Time a model: decode, preprocess, infer, mask, draw and encode for every frame by itself, and the throughput "
        "of lsr-infer itself, where all of them overlap.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="exported model")
    parser.add_argument("--source", type=Path, metavar="VIDEO", help="frames to time on (shipped Toytown, 512x256)")
    parser.add_argument("--frames", type=int, default=50, metavar="N", help="how many are timed (50)")
    parser.add_argument("--size", metavar="WxH", help="size at which frames enter the network (the model's own)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda:N (auto)")
    parser.add_argument("--backend", metavar="NAME", help="onnxruntime, openvino, ... (by the file's ending)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads of the network (0: one for "
        "each physical core the process may use)")  # fmt: skip
    parser.add_argument("--precision", metavar="NAME", help="bf16 on OpenVINO, tf32 on CUDA (the file's own)")
    parser.add_argument("--allow-unverified", action="store_true", help="open an engine whose parity is pending")
    parser.add_argument("--json", action="store_true", help="put one JSON document on stdout")
    values = parser.parse_args(words)
    if values.threads < 0:
        raise UsageError(f"--threads is {values.threads}; allowed: 0 (one a physical core) or more.")
    size = None if values.size is None else parse_size(values.size)
    from lsr_infer.pipeline.timing import shipped_clip, time_steps
    from lsr_infer.segmenter import Segmenter
    from lsr_infer.system.process import usable_cores

    begun = time.perf_counter()
    segmenter = Segmenter(
        values.model, values.device, values.backend, threads=values.threads, precision=values.precision,
        allow_unverified=values.allow_unverified,
    )  # fmt: skip
    opened_ms = 1e3 * (time.perf_counter() - begun)
    with segmenter, TemporaryDirectory() as folder:
        clip = values.source or shipped_clip(Path(folder), values.frames)
        timing = time_steps(segmenter, clip, frames=values.frames, size=size)
        report = {
            "model": values.model.name,
            "backend": segmenter.backend,
            "device": segmenter.device,
            "precision": segmenter.precision,
            "threads": values.threads or usable_cores(),
            "source": "shipped Toytown frames" if values.source is None else clip.name,
            "frame": list(timing.frame),
            "network_input": list(timing.network),
            "frames": timing.frames,
            "open_ms": round(opened_ms, 1),
            "first_run_ms": round(timing.first_ms, 1),
            "latency_ms": timing.latency(),
            "throughput": timing.throughput(),
        }
    text = json.dumps(report, indent=2) if values.json else "\n".join(_lines(report))
    print(text)  # noqa: T201 - the result


def _lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the table for people."""
    sizes = "{1}x{0}".format(*report["frame"]), "{1}x{0}".format(*report["network_input"])
    yield "{model} on {device} ({backend}, {precision}, {threads} threads)".format(**report)
    yield f"{report['frames']} frames of {report['source']}, {sizes[0]}, entering the network at {sizes[1]}"
    yield f"opened in {report['open_ms']:.0f} ms, first run at this size {report['first_run_ms']:.0f} ms"
    yield f"{'ms a frame':<12}{'p50':>9}{'p90':>9}{'p99':>9}{'mean':>9}"
    for step, found in report["latency_ms"].items():
        yield f"{step:<12}" + "".join(f"{found[key]:>9.2f}" for key in ("p50", "p90", "p99", "mean"))
    yield "frames a second: {infer_alone:.2f} the network alone, {one_after_another:.2f} one step after another, " \
        "{overlapped:.2f} lsr-infer itself, with all steps overlapping".format(**report["throughput"])  # fmt: skip
