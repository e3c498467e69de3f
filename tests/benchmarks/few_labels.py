"""What a few labels of the target are worth: 5, 20 and 50 frames, suggested and drawn at random, on streets -> CamVid.

    python tests/benchmarks/few_labels.py --shared ../shared --out runs/few_labels

Each draw has a seed and a source network of its own. Its adaptation without labels is the row of 0 frames, and asks for
the frames (`suggest` ranks, so that fewer frames are the first of more). Each further row trains from the same source
network, as long, with the true labels of its frames. All are scored on CamVid's val. What is there is not done again.
JSON on stdout holds every score and every command; mean and sample deviation are over draws.
"""

import argparse
import csv
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
LSR = [sys.executable, "-m", "lsr_train"]


class Commands:
    """Runs commands one after the other, with a log, and remembers them."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.lines: list[str] = []

    def __call__(self, *words: str, done: Path) -> None:
        """Run a command of `lsr_train` unless what it makes is there."""
        self.lines.append(shlex.join(["python", "-m", "lsr_train", *words]))
        if done.exists():
            return
        with (self.out / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"$ {self.lines[-1]}\n")
            log.flush()
            environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
            subprocess.run([*LSR, *words], check=True, stdout=log, stderr=log, env=environment, cwd=REPOSITORY)

    def train(self, *words: str, run: Path) -> None:
        """Run a training, or what is left of it."""
        finished = (run / "status.json").is_file() and json.loads((run / "status.json").read_text())["state"]
        if finished != "finished" and (run / "config.yaml").is_file():
            self(words[0], "--resume", str(run), done=run / "nothing")
            self.lines.pop()
        self(*words, "--out", str(run), done=run / "config.yaml")


def suggested(frames: Path) -> list[str]:
    """Return the frames that `suggest` chose, best first, by their paths below the data set."""
    with frames.open(encoding="utf-8", newline="") as file:
        chosen = [row for row in csv.DictReader(file) if row["rank"]]
    return [row["frame"] for row in sorted(chosen, key=lambda row: int(row["rank"]))]


def at_random(camvid: Path, seed: int) -> list[str]:
    """Return all train frames in an order of the seed's."""
    files = sorted((camvid / "images/train").iterdir())
    return [str(files[index].relative_to(camvid)) for index in np.random.default_rng(seed).permutation(len(files))]


def label(camvid: Path, frames: Sequence[str], folder: Path) -> None:
    """Make a labelled folder of links to frames and their true labels, as a person would have drawn them."""
    for frame in frames:
        for side in ("images", "labels"):
            path = camvid / Path(side, *Path(frame).parts[1:]).with_suffix(
                ".png" if side == "labels" else Path(frame).suffix
            )
            (folder / side).mkdir(parents=True, exist_ok=True)
            if not (folder / side / path.name).exists():
                (folder / side / path.name).symlink_to(path)


def draw(run: Commands, options: argparse.Namespace, seed: int) -> list[dict[str, object]]:
    """Train and score every row of one draw."""
    shared, counts = options.shared.resolve(), sorted(int(word) for word in options.counts.split(","))
    streets, camvid = shared / "data/streets", shared / "data/camvid"
    own = run.out / f"draw-{seed}"
    own.mkdir(exist_ok=True)
    pair = ("--source", str(streets), "--target", str(camvid), "--seed", str(seed), *options.more)
    weights = ("--network.weights", str(shared / "data/weights/resnet50_thin.pth"))
    run.train("pretrain", "--recipe", "streets_camvid_source", *pair, *weights, run=own / "source")
    start = ("--init", str(own / "source/checkpoints/last"))
    adapt = ("adapt", "--recipe", "streets_camvid_lsr_st", *start, *pair)
    scores: list[dict[str, object]] = []

    def scored(folder: Path, frames: int, chosen: str) -> None:
        result = folder.with_suffix(".json")
        data = ("--data", str(camvid), "--layout", "camvid", "--split", "val", "--label_space", "camvid11")
        data += ("--limit", str(options.limit))
        run("evaluate", str(folder / "checkpoints/last"), *data, "--out", str(result), done=result)
        miou = json.loads(result.read_text(encoding="utf-8"))["miou"]
        scores.append({"draw": seed, "labels": frames, "chosen": chosen, "miou": miou})

    run.train(*adapt, run=own / "adapted")
    scored(own / "adapted", 0, "none")
    asked = (
        "--target",
        str(camvid),
        "--target_layout",
        "camvid",
        "--target_split",
        "train",
        "--frames",
        str(options.frames),
    )
    ask = ("suggest", str(own / "adapted/checkpoints/last"), *asked, "-n", str(max(counts)))
    run(*ask, "--out", str(own / "suggested"), done=own / "suggested")
    orders = {"suggested": suggested(own / "suggested/frames.csv"), "random": at_random(camvid, seed)}
    for chosen, frames in orders.items():
        for count in counts:
            name = f"{chosen}-{count}"
            label(camvid, frames[:count], own / f"{name}-labels")
            words = ("--labelled", str(own / f"{name}-labels"), "--data.labelled.ids", "cityscapes-trainid")
            run.train(*adapt, *words, run=own / name)
            scored(own / name, min(count, len(frames)), chosen)
    return scores


def main() -> None:
    """Do every draw and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=REPOSITORY.parent / "shared")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs/few_labels")
    parser.add_argument("--counts", default="5,20,50", help="numbers of labelled frames")
    parser.add_argument("--seeds", default="0,1,2", help="of the draws; two processes may share --out and divide them")
    parser.add_argument("--frames", type=int, default=0, help="of the target that `suggest` looks at; 0 means all")
    parser.add_argument("--limit", type=int, default=0, help="of the frames that are scored; 0 means all")
    parser.add_argument("more", nargs="*", help="after --: options of every training, such as --train.steps 4")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    run = Commands(out)
    scores = [row for seed in map(int, arguments.seeds.split(",")) for row in draw(run, arguments, seed)]
    groups: dict[tuple[object, object], list[float]] = {}
    for row in scores:
        groups.setdefault((row["labels"], row["chosen"]), []).append(float(str(row["miou"])))
    rows = [
        {
            "labels": labels,
            "chosen": chosen,
            "miou": statistics.mean(miou),
            "deviation": statistics.stdev(miou) if len(miou) > 1 else None,
            "draws": miou,
        }
        for (labels, chosen), miou in groups.items()
    ]
    document = {"rows": rows, "scores": scores, "commands": run.lines}
    (out / "few_labels.json").write_text(json.dumps(document, indent=2), encoding="utf-8")
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
