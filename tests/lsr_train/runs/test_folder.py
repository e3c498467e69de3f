"""The run folder: nothing half-written is ever seen, nothing of another run is ever overwritten."""

import os
import signal
import time
from pathlib import Path

import pytest

from lsr_infer.errors import InputError, UsageError
from lsr_train.runs.folder import MODEL_FILE, STAGES_FILE, RunFolder, StepTable, resolve_model
from lsr_train.runs.matching import is_finished


def fill(folder: Path) -> None:
    (folder / MODEL_FILE).write_text("weights", encoding="utf-8")


def test_a_checkpoint_is_pointed_at_and_old_ones_go(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", "a: 1\n") as run:
        for step in (10, 20, 30, 40):
            run.save(step, fill, best=step == 20, keep=1)
        assert run.steps() == [20, 40]
        assert (run.pointer("last"), run.pointer("best")) == (40, 20)
        assert resolve_model(run.path) == run.checkpoint(20) / MODEL_FILE
        assert resolve_model(run.checkpoint(40)) == run.checkpoint(40) / MODEL_FILE


def test_without_a_selected_checkpoint_the_last_one_is_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunFolder.create(tmp_path / "run", "a: 1\n") as run:
        run.save(10, fill, best=True, keep=2)
        with caplog.at_level("INFO"):
            assert resolve_model(run.path) == run.checkpoint(10) / MODEL_FILE
        assert not caplog.records
        (run.path / "checkpoints/best").unlink()
        run.save(20, fill, best=False, keep=2)
        with caplog.at_level("INFO"):
            assert resolve_model(run.path) == run.checkpoint(20) / MODEL_FILE
        assert "no checkpoint was selected" in caplog.text
        assert "step-20" in caplog.text


def test_another_run_is_never_overwritten(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, "a: 1\n").close()
    with pytest.raises(UsageError, match="another configuration"):
        RunFolder.create(tmp_path, "a: 2\n")
    with pytest.raises(UsageError, match="--resume"):
        RunFolder.create(tmp_path, "a: 1\n")
    assert (tmp_path / "config.yaml").read_text(encoding="utf-8") == "a: 1\n"


def test_a_start_that_was_killed_before_its_configuration_gives_way(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, "a: 1\n", stages={"choices": ["one"]}):
        pass
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "checkpoints").rmdir()
    RunFolder.create(tmp_path, "a: 2\n", stages={"choices": ["another"]}).close()
    assert "another" in (tmp_path / STAGES_FILE).read_text(encoding="utf-8")
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "checkpoints").rmdir()
    RunFolder.create(tmp_path, "a: 3\n").close()  # of one stage
    assert not (tmp_path / STAGES_FILE).exists()


def test_of_two_starts_in_one_new_folder_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire = RunFolder._acquire

    def other_first(self: RunFolder) -> None:
        monkeypatch.setattr(RunFolder, "_acquire", acquire)
        RunFolder.create(tmp_path, "a: 1\n").close()  # as another process, after this one found the folder free
        acquire(self)

    monkeypatch.setattr(RunFolder, "_acquire", other_first)
    with pytest.raises(UsageError, match="another configuration"):
        RunFolder.create(tmp_path, "a: 2\n")
    assert (tmp_path / "config.yaml").read_text(encoding="utf-8") == "a: 1\n"
    RunFolder.open(tmp_path).close()  # nobody holds it


@pytest.mark.slow
def test_of_many_starts_at_once_one_wins(tmp_path: Path) -> None:
    for turn in range(20):
        children = []
        for number in range(3):
            child = os.fork()
            if child == 0:
                try:
                    RunFolder.create(tmp_path / str(turn), f"a: {number}\n", stages={"choices": [number]}).close()
                    os._exit(0)
                except UsageError:
                    os._exit(2)
                finally:
                    os._exit(1)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert sorted(codes) == [0, 2, 2]
        assert (tmp_path / str(turn) / "config.yaml").read_text(encoding="utf-8") == f"a: {codes.index(0)}\n"
        assert f"{codes.index(0)}\n" in (tmp_path / str(turn) / STAGES_FILE).read_text(encoding="utf-8")


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty"):
        RunFolder.create(tmp_path, "a: 1\n")


def test_two_processes_cannot_hold_one_run(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, "a: 1\n"), pytest.raises(UsageError, match="another process"):
        RunFolder.open(tmp_path)
    RunFolder.open(tmp_path).close()


def test_a_failing_write_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise OSError(28, "No space left on device")

    with RunFolder.create(tmp_path, "a: 1\n") as run:
        run.save(10, fill, best=True, keep=2)
        with pytest.raises(InputError, match="disk is full"):
            run.save(20, fail, best=True, keep=2)
        assert (run.pointer("last"), run.pointer("best"), run.steps()) == (10, 10, [10])
        assert [item.name for item in (tmp_path / "checkpoints").iterdir() if item.name.startswith(".")] == []


def test_opening_removes_what_a_kill_left(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, "a: 1\n") as run:
        run.save(10, fill, best=False, keep=2)
        (tmp_path / "checkpoints" / ".step-20.part").mkdir()
        (tmp_path / ".config.0123456789abcdef.part.yaml").write_text("half", encoding="utf-8")
        (tmp_path / ".before_after.0123456789abcdef.part").mkdir()  # killed while it drew the pictures
        run.checkpoint(30).mkdir()  # renamed, and killed before `last` was written
    with RunFolder.open(tmp_path) as run:
        assert run.steps() == [10]
        assert not list(tmp_path.glob(".*.part*"))
        assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_table_is_cut_back_and_goes_on(tmp_path: Path) -> None:
    table = StepTable(tmp_path / "t.csv")
    for step in (5, 10, 15):
        table.append({"step": step, "loss": step / 3})
    with table.path.open("a", encoding="utf-8") as file:
        file.write("20,0.1")  # a kill in the middle of a row
    again = StepTable(tmp_path / "t.csv")
    again.cut(10)
    again.append({"step": 12, "loss": 0.5})
    assert [row["step"] for row in again.read()] == ["5", "10", "12"]
    assert float(again.read()[1]["loss"]) == 10 / 3
    with pytest.raises(InputError, match=r"t\.csv: its columns are not those of this run"):  # its header is damaged
        again.append({"step": 13, "other": 1})
    fresh = StepTable(tmp_path / "u.csv")
    fresh.append({"step": 5, "loss": 1})
    with pytest.raises(ValueError, match="columns"):
        fresh.append({"step": 13, "other": 1})


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        resolve_model(tmp_path / "nothing")
    with pytest.raises(InputError, match="no checkpoint in it"):
        resolve_model(tmp_path)


@pytest.mark.parametrize("text", ["", "step-30\n", "step-x\n", "nonsense"])
def test_a_damaged_pointer_is_an_error_and_removes_nothing(text: str, tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, "a: 1\n") as run:
        for step in (10, 20):
            run.save(step, fill, best=False, keep=3)
    (tmp_path / "checkpoints/last").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="step-10, step-20"):
        RunFolder.open(tmp_path)
    assert RunFolder(tmp_path).steps() == [10, 20]


@pytest.mark.parametrize("best", [True, False])
def test_a_missing_pointer_beside_checkpoints_removes_nothing(best: bool, tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, "a: 1\n") as run:
        for step in (10,) if best else (10, 20):
            run.save(step, fill, best=best, keep=3)
    there = RunFolder(tmp_path).steps()
    (tmp_path / "checkpoints/last").unlink()
    with pytest.raises(InputError, match="it is missing, and there are step-10"):
        RunFolder.open(tmp_path)
    assert RunFolder(tmp_path).steps() == there


def test_a_living_child_of_a_killed_run_does_not_hold_it(tmp_path: Path) -> None:
    ready, go = os.pipe()
    holder = os.fork()
    if holder == 0:  # the run: it forks a worker and is killed
        run = RunFolder.create(tmp_path / "run", "a: 1\n")
        worker = os.fork()
        if worker == 0:
            time.sleep(60)
            os._exit(0)
        os.write(go, f"{worker}\n".encode())
        time.sleep(60)
        run.close()
        os._exit(0)
    worker = int(os.read(ready, 20))
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    try:
        os.kill(worker, 0)  # it lives
        RunFolder.open(tmp_path / "run").close()
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(ready)
        os.close(go)


def test_a_table_with_a_garbled_row_is_named(tmp_path: Path) -> None:
    table = StepTable(tmp_path / "t.csv")
    table.append({"step": 5, "loss": 1.0})
    with table.path.open("a", encoding="utf-8") as file:
        file.write("five,0.1\n")
    with pytest.raises(InputError, match=r"t\.csv"):
        StepTable(tmp_path / "t.csv").cut(10)


def test_a_copy_beside_the_checkpoints_is_left_alone(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, "a: 1\n") as run:
        run.save(10, fill, best=False, keep=1)
        (tmp_path / "checkpoints/step-10-copy").mkdir()
    with RunFolder.open(tmp_path) as run:
        assert run.steps() == [10]
        assert (tmp_path / "checkpoints/step-10-copy").is_dir()


def test_a_run_can_be_resumed_from_its_first_file_on(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, "a: 1\n").close()
    (tmp_path / "checkpoints").rmdir()  # a kill right after config.yaml
    with RunFolder.open(tmp_path) as run:
        assert run.pointer("last") is None
        run.save(5, fill, best=True, keep=1)


def test_tables_that_are_nested_too_deeply_are_damaged(tmp_path: Path) -> None:
    for name in ("status.json", "environment.json"):
        (tmp_path / name).write_text("[" * 2000, encoding="utf-8")
    run = RunFolder(tmp_path)
    assert (run.seconds(), run.environments(), is_finished(tmp_path)) == (0, [], False)
    with pytest.raises(InputError, match=r"status\.json: it cannot be read"):
        run.status()
