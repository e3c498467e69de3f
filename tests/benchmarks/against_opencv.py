"""The whole `lsr-infer` against the script that most people write, on the same video with the same network.

    python -m tests.benchmarks.against_opencv [--clip CLIP] [--model street] [--rounds 5] [--repeats 8]

Prints JSON, and each process's seconds on stderr. The script is OpenCV's capture, ONNX Runtime with its own defaults,
`argmax`, `addWeighted` and OpenCV's writer (mp4v), one after another. Once it resizes the logits to the frame before
`argmax` (`logits`), as papers define the mask and as `lsr-infer` computes it exactly, and once it takes the classes of
the cells and resizes those (`cells`), which is cheaper and shows blocks. All are whole processes and take turns within
one run, start included; the ratios are medians over the rounds. `a_frame` is without the start: the clip is tried alone
and `--repeats` times in a row, and the difference is divided by the frames. `processor` counts the seconds of all
threads, which disturbances change less than the clock.
Without --clip the shipped highway clip is enlarged to 1280x720.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av

from lsr_infer.io.images import resize_frame
from lsr_infer.segmenter import Segmenter
from lsr_infer.shipped import model_path, shipped_models
from lsr_infer.video.reader import probe, read_frames
from lsr_infer.video.writer import VideoOptions, VideoWriter

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "import sys; from lsr_infer.cli import main; sys.exit(main())"
SCRIPT = """
import json
import sys

import cv2
import numpy as np
import onnxruntime

clip, model, out, upsample, width, height = *sys.argv[1:5], *map(int, sys.argv[5:])
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
space = json.loads(session.get_modelmeta().custom_metadata_map["lsr_manifest"])["label_space"]
palette = np.array(space["colors"], np.uint8)[:, ::-1]
capture = cv2.VideoCapture(clip)
size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
writer = cv2.VideoWriter(out, cv2.VideoWriter_fourcc(*"mp4v"), capture.get(cv2.CAP_PROP_FPS), size)
while True:
    there, frame = capture.read()
    if not there:
        break
    image = cv2.resize(frame, (width, height))
    logits = session.run(None, {session.get_inputs()[0].name: image[None]})[0][0]
    if upsample == "logits":
        classes = cv2.resize(logits.transpose(1, 2, 0), size).argmax(2)
    else:
        classes = cv2.resize(logits.argmax(0).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    writer.write(cv2.addWeighted(frame, 0.5, palette[classes], 0.5, 0))
writer.release()
"""


def enlarged(folder: Path) -> Path:
    """Write the shipped highway clip at 1280x720 and return its place."""
    source = ROOT / "lsr_infer/models/street/clips/udacity_highway.mp4"
    info, place = probe(source), folder / "clip.mp4"
    options = VideoOptions(like=info)
    with VideoWriter(place, width=1280, height=720, fps=info.fps, options=options) as writer:
        for item in read_frames(source):
            writer.write(resize_frame(item.frame, 720, 1280))
    return place


def repeated(clip: Path, times: int, place: Path) -> Path:
    """Write the pictures of a clip so many times in a row, without decoding them."""
    with av.open(str(place), "w") as output:
        stream, offset = None, 0
        for _ in range(times):
            with av.open(str(clip)) as source:
                stream = stream or output.add_stream_from_template(source.streams.video[0])
                end = offset
                for packet in source.demux(source.streams.video[0]):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, stream
                    end = max(end, packet.pts + (packet.duration or 0))
                    output.mux(packet)
                offset = end
    return place


def measured(arguments: list[str], bytecode: Path) -> tuple[float, float]:
    """Return a process's seconds by the clock and of the processor; Python's bytecode is kept, as users have it."""
    settings = {"ORT_DISABLE_TELEMETRY": "1", "PYTHONPYCACHEPREFIX": str(bytecode)}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | settings,
    )  # fmt: skip
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments[1:]} ended with {process.returncode}:\n{said}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


def summary(taken: dict[str, list[float]], digits: int = 3) -> dict[str, Any]:
    """Return each one's median, and the median over the rounds of how many times as long as `lsr-infer` others take."""
    own = taken["lsr_infer"]
    return {
        "median": {name: round(statistics.median(values), digits) for name, values in taken.items()},
        "times_as_fast_as": {
            name: round(statistics.median(other / one for one, other in zip(own, values, strict=True)), 2)
            for name, values in taken.items()
            if name != "lsr_infer"
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, help="a video of constant size and rate")
    parser.add_argument("--model", default="street", help=f"a model that gives logits: {', '.join(shipped_models())}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=8)
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder, model = Path(name), model_path(options.model)
        clip = repeated(options.clip or enlarged(folder), 1, folder / "short.mp4")
        clips = {"short": clip, "long": repeated(clip, options.repeats, folder / "long.mp4")}
        info = probe(clip)
        with Segmenter(model, "cpu") as segmenter:
            height, width = segmenter.working_size(info.height, info.width)
        taken: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for round_number in range(options.rounds + 1):
            for length, place in clips.items():
                script = ["-c", SCRIPT, str(place), str(model), str(folder / "out.mp4")]
                commands = {
                    "lsr_infer": ["-c", COMMAND, str(place), "-m", str(model), "--overwrite", "-o", str(folder)],
                    "logits": [*script, "logits", str(width), str(height)],
                    "cells": [*script, "cells", str(width), str(height)],
                }
                for who, arguments in commands.items():
                    found = measured(arguments, folder / "bytecode")
                    print(round_number, length, who, *(f"{seconds:.2f} s" for seconds in found), file=sys.stderr)
                    if round_number:  # the first round compiles, and brings the files into memory
                        taken.setdefault((length, who), []).append(found)
        frames = {length: sum(1 for _ in read_frames(place)) for length, place in clips.items()}
        written = probe(folder / "long_overlay.mp4").frames
    report: dict[str, Any] = {
        "clip": f"{info.width}x{info.height}, {frames['short']} and {frames['long']} frames",
        "network_input": f"{width}x{height}",
        "frames_written": written,
        "rounds": options.rounds,
    }
    for index, kind in enumerate(("clock", "processor")):
        for length in clips:
            seconds = {who: [one[index] for one in found] for (at, who), found in taken.items() if at == length}
            report[f"{kind}_seconds_whole_{length}"] = summary(seconds)
        step = frames["long"] - frames["short"]
        report[f"{kind}_ms_a_frame"] = summary(
            {
                who: [
                    1e3 * (long[index] - short[index]) / step
                    for short, long in zip(taken["short", who], taken["long", who], strict=True)
                ]
                for who in ("lsr_infer", "logits", "cells")
            },
            1,
        )
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
