"""Whether `adapt --budget` ends on its clock: budgets and lengths of footage drawn at random, each a real command.

    python tests/benchmarks/budgets.py --source DIR --clip CLIP.mp4 --count 20 --out runs/budgets [ADAPT OPTION ...]

Budgets lie between --shortest and --longest, footage between 5 seconds and 5 minutes (the clip again and again, or its
beginning), both drawn evenly in their logarithm. A refused budget is followed by the one that the refusal names. JSON
on stdout: of each command the seconds that it took as a share of its budget, its steps and the first line of its
summary. What is there is not done again.
"""

import argparse
import json
import math
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av

from lsr_train.autopilot.budget import format_duration
from lsr_train.runs.folder import RunFolder

REPOSITORY = Path(__file__).resolve().parents[2]
FOOTAGE = (5.0, 300.0)
"""Seconds of footage, at least and at most."""


def clip_of(length: float, clip: Path, out: Path) -> None:
    """Write so many seconds of a clip, from its beginning as often as needed; its packets are copied."""
    with av.open(str(out), "w") as written:
        stream, offset = None, 0
        while True:
            with av.open(str(clip)) as read:
                video = read.streams.video[0]
                stream = stream or written.add_stream_from_template(video)
                assert video.time_base is not None
                end = offset
                for packet in read.demux(video):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.dts, packet.pts = packet.dts + offset, packet.pts + offset
                    end = max(end, packet.pts + (packet.duration or 1))
                    if packet.pts * video.time_base < length:
                        packet.stream = stream
                        written.mux(packet)
                offset = end
                if offset * video.time_base >= length:
                    return


def adapt(words: list[str], budget: str, out: Path) -> dict[str, Any]:
    """Run one command; a run that is there is only read."""
    record = out.with_suffix(".json")
    if record.is_file():
        return dict(json.loads(record.read_text(encoding="utf-8")))
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "lsr_train", "adapt", *words, "--budget", budget, "--out", str(out)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    result: dict[str, Any] = {"budget": budget, "seconds": round(time.monotonic() - begin, 1), "code": done.returncode}
    if done.returncode == 0:
        config = json.loads((out / "status.json").read_text(encoding="utf-8"))
        result["steps"] = config["step"]
        result["choices"] = [
            line for line in RunFolder(out).stages()["choices"] if line.startswith(("network", "size"))
        ]
        result["verdict"] = (out / "summary.txt").read_text(encoding="utf-8").splitlines()[0]
    else:
        result["error"] = done.stderr.strip().splitlines()[-1:]
    record.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def seconds_of(budget: str) -> float:
    """Return the seconds of a duration as the command writes it."""
    return float(budget[:-1]) * {"s": 1, "m": 60, "h": 3600}[budget[-1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--shortest", type=float, default=120, help="seconds")
    parser.add_argument("--longest", type=float, default=7200, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options, more = parser.parse_known_args()
    draw = random.Random(options.seed)
    results = []
    for number in range(options.count):
        budget = math.exp(draw.uniform(math.log(options.shortest), math.log(options.longest)))
        length = math.exp(draw.uniform(*map(math.log, FOOTAGE)))
        folder = options.out / f"{number:02}"  # a folder each, so that no source stage is used again
        folder.mkdir(parents=True, exist_ok=True)
        clip = folder / "clip.mp4"
        if not clip.is_file():
            clip_of(length, options.clip, clip)
        words = ["--source", options.source, "--target", str(clip), *more]
        found = [adapt(words, format_duration(budget), folder / "first")]
        named = re.search(r"Set --budget (\S+?),", " ".join(found[0].get("error", [])))
        if named:
            found.append(adapt(words, named[1], folder / "named"))
        for result in found:
            result |= {"footage_seconds": round(length, 1), "share": result["seconds"] / seconds_of(result["budget"])}
            results.append(result)
            print(json.dumps(result), file=sys.stderr)
    taken = [result["share"] for result in results if result["code"] == 0]
    refused = [result for result in results if result["code"]]
    report = {"results": results, "trained": len(taken), "refused": len(refused)}
    print(json.dumps(report | ({"least_share": min(taken), "greatest_share": max(taken)} if taken else {}), indent=1))


if __name__ == "__main__":
    main()
