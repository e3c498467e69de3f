"""Writes frames or a clip of Toytown as files: `python -m lsr_train.toytown frames|clip`."""

import argparse
import logging
import sys
from fractions import Fraction
from pathlib import Path

import cv2

from lsr_infer.commands.parser import StrictParser
from lsr_infer.errors import UsageError, exit_status, stderr_handler
from lsr_infer.io.files import check_output_folder, refuse_existing, write_bytes
from lsr_infer.system.progress import with_progress
from lsr_infer.video.writer import VideoWriter
from lsr_train.toytown import clip, render


def _parser() -> argparse.ArgumentParser:
    parser = StrictParser(
        prog="python -m lsr_train.toytown", description="Write frames or a clip of Toytown.", allow_abbrev=False
    )
    parser.add_argument("what", choices=("clip", "frames"), help="an H.264 video, or images/ and labels/ of PNG files")
    parser.add_argument("--domain", choices=("game", "camera"), default="camera")
    parser.add_argument("--seed", type=int, default=0, help="number of the (first) scene")
    parser.add_argument("--frames", type=int, default=50, help="how many")
    parser.add_argument("--fps", type=int, default=12)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--jpeg", action="store_true", help="images as JPEG instead of PNG (labels stay PNG)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .mp4 file, or the folder of the frames")
    return parser


def _write_clip(options: argparse.Namespace) -> None:
    size = {"height": options.height, "width": options.width}
    check_output_folder(options.output.parent)
    with VideoWriter(options.output, fps=Fraction(options.fps), overwrite=options.overwrite, **size) as writer:
        frames = clip(options.domain, options.seed, frames=options.frames, fps=options.fps, **size)
        for frame, _ in with_progress(frames, options.output.name, options.frames):
            writer.write(frame)


def _write_frames(options: argparse.Namespace) -> None:
    """Write one scene a frame, with its labels (Cityscapes train ids)."""
    suffixes = {"images": ".jpg" if options.jpeg else ".png", "labels": ".png"}
    for folder in suffixes:
        check_output_folder(options.output / folder)
    for seed in with_progress(range(options.seed, options.seed + options.frames), "rendering", options.frames):
        arrays = render(options.domain, seed, height=options.height, width=options.width)
        for (folder, suffix), array in zip(suffixes.items(), arrays, strict=True):
            path = options.output / folder / f"{options.domain}_{seed:05d}{suffix}"
            refuse_existing(path, overwrite=options.overwrite)
            write_bytes(path, cv2.imencode(suffix, array)[1].tobytes(), overwrite=options.overwrite)


def _run() -> None:
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, handlers=[stderr_handler()])
    if options.frames < 1 or options.fps < 1:
        raise UsageError(f"--frames is {options.frames} and --fps {options.fps}; at least 1 is needed.")
    {"clip": _write_clip, "frames": _write_frames}[options.what](options)


def main() -> None:
    """Entry point of `python -m lsr_train.toytown`."""
    sys.exit(exit_status(_run, needs="train"))


if __name__ == "__main__":
    main()
