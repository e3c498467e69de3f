"""What the scripts log is made printable, as the errors are: a name of a file gives a terminal no orders."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "export.to_onnx": ("main", ["absent.safetensors", "-o", "a.onnx"], ("torch", "onnx", "onnxscript")),
    "export.to_trt": ("main", ["absent.onnx", "-o", "a.engine"], ()),
    "lsr_train.commands.dispatch": ("run", ["evaluate", "absent.safetensors"], ("torch", "jsonargparse")),
}


@pytest.mark.parametrize("module", COMMANDS)
def test_a_log_line_is_one_line_without_control_characters(module: str, tmp_path: Path) -> None:
    name, words, needed = COMMANDS[module]
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed")
    code = (
        f"import logging, sys; from lsr_infer.errors import exit_status; from {module} import {name} as main\n"
        f"code = exit_status(lambda: main({words!r}))\n"
        "logging.getLogger('lsr_train').warning('before %s after', '\\x1b[2J\\nforged')\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode in (2, 3, 4), done.stderr
    assert done.stderr.endswith("\nbefore \\x1b[2J\\nforged after\n"), done.stderr
    assert list(tmp_path.iterdir()) == []
