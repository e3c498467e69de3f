"""The wheel of the runtime alone, in a fresh environment without torch: installed, started, put through its tests."""

import json
import os
import shutil
import subprocess
import sys
import venv
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


def run(*words: str | Path, cwd: Path, seconds: int = 1200) -> str:
    """Run a program outside of this checkout's own environment and return what it says."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True, check=False,
        timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


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


@pytest.mark.slow
def test_the_wheel_alone_in_a_fresh_environment(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    source = tmp_path / "source"  # setuptools leaves a build folder beside what it builds
    shutil.copytree(
        REPOSITORY,
        source,
        ignore=shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "__pycache__", ".*_cache"),
    )
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--quiet",
        "--wheel-dir",
        tmp_path / "wheels",
        source,
        cwd=tmp_path,
    )
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, "pytest", "hypothesis", cwd=tmp_path)
    run(python, "-m", "pip", "check", cwd=tmp_path)

    checkout = tmp_path / "checkout"  # the tests alone, so that what is installed is what they test
    shutil.copytree(source / "tests" / "lsr_infer", checkout / "tests" / "lsr_infer")
    shutil.copy(source / "tests" / "conftest.py", checkout / "tests")
    shutil.copy(source / "pyproject.toml", checkout)
    shared = REPOSITORY.parent / "shared"
    if shared.exists():
        (tmp_path / "shared").symlink_to(shared.resolve())
    found = json.loads(run(python, "-c", INSTALLED_MODULES, cwd=checkout))
    assert found["there"] == []
    assert Path(found["home"]).is_relative_to(environment)
    assert "lsr-infer" in run(environment / "bin" / "lsr-infer", "--help", cwd=checkout)
    said = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/lsr_infer", cwd=checkout)
    record_property("summary", said.splitlines()[-1])
    assert " passed" in said
