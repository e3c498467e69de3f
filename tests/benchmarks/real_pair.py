"""The table of the real pair: rendered streets -> CamVid, every row by the product's own commands.

    python tests/benchmarks/real_pair.py --shared ../shared --out runs/real_pair --seeds 2

Two runs of one thread each go on at a time. Every row is a run folder and a result file; what is there is not done
again, an interrupted run is resumed. At the end the table is printed as Markdown and written as table.json.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from lsr_train.metrics import mean_adapted_to_supervised_ratio

REPOSITORY = Path(__file__).resolve().parents[2]
ABLATIONS = {
    "LSR+EM without L_C": ["--weights.cluster", "0"],
    "LSR+EM without L_P": ["--weights.perpendicularity", "0"],
    "LSR+EM without L_N": ["--weights.norm", "0"],
    "LSR+EM, nearest labels": ["--histogram.mode", "nearest"],
}

ALL_CHECKPOINTS = ("--train.keep", "20")
"""So that `selection_ranking.py` can say how far the selected checkpoint is from the best one of its run."""

LONG = ("--train.steps", "1800", "--train.checkpoint_every", "200", "--selection.every", "200")
"""The control as long as self-training, so that what both differ in is the method alone."""


@dataclass(frozen=True)
class Row:
    """One row of the table for one seed.

    Args:
        name: what the table calls it.
        seed: of the run.
        folder: of the run, below the output folder.
        command: words after `python -m lsr_train`, without --out; empty where the row only evaluates another's run.
        evaluate: further words for `evaluate`.
        start: the folder whose last checkpoint it starts from; empty where it starts from the pretrained backbone.
    """

    name: str
    seed: int
    folder: str
    command: tuple[str, ...]
    evaluate: tuple[str, ...] = ()
    start: str = ""

    @property
    def result(self) -> str:
        return f"{self.name.replace(' ', '_').replace('+', 'p').replace(',', '')}_{self.seed}.json"

    @property
    def selected(self) -> str:
        """The result of the checkpoint that the label-free signal selected."""
        return self.result.replace(".json", "_selected.json")


def rows(shared: Path, seeds: int, ablation_seeds: int) -> tuple[list[Row], list[Row]]:
    """Return the rows that start from nothing, and those that start from the source stage."""
    data, camvid = str(shared / "data/streets"), str(shared / "data/camvid")
    weights = ("--network.weights", str(shared / "data/weights/resnet50_thin.pth"))
    first: list[Row] = []  # the longest first: all others wait for them
    alone: list[Row] = []
    then: list[Row] = []
    without: list[Row] = []
    for seed in range(seeds):
        pair = ("--source", data, "--target", camvid, "--seed", str(seed))
        source = f"source_{seed}"
        first.append(
            Row("source-only", seed, source, ("pretrain", "--recipe", "streets_camvid_source", *pair, *weights))
        )
        supervised = ("pretrain", "--recipe", "streets_camvid_target_only", "--source", camvid, *pair[4:], *weights)
        alone.append(Row("target-only", seed, f"target_only_{seed}", supervised))
        adabn = ("--batch_norm", "target", "--target", camvid, "--target_layout", "camvid", "--target_split", "train")
        then.append(Row("source-only + AdaBN", seed, source, (), adabn))
        for name, recipe, command, *more in (
            ("self-training", "self_training", "adapt", *ALL_CHECKPOINTS),
            ("LSR-ST", "lsr_st", "adapt", *ALL_CHECKPOINTS),
            ("control of their length", "control", "pretrain", *LONG),
            ("control", "control", "pretrain"), ("LSR", "lsr", "adapt"), ("LSR+EM", "lsr_em", "adapt"),
        ):  # fmt: skip
            words = (command, "--recipe", f"streets_camvid_{recipe}", *pair, *more)
            folder = f"{recipe}_{'long_' if LONG[0] in more else ''}{seed}"
            then.append(Row(name, seed, folder, words, start=source))
        for position, (name, leave_out) in enumerate(ABLATIONS.items() if seed < ablation_seeds else ()):
            words = ("adapt", "--recipe", "streets_camvid_lsr_em", *pair, *leave_out)
            without.append(Row(name, seed, f"ablation{position}_{seed}", words, start=source))
    return [*first, *alone], [*then, *without]


def run(words: Sequence[str], log: Path) -> None:
    """Run one command with one thread; its output goes to `log`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(words)}\n")
        file.flush()
        subprocess.run(words, check=True, stdout=file, stderr=file, env=environment, cwd=REPOSITORY)


def checkpoint(folder: Path, pointer: str) -> Path:
    """Return the `last` or the selected (`best`) checkpoint of a run."""
    return folder / "checkpoints" / (folder / "checkpoints" / pointer).read_text().strip()


def do(row: Row, shared: Path, out: Path) -> None:
    """Train (or resume) and evaluate one row, unless its result is there."""
    result = out / row.result
    folder = out / row.folder
    log = out / f"{row.folder}.log"
    python = [sys.executable, "-m", "lsr_train"]
    if row.command:
        status = folder / "status.json"
        state = json.loads(status.read_text())["state"] if status.is_file() else "none"
        if state == "none" and (folder / "config.yaml").is_file():
            state = "begun"
        if state == "none":
            start = ["--init", str(checkpoint(out / row.start, "last"))] if row.start else []
            run([*python, *row.command, *start, "--out", str(folder)], log)
        elif state != "finished":
            run([*python, row.command[0], "--resume", str(folder)], log)
    chosen = {"last": result}
    if row.command and (folder / "checkpoints/best").is_file():
        chosen["best"] = out / row.selected
    for pointer, file in chosen.items():
        if file.is_file():
            continue
        if pointer == "best" and checkpoint(folder, "best") == checkpoint(folder, "last"):
            shutil.copyfile(result, file)
            continue
        data = ["--data", str(shared / "data/camvid"), "--layout", "camvid", "--split", "val"]
        space = ["--label_space", "camvid11", "--height", "240", "--width", "320", "--precision", "auto"]
        model = str(checkpoint(folder, pointer))
        run([*python, "evaluate", model, *data, *space, *row.evaluate, "--out", str(file)], log)


def as_tensor(iou: dict[str, float | None]) -> torch.Tensor:
    """Return the IoUs in class order, NaN for a class that is nowhere."""
    return torch.tensor([math.nan if value is None else value for value in iou.values()], dtype=torch.float64)


def average(values: Iterable[float | None]) -> str:
    """Show the mean over seeds; a dash where the class is nowhere."""
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.2f}" if known else "-"


def table(all_rows: Iterable[Row], out: Path) -> list[dict[str, object]]:
    """Collect the results into one entry a row name."""
    entries: dict[str, list[tuple[int, dict]]] = {}
    selected: dict[str, list[float]] = {}
    for row in all_rows:
        if (out / row.result).is_file():
            entries.setdefault(row.name, []).append((row.seed, json.loads((out / row.result).read_text())))
        if (out / row.selected).is_file():
            selected.setdefault(row.name, []).append(json.loads((out / row.selected).read_text())["miou"])
    supervised = dict(entries.get("target-only", []))
    lines = []
    for name, results in entries.items():
        miou = [result["miou"] for _, result in results]
        per_class = {key: [result["iou"][key] for _, result in results] for key in results[0][1]["iou"]}
        ratios: dict[str, list[float]] = {"masr": [], "masr_floor": []}
        for seed, result in results:
            if seed in supervised:
                adapted, bound = as_tensor(result["iou"]), as_tensor(supervised[seed]["iou"])
                ratios["masr"].append(mean_adapted_to_supervised_ratio(adapted, bound).value)
                ratios["masr_floor"].append(mean_adapted_to_supervised_ratio(adapted, bound, floor=0.05).value)
        lines.append(
            {
                "row": name,
                "seeds": len(miou),
                "miou": miou,
                "selected_miou": selected.get(name, []),
                **ratios,
                "iou": per_class,
            }
        )
    return lines


def markdown(lines: list[dict]) -> str:
    """Show the table: mean over seeds, and each seed's mIoU."""
    classes = list(lines[0]["iou"])
    head = ["row", "mIoU", "each seed", "selected", "mASR", "mASR, IoU_sup >= .05", *classes]
    text = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for line in lines:
        cells = [line["row"], f"{statistics.mean(line['miou']):.3f}", " ".join(f"{v:.3f}" for v in line["miou"])]
        cells.append(" ".join(f"{v:.3f}" for v in line["selected_miou"]))
        cells += [f"{statistics.mean(line[k]):.2f}" if line[k] else "" for k in ("masr", "masr_floor")]
        cells += [average(line["iou"][name]) for name in classes]
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=REPOSITORY.parent / "shared")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs/real_pair")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--ablation-seeds", type=int, default=1, help="seeds of the rows that leave a term out")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="comma-separated row names")
    arguments = parser.parse_args()
    shared, out = arguments.shared.resolve(), arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    first, then = rows(shared, arguments.seeds, arguments.ablation_seeds)
    if arguments.only:
        wanted = arguments.only.split(",")
        first, then = ([row for row in group if row.name in wanted] for group in (first, then))
    begin = time.monotonic()
    for group in (first, then):
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(lambda row: do(row, shared, out), group))
    lines = table([*first, *then], out)
    document = {"minutes": round((time.monotonic() - begin) / 60, 1), "rows": lines}
    (out / "table.json").write_text(json.dumps(document, indent=2))
    print(json.dumps(document))
    print(markdown(lines), file=sys.stderr)


if __name__ == "__main__":
    main()
