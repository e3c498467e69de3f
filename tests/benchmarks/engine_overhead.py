"""What the engine adds to forward, backward and optimiser, on cached batches of the real pair's recipes.

    python tests/benchmarks/engine_overhead.py --steps 12

Both loops run in one process on the same network, step by step in turn. The bare loop gets its images normalised and
in place; the engine does that itself, so it counts as overhead. Prints JSON: medians, and the overhead as a share of
the bare step. Data are random frames: nothing but time is measured.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from lsr_train.config.command_line import resolve
from lsr_train.config.fields import with_fields
from lsr_train.config.run import Config
from lsr_train.data.classes_file import load_label_space
from lsr_train.data.loading import Batches
from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from lsr_train.device import choose_precision
from lsr_train.engine.loop import Engine, Networks, build_accelerator
from lsr_train.engine.selection import Selector
from lsr_train.network import DeepLabV2, NetworkSpec
from lsr_train.runs.folder import RunFolder

PRECISION = choose_precision(torch.device("cpu"), "auto")


def build(recipe: str, folder: Path, accelerator: object) -> Engine:
    """Make an engine for a recipe with random weights."""
    words = ["--recipe", recipe, "--source", "none", "--target", "none", "--train.precision", PRECISION]
    config = resolve("adapt", words, None).config
    if config.self_training.rectify:
        config = with_fields(config, {"self_training.rectify_from": 0})  # a step as nearly all of a run are
    space = load_label_space(config.label_space)
    part = config.network
    spec = NetworkSpec(
        backbone=part.backbone, width=part.width, output_stride=part.output_stride, stem=part.stem,
        dilations=part.dilations, num_classes=space.num_classes, normalization=part.normalization,
    )  # fmt: skip
    torch.manual_seed(0)
    run = RunFolder.create(folder / recipe, "benchmark: true\n")
    return Engine(config, space, Networks(network=DeepLabV2(spec)), accelerator, run, Selector(config.selection, None))


def random_batches(config: Config, classes: int) -> tuple[LabelledBatch, UnlabelledBatch]:
    """Return a batch of each domain, of random frames and labels."""
    size = (config.data.batch_size, config.data.source.height, config.data.source.width)
    frames = torch.randint(0, 255, (*size, 3), dtype=torch.uint8)
    labels = torch.randint(0, classes, size, dtype=torch.uint8)
    return LabelledBatch(image=frames, labels=labels), UnlabelledBatch(image=frames.flip(1))


def for_ever(source: LabelledBatch, target: UnlabelledBatch) -> Batches:
    """Return these two batches again and again."""
    return Batches(source=itertools.repeat(source), target=itertools.repeat(target))


def measure(recipe: str, folder: Path, accelerator: object, steps: int) -> dict[str, float]:
    """Time bare steps and engine steps in turn."""
    engine = build(recipe, folder, accelerator)
    config = engine.config
    raw_source, raw_target = random_batches(config, engine.space.num_classes)
    batches = for_ever(raw_source, raw_target)
    source, target = engine._placed(raw_source), engine._placed(raw_target)
    weights = engine.method.term_weights()

    def bare() -> None:
        terms = engine.method.terms(engine.model, source, target)
        sum(weights.get(name, 1.0) * value for name, value in terms.items()).backward()
        engine.optimizer.optimizer.step()
        engine.optimizer.optimizer.zero_grad(set_to_none=True)

    engine.model.train()
    times: dict[str, list[float]] = {"bare": [], "engine": []}
    for round_ in range(steps + 2):
        for name, step in (("bare", bare), ("engine", lambda: engine.train_step(batches))):
            begin = time.process_time()
            step()
            if round_ >= 2:
                times[name].append(time.process_time() - begin)
    medians = {f"{name}_seconds": round(statistics.median(values), 4) for name, values in times.items()}
    pairs = [b / a - 1 for a, b in zip(times["bare"], times["engine"], strict=True)]
    return {**medians, "overhead_share": round(statistics.median(pairs), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    words = ["--recipe", "streets_camvid_lsr_em", "--source", "x", "--target", "x", "--train.precision", PRECISION]
    config = resolve("adapt", words, None).config
    accelerator = build_accelerator(config, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        recipes = ("streets_camvid_control", "streets_camvid_lsr_em")
        result = {recipe: measure(recipe, Path(folder), accelerator, arguments.steps) for recipe in recipes}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
