"""The wheel alone in a fresh environment without torch: installed, used as a user does first, put through its tests."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
INSTALLED_MODULES = """
import json, importlib.util, pathlib, lsr_infer
from lsr_infer import Segmenter
names = ("torch", "onnx", "openvino", "tensorrt", "safetensors", "yaml", "jsonargparse")
print(json.dumps({"home": str(pathlib.Path(lsr_infer.__file__).parent),
                  "there": [name for name in names if importlib.util.find_spec(name)]}))
"""


def finished(*words: str | Path, cwd: Path, seconds: int = 1200) -> "subprocess.CompletedProcess[str]":
    """Run a program outside of this checkout's own environment."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True, check=False,
        timeout=seconds,
    )  # fmt: skip


def run(*words: str | Path, cwd: Path) -> str:
    """Run a program that succeeds, and return what it puts on stdout."""
    done = finished(*words, cwd=cwd)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def refused(*words: str | Path, cwd: Path) -> str:
    """Run a program that lacks a package, and return what it says of that."""
    done = finished(*words, cwd=cwd)
    assert done.returncode == 3, done.stderr
    return done.stderr


def imported(path: Path) -> set[str]:
    """Return the packages a test file cannot do without: those it imports at its top."""
    import ast

    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def test_the_runtimes_tests_need_the_runtime_alone() -> None:
    allowed = {
        "lsr_infer",
        "tests",
        "numpy",
        "cv2",
        "av",
        "onnxruntime",
        "tqdm",
        "PIL",
        "pillow_heif",
        "msgspec",
        "psutil",
        "pytest",
        "hypothesis",
    }
    files = [REPOSITORY / "tests/conftest.py", *(REPOSITORY / "tests/lsr_infer").rglob("*.py")]
    assert len(files) > 10
    files.remove(REPOSITORY / "tests/lsr_infer/rtsp_server.py")  # the system's Python runs it, with its own packages
    for path in files:
        assert imported(path) - allowed <= set(sys.stdlib_module_names), path.name


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout: setuptools leaves a build folder beside what it builds."""
    copy = tmp_path_factory.mktemp("source") / "checkout"
    left_out = (".git", ".venv", "build", "runs", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(*left_out))
    return copy


def built(source: Path, folder: Path) -> Path:
    """Build the wheel of a source folder."""
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet"]
    run(*pip, "--wheel-dir", folder, source, cwd=folder.parent)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_the_wheel_of_the_source_distribution_is_that_of_the_checkout(source: Path, tmp_path: Path) -> None:
    run(sys.executable, "-c", f"from setuptools.build_meta import *; build_sdist({str(tmp_path)!r})", cwd=source)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    names = []
    for folder, place in (("checkout", source), ("distribution", unpacked)):
        with zipfile.ZipFile(built(place, tmp_path / folder)) as wheel:
            names.append({name for name in wheel.namelist() if not name.endswith("/RECORD")})
    assert names[0] == names[1]
    assert {"lsr_infer/models/street.onnx", "lsr_infer/models/street/NOTICE.md", "lsr_train/report/page.html"} <= names[
        0
    ]


@pytest.mark.slow
def test_the_wheel_alone_in_a_fresh_environment(
    source: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    wheel = built(source, tmp_path / "wheels")
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    run(python, "-m", "pip", "check", cwd=tmp_path)
    first_minutes(environment / "bin", tmp_path / "user")
    run(python, "-m", "pip", "install", "--quiet", "pytest", "hypothesis", cwd=tmp_path)

    checkout = tmp_path / "checkout"  # the tests alone, so that what is installed is what they test
    for name in ("lsr_infer", "kills"):
        shutil.copytree(source / "tests" / name, checkout / "tests" / name)
    for name in ("conftest.py", "object_store.py"):
        shutil.copy(source / "tests" / name, checkout / "tests")
    shutil.copy(source / "pyproject.toml", checkout)
    shared = REPOSITORY.parent / "shared"
    if shared.exists():
        (tmp_path / "shared").symlink_to(shared.resolve())
    found = json.loads(run(python, "-c", INSTALLED_MODULES, cwd=checkout))
    assert found["there"] == []
    assert Path(found["home"]).is_relative_to(environment)
    said = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/lsr_infer", cwd=checkout)
    record_property("summary", said.splitlines()[-1])
    assert " passed" in said


def first_minutes(programs: Path, folder: Path) -> None:
    """Do what a user does first, with nothing but the wheel and a clip."""
    (folder).mkdir()
    shutil.copy(REPOSITORY / "lsr_infer/models/street/clips/udacity_highway.mp4", folder / "CLIP.mp4")
    run(programs / "lsr-infer", "CLIP.mp4", cwd=folder)
    run(programs / "lsr-infer", "CLIP.mp4", "--model", "street-source", "--output", "before", cwd=folder)
    assert sorted(path.name for path in folder.rglob("*_overlay.mp4")) == ["CLIP_overlay.mp4"] * 2
    pictures = [(folder / name / "CLIP_overlay.mp4").read_bytes() for name in ("segmented", "before")]
    assert pictures[0] != pictures[1]
    for name in ("street", "street-source"):
        assert "int8" in run(programs / "lsr-infer", "info", name, cwd=folder)
    assert "lsr-infer" in run(programs / "lsr-infer", "--help", cwd=folder)
    for words in ([], ["adapt", "--source", "SIMULATOR", "--target", "CLIP.mp4", "--out", "run"]):
        said = refused(programs / "python", "-m", "lsr_train", *words, cwd=folder)
        assert re.fullmatch(r"error: \w+ is not installed in this Python .*Install lsr-road\[train\].*\n", said), said
