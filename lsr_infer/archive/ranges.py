"""Cuts long clips into ranges at key frames, and joins the results of the ranges to those of one run.

Masks, confidence and class shares are those of one run, byte for byte. An overlay video has its frames, time stamps and
sound; its pictures were encoded range by range.
"""

import json
import os
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from lsr_infer.errors import InputError
from lsr_infer.io.files import AtomicOutputs, writing
from lsr_infer.pipeline.outputs import FRAME_FILES
from lsr_infer.video.containers import formats, open_container
from lsr_infer.video.joining import join_videos
from lsr_infer.video.reader import picture_stream, probe
from lsr_infer.video.writer import AudioSource, MaskVideoWriter, overlay_time_base

__all__ = ["CUT_SUFFIXES", "join_ranges", "mean_shares", "range_starts"]

CUT_SUFFIXES = (".mp4", ".mov", ".m4v", ".qt", ".3gp", ".3g2")
"""Names of files whose format is cut end with these."""


def range_starts(path: Path, seconds: float) -> tuple[float, ...]:
    """Return where ranges of about so many seconds begin: in seconds from the beginning, each at a key frame.

    One range alone where the clip is short, or of a format that is not cut: in MP4 alone the index says for every
    picture when it is shown, and no clock starts again in the middle.
    """
    with open_container(path) as container:
        stream = picture_stream(container, str(path))
        unit, length = stream.time_base, stream.duration or 0
        if "mp4" not in formats(container) or unit is None:
            return (0.0,)
        origin = float((stream.start_time or 0) * unit)
        starts = [0.0]
        for target in np.arange(seconds, float(length * unit) - seconds / 2, seconds).tolist():
            container.seek(int((origin + target) / float(unit)), stream=stream, backward=True)
            key = next(container.demux(stream))
            if key.pts is not None and key.is_keyframe and float(key.pts * unit) - origin > starts[-1]:
                starts.append(float(key.pts * unit) - origin)
        return tuple(starts)


def join_ranges(source: Path, folders: Sequence[Path], starts: Sequence[float], target: Path) -> None:
    """Join the results of all ranges of a clip.

    Args:
        source: the clip, whose sound is copied.
        folders: of the results of each range; class shares are among them.
        starts: seconds at which each range begins, see `range_starts`.
        target: the folder of the clip's own results, which appear together under the same names.

    Raises:
        InputError: the ranges do not fit together, or the place cannot be written.
    """
    info = probe(source)
    counts = [_count(lines) for folder in folders for lines in folder.glob("*.jsonl")]
    with AtomicOutputs() as results:
        for first in sorted(folders[0].iterdir()):
            path, parts = target / first.name, [folder / first.name for folder in folders]
            if path.suffix == ".jsonl":
                _join_lines(parts, results.file(path, overwrite=False), path)
            elif path.suffix in (".mp4", ".mkv"):
                overlay = path.suffix == ".mp4"
                unit = overlay_time_base(info) if overlay else MaskVideoWriter.time_base
                begins = [round(Fraction(start) / unit) for start in starts]
                frames = join_videos(
                    list(zip(parts, begins, strict=True)), path, time_base=unit, outputs=results,
                    audio=AudioSource(place=source) if overlay else None, origin=info.origin,
                )  # fmt: skip
                if frames != sum(counts):
                    raise InputError(f"{source}: its ranges have {sum(counts)} frames, their video {frames}.")
            else:
                _join_pictures(parts, counts, results.folder(path, overwrite=False, own=FRAME_FILES), path)


def _count(lines: Path) -> int:
    """Return how many frames a file of class shares has; its first line is no frame."""
    with lines.open("rb") as file:
        return sum(1 for _ in file) - 1


def _join_lines(parts: Sequence[Path], temporary: Path, path: Path) -> None:
    """Write the lines of all ranges with one head, frames numbered through."""
    number, last = 0, float("-inf")
    with writing(path), temporary.open("w", encoding="utf-8", errors="backslashreplace") as output:
        for part in parts:
            with part.open(encoding="utf-8") as lines:
                head = next(lines)
                if part == parts[0]:
                    output.write(head)
                for line in lines:
                    entry = json.loads(line)
                    if entry["time"] <= last:
                        raise InputError(f"{part}: begins before the end of the range in front of it.")
                    last = entry["time"]
                    output.write(json.dumps(entry | {"frame": number}, ensure_ascii=False) + "\n")
                    number += 1


def _join_pictures(parts: Sequence[Path], counts: Sequence[int], folder: Path, path: Path) -> None:
    """Link the pictures of all ranges into one folder, numbered through."""
    number = 0
    with writing(path):
        for part, count in zip(parts, counts, strict=True):
            for index in range(count):
                _link(part / f"{index:06d}.png", folder / f"{number:06d}.png")
                number += 1


def _link(one: Path, other: Path) -> None:
    """Give a file a second name; a copy where that is on another disk, or on one without links."""
    try:
        os.link(one, other)
    except OSError:
        shutil.copyfile(one, other)


def mean_shares(path: Path) -> tuple[int, dict[str, int], dict[str, float]]:
    """Return of a file of class shares: frames, the size (`width`, `height`), and the mean share of each class."""
    frames, sums = 0, dict[str, float]()
    with path.open(encoding="utf-8") as lines:
        head = json.loads(next(lines))
        for line in lines:
            frames += 1
            for name, share in json.loads(line)["shares"].items():
                sums[name] = sums.get(name, 0.0) + share
    size = {side: int(head[side]) for side in ("width", "height")}
    return frames, size, {name: round(sums.get(name, 0.0) / max(frames, 1), 6) for name in head["classes"]}
