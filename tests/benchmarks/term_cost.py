"""What each method's terms cost as a share of its step: ResNet-101, 1024x512, one image a domain.

    python -m tests.benchmarks.term_cost --rounds 3 --threads 2

The rows are those of the comparison gta5_cityscapes that follow its base recipe. A plain step carries both domains
through the network and back and computes the source's cross-entropy, nothing else; what a method's step takes beyond
it are its terms, their gradients and critics. All steps are made in turn in one process, on random frames: nothing but
time is measured. `--small` takes a small network, to see that the benchmark runs. Prints JSON: median processor
seconds, and the share of the step, 1 - plain / step, as the median over rounds.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from lsr_train.comparison.matrix import adapting_run
from lsr_train.comparison.spec import read_comparison
from lsr_train.config.command_line import resolve
from lsr_train.config.fields import with_fields
from lsr_train.data.classes_file import load_label_space
from lsr_train.engine.loop import Engine, Networks, build_accelerator
from lsr_train.engine.selection import Selector
from lsr_train.engine.setup import network_spec
from lsr_train.losses.pixel import cross_entropy, upsample
from lsr_train.methods import Method
from lsr_train.network import DeepLabV2
from lsr_train.runs.folder import RunFolder
from tests.benchmarks.engine_overhead import for_ever, random_batches

COMPARISON = "gta5_cityscapes"
SIZE = {"data.source.height": 512, "data.source.width": 1024, "data.target.height": 512, "data.target.width": 1024}
SMALL = {
    "network.backbone": "resnet18", "network.stem": "torchvision", "network.width": 0.125, "data.source.height": 64,
    "data.source.width": 128, "data.target.height": 64, "data.target.width": 128,
}  # fmt: skip


class Plain(Method):
    """Both domains forward and back, and the source's cross-entropy."""

    uses_target = True

    def terms(self, network: Any, source: Any, target: Any) -> dict[str, torch.Tensor]:
        """Return cross-entropy, and a term that lets the target's gradient through at no cost of its own."""
        logits, through = network(source.image).logits, network(target.image).logits.mean()
        loss = cross_entropy(upsample(logits, source.labels.shape[-2:]), source.labels)
        return {"cross_entropy": loss, "through": through}

    def term_weights(self) -> dict[str, float]:
        """Return a weight that changes nothing."""
        return {"through": 1e-12}


def engines(folder: Path, changes: dict[str, Any]) -> dict[str, Engine]:
    """Make an engine for each row, the plain one first."""
    comparison = read_comparison(COMPARISON)
    base = resolve("pretrain", ["--recipe", comparison.base, "--source", "x", "--target", "x"], None).config
    base = with_fields(base, {"train.precision": "fp32", "data.batch_size": 1, **changes})
    followers = [row for row in comparison.runs if row.train and row.recipe in ("", comparison.base)]
    configs = {row.name: adapting_run(row, base, "x", 0, folder).config for row in followers}
    accelerator = build_accelerator(base, torch.device("cpu"))
    space = load_label_space(base.label_space)
    made = {}
    for name, config in {"plain": base, **configs}.items():
        torch.manual_seed(0)
        run = RunFolder.create(folder / name, "benchmark: true\n")
        models = Networks(network=DeepLabV2(network_spec(config, space)))
        made[name] = Engine(config, space, models, accelerator, run, Selector(config.selection, None))
    made["plain"].method = Plain(base, space.num_classes, made["plain"].network.feature_channels)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        made = engines(Path(folder), SMALL if arguments.small else SIZE)
        config = made["plain"].config
        batches = for_ever(*random_batches(config, made["plain"].space.num_classes))
        for engine in made.values():
            engine.model.train()
            engine.method.train()
        for turn in range(arguments.rounds + 1):
            for name, engine in made.items():
                begin = time.process_time()
                engine.train_step(batches)
                taken = time.process_time() - begin
                print(f"round {turn}: {name} {taken:.1f} s", file=sys.stderr, flush=True)
                if turn:
                    seconds.setdefault(name, []).append(taken)
    shares = {
        name: {
            "seconds": round(statistics.median(values), 3),
            "share": round(statistics.median(1 - a / b for a, b in zip(seconds["plain"], values, strict=True)), 4),
        }
        for name, values in seconds.items()
    }
    print(
        json.dumps(
            {
                "size": [config.data.source.height, config.data.source.width],
                "threads": arguments.threads,
                "methods": shares,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
