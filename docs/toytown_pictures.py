"""Remakes docs/toytown_game.png and docs/toytown_camera.png: four streets of each domain.

Run from anywhere as `python docs/toytown_pictures.py`.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from lsr_infer.io.files import write_bytes
from lsr_train.toytown import render

SIZE = {"height": 172, "width": 344}
SCENES = {"game": (32, 38, 49, 60), "camera": (31, 33, 43, 62)}


def contact_sheet(domain: str) -> bytes:
    """Return a PNG of four frames of a domain."""
    frames = [render(domain, seed, **SIZE)[0] for seed in SCENES[domain]]
    rows = [np.hstack(frames[index : index + 2]) for index in (0, 2)]
    return cv2.imencode(".png", np.vstack(rows), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


def main() -> None:
    """Write both sheets beside this file, or where told."""
    parser = argparse.ArgumentParser(description="Remake the contact sheets of Toytown.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder to write into")
    output = parser.parse_args().output
    for domain in SCENES:
        write_bytes(output / f"toytown_{domain}.png", contact_sheet(domain))


if __name__ == "__main__":
    main()
