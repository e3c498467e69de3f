"""Draws one street frame, segmented by several networks, each with its name: docs/methods.png.

    python docs/street_frame.py CLIP.mp4 "source-only=source.onnx" "LSR=lsr.onnx" … --output PICTURE.png [--frame 100]

`make street-pictures` makes it. The frame is of an MIT-licensed clip (Udacity, CarND-LaneLines-P1); the networks are
those of the real pair (`tests/benchmarks/real_pair.py` trains them), which are not part of the project.
"""

import argparse
import itertools
from pathlib import Path

import cv2
import numpy as np

from lsr_infer.io.files import write_bytes
from lsr_infer.io.images import resize_frame
from lsr_infer.render.overlay import explained
from lsr_infer.segmenter import Segmentation, Segmenter
from lsr_infer.video.reader import read_frames

SIZE = (180, 320)
COLUMNS = 3


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
    names, panels, results = ["the frame"], [resize_frame(frame, *SIZE)], list[Segmentation]()
    for item in options.models:
        name, _, model = item.partition("=")
        with Segmenter(Path(model), device="cpu") as segmenter:
            results.append(segmenter(frame))
        names.append(name)
        panels.append(resize_frame(results[-1].overlay(frame, alpha=0.55), *SIZE))
    classes = np.stack([result.classes for result in results])
    picture = explained(panels, names, results[0].label_space, classes, columns=COLUMNS)
    encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    write_bytes(options.output, encoded.tobytes())


if __name__ == "__main__":
    main()
