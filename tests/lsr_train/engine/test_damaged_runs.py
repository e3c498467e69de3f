"""A run folder with a damaged file is never continued in silence, and the newest whole checkpoint is offered."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from export.to_onnx import main as to_onnx
from lsr_infer.errors import exit_status
from lsr_train.commands.dispatch import evaluate
from lsr_train.runs.matching import is_finished
from tests.lsr_train.training_runs import run_here, weights, words

MODEL, TENSORS, DOCUMENT = "model.safetensors", "state.safetensors", "state.json"
STEPS = ["--train.steps", "4", "--train.checkpoint_every", "2", "--train.keep", "3"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the checkpoints of steps 2 and 4."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert run_here("pretrain", words("toytown_source", run, *STEPS, "--selection.signal", "none")) == 0
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def flip(path: Path, share: float) -> None:
    """Change a bit at a share of the file's length."""
    data = bytearray(path.read_bytes())
    data[int(share * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def cut(path: Path, share: float) -> None:
    """Keep a share of the file."""
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def resume(run: Path) -> int:
    return run_here("pretrain", ["--resume", str(run)])


@pytest.mark.parametrize("name", [MODEL, TENSORS, DOCUMENT])
@pytest.mark.parametrize(("damage", "share"), [(flip, 0.5), (flip, 1.0), (cut, 0.9), (cut, 0.0)])
def test_a_damaged_checkpoint_is_named_and_the_whole_one_offered(
    whole: Path, run: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Callable[..., None], share: float
) -> None:
    damage(run / "checkpoints/step-4" / name, share)
    assert resume(run) == 4
    error = capsys.readouterr().err.splitlines()[-1]
    assert "step-4" in error
    advice = re.search(r"To go on from (step-2), write its name into (\S+) and remove (step-4)\.$", error)
    assert advice is not None, error
    Path(advice[2]).write_text(advice[1], encoding="utf-8")
    shutil.rmtree(run / "checkpoints" / advice[3])
    assert resume(run) == 0
    assert weights(run, 4) == weights(whole, 4)


def test_damage_to_the_name_of_the_digest_is_no_way_past_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = run / "checkpoints/step-4" / DOCUMENT
    document.write_text(document.read_text(encoding="utf-8").replace('"digest"', '"digesu"'), encoding="utf-8")
    flip(run / "checkpoints/step-4" / TENSORS, 0.7)
    assert resume(run) == 4
    assert "state.json: it is damaged" in capsys.readouterr().err


def test_without_a_whole_one_nothing_is_offered(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (2, 4):
        flip(run / f"checkpoints/step-{step}/{MODEL}", 0.7)
    assert resume(run) == 4
    assert "no other one of this run is whole" in capsys.readouterr().err


def test_files_of_two_checkpoints_are_not_taken_for_one(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(run / "checkpoints/step-2" / MODEL, run / "checkpoints/step-4" / MODEL)
    (run / "checkpoints/step-mine").mkdir()  # is not looked at
    assert resume(run) == 4
    assert "of another checkpoint. To go on from step-2" in capsys.readouterr().err


def test_a_checkpoint_under_the_name_of_another_is_not_taken_for_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run / "checkpoints/step-2", run / "checkpoints/step-4", dirs_exist_ok=True)
    assert resume(run) == 4
    assert "step-4: holds the checkpoint of step 2. To go on from step-2" in capsys.readouterr().err


def test_a_finished_run_that_goes_on_from_an_older_checkpoint_is_not_finished(whole: Path, run: Path) -> None:
    assert is_finished(run)
    shutil.rmtree(run / "checkpoints/step-4")
    (run / "checkpoints/last").write_text("step-2\n", encoding="utf-8")
    assert not is_finished(run)
    assert resume(run) == 0
    assert is_finished(run)
    assert weights(run, 4) == weights(whole, 4)


def test_a_damaged_checkpoint_is_neither_scored_nor_exported(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(run / "checkpoints/step-4" / MODEL, 0.6)
    data = ["--data", "", "--layout", "toytown-camera", "--split", "val", "--limit", "1"]
    assert exit_status(lambda: evaluate([str(run), *data])) == 4
    assert "step-2, the newest that is whole" in capsys.readouterr().err
    model = run.with_name("model.onnx")
    assert exit_status(lambda: to_onnx([str(run), "-o", str(model)])) == 4
    assert "step-2, the newest that is whole" in capsys.readouterr().err
    assert not model.exists()


def test_what_a_kill_kept_from_being_removed_goes_on_resumption(run: Path) -> None:
    text = (run / "config.yaml").read_text(encoding="utf-8")
    (run / "config.yaml").write_text(text.replace("keep: 3\n", "keep: 1\n", 1), encoding="utf-8")
    assert resume(run) == 0
    assert [path.name for path in (run / "checkpoints").glob("step-*")] == ["step-4"]


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "checkpoints/last"])
def test_a_file_that_is_no_text_is_one_sentence(run: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (run / name).write_bytes(b"\xff\xfe\x00")
    assert resume(run) == 4
    error = capsys.readouterr().err
    assert name in error.splitlines()[-1]
    assert "Traceback" not in error


def test_another_configuration_than_the_checkpoints_is_said(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert resume(run) == 0
    assert "another config.yaml" not in caplog.text
    text = (run / "config.yaml").read_text(encoding="utf-8")
    (run / "config.yaml").write_text(text.replace("steps: 4\n", "steps: 5\n", 1), encoding="utf-8")
    assert resume(run) == 0
    assert "step-4 was written with another config.yaml" in caplog.text


def test_a_pointer_to_a_best_checkpoint_that_is_gone_is_no_silent_second_best(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "checkpoints/best").write_text("step-3\n", encoding="utf-8")
    assert exit_status(lambda: evaluate([str(run), "--data", "", "--layout", "toytown-camera"])) == 4
    assert "points to 'step-3', which is no checkpoint" in capsys.readouterr().err
