"""The commands that are killed: small runs of each, and what has to come out of them."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import yaml

from export import to_onnx
from lsr_infer import cli
from lsr_infer.errors import exit_status
from lsr_infer.video.writer import VideoWriter
from lsr_train.commands import child, dispatch
from lsr_train.comparison import schedule
from lsr_train.data.labels import CITYSCAPES_19
from lsr_train.exporting import exporter
from lsr_train.exporting.graph import copy_of
from lsr_train.runs.checkpoint import load_model
from lsr_train.runs.folder import resolve_model
from lsr_train.toytown import render
from tests.lsr_train.training_runs import words

HEIGHT, WIDTH = 48, 96
SHORT = ["--train.steps", "3", "--train.checkpoint_every", "1", "--data.source.limit", "4", "--data.target.limit", "4"]
LOGGED = ["--log.tensorboard", "true", "--selection.signal", "flip", "--selection.every", "2"]
TWO_STAGES = [
    "--network.weights", "none", "--network.backbone", "resnet18", "--network.width", "0.125",
    "--data.workers", "0", "--data.batch_size", "2", "--data.target.static", "0", "--data.target.seconds", "0",
    "--train.threads", "1", "--train.precision", "fp32", "--train.checkpoint_every", "1", "--log.every", "1",
    "--log.tensorboard", "false", "--selection.frames", "2", "--network.batch_norm_frames", "2", "--train.steps", "2",
    "--source_stage.train.steps", "2", "--source_stage.train.checkpoint_every=1", "--source_stage.optim.lr", "0.001",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A command: its program, words, and the run folder that `--resume` continues, "" where the words come again."""

    program: Callable[[list[str]], object]
    words: Sequence[str]
    run: str = ""
    again: Sequence[str] = ()

    def __call__(self, folder: Path) -> int:
        """Start the command in a folder, or go on with what is there; return its exit code."""
        os.chdir(folder)
        os.environ |= {"XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder / "tmp")}
        (folder / "tmp").mkdir(exist_ok=True)
        begun = bool(self.run) and (folder / self.run / "config.yaml").is_file()
        first = any(folder.glob("[!.ct]*"))
        argv = [self.words[0], "--resume", self.run] if begun else [*self.words, *(self.again if first else ())]
        return exit_status(lambda: self.program(argv))  # type: ignore[arg-type]  # an exit code or None


def make_inputs(folder: Path) -> None:
    """Write a labelled folder, a clip and a comparison file, and train a source network."""
    for index in range(4):
        frame, labels = render("game", index, height=HEIGHT, width=WIDTH)
        for side, picture in (("images", frame), ("labels", labels + 1)):
            (folder / "game" / side).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / "game" / side / f"{index}.png"), picture)
    classes = [
        {"name": name, "color": list(color), "ids": [index + 1]}
        for index, (name, color) in enumerate(zip(CITYSCAPES_19.names, CITYSCAPES_19.colors, strict=True))
    ]
    (folder / "game/classes.yaml").write_text(yaml.safe_dump({"classes": classes, "ignore": [0]}), encoding="utf-8")
    with VideoWriter(folder / "camera.mp4", width=WIDTH, height=HEIGHT, fps=Fraction(10)) as writer:
        for index in range(6):
            writer.write(render("camera", index, height=HEIGHT, width=WIDTH)[0])
    evaluate = {"layout": "toytown-camera", "split": "val", "limit": 2, "height": HEIGHT, "width": WIDTH}
    runs = {"source-only": {"train": False}, "minent": {"method": "minent", "set": {"weights.entropy": 0.001}}}
    document = {"source": "toytown_source", "base": "toytown_lsr", "evaluate": evaluate, "runs": runs}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def scenarios(inputs: Path) -> dict[str, Scenario]:
    """Return every command by name; `inputs` is the folder that `make_inputs` filled."""
    source = str(inputs / "source")
    table = ["--recipe", str(inputs / "tiny.yaml"), "--init", source, "--out", "table", "--devices", "cpu"]
    tiny = words("toytown_lsr", Path("x"), *SHORT)[4:]
    small = ["--network.batch_norm_frames", "2", "--optim.lr", "1e-7"]
    search = ["--run", "minent", "--search", "weights.entropy=1e-4..1e-1", "--trials", "2", *small]
    footage = ["--source", str(inputs / "game"), "--target", str(inputs / "camera.mp4"), "--out", "run"]
    run = words("toytown_source", Path("run"), *SHORT, *LOGGED)
    student = words("toytown_distill", Path("run"), *SHORT)
    masks = [
        str(inputs / "camera.mp4"),
        str(inputs / "game/images"),
        "--output",
        "results",
        "--save",
        "mask,overlay,json",
    ]
    onnx = ["-o", "model.onnx", "--num-frames", "1", "--report", "report.json"]
    return {
        "pretrain": Scenario(program=dispatch.run, words=["pretrain", *run], run="run"),
        "adapt": Scenario(program=dispatch.run, words=["adapt", *footage, *TWO_STAGES], run="run"),
        "distill": Scenario(program=dispatch.run, words=["distill", source, *student], run="run"),
        "compare": Scenario(program=dispatch.run, words=["compare", *table, *tiny, *small]),
        "search": Scenario(program=dispatch.run, words=["ablate", *table, *tiny, *search]),
        "export": Scenario(program=to_onnx.main, words=[source, *onnx], again=["--overwrite"]),
        "lsr-infer": Scenario(program=cli.main, words=masks, again=["--overwrite"]),
    }


def train_source(inputs: Path) -> int:
    """Train the network that others start from."""
    argv = ["pretrain", *words("toytown_source", inputs / "source", *SHORT)]
    return exit_status(lambda: dispatch.run(argv))


def results(folder: Path) -> dict[str, str]:
    """Return a hash of everything that has to come out alike, by path: weights, models and masks."""
    kinds = ("**/checkpoints/step-*/model.safetensors", "*.onnx", "results/**/*", "run/before_after/*")
    files = {path for kind in kinds for path in folder.glob(kind) if path.is_file()}
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def names(folder: Path) -> set[str]:
    """Return the paths of all files and folders, but for TensorBoard's, whose names tell process and time."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    return {name for name in found if "events.out" not in name and not name.startswith("tmp/")}


class WarmProcess:
    """Stands for `subprocess.Popen` of a training command: a fork, which has loaded everything, and not a new Python.

    Else each of thousands would spend seconds on importing torch.
    """

    def __init__(self, argv: Sequence[str], *, stdout: Any, env: Mapping[str, str], **more: object) -> None:
        assert list(argv) == [sys.executable, "-m", "lsr_train.commands.child"]
        assert more == {"stdin": subprocess.PIPE, "stderr": stdout, "start_new_session": True}
        read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._be_the_child(read, stdout.fileno(), env)
        os.close(read)
        self.stdin = os.fdopen(write, "wb")

    @staticmethod
    def _be_the_child(stdin: int, output: int, env: Mapping[str, str]) -> None:
        code: object = 1
        try:
            os.setsid()
            for source, target in ((stdin, 0), (output, 1), (output, 2)):
                os.dup2(source, target)
            os.closerange(3, 1024)
            os.environ |= env
            child.main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            os._exit(code if isinstance(code, int) else 1)

    def wait(self) -> int:
        """Return the exit code, once it has ended."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def terminate(self) -> None:
        """Ask it to end."""
        os.kill(self.pid, 15)


def trace_once(source: Path) -> None:
    """Let every export take one traced graph, which takes ten seconds to make and touches no file."""
    network, _ = load_model(resolve_model(source))
    graph = exporter.trace(network.eval(), fixed=None)
    exporter.trace = lambda network, **more: copy_of(graph)


def warm_children() -> None:
    """Let the commands that start others fork them."""

    class Warm:
        Popen, PIPE = WarmProcess, subprocess.PIPE

    schedule.subprocess = Warm  # type: ignore[attr-defined]
