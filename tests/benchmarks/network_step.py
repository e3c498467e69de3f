"""Time of a training step of the real pair's network: as computed, against its modules one by one.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.network_step [--threads 1] [--rounds 7]

Prints JSON: CPU seconds of this thread a step (the smallest of the rounds, taken in turns), and their ratios. With more
than one thread it takes wall-clock time instead, which other programs on the machine disturb.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
from torch import Tensor

from lsr_train.network import DeepLabV2, NetworkSpec, SegOutput
from tests.lsr_train.network.test_deeplab import plain_reference

SPEC = NetworkSpec(
    backbone="resnet50", width=0.5, output_stride=16, stem="caffe", num_classes=11, normalization="caffe-bgr"
)


def step(forward: Callable[[Tensor], SegOutput], network: DeepLabV2, frames: Tensor) -> None:
    """Forward and backward of one batch, with a loss that costs nothing."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = forward(network.normalize(frames))
    loss: Tensor = output.logits.float().square().mean() + output.features.float().square().mean()
    torch.autograd.backward(loss)
    network.zero_grad(set_to_none=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    clock = time.thread_time if options.threads == 1 else time.perf_counter
    frames = torch.randint(0, 256, (4, 240, 320, 3), dtype=torch.uint8)
    network = DeepLabV2(SPEC)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs miss it
    network.train()
    ways: dict[str, Callable[[Tensor], SegOutput]] = {
        "network": network,
        "plain_modules": lambda image: plain_reference(network, image),
    }
    seconds: dict[str, list[float]] = {}
    for _ in range(options.rounds + 1):
        for mode in ("train", "frozen"):
            network.set_batch_norm("train" if mode == "train" else "frozen")
            for name, forward in ways.items():
                begin = clock()
                step(forward, network, frames)
                seconds.setdefault(f"{mode}_{name}", []).append(clock() - begin)
    best = {name: round(min(times[1:]), 4) for name, times in seconds.items()}
    ratios = {mode: round(best[f"{mode}_network"] / best[f"{mode}_plain_modules"], 3) for mode in ("train", "frozen")}
    print(json.dumps({"threads": options.threads, "seconds": best, "ratio_to_plain_modules": ratios}, indent=2))


if __name__ == "__main__":
    main()
