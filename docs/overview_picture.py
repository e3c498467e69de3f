"""Draws the README's picture: real frames, segmented before and after adaptation, with a legend.

    python docs/overview_picture.py [--output docs/overview.jpg]

Frames and both networks are those that the package ships.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer import Segmenter
from lsr_infer.io.images import read_image, resize_frame

SHIPPED = Path(__file__).resolve().parents[1] / "lsr_infer" / "models"
FRAMES = ("udacity_solidWhiteRight_150.jpg", "udacity_test_video_020.jpg")
SIZE = (288, 512)
SHOWN = ("road", "sidewalk", "building", "wall", "fence", "vegetation", "terrain", "sky", "car", "truck")
FONT, INK = cv2.FONT_HERSHEY_SIMPLEX, (40, 40, 40)


def caption(text: str, width: int) -> NDArray[np.uint8]:
    """Return a white bar [34,width,3] with a line of text."""
    bar = np.full((34, width, 3), 255, np.uint8)
    cv2.putText(bar, text, (8, 24), FONT, 0.62, INK, 1, cv2.LINE_AA)
    return bar


def legend(names: tuple[str, ...], colors: tuple[tuple[int, int, int], ...], width: int) -> NDArray[np.uint8]:
    """Return a white bar [40,width,3] with a coloured box and a name for each class."""
    bar = np.full((40, width, 3), 255, np.uint8)
    step = width // len(SHOWN)
    for place, name in enumerate(SHOWN):
        x = place * step + 8
        color = colors[names.index(name)][::-1]
        cv2.rectangle(bar, (x, 12), (x + 16, 28), color, cv2.FILLED)
        cv2.putText(bar, name, (x + 22, 26), FONT, 0.5, INK, 1, cv2.LINE_AA)
    return bar


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description="Draw the README's picture.")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("overview.jpg"))
    output = parser.parse_args().output
    source, adapted = (Segmenter(name, device="cpu") for name in ("street-source", "street"))
    rows = []
    for name in FRAMES:
        frame = resize_frame(read_image(SHIPPED / "street" / "images" / name), *SIZE)
        pictures = (frame, *(model(frame).overlay(frame, alpha=0.65) for model in (source, adapted)))
        rows.append(np.hstack(pictures))
    third = rows[0].shape[1] // 3
    titles = ("your camera, no labels", "trained on the simulator alone", "adapted to the camera")
    head = np.hstack([caption(title, third) for title in titles])
    space = source.manifest.label_space
    picture = np.vstack([head, *rows, legend(space.names, space.colors, rows[0].shape[1])])
    if not cv2.imwrite(str(output), picture, [cv2.IMWRITE_JPEG_QUALITY, 88]):
        raise OSError(f"{output} cannot be written")


if __name__ == "__main__":
    main()
