"""What settings of x264 cost on overlays: processor time, size, and SSIM against the overlay before it is encoded.

    python -m tests.benchmarks.overlay_encoding CLIP... [--model street] [--frames 60]
        [--try preset=superfast,crf=23] [--rounds 3]

Prints JSON: of each clip the settings of `lsr-infer`, those of `veryfast` at crf 20 as a yardstick, and each `--try`,
in processor milliseconds and kilobytes a frame and as ratios to the yardstick. SSIM is the mean over the three channels
of every third frame, in windows of 11 pixels (Gaussian, 1.5), as it was defined by Wang et al. (2004).
"""

import argparse
import json
import time
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer.segmenter import Segmenter
from lsr_infer.video import writer
from lsr_infer.video.reader import probe, read_frames
from lsr_infer.video.writer import VideoOptions

YARDSTICK = {"preset": "veryfast", "crf": "20"}


def ssim(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """The structural similarity of two pictures [H,W,3]."""

    def blurred(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.GaussianBlur(values, (11, 11), 1.5), dtype=np.float32)

    a, b = one.astype(np.float32), other.astype(np.float32)
    mean_a, mean_b = blurred(a), blurred(b)
    spread_a, spread_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    common = blurred(a * b) - mean_a * mean_b
    first, second = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    value = (2 * mean_a * mean_b + first) * (2 * common + second)
    return float((value / ((mean_a**2 + mean_b**2 + first) * (spread_a + spread_b + second))).mean())


def encoded(
    pictures: Sequence[NDArray[np.uint8]], fps: Fraction, settings: dict[str, str], place: Path
) -> dict[str, float]:
    """Encode pictures and compare what comes back with them."""
    planes = [av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format="yuv420p") for picture in pictures]
    with av.open(str(place), "w") as output:
        stream = output.add_stream("libx264", rate=fps, options=settings)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", 1 / fps
        packets, started = [], time.process_time()
        for number, picture in enumerate(planes):
            picture.pts, picture.time_base = number, 1 / fps
            packets += stream.encode(picture)
        packets += stream.encode(None)
        seconds = time.process_time() - started
        for packet in packets:
            output.mux(packet)
    with av.open(str(place)) as source:
        shown = [np.asarray(picture.to_ndarray(format="bgr24"), np.uint8) for picture in source.decode(video=0)]
    alike = [ssim(one, other) for one, other in zip(shown[::3], pictures[::3], strict=True)]
    size = sum(packet.size for packet in packets)
    count = len(pictures)
    return {"cpu_ms": 1e3 * seconds / count, "kilobytes": size / 1e3 / count, "ssim": float(np.mean(alike))}


def compare(clip: Path, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return what each setting gives on the overlays of a clip."""
    with Segmenter(options.model, "cpu") as segmenter:
        frames = [item.frame for item in islice(read_frames(clip), options.frames)]
        pictures = [segmenter(frame).overlay(frame) for frame in frames]
    defaults = VideoOptions()
    own = {"preset": defaults.preset, "crf": str(defaults.crf), "x264-params": writer._X264}
    tried = [dict(word.split("=", 1) for word in text.split(",")) for text in options.tries]
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for settings in (YARDSTICK, own, *tried):
            name = ",".join(f"{key}={value}" for key, value in settings.items())
            found.setdefault(name, []).append(encoded(pictures, probe(clip).fps, settings, folder / "out.mp4"))
    best = {name: min(runs, key=lambda run: run["cpu_ms"]) for name, runs in found.items()}
    first = next(iter(best.values()))
    return {
        name: {
            **{key: round(value, 4 if key == "ssim" else 2) for key, value in run.items()},
            "times_cpu": round(run["cpu_ms"] / first["cpu_ms"], 2),
            "times_size": round(run["kilobytes"] / first["kilobytes"], 2),
            "ssim_more": round(run["ssim"] - first["ssim"], 4),
        }
        for name, run in best.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    parser.add_argument("--model", default="street")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--try", dest="tries", action="append", default=[], metavar="OPTION=VALUE,...")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        report = {clip.name: compare(clip, options, Path(folder)) for clip in options.clips}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
