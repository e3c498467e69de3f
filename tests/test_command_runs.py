"""Runs every command of the README and of the tutorial, with small stand-ins for what a user brings.

A command runs as it stands in a copy of the checkout, where a simulator, a real clip and small networks have the names
that the pages give them. Trainings get options behind their own that make them short; nothing else is changed but what
`as_run` says. A new command runs without being listed here, unless it names a store: tests/lsr_infer/io has one.
"""

import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import README, REPOSITORY, shown_commands
from tests.lsr_train.comparison.test_compare import SMALL as SMALL_TABLE
from tests.lsr_train.training_runs import TINY

pytestmark = pytest.mark.slow(reason="the commands of the documents, one after the other: half an hour")

TUTORIAL = REPOSITORY / "docs" / "tutorial.md"
LINES = shown_commands(README, TUTORIAL)
NETWORK = ["--network.weights", "none", "--network.backbone", "resnet18", "--network.width", "0.125"]
SHORT = [*NETWORK, *TINY]
SECONDS = 1800


def as_run(line: str) -> str:
    """Return a command as it is run: short, without downloads, and with what is installed here."""
    if re.match(r"python -m lsr_train (pretrain|adapt|distill)\b", line) and "--resume" not in line:
        if "--budget" in line:
            more = [] if "--network.weights" in line else NETWORK
            return re.sub(r"--budget \S+", "--budget 3m", line) + f" {shlex.join(more)}"
        stage = ["--source_stage.train.steps", "2"] if " adapt " in line and "--init" not in line else []
        own = ["--weights.cluster=0", "--weights.perpendicularity=0"] if "--method" in line else []
        student = [word for word in SHORT if word not in NETWORK[2:4]] if "distill" in line else SHORT
        crop = ["--augment.crop_height", "48", "--augment.crop_width", "96"] if "my_footage" in line else []
        return f"{line} {shlex.join([*student, *stage, *own, *crop])}"
    if re.match(r"python -m lsr_train (compare|ablate)\b", line):
        return f"{line} {shlex.join(SMALL_TABLE)}"
    if "to_onnx" in line and "int8" in line:  # a network of six steps is sure of nothing
        return f"{line} --agreement 0.5 --margin 0.01 --clear-agreement 0.5"
    if line.startswith("pip install"):
        return f"python -m {line} --dry-run --quiet"
    if line.startswith("make install"):
        # pip would not even install what it builds the package with
        built = f"rm .venv && {sys.executable} -m venv .venv && .venv/bin/pip install --quiet --upgrade setuptools"
        return f"{built} && PIP_DRY_RUN=1 PIP_NO_BUILD_ISOLATION=0 {line} PYTHON={sys.executable}"
    if line.startswith("make test"):
        return f"PYTEST_ADDOPTS=--collect-only {as_installed(line)}"
    if line.startswith("make gpu-check"):
        return f"{as_installed(line)} DRY=1"
    if line.startswith("make "):
        return as_installed(line)
    return line


def as_installed(line: str) -> str:
    """Let make take the environment of these tests for the one that it would install."""
    made = ("install", "install-all", ".venv/.installed-demo", ".venv/.installed-docs")
    return line.replace("make ", f"make {' '.join(f'-o {name}' for name in made)} ", 1)


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line in a shell, as from the environment of these tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, text=True, capture_output=True, timeout=SECONDS,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with data, networks and exported files under the names that the pages use."""
    folder = tmp_path_factory.mktemp("prepared") / "checkout"
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, text=True, capture_output=True, check=True).stdout
    for name in tracked.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    clip = folder / "lsr_infer/models/street/clips/udacity_highway.mp4"
    for name in ("CLIP.mp4", "drive.mp4"):
        shutil.copy(clip, folder / name)
    toytown = "python -m lsr_train.toytown frames --height 48 --width 96 --frames"
    adapt = f"python -m lsr_train adapt --source simulator --target CLIP.mp4 {shlex.join(SHORT)}"
    for line in (
        f"{toytown} 12 --domain game -o simulator",
        f"{toytown} 4 --domain camera --seed 500 -o check",
        f"{adapt} --source_stage.train.steps 2 --out runs/adapted",
        "mv runs/source-* runs/source",
        "sed -i 's|^init: .*|init: runs/source|' runs/adapted/config.yaml",
        *(f"python export/to_onnx.py runs/{name} -o {name}.onnx" for name in ("source", "adapted")),
    ):
        done = run(line, folder)
        assert done.returncode == 0, (line, done.stderr)
    for name in ("SIMULATOR", "DIR"):
        (folder / name).symlink_to("simulator")
    (folder / "drives").mkdir()
    shutil.copy(clip, folder / "drives")
    for name in re.findall(r"runs/(source-\w+)", "\n".join(LINES)):
        (folder / "runs" / name).symlink_to("source")
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of what is prepared, for one command."""
    copy = tmp_path / "checkout"
    shutil.copytree(prepared, copy, symlinks=True)
    yield copy
    shutil.rmtree(copy)


@pytest.mark.parametrize("line", [line for line in LINES if not line.startswith("make demo") and "s3://" not in line])
def test_a_command_runs(line: str, folder: Path) -> None:
    results = re.findall(r" (?:-o|--out|--output) (\S+)", line) if " --resume" not in line else []
    for name in results:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).unlink(missing_ok=True)
    done = run(as_run(line), folder)
    without = "to_trt" in line and not any(map(importlib.util.find_spec, ("tensorrt", "tensorrt_rtx")))
    assert done.returncode == (3 if without else 0), (done.stdout + done.stderr)[-4000:]
    assert without or all((folder / name).exists() for name in results)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make demo")])
def test_the_page_starts(line: str, folder: Path) -> None:
    options = re.findall(r'DEMO="(.*)"', line)
    command = as_installed(f'make demo DEMO="{" ".join([*options, "--port 0"])}"')
    environment = os.environ | {"PYTHONPATH": str(folder)}
    page = subprocess.Popen(
        ["bash", "-c", command], cwd=folder, env=environment, text=True, stderr=subprocess.PIPE, start_new_session=True
    )
    assert page.stderr is not None
    late = threading.Timer(SECONDS, os.killpg, (page.pid, signal.SIGKILL))
    late.start()
    try:
        assert any("the page is at http://127.0.0.1:" in text for text in page.stderr)
    finally:
        late.cancel()
        os.killpg(page.pid, signal.SIGTERM)  # SIGINT is ignored where these tests run in the background
        page.communicate(timeout=60)
