"""Every command that the documents and the notebook show is understood by the program that it names.

`tests/test_command_runs.py` runs those of the README and of the tutorial.
"""

import argparse
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser as torchrun_parser

from app import _parser as demo_parser
from export.to_onnx import build_parser as onnx_parser
from export.to_trt import build_parser as trt_parser
from lsr_infer.cli import main as lsr_infer
from lsr_infer.commands.archive import read_request as archive_request
from lsr_infer.commands.segment import read_options as segment_options
from lsr_infer.errors import InputError
from lsr_train.analysis.options import analyze_options, report_options
from lsr_train.commands.dispatch import expand_distill
from lsr_train.comparison.options import AblateOptions, CompareOptions
from lsr_train.comparison.options import read_options as table_options
from lsr_train.config.command_line import resolve
from lsr_train.evaluation.options import evaluate_options
from lsr_train.suggestion.options import suggest_options
from lsr_train.toytown.__main__ import _parser as toytown_parser
from tests.documents import NOTEBOOK, PAGES, README, REPOSITORY, shown_commands

COMMANDS = shown_commands(README, *PAGES, NOTEBOOK)
OWN_RECIPES = {"pretrain": None, "adapt": "selftraining", "distill": "my_footage_distill"}


def train(command: str, words: list[str]) -> None:
    arguments = expand_distill(words) if command == "distill" else words
    if "--resume" in arguments:
        with pytest.raises(InputError, match="no run to resume"):
            resolve(command, arguments, None)
        return
    assert resolve(command, arguments, OWN_RECIPES[command]).out is not None


def make(words: list[str]) -> None:
    done = subprocess.run(["make", "-n", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def source(words: list[str]) -> None:
    """A shell's `source` of the environment that the Makefile makes."""
    assert words == [".venv/bin/activate"]
    assert "VENV := .venv\n" in (REPOSITORY / "Makefile").read_text(encoding="utf-8")


def install(words: list[str]) -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    what = words[-1]
    assert words[:-1] in ([], ["-e"])
    known = [".", *(f".[{name}]" for name in extras["optional-dependencies"])]
    assert what in known or any(
        line.startswith(what) for one in extras["optional-dependencies"].values() for line in one
    )


def part(name: str, words: list[str]) -> None:
    """Run a part of lsr-infer, which takes no time, on a shipped model."""
    shipped = str(REPOSITORY / "lsr_infer/models/toytown.onnx")
    given = [shipped if word.endswith(".onnx") else word for word in words]
    assert lsr_infer([name, *given, *(["--frames", "3"] if name == "bench" else [])]) == 0


def launch(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """Read a line of a launcher by its own parser, and the training command in it by ours."""
    launched = parser.parse_args(words)
    command, *rest = launched.training_script_args
    assert (launched.module, launched.training_script) == (True, "lsr_train")
    train(command, rest)


def script(words: list[str]) -> None:
    """A file of the repository, or a module of its tests."""
    name = f"{words[1].replace('.', '/')}.py" if words[0] == "-m" and words[1].startswith("tests.") else words[0]
    assert (REPOSITORY / name).is_file()


READERS: dict[str, Callable[[list[str]], object]] = {
    **{f"python -m lsr_train {name}": lambda words, name=name: train(name, words) for name in OWN_RECIPES},
    "python -m lsr_train compare": lambda words: table_options("compare", words, CompareOptions),
    "python -m lsr_train ablate": lambda words: table_options("ablate", words, AblateOptions),
    "python -m lsr_train analyze": analyze_options,
    "python -m lsr_train report": report_options,
    "python -m lsr_train evaluate": evaluate_options,
    "python -m lsr_train suggest": suggest_options,
    "python -m lsr_train.toytown": toytown_parser().parse_args,
    "python export/to_onnx.py": onnx_parser().parse_args,
    "python export/to_trt.py": trt_parser().parse_args,
    "python demo/app.py": demo_parser().parse_args,
    "python": script,
    "lsr-infer": segment_options,
    "lsr-infer archive": lambda words: archive_request(words).options,
    **{f"lsr-infer {name}": lambda words, name=name: part(name, words) for name in ("info", "bench", "serve-config")},
    "torchrun": lambda words: launch(torchrun_parser(), words),
    "accelerate launch": lambda words: launch(launch_command_parser(), words),
    "make": make,
    "pip install": install,
    "source": source,
}
"""By the beginning of a line; the longest holds. A line that ends in … leaves out more options of the same kind."""

OF_THE_CONSUMER = ("g++ ", "OV=$(", "./segment ")
"""The C++ program of docs/export.md: tests/export/test_consumer.py builds and runs it."""


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith(OF_THE_CONSUMER)])
def test_a_command_is_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = max((name for name in READERS if f"{line} ".startswith(f"{name} ")), key=len, default=None)
    assert program is not None, "no program of ours is named; READERS has to know how it is read"
    words = re.split(r" [<>] | \|\| ", line)[0].removeprefix(program).replace("…", "")
    if program in ("lsr-infer info", "lsr-infer bench", "lsr-infer serve-config"):
        monkeypatch.chdir(tmp_path)
    READERS[program](shlex.split(words))


@pytest.mark.parametrize("name", ["compare", "ablate", "analyze", "report", "suggest", "evaluate", "distill"])
def test_each_command_is_shown(name: str) -> None:
    assert any(line.startswith(f"python -m lsr_train {name} ") for line in COMMANDS)


SEVERAL_HOSTS = (REPOSITORY / "docs" / "guide" / "several_hosts.md").read_text(encoding="utf-8")
DIRECTIVES = {  # of sbatch(1), with what may stand behind them
    "job-name": r"\w+", "nodes": r"\d+", "ntasks-per-node": r"\d+", "gpus-per-node": r"\d+", "cpus-per-task": r"\d+",
    "time": r"\d\d:\d\d:\d\d", "requeue": "", "open-mode": "append|truncate", "output": r"[\w.%]+",
}  # fmt: skip


def test_the_script_for_slurm_is_one() -> None:
    (text,) = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", SEVERAL_HOSTS, flags=re.DOTALL)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    given = re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, flags=re.MULTILINE)
    assert len(given) == text.count("#SBATCH") == len(DIRECTIVES)
    assert all(re.fullmatch(DIRECTIVES[name], value) for name, value in given)
    (line,) = re.findall(r"^srun torchrun (.*)", text.replace("\\\n", " "), flags=re.MULTILINE)
    launch(torchrun_parser(), shlex.split(line.replace("$SLURM_JOB_NUM_NODES", "2")))


def test_the_manifests_for_kubernetes_fit_its_schemas() -> None:
    kubernetes = pytest.importorskip("kubernetes_validate")
    (text,) = re.findall(r"```yaml\n(apiVersion.*?)```", SEVERAL_HOSTS, flags=re.DOTALL)
    service, job = yaml.safe_load_all(text)
    for manifest in (service, job):
        kubernetes.validate(manifest, kubernetes.latest_version(), strict=True)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["torchrun"]
    launch(torchrun_parser(), container["args"])
    name = job["metadata"]["name"]
    assert f"--rdzv-endpoint={name}-0.{service['metadata']['name']}:29400" in container["args"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    job["spec"]["completionMode"] = 1
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(job, kubernetes.latest_version(), strict=True)
