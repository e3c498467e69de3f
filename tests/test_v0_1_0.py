"""Opens files that version 0.1.0 made: run folders, a checkpoint, an exported network, a result and a table."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from accelerate.state import AcceleratorState, GradientState, PartialState

from export.to_onnx import main as to_onnx
from lsr_infer.cli import main as lsr_infer
from lsr_infer.errors import exit_status
from lsr_infer.segmenter import Segmenter
from lsr_train.commands import dispatch
from lsr_train.comparison.spec import read_comparison
from lsr_train.runs.folder import RunFolder

FILES = Path(__file__).parent / "data/v0_1_0"
STREET = FILES / "street"
RUNS = ("lsr_em", "lsr_st")


def lsr_train(*argv: object) -> int:
    """Run a command in this process and return its exit code."""
    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()
    return exit_status(lambda: dispatch.run([str(word) for word in argv]))


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in FILES.rglob("*")) < 2_000_000


def test_evaluate_scores_an_old_checkpoint_as_it_was_scored(tmp_path: Path) -> None:
    old = FILES / "result.json"
    out = tmp_path / "now.json"
    assert lsr_train("evaluate", FILES / "lsr_em", "--data", STREET, "--out", out, "--supervised", old) == 0
    then, now = json.loads(old.read_text()), json.loads(out.read_text())
    assert now["miou"] == pytest.approx(then["miou"], abs=1e-4)
    assert now["supervised"]["masr"] == pytest.approx(1, abs=1e-3)


def test_an_old_student_of_self_training_is_scored(tmp_path: Path) -> None:
    assert lsr_train("evaluate", FILES / "lsr_st", "--data", STREET, "--out", tmp_path / "now.json") == 0


def test_lsr_infer_opens_an_old_file(tmp_path: Path) -> None:
    argv = [str(STREET / "images"), "-m", str(FILES / "lsr_em.onnx"), "--save", "mask", "-o", str(tmp_path / "out")]
    assert lsr_infer(argv) == 0
    assert lsr_infer(["info", str(FILES / "lsr_em.onnx")]) == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3


def test_an_old_checkpoint_is_exported_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "now.onnx"
    assert exit_status(lambda: to_onnx([str(FILES / "lsr_em"), "-o", str(out), "--num-frames", "1"])) == 0
    frame = cv2.imread(str(next((STREET / "images").iterdir())))
    then, now = (Segmenter(path, "cpu")(frame) for path in (FILES / "lsr_em.onnx", out))
    np.testing.assert_array_equal(now.classes, then.classes)


def test_the_report_reads_old_runs_and_an_old_table(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    runs = [f"{name}={FILES / name}" for name in RUNS]
    assert lsr_train("report", *runs, f"table={FILES / 'table'}", "--out", page) == 0
    text = page.read_text(encoding="utf-8")
    assert all(name in text for name in (*RUNS, "minent", "interrupted"))


def test_an_old_comparison_is_read() -> None:
    runs = read_comparison(str(FILES / "comparison.yaml")).runs
    assert [run.name for run in runs] == ["source-only", "minent"]


@pytest.mark.parametrize("name", RUNS)
def test_an_old_run_is_resumed(name: str, tmp_path: Path) -> None:
    run = shutil.copytree(FILES / name, tmp_path / name)
    before = (run / "metrics.csv").read_text()
    assert lsr_train("adapt", "--resume", run) == 0
    status = RunFolder(run).status()
    assert (status["state"], status["step"]) == ("finished", 24)
    assert (run / "metrics.csv").read_text().startswith(before)


def test_an_old_run_with_a_value_that_is_gone_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(FILES / "lsr_em", tmp_path / "lsr_em")
    config = run / "config.yaml"
    text = config.read_text(encoding="utf-8")
    assert "distance: l2" in text
    config.write_text(text.replace("distance: l2", "distance: l1"), encoding="utf-8")
    assert lsr_train("adapt", "--resume", run) == 4
    message = capfd.readouterr().err.strip()
    assert message.count("\n") == 0
    assert "clustering.distance is l1" in message
    assert "again" in message
