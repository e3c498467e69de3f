"""Small real trainings on Toytown for the tests of the engine: seconds each, every part of them real."""

import csv
import os
import subprocess
import sys
from pathlib import Path

from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.numpy import load_file

from lsr_infer.errors import exit_status
from lsr_train.commands.dispatch import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[2]

TINY = [
    "--network.width", "0.125", "--network.output_stride", "16", "--network.dilations", "[1,2]",
    "--data.source.height", "48", "--data.source.width", "96", "--data.source.limit", "6",
    "--data.target.height", "48", "--data.target.width", "96", "--data.target.limit", "5",
    "--data.batch_size", "2", "--data.workers", "0", "--train.steps", "6", "--train.checkpoint_every", "2",
    "--train.precision", "fp32", "--train.threads", "1", "--log.every", "1", "--log.tensorboard", "false",
    "--network.batch_norm_frames", "4", "--selection.frames", "2", "--selection.every", "3",
]  # fmt: skip


def words(recipe: str, out: Path, *more: str) -> list[str]:
    """Return a tiny run's options."""
    return ["--recipe", recipe, "--out", str(out), *TINY, *more]


def run_here(command: str, arguments: list[str]) -> int:
    """Run a training command in this process and return its exit code."""
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()
    return exit_status(lambda: COMMANDS[command](arguments))


def start(command: str, arguments: list[str], **more: object) -> subprocess.Popen[str]:
    """Start the real command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "lsr_train", command, *arguments], cwd=REPOSITORY, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}, **more,  # type: ignore[call-overload]
    )  # fmt: skip


def weights(run: Path, step: int) -> dict[str, bytes]:
    """Return the bytes of every tensor of a checkpoint."""
    return {
        name: value.tobytes() for name, value in load_file(run / f"checkpoints/step-{step}/model.safetensors").items()
    }


def losses(run: Path) -> list[dict[str, str]]:
    """Return metrics.csv without the columns that measure the clock."""
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        clock = {"source_images_per_second", "loader_wait_share", "steps_that_waited"}
        return [{key: value for key, value in row.items() if key not in clock} for row in csv.DictReader(file)]
