"""Peak memory of a training step on the CPU, by network, size and method, for `lsr_train.autopilot.budget`.

    python -m tests.benchmarks.step_memory [--backbones resnet50 resnet101] [--strides 16 8] [--sizes 512x256 768x384]

Every case is a process of its own that does two steps of the real engine on random images, one image a batch, and reads
the high-water mark of its resident memory (Linux). Prints JSON: bytes above those before the network was built, the
bytes that do not grow with the image, those a pixel (a straight line through the sizes), and what the model predicts.
"""

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lsr_infer.commands.parser import parse_size
from lsr_train.autopilot.memory import evaluation_bytes, step_bytes
from lsr_train.config.data import DataConfig, SourceConfig, TargetConfig
from lsr_train.config.run import METHOD_SPECS, Config, LogConfig, SelectionConfig
from lsr_train.config.training import NetworkConfig, OptimConfig, TrainConfig, WeightsConfig
from lsr_train.data.labels import CITYSCAPES_19
from lsr_train.data.loading import Batches
from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from lsr_train.engine.loop import Engine, Networks, build_accelerator
from lsr_train.engine.selection import Selector
from lsr_train.evaluation.signals import SIGNAL_BATCH, label_free_signals
from lsr_train.network import DeepLabV2, NetworkSpec
from lsr_train.runs.folder import RunFolder

STEPS = 2


def configuration(options: argparse.Namespace) -> Config:
    """Return the run of a case."""
    height, width = parse_size(options.sizes[0])
    method = options.methods[0]
    wanted = {
        "self_training": 1.0,
        "cluster": 0.3,
        "perpendicularity": 0.3,
        "distance": options.distance,
        "entropy": 0.1,
    }
    weights = {name: value for name, value in wanted.items() if name in METHOD_SPECS[method].weights}
    return Config(
        method=method,
        network=NetworkConfig(
            backbone=options.backbones[0], width=options.width, output_stride=int(options.strides[0]), weights="none",
            batch_norm="train" if method == "source-only" else "frozen",
        ),
        data=DataConfig(
            source=SourceConfig(layout="toytown-game", height=height, width=width),
            target=TargetConfig(layout="toytown-camera", height=height, width=width),
            batch_size=options.batch, workers=0,
        ),
        optim=OptimConfig(name="adamw", lr=1e-4),
        train=TrainConfig(steps=STEPS, device="cpu", precision=options.precision, threads=1),
        weights=WeightsConfig(**weights),
        selection=SelectionConfig(signal="none"),
        log=LogConfig(tensorboard=False),
    )  # fmt: skip


def random_batches(config: Config) -> Batches:
    """Return endless batches of one random image each."""
    size = (config.data.batch_size, config.data.source.height, config.data.source.width)
    frames = torch.randint(0, 256, (*size, 3), dtype=torch.uint8)
    labels = torch.randint(0, 19, size, dtype=torch.uint8)
    source, target = LabelledBatch(image=frames, labels=labels), UnlabelledBatch(image=frames)
    return Batches(source=itertools.repeat(source), target=itertools.repeat(target))


def resident(field: str) -> int:
    """Return a line of this process's memory in bytes: `VmRSS` now, `VmHWM` at its highest."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{field}:")))


def measure(config: Config) -> int:
    """Do the steps in this process and return how many bytes they took at their highest."""
    torch.set_num_threads(1)
    accelerator = build_accelerator(config, torch.device("cpu"))
    before = resident("VmRSS")
    network = config.network
    spec = NetworkSpec(
        backbone=network.backbone, width=network.width, output_stride=network.output_stride,
        num_classes=CITYSCAPES_19.num_classes,
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        run, selector = RunFolder(Path(folder)), Selector(config.selection, None)
        engine = Engine(config, CITYSCAPES_19, Networks(network=DeepLabV2(spec)), accelerator, run, selector)
        batches = random_batches(config)
        engine.model.train()
        engine.method.train()
        for _ in range(STEPS):
            engine.train_step(batches)
    return resident("VmHWM") - before


def measure_evaluation(config: Config) -> int:
    """Evaluate frames in this process, as many at once as training does, and return how many bytes that took."""
    torch.set_num_threads(1)
    network = DeepLabV2(
        NetworkSpec(
            backbone=config.network.backbone, width=config.network.width, output_stride=config.network.output_stride
        )
    )
    size = (config.data.source.height, config.data.source.width)
    before = resident("VmRSS")
    frames = torch.randint(0, 256, (SIGNAL_BATCH, *size, 3), dtype=torch.uint8)
    label_free_signals(network, [UnlabelledBatch(image=frames)])
    return resident("VmHWM") - before


def in_a_process(options: argparse.Namespace, backbone: str, stride: str, method: str, size: str) -> int:
    """Measure one case in a process of its own."""
    words = ["--one", "--backbones", backbone, "--strides", stride, "--methods", method, "--sizes", size]
    words += [f"--{name}={getattr(options, name)}" for name in ("width", "batch", "precision", "distance")]
    command = [sys.executable, "-m", "tests.benchmarks.step_memory", *words]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["bytes"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "resnet101"])
    parser.add_argument("--strides", nargs="+", default=["16", "8"])
    parser.add_argument("--methods", nargs="+", default=["source-only", "lsr-st"])
    parser.add_argument("--sizes", nargs="+", default=["512x256", "768x384"])
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--distance", type=float, default=0.0, help="weight of the feature distance, of adaptations")
    parser.add_argument("--evaluation", action="store_true", help="with --one: of evaluating frames, not of a step")
    parser.add_argument("--one", action="store_true", help="measure the first of each in this process")
    options = parser.parse_args()
    if options.one:
        config = configuration(options)
        found = measure_evaluation(config) if options.evaluation else measure(config)
        predict = evaluation_bytes if options.evaluation else step_bytes
        print(json.dumps({"bytes": found, "predicted": predict(config, CITYSCAPES_19.num_classes)}))
        return
    cases = []
    for backbone, stride, method in itertools.product(options.backbones, options.strides, options.methods):
        found = {size: in_a_process(options, backbone, stride, method, size) for size in options.sizes}
        pixels = [options.batch * parse_size(size)[0] * parse_size(size)[1] for size in options.sizes]
        slope = (max(found.values()) - min(found.values())) / max(max(pixels) - min(pixels), 1)
        case = {"backbone": backbone, "stride": int(stride), "method": method, "bytes": found}
        case |= {"bytes_a_pixel": round(slope), "fixed_bytes": round(min(found.values()) - slope * min(pixels))}
        one = {**vars(options), "backbones": [backbone], "strides": [stride], "methods": [method]}
        configs = {size: configuration(argparse.Namespace(**{**one, "sizes": [size]})) for size in options.sizes}
        predicted = {size: step_bytes(config, CITYSCAPES_19.num_classes) for size, config in configs.items()}
        cases.append({**case, "predicted": predicted})
        print(json.dumps(cases[-1]), file=sys.stderr)
    print(json.dumps({"width": options.width, "precision": options.precision, "cases": cases}, indent=2))


if __name__ == "__main__":
    main()
