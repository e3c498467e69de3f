"""What a step of each method costs against a plain LSR step, at the real pair's size, teacher and all.

    python -m tests.benchmarks.method_cost --rounds 8

All methods take their steps in turn, in one process, on the same random frames; nothing but time is measured. Prints
JSON: median processor seconds of a step, and the median of the ratios to the LSR step of the same round.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from lsr_train.config.command_line import resolve
from lsr_train.engine.loop import build_accelerator
from tests.benchmarks.engine_overhead import PRECISION, build, for_ever, random_batches

RECIPES = {
    "lsr": "streets_camvid_lsr",
    "lsr-em": "streets_camvid_lsr_em",
    "self-training": "streets_camvid_self_training",
    "lsr-st": "streets_camvid_lsr_st",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        words = ["--recipe", RECIPES["lsr"], "--source", "x", "--target", "x", "--train.precision", PRECISION]
        accelerator = build_accelerator(resolve("adapt", words, None).config, torch.device("cpu"))
        engines = {name: build(recipe, Path(folder), accelerator) for name, recipe in RECIPES.items()}
        config = engines["lsr"].config
        batches = for_ever(*random_batches(config, engines["lsr"].space.num_classes))
        seconds: dict[str, list[float]] = {name: [] for name in engines}
        for engine in engines.values():
            engine.model.train()
            engine.method.train()
        for turn in range(arguments.rounds + 2):
            for name, engine in engines.items():
                begin = time.process_time()
                engine.train_step(batches)
                if turn >= 2:
                    seconds[name].append(time.process_time() - begin)
    result = {
        name: {
            "seconds": round(statistics.median(values), 4),
            "ratio": round(statistics.median(a / b for a, b in zip(values, seconds["lsr"], strict=True)), 4),
        }
        for name, values in seconds.items()
    }
    print(json.dumps({"precision": config.train.precision, "threads": arguments.threads, **result}, indent=1))


if __name__ == "__main__":
    main()
