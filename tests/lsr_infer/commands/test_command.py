"""The command `lsr-infer` as such: its version, and what it makes of a first word that is nothing it knows."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.cli import main

ROOT = Path(__file__).resolve().parents[3]


def test_version_is_the_installed_packages_and_stands_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"lsr-infer {metadata.version('lsr-road')}\n"
    assert not captured.err


def test_version_takes_nothing_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version", "clip.mp4"]) == 2
    assert "clip.mp4" in capsys.readouterr().err


@pytest.mark.parametrize(("word", "meant"), [("inf", "info"), ("benhc", "bench"), ("serve_config", "serve-config")])
def test_a_misspelt_part_is_told_the_right_name(word: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word, "model.onnx"]) == 2
    assert f"Did you mean {meant}?" in capsys.readouterr().err


def test_a_file_of_such_a_name_is_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("inf").write_bytes(b"no picture")
    assert main(["inf", "--output", "out"]) == 4
    assert "Did you mean" not in capsys.readouterr().err


def test_a_process_without_stderr_works_and_says_nothing_elsewhere(model: Path, tmp_path: Path) -> None:
    """As `lsr-infer … 2>&-` or a service starts it: the descriptor must not become that of a result."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 60, 3), 90, np.uint8))
    look = "import os, sys; from lsr_infer.cli import main; code = main(); print(os.readlink('/proc/self/fd/2')); "
    for source, code in (("a.png", 0), ("absent.png", 4)):
        words = [str(tmp_path / source), "-m", str(model), "-o", str(tmp_path / "out"), "--overwrite"]
        done = subprocess.run(
            [sys.executable, "-c", f"{look}sys.exit(code)", *words],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.close(2), timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (code, "/dev/null\n")
    assert (tmp_path / "out" / "a_overlay.jpg").is_file()


@pytest.mark.parametrize(
    "words", [[""], ["clip.mp4", "-o", ""], ["clip.mp4", "--model", "", "-o", "x"], ["clip.mp4", "--model=", "-o", "x"],
              ["info", ""], ["bench", ""], ["serve-config", "", "-o", "x"]],
)  # fmt: skip
def test_an_empty_word_is_no_folder(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An empty name is the working directory to the system: everything below it would be taken."""
    assert main(words) == 2
    assert "a name is empty" in capsys.readouterr().err
