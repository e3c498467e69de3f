"""Draws one street frame, segmented by several networks, each with its name: docs/methods.png and before_after.png.

    python docs/street_frame.py CLIP.mp4 "source-only=source.onnx" "LSR=lsr.onnx" … --output PICTURE.png [--frame 100]

`make street-pictures` makes both. The frame is of an MIT-licensed clip (Udacity, CarND-LaneLines-P1); the networks are
those of the real pair (`tests/benchmarks/real_pair.py` trains them), which are not part of the project.
"""

import argparse
import itertools
from pathlib import Path

import cv2
import numpy as np

from lsr_infer.io.files import write_bytes
from lsr_infer.render.overlay import overlay
from lsr_infer.segmenter import Segmenter
from lsr_infer.video.reader import read_frames

WIDTH = 320
COLUMNS = 3


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """Return the picture [H,W,3] at `WIDTH`, its name on a bar above it."""
    height = round(picture.shape[0] * WIDTH / picture.shape[1])
    bar = np.full((22, WIDTH, 3), 255, np.uint8)
    cv2.putText(bar, text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([bar, cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA)])


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description="Draw one street frame, segmented by several networks.")
    parser.add_argument("clip", type=Path)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--frame", type=int, default=100)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    found = next(itertools.islice(read_frames(options.clip), options.frame, None), None)
    if found is None:
        parser.error(f"{options.clip} has no frame {options.frame}")
    frame = found.frame
    panels = [captioned(frame, "the frame")]
    for item in options.models:
        name, _, model = item.partition("=")
        with Segmenter(Path(model), device="cpu") as segmenter:
            panels.append(captioned(overlay(frame, segmenter(frame).classes, segmenter.label_space, alpha=0.55), name))
    while len(panels) % COLUMNS:
        panels.append(np.full_like(panels[0], 255))
    rows = [np.hstack(panels[start : start + COLUMNS]) for start in range(0, len(panels), COLUMNS)]
    encoded = cv2.imencode(".png", np.vstack(rows), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    write_bytes(options.output, encoded.tobytes())


if __name__ == "__main__":
    main()
