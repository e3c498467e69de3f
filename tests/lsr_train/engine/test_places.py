"""A place that is full or read-only, and a clock that jumps back: one sentence each, and nothing is lost."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lsr_infer.errors import InputError, exit_status
from lsr_train.commands import dispatch
from lsr_train.comparison.search import SharedStudy
from lsr_train.comparison.spec import SearchRange
from lsr_train.engine.monitor import RunLog
from lsr_train.runs.folder import RunFolder
from tests.lsr_train.training_runs import run_here, weights, words

MORE = ["--train.steps", "3", "--train.checkpoint_every", "1", "--log.tensorboard", "true", "--log.gradients", "1"]


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own at a folder, or a skip where mounting is not allowed."""
    folder.mkdir(parents=True)
    line = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(line, check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the last line of stderr, which is the error, without a traceback before it."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    line = error.splitlines()[-1]
    assert line.startswith("error: ")
    return line


@pytest.mark.slow  # a training for each size
@pytest.mark.parametrize("kilobytes", [8, 12, 16, 24, 200, 2400, 3600])
def test_a_disk_that_fills_up_is_one_sentence_and_keeps_the_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kilobytes: int
) -> None:
    with mounted(tmp_path / "small", f"size={kilobytes}k") as place:
        assert run_here("pretrain", words("toytown_source", place / "run", *MORE)) == 4
        assert "the disk is full" in only_line(capsys)
        shutil.copytree(place / "run", tmp_path / "run")  # with more room it goes on
    assert run_here("pretrain", ["--resume", str(tmp_path / "run")]) == 0
    assert run_here("pretrain", words("toytown_source", tmp_path / "whole", *MORE)) == 0
    assert weights(tmp_path / "run", 3) == weights(tmp_path / "whole", 3)


def test_tensorboard_on_a_full_disk_is_the_runs_error(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "a: 1\n")
    with mounted(tmp_path / "small", "size=4k") as place:
        (run.path / "tensorboard").symlink_to(place)
        log = RunLog(run, tensorboard=True)

        def fill() -> None:
            for step in range(200):
                log.row(step, {"loss": 1.0}, {})

        with pytest.raises(InputError, match="tensorboard: cannot be written, the disk is full"):
            fill()
        log.close()


def test_a_clock_that_jumps_back_loses_no_event_and_keeps_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = RunFolder.create(tmp_path / "run", "a: 1\n")
    now = time.time()
    for first, jump in ((1, 0), (3, -86400), (5, -3 * 86400)):  # two resumptions, each on an earlier day
        monkeypatch.setattr(time, "time", lambda jump=jump: now + jump)
        log = RunLog(run, tensorboard=True)
        for step in range(first, first + 3):  # the last step comes again after a kill
            log.row(step, {"loss": float(10 * first + step)}, {})
        log.close()
    monkeypatch.undo()
    seen = events.EventAccumulator(str(run.path / "tensorboard"))
    seen.Reload()
    assert [(event.step, event.value) for event in seen.Scalars("loss")] == [
        (1, 11), (2, 12), (3, 33), (4, 34), (5, 55), (6, 56), (7, 57),
    ]  # fmt: skip


@pytest.mark.slow  # a training first
def test_a_read_only_place_and_a_full_one_are_one_sentence_in_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert run_here("pretrain", words("toytown_source", run, *MORE)) == 0
    data = ["--data", "", "--layout", "toytown-camera", "--split", "val", "--limit", "1"]
    commands = (
        lambda place: ["pretrain", *words("toytown_source", place / "new", *MORE)],
        lambda place: ["evaluate", str(run), *data, "--out", str(place / "result.json")],
        lambda place: ["report", str(run), "--out", str(place / "report.html")],
        lambda place: ["analyze", str(run), *data, "--out", str(place / "figures")],
    )
    for options, reason in (("ro,size=1m", "the file system is read-only"), ("size=4k", "the disk is full")):
        for number, command in enumerate(commands):
            with mounted(tmp_path / f"{reason[-4:]}{number}", options) as place:
                argv = command(place)
                code = exit_status(lambda argv=argv: dispatch.run(argv))
                line = only_line(capsys)
                assert code == 4, (argv, line)
                assert reason in line


def test_a_search_on_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    ranges = (SearchRange(field="weights.cluster", low=1e-6, high=1e-2, log=True, current=1e-5),)
    with mounted(tmp_path / "small", "size=400k") as place:
        study = SharedStudy(place, ranges, {}, 0, lambda: False)
        (place / "filler").write_bytes(bytes(1))
        with contextlib.suppress(OSError), (place / "filler").open("ab") as file:
            while True:
                file.write(bytes(1 << 12))
                file.flush()

        def work() -> None:
            for _ in range(200):
                taken = study.take(500)
                assert taken is not None
                with taken[1]:
                    study.tell(taken[0], 0.5, {})

        with pytest.raises(InputError, match=r"search\.db: cannot be used .*disk is full"):
            work()
        (place / "filler").unlink()
        assert SharedStudy(place, ranges, {}, 0, lambda: False).take(500) is not None
