"""Measures the latent stack, fused and plain, against reading both feature maps and writing both gradients once.

    python tests/benchmarks/latent_stack.py [--threads 2] [--repeats 15] [--dtype float32] [--channels_last]

All variants are timed in turn within each repeat, so that a neighbour's load falls on all of them; the ratios are of
medians and, beside them, of minima. With one thread the processor's time is taken instead of the clock's, which a
neighbour's load leaves alone; with two, a core shared with others makes every operator wait for the slower half.
Prints one JSON document.
"""

import argparse
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lsr_train.latent import LatentRegularizer, pseudo_labels
from lsr_train.losses.pixel import cross_entropy, max_square_loss, upsample

CHANNELS, CELLS, PIXELS, CLASSES = 2048, (65, 129), (512, 1024), 19


class Inputs:
    """Two domains' features, and labels and logits at image size and at feature size."""

    def __init__(
        self, cells: tuple[int, int], pixels: tuple[int, int], classes: int, dtype: torch.dtype, channels_last: bool
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.source, self.target = (
            torch.rand(1, CHANNELS, *cells, generator=generator).to(dtype).contiguous(memory_format=layout)
            for _ in range(2)
        )
        self.source.requires_grad_()
        self.target.requires_grad_()
        coarse = torch.randn(1, classes, 9, 17, generator=generator) * 4
        self.logits = upsample(coarse, pixels)
        self.labels = upsample(coarse.flip(3), pixels).argmax(dim=1)
        self.cell_logits = upsample(coarse, cells)
        self.cell_labels = upsample(coarse.flip(3), cells).argmax(dim=1)
        self.pixel_logits = self.logits.clone().requires_grad_()

    def clear(self) -> None:
        for tensor in (self.source, self.target, self.pixel_logits):
            tensor.grad = None


def floor(inputs: Inputs) -> list[Tensor]:
    """Read both maps and write both gradients, once, into fresh memory."""
    with torch.no_grad():
        return [torch.mul(features, 0.5, out=torch.empty_like(features)) for features in (inputs.source, inputs.target)]


def feature_part(inputs: Inputs, regularizer: LatentRegularizer) -> None:
    """All terms, forward and backward, from labels and logits that lie on the feature grid already."""
    terms = regularizer(inputs.source, inputs.cell_labels, inputs.target, inputs.cell_logits)
    sum(terms.values()).backward()


def everything(inputs: Inputs, regularizer: LatentRegularizer) -> None:
    """All terms, forward and backward, from full-size labels and logits."""
    sum(regularizer(inputs.source, inputs.labels, inputs.target, inputs.logits).values()).backward()


def peak_bytes(action: Callable[[], object]) -> int:
    """Return by how much the process grew at its peak while `action` ran."""
    ctypes.CDLL(None).malloc_trim(0)  # give back what was freed, or the growth hides in it
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is in use now

    def field(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

    before = field("VmRSS")
    action()
    return field("VmHWM") - before


class Operators(TorchDispatchMode):
    """Counts the operators that run."""

    count = 0

    def __torch_dispatch__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> object:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operators(classes: int, cells: tuple[int, int]) -> int:
    """Return how many operators one forward and backward runs."""
    inputs = Inputs(cells, (8 * cells[0], 8 * cells[1]), classes, torch.float32, False)
    with Operators() as mode:
        everything(inputs, LatentRegularizer(classes, CHANNELS))
    return mode.count


def timed(actions: dict[str, Callable[[], object]], clear: Callable[[], None], repeats: int) -> dict[str, list[float]]:
    """Time all actions in turn, `repeats` times over, after one round that is not counted."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for repeat in range(repeats + 1):
        for name, action in actions.items():
            clear()
            start = clock()
            action()
            if repeat:
                seconds[name].append(clock() - start)
    clear()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--channels_last", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    inputs = Inputs(CELLS, PIXELS, CLASSES, dtype, arguments.channels_last)
    regularizer, plain = (LatentRegularizer(CLASSES, CHANNELS, fused=fused) for fused in (True, False))
    actions = {
        "floor": lambda: floor(inputs),
        "feature_part": lambda: feature_part(inputs, regularizer),
        "everything": lambda: everything(inputs, regularizer),
        "plain_feature_part": lambda: feature_part(inputs, plain),
        "pseudo_labels": lambda: pseudo_labels(inputs.logits, CELLS),
        "cross_entropy": lambda: cross_entropy(inputs.pixel_logits, inputs.labels).backward(),
        "max_square": lambda: max_square_loss(inputs.pixel_logits).backward(),
    }
    seconds = timed(actions, inputs.clear, arguments.repeats)
    copy = inputs.source.nbytes
    peak = peak_bytes(lambda: everything(inputs, regularizer))
    scaling = {}
    for cells in ((33, 65), (65, 129), (129, 257)):
        smaller = Inputs(cells, (8 * cells[0] - 8, 8 * cells[1] - 8), CLASSES, dtype, arguments.channels_last)
        spent = timed({"all": lambda given=smaller: everything(given, regularizer)}, smaller.clear, 3)["all"]
        scaling[f"{cells[0]}x{cells[1]}"] = round(1e6 * min(spent) / (cells[0] * cells[1]), 2)
        del smaller
    median = {name: statistics.median(values) for name, values in seconds.items()}
    minimum = {name: min(values) for name, values in seconds.items()}
    document = {
        "setting": f"[1,{CHANNELS},{CELLS[0]},{CELLS[1]}] {arguments.dtype}, channels_last {arguments.channels_last}, "
        f"{PIXELS[0]}x{PIXELS[1]}, {CLASSES} classes, {arguments.threads} threads",
        "milliseconds_median": {name: round(1e3 * value, 1) for name, value in median.items()},
        "milliseconds_minimum": {name: round(1e3 * value, 1) for name, value in minimum.items()},
        "ratio_of_medians": {name: round(value / median["floor"], 2) for name, value in median.items()},
        "ratio_of_minima": {name: round(value / minimum["floor"], 2) for name, value in minimum.items()},
        "peak_beside_gradients_in_copies_of_one_domain": round((peak - 2 * copy) / copy, 2),
        "microseconds_a_cell": scaling,
        "operators": {f"{classes} classes": operators(classes, (17, 33)) for classes in (2, 19, 150)},
    }
    json.dump(document, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
