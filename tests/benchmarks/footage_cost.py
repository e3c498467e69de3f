"""What an hour of footage costs `lsr-infer`: processor time, and what it reads and writes.

    python -m tests.benchmarks.footage_cost [--clip CLIP] [--model street] [--repeats 8] [--threads 1] [--rounds 1]

Prints JSON. A clip and the same clip several times in a row are segmented by the whole command for each choice of
results; the difference is what further frames take, so that no start counts. Processor time hardly depends on what else
runs on the machine. Without --clip the shipped highway clip is enlarged to 1280x720.
"""

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lsr_infer.shipped import model_path
from lsr_infer.video.reader import probe, read_frames
from tests.benchmarks.against_opencv import COMMAND, enlarged, measured, repeated

CHOICES: dict[str, tuple[str, ...]] = {
    "class shares": ("--save", "json"),
    "class shares, 2 frames a second": ("--save", "json", "--fps", "2"),
    "masks and class shares": ("--save", "mask,json"),
    "overlay and class shares": ("--save", "overlay,json"),
}
FPS = 25


def taken(words: list[str], out: Path) -> tuple[float, int]:
    """Return the processor seconds of one command and the bytes of its results."""
    _, seconds = measured(["-c", COMMAND, *words, "-o", str(out)], out.parent / "bytecode")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    shutil.rmtree(out)
    return seconds, size


def cost(words: list[str], clips: tuple[Path, Path], frames: int, rounds: int) -> dict[str, float]:
    """Return what further frames take, those of the longer clip beyond the shorter one's."""
    milliseconds, bytes_written = [], []
    for _ in range(rounds):
        (few, small), (many, large) = (taken([str(clip), *words], clip.parent / "out") for clip in clips)
        milliseconds.append(1e3 * (many - few) / frames)
        bytes_written.append((large - small) / frames)
    frame = statistics.median(milliseconds)
    return {
        "processor_ms_a_frame": round(frame, 2),
        "frames_a_second_and_core": round(1e3 / frame, 1),
        "core_hours_an_hour_of_25_fps": round(frame * FPS / 1e3, 3),
        "mb_written_an_hour_of_25_fps": round(statistics.median(bytes_written) * FPS * 3600 / 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, help="a video of constant size and rate")
    parser.add_argument("--model", default="street", help="a shipped network or a file")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        short = repeated(options.clip or enlarged(folder), 1, folder / "short.mp4")
        long = repeated(short, options.repeats, folder / "long.mp4")
        info, few = probe(short), sum(1 for _ in read_frames(short))
        further = few * (options.repeats - 1)
        model = options.model if Path(options.model).is_file() else str(model_path(options.model))
        read = (long.stat().st_size - short.stat().st_size) / further
        result: dict[str, Any] = {
            "clip": f"{info.width}x{info.height}",
            "frames": further,
            "model": options.model,
            "threads": options.threads,
            "mb_read_an_hour_of_25_fps": round(read * FPS * 3600 / 1e6, 1),
        }
        taken([str(short), "--model", model], folder / "out")  # compiles Python's bytecode
        for choice, save in CHOICES.items():
            words = ["--model", model, "--threads", str(options.threads), *save]
            result[choice] = cost(words, (short, long), further, options.rounds)
            print(choice, result[choice], file=sys.stderr, flush=True)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
