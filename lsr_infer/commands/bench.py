"""Runs `lsr-infer bench MODEL`: times a model on this machine, step by step."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lsr_infer.commands.parser import ArgumentParser, add_network_options, named, parse_size
from lsr_infer.errors import UsageError
from lsr_infer.text import printable, printable_json

__all__ = ["main"]


def main(argv: Sequence[str]) -> None:
    """Run the command; raises `LsrError`."""
    parser = ArgumentParser(
        "lsr-infer bench",
        "MODEL [options]",
        "Time a model: decode, preprocess, infer, mask, draw and encode for every frame by itself, and the\n"
        "throughput of lsr-infer itself, where all of them overlap.",
        examples=("lsr-infer bench model.onnx", "lsr-infer bench model.onnx --source drive.mp4 --frames 200 --json"),
        notes="Exit codes: 0 done, 2 usage, 3 device, 4 video or model unusable, 130 interrupted.",
    )
    add = parser.section("input")
    add("model", type=named, metavar="MODEL", common=True, help="exported model")
    add("--source", type=named, metavar="VIDEO", common=True, help="frames to time on (shipped Toytown, 512x256)")
    add("--frames", type=int, default=50, metavar="N", common=True, help="how many are timed (50)")
    add("--json", action="store_true", common=True, help="put one JSON document on stdout")
    add_network_options(parser.section("network"))
    values = parser.parse_args(argv)
    if values.threads < 0:
        raise UsageError(f"--threads is {values.threads}; allowed: 0 (one a physical core) or more.")
    size = None if values.size is None else parse_size(values.size)
    from lsr_infer.io.store_cache import local_path
    from lsr_infer.pipeline.timing import shipped_clip, time_steps
    from lsr_infer.segmenter import Segmenter
    from lsr_infer.system.process import usable_cores
    from lsr_infer.system.progress import Progress

    started = time.perf_counter()
    with Progress("opening the network", unit=""):
        segmenter = Segmenter(
            values.model, values.device, values.backend, threads=values.threads, precision=values.precision,
            allow_unverified=values.allow_unverified,
        )  # fmt: skip
    opened_ms = 1e3 * (time.perf_counter() - started)
    with segmenter, TemporaryDirectory() as folder:
        clip = shipped_clip(Path(folder), values.frames) if values.source is None else local_path(values.source)
        timing = time_steps(segmenter, clip, frames=values.frames, size=size)
        report = {
            "model": segmenter.path.name,
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
    text = printable_json(report, indent=2) if values.json else "\n".join(map(printable, _lines(report)))
    print(text)  # noqa: T201 - the result


def _lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the table."""
    sizes = "{1}x{0}".format(*report["frame"]), "{1}x{0}".format(*report["network_input"])
    yield "{model} on {device} ({backend}, {precision}, {threads} threads)".format(**report)
    yield f"{report['frames']} frames of {report['source']}, {sizes[0]}, entering the network at {sizes[1]}"
    yield f"opened in {report['open_ms']:.0f} ms, first run at this size {report['first_run_ms']:.0f} ms"
    yield f"{'ms a frame':<12}{'p50':>9}{'p90':>9}{'p99':>9}{'mean':>9}"
    for step, found in report["latency_ms"].items():
        yield f"{step:<12}" + "".join(f"{found[key]:>9.2f}" for key in ("p50", "p90", "p99", "mean"))
    yield "frames a second: {infer_alone:.2f} the network alone, {one_after_another:.2f} one step after another, " \
        "{overlapped:.2f} lsr-infer itself, with all steps overlapping".format(**report["throughput"])  # fmt: skip
