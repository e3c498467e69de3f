"""Remake docs/before_after.png: a street frame, segmented before and after adaptation.

    python docs/before_after.py CLIP.mp4 --before source.onnx --after adapted.onnx [--frame 100]

The frame shown in the README is of an MIT-licensed clip (Udacity, CarND-LaneLines-P1); the networks are those of the
real pair, which are not part of the project.
"""

import argparse
import itertools
from pathlib import Path

import cv2
import numpy as np

from lsr_infer.files import write_bytes
from lsr_infer.overlay import overlay
from lsr_infer.segmenter import Segmenter
from lsr_infer.video import read_frames

WIDTH = 440


def main() -> None:
    """Write the picture beside this file, or where told."""
    parser = argparse.ArgumentParser(description="Remake the before/after picture of the README.")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, required=True)
    parser.add_argument("--frame", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "before_after.png")
    options = parser.parse_args()
    frame = next(itertools.islice(read_frames(options.clip), options.frame, None)).frame
    panels = [frame]
    for model in (options.before, options.after):
        with Segmenter(model, device="cpu") as segmenter:
            panels.append(overlay(frame, segmenter(frame).classes, segmenter.label_space, alpha=0.55))
    height = round(frame.shape[0] * WIDTH / frame.shape[1])
    small = [cv2.resize(panel, (WIDTH, height), interpolation=cv2.INTER_AREA) for panel in panels]
    picture = np.hstack(small)
    write_bytes(options.output, cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())


if __name__ == "__main__":
    main()
