"""The README's commands are understood by the programs they name, and its Python runs."""

import os
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch

from lsr_infer.commands.segment import read_options
from lsr_infer.segmenter import Segmentation
from lsr_train.commands import distill
from lsr_train.config.command_line import resolve
from lsr_train.config.recipes import recipe_names
from lsr_train.data.labels import load_classes
from tests.lsr_train.training_runs import losses, run_here, words

REPOSITORY = Path(__file__).resolve().parents[1]
WITH_US = os.environ | {"PYTHONPATH": str(REPOSITORY)}
TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def shell_lines() -> list[str]:
    """Return every command of the README's shell blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]


def commands(program: str) -> list[str]:
    return [line for line in shell_lines() if line.startswith(program)]


TRAINING_COMMANDS = [
    line for name in ("pretrain", "adapt", "distill") for line in commands(f"python -m lsr_train {name}")
]


@pytest.mark.parametrize("line", TRAINING_COMMANDS)
def test_training_commands_are_understood(line: str) -> None:
    command, *arguments = shlex.split(line)[3:]
    if command == "distill":
        arguments = distill.expand(arguments)
    request = resolve(command, arguments, {"adapt": "selftraining", "distill": "my_footage_distill"}.get(command))
    assert request.out is not None or request.resume is not None


@pytest.mark.parametrize("target", sorted({line.split()[1] for line in commands("make ")}))
def test_make_knows_its_targets(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [*commands("python -m lsr_train evaluate"), *commands("python export/to_")])
def test_options_of_other_commands_exist(line: str) -> None:
    words = shlex.split(line.replace("…", ""))
    program = words[1:4] if words[1] == "-m" else words[1:2]
    done = subprocess.run(
        [sys.executable, *program, "--help"], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for word in words[len(program) + 1 :]:
        if word.startswith("-"):
            assert re.search(rf"(^|[\s,|\[]){re.escape(word)}\b", done.stdout), f"{word} is not in --help"


PARTS = ("info", "bench", "serve-config")


@pytest.mark.parametrize("line", [line for line in commands("lsr-infer") if line.split()[1] not in PARTS])
def test_lsr_infer_commands_are_understood(line: str) -> None:
    assert read_options(shlex.split(line)[1:]).sources


@pytest.mark.parametrize("part", PARTS)
def test_each_part_of_lsr_infer_runs_as_shown(part: str, tmp_path: Path) -> None:
    (line,) = [line for line in commands("lsr-infer") if line.split()[1] == part]
    words = shlex.split(line)[1:]
    shipped = REPOSITORY / "lsr_infer/models/toytown_adapted.onnx"
    words = [str(shipped) if word.endswith(".onnx") else word for word in words]
    words += ["--frames", "3"] if part == "bench" else []
    command = [sys.executable, "-c", "import sys; from lsr_infer.cli import main; sys.exit(main())", *words]
    done = subprocess.run(command, cwd=tmp_path, env=WITH_US, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_classes_of_the_readme_are_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(classes:.*?)```", TEXT, flags=re.DOTALL)
    (tmp_path / "classes.yaml").write_text(text, encoding="utf-8")
    classes = load_classes(tmp_path / "classes.yaml")
    assert classes.space.names == ("road", "car")
    assert classes.id_map.apply(np.array([[0, 1, 14, 23, 24]], dtype=np.uint8)).tolist() == [[255, 0, 1, 255, 0]]


def test_every_recipe_of_the_readme_is_there() -> None:
    table = TEXT.partition("| recipes | |")[2].partition("\n\n")[0]
    patterns = re.findall(r"`([a-z0-9_*]+)`", table)
    named = {name for name in recipe_names() for pattern in patterns if fnmatch(name, pattern)}
    assert named == set(recipe_names())


def test_the_python_of_the_readme_runs() -> None:
    (block,) = re.findall(r"```python\n(from lsr_train\.latent.*?)```", TEXT, flags=re.DOTALL)
    names = {
        "source_features": torch.rand(1, 2048, 5, 9, requires_grad=True),
        "source_labels": torch.randint(0, 19, (1, 33, 65)),
        "target_features": torch.rand(1, 2048, 5, 9, requires_grad=True),
        "target_logits": torch.randn(1, 19, 33, 65),
        "cross_entropy": torch.tensor(1.0, requires_grad=True),
    }
    exec(block, names)  # the README's own lines
    loss = names["loss"]
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    assert names["source_features"].grad is not None


def test_the_method_of_ones_own_in_the_readme_trains(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(from lsr_train\.losses.*?)```", TEXT, flags=re.DOTALL)
    (tmp_path / "my_method.py").write_text(block, encoding="utf-8")
    assert run_here("pretrain", words("toytown_source", tmp_path / "source", "--train.steps", "2")) == 0
    own = ["--method", f"{tmp_path / 'my_method.py'}:Mine", "--init", str(tmp_path / "source"), "--train.steps", "2"]
    none = [f"--weights.{name}=0" for name in ("cluster", "perpendicularity", "norm")]
    assert run_here("adapt", words("toytown_lsr", tmp_path / "run", *own, *none)) == 0
    assert {"cross_entropy", "certainty"} <= set(losses(tmp_path / "run")[0])


def test_the_three_lines_of_the_readme_run() -> None:
    (block,) = re.findall(r"```python\n(from lsr_infer.*?)```", TEXT, flags=re.DOTALL)
    names: dict[str, object] = {"frame": np.zeros((60, 80, 3), np.uint8)}
    exec(block.replace("adapted.onnx", str(REPOSITORY / "lsr_infer/models/toytown_adapted.onnx")), names)
    result = names["result"]
    assert isinstance(result, Segmentation)
    assert result.classes.shape == result.confidence.shape == (60, 80)
    assert result.overlay(np.zeros((60, 80, 3), np.uint8)).shape == (60, 80, 3)
    assert result.label_space.num_classes == 19
