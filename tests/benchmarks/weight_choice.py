"""How the weights of LSR's terms were chosen: short runs from one source checkpoint, ranked by the flip signal.

    python tests/benchmarks/weight_choice.py --init runs/real_pair/source_0 --out runs/weights [--steps 100]

No label of the target is read. Two runs of one thread each go on at a time; a run that is there is not done again.
First the weights of the three terms compete without entropy (LSR); the best of them then meets several weights of the
entropy term (LSR+EM). Prints one JSON document, the best first.
"""

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from real_pair import REPOSITORY, run

LSR: tuple[Mapping[str, float], ...] = (
    {"cluster": 1e-4, "perpendicularity": 0.01, "norm": 0.01},
    {"cluster": 3e-5, "perpendicularity": 0.3, "norm": 1e-3},
    {"cluster": 1e-5, "perpendicularity": 0.3, "norm": 1e-3},
    {"cluster": 1e-5, "perpendicularity": 1.0, "norm": 1e-3},
    {"cluster": 3e-6, "perpendicularity": 0.3, "norm": 1e-3},
    {"cluster": 3e-6, "perpendicularity": 1.0, "norm": 3e-3},
)
"""From the weights of an earlier prototype (the first row) to what brings each term's gradient on the backbone to about
a tenth of cross-entropy's; `latent_diagnosis.py` prints those ratios."""

ENTROPY = (0.03, 0.1)


def last_signals(folder: Path) -> dict[str, float]:
    """Return the signals of the last evaluation of a run."""
    with (folder / "signals.csv").open(encoding="utf-8", newline="") as file:
        *_, row = csv.DictReader(file)
    return {name: float(value) for name, value in row.items() if name != "step" and value}


def trial(weights: Mapping[str, float], arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one setting, unless it is there, and return its weights and signals."""
    setting = "_".join(f"{name[0]}{value:g}" for name, value in weights.items())
    start = "_".join(arguments.init.parts[-3:])
    folder: Path = arguments.out / f"{start}_{arguments.steps}_{setting}"
    recipe = "streets_camvid_lsr_em" if "entropy" in weights else "streets_camvid_lsr"
    status = folder / "status.json"
    if not status.is_file() or json.loads(status.read_text())["state"] != "finished":
        words = ["--resume", str(folder)]
        if not (folder / "config.yaml").is_file():
            data = [
                "--source",
                str(arguments.shared / "data/streets"),
                "--target",
                str(arguments.shared / "data/camvid"),
            ]
            steps = str(arguments.steps)
            length = ["--train.steps", steps, "--train.checkpoint_every", steps, "--selection.every", steps]
            chosen = [word for name, value in weights.items() for word in (f"--weights.{name}", str(value))]
            words = ["--recipe", recipe, "--init", str(arguments.init), "--out", str(folder)]
            words += [*data, *length, *chosen, "--log.tensorboard", "false"]
        run([sys.executable, "-m", "lsr_train", "adapt", *words], arguments.out / f"{folder.name}.log")
    return {"weights": dict(weights), **last_signals(folder)}


def compete(settings: Sequence[Mapping[str, float]], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all settings, two at a time; the highest flip signal comes first."""
    with ThreadPoolExecutor(arguments.jobs) as pool:
        return sorted(pool.map(lambda weights: trial(weights, arguments), settings), key=lambda row: -row["flip"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init", type=Path, required=True, help="the source stage's run or checkpoint")
    parser.add_argument("--shared", type=Path, default=REPOSITORY.parent / "shared")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs/weights")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    for name in ("init", "shared", "out"):
        setattr(arguments, name, getattr(arguments, name).resolve())
    arguments.out.mkdir(parents=True, exist_ok=True)
    lsr = compete(LSR, arguments)
    lsr_em = compete([{**lsr[0]["weights"], "entropy": weight} for weight in ENTROPY], arguments)
    print(json.dumps({"steps": arguments.steps, "init": arguments.init.name, "lsr": lsr, "lsr_em": lsr_em}, indent=1))


if __name__ == "__main__":
    main()
