"""The command `lsr-infer` as such: its version, and what it makes of a first word that is nothing it knows."""

from importlib import metadata
from pathlib import Path

import pytest

from lsr_infer.cli import main


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
