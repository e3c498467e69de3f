"""From a cold start to the first mask, against a bare ONNX Runtime session; and how soon `--help` answers.

    python -m tests.benchmarks.startup [--model MODEL.onnx] [--rounds 7]

Prints JSON. Each figure is a whole process, from its start to its end, and the median of several that ran in turn; the
differences are within this run. Without --model it is a network of one convolution, so that nearly all is start-up.
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

import cv2

from lsr_infer.parity.frame_set import shipped_frames
from lsr_infer.segmenter import Segmenter
from tests.lsr_infer.onnxfile import colour_model, manifest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "import sys; from lsr_infer.cli import main; sys.exit(main())"
BARE = """
import sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {"image": numpy.zeros((1, int(sys.argv[2]), int(sys.argv[3]), 3), numpy.uint8)})
"""
LIBRARY = """
import sys
import cv2
from lsr_infer import Segmenter
print(Segmenter(sys.argv[1])(cv2.imread(sys.argv[2])).classes.shape)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or colour_model(folder / "model.onnx", manifest(height=256, width=512))
        frame = shipped_frames(1).frames[0]
        picture = folder / "frame.png"
        cv2.imwrite(str(picture), frame)
        with Segmenter(model, "cpu") as segmenter:
            height, width = segmenter.working_size(*frame.shape[:2])
        words = {
            "interpreter": ["-c", "pass"],
            "help": ["-c", COMMAND, "--help"],
            "train_help": ["-m", "lsr_train", "--help"],
            "adapt_help": ["-m", "lsr_train", "adapt", "--help"],
            "bare_session": ["-c", BARE, model, height, width],
            "library": ["-c", LIBRARY, model, picture],
            "command": ["-c", COMMAND, picture, "-m", model, "--save", "mask", "--overwrite", "-o", folder / "out"],
        }
        taken: dict[str, list[float]] = {name: [] for name in words}
        for round_number in range(options.rounds + 1):
            for name, arguments in words.items():
                started = time.perf_counter()
                subprocess.run(
                    [sys.executable, *map(str, arguments)], cwd=ROOT, check=True, capture_output=True, env=os.environ
                )
                if round_number:  # the first round brings the files into memory
                    taken[name].append(time.perf_counter() - started)
    median = {name: statistics.median(values) for name, values in taken.items()}
    report = {
        "model": "one convolution" if options.model is None else options.model.name,
        "rounds": options.rounds,
        "median_seconds": {name: round(value, 3) for name, value in median.items()},
        "least_seconds": {name: round(min(values), 3) for name, values in taken.items()},
        "command_minus_bare_session_seconds": round(median["command"] - median["bare_session"], 3),
        "library_minus_bare_session_seconds": round(median["library"] - median["bare_session"], 3),
        "help_minus_interpreter_seconds": round(median["help"] - median["interpreter"], 3),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
