"""Draws the README's picture: frames of real roads, segmented before and after adaptation.

    python docs/overview_picture.py ../shared/data [--output docs/overview.jpg]

Both networks are those that the package ships. The frames are of the LUMS Road Dataset (CC BY 4.0) and of a clip of
Udacity's (MIT).
"""

import argparse
import itertools
from pathlib import Path

import cv2
import numpy as np

from lsr_infer import Segmenter
from lsr_infer.io.files import write_bytes
from lsr_infer.io.images import read_image, resize_frame
from lsr_infer.render.overlay import explained
from lsr_infer.video.reader import read_frames

CAMPUS, CLIP, CLIP_FRAME = "footage_open/lums/campus_0032.jpg", "clips/udacity_test_video.mp4", 4
SIZE = (288, 512)
TITLES = ("your camera, no labels", "trained on the simulator", "adapted to the camera")


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description="Draw the README's picture.")
    parser.add_argument("data", type=Path, help="folder with footage_open/ and clips/")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("overview.jpg"))
    options = parser.parse_args()
    clip = next(itertools.islice(read_frames(options.data / CLIP), CLIP_FRAME, None)).frame
    source, adapted = (Segmenter(name, device="cpu") for name in ("street-source", "street"))
    pictures, classes = [], []
    for frame in (read_image(options.data / CAMPUS), clip):
        shown = resize_frame(frame, *SIZE)
        found = [model(shown) for model in (source, adapted)]
        pictures += [shown, *(result.overlay(shown, alpha=0.6) for result in found)]
        classes += [result.classes for result in found]
    captions = (*TITLES, *[""] * len(TITLES))
    picture = explained(pictures, captions, source.label_space, np.stack(classes), columns=len(TITLES))
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    write_bytes(options.output, encoded.tobytes())


if __name__ == "__main__":
    main()
