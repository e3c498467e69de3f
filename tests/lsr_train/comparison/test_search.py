"""A search over fields: proposals, what a killed process leaves, and files that are something else."""

import contextlib
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine.default import DefaultDialect

from lsr_infer.errors import InputError, UsageError
from lsr_train.comparison.schedule import Busy, acquire
from lsr_train.comparison.search import STUDY_FILE, SharedStudy
from lsr_train.comparison.spec import SearchRange
from tests.lsr_train.training_runs import REPOSITORY

RANGES = (
    SearchRange(field="weights.cluster", low=1e-6, high=1e-2, log=True, current=1e-5),
    SearchRange(field="optim.warmup_steps", low=1, high=30, log=False, current=20),
)
ABOUT = {"run": "lsr", "signal": "flip"}


def opened(folder: Path, seed: int = 0) -> SharedStudy:
    return SharedStudy(folder, RANGES, ABOUT, seed, lambda: False)


def objective(values: dict[str, float]) -> float:
    """Highest at 3e-4 and 5."""
    return -((math.log10(values["weights.cluster"] / 3e-4)) ** 2) - (values["optim.warmup_steps"] - 5) ** 2 / 100


def work(search: SharedStudy, trials: int) -> None:
    while (taken := search.take(trials)) is not None:
        trial, lock = taken
        with lock:
            search.tell(trial, objective(dict(trial.values)), {"signals": {"flip": 1.0}})


def points(search: SharedStudy) -> list[dict[str, float]]:
    return [dict(trial.values) for trial in search.trials()]


def test_the_runs_own_values_come_first_and_the_search_finds_better_ones(tmp_path: Path) -> None:
    search = opened(tmp_path)
    work(search, 40)
    trials = search.trials()
    assert [trial.number for trial in trials] == list(range(40))
    assert dict(trials[0].values) == {"weights.cluster": 1e-5, "optim.warmup_steps": 20}
    assert all(
        1e-6 <= t.values["weights.cluster"] <= 1e-2 and 1 <= t.values["optim.warmup_steps"] <= 30 for t in trials
    )
    found = [trial.signal for trial in trials if trial.signal is not None]
    assert max(found) > -0.05 > found[0]
    # the estimator's points are better than those drawn at random before it
    assert sum(found[20:]) / 20 > sum(found[1:5]) / 4
    assert trials[3].more == {"signals": {"flip": 1.0}}


def test_interrupted_it_proposes_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = opened(tmp_path / "whole")
    work(whole, 12)
    for trials in (3, 8, 12):
        work(opened(tmp_path / "parts"), trials)
    assert points(opened(tmp_path / "parts")) == points(whole)


class Killed(BaseException):
    """Ends a statement of SQLite as a kill would: what it belongs to is rolled back."""


def test_a_kill_while_a_trial_is_stored_leaves_all_of_it_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    work(opened(tmp_path / "whole"), 3)
    execute, left = DefaultDialect.do_execute, 0

    def dying(self: DefaultDialect, *words: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed
        execute(self, *words)

    monkeypatch.setattr(DefaultDialect, "do_execute", dying)
    for statement in range(1, 200, 7):
        left = statement
        with contextlib.suppress(Killed):
            opened(tmp_path / "killed").take(9)[1].lock.release()
            break  # there was no further statement to die at
    monkeypatch.undo()
    assert statement > 20
    work(opened(tmp_path / "killed"), 3)
    assert points(opened(tmp_path / "killed")) == points(opened(tmp_path / "whole"))


def test_a_failed_trial_counts_as_worse_than_any(tmp_path: Path) -> None:
    search = opened(tmp_path)
    taken = search.take(2)
    assert taken is not None
    with taken[1]:
        search.tell(taken[0], None, {"why": "not finite"})
    (trial,) = search.trials()
    assert (trial.state, trial.signal, trial.more) == ("failed", None, {"why": "not finite"})
    work(search, 8)
    assert [item.state for item in search.trials()] == ["failed", *["done"] * 7]


def test_what_a_killed_process_was_at_is_taken_up_and_what_a_living_one_is_at_is_not(tmp_path: Path) -> None:
    search = opened(tmp_path)
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.lsr_train.comparison.test_search import opened\n"
        "taken = opened(Path(sys.argv[1])).take(9)\n"
        "print(taken[0].number, flush=True)\n"
        "time.sleep(300)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert other.stdout is not None
    assert int(other.stdout.readline()) == 0
    taken = search.take(9)
    assert taken is not None
    assert taken[0].number == 1  # 0 is the living one's
    other.send_signal(signal.SIGKILL)
    other.wait()
    other.stdout.close()
    again = search.take(9)
    assert again is not None
    assert again[0].number == 0
    assert dict(again[0].values) == {"weights.cluster": 1e-5, "optim.warmup_steps": 20}
    for trial, lock in (taken, again):
        with lock:
            search.tell(trial, 0.5, {})
    assert [trial.state for trial in search.trials()] == ["done", "done"]


def test_as_many_as_are_asked_for(tmp_path: Path) -> None:
    search = opened(tmp_path)
    taken = [search.take(2), search.take(2)]
    assert None not in taken
    assert search.take(2) is None
    with pytest.raises(Busy):
        acquire(search.lock_file(0))


def test_another_search_is_not_mixed_in(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(UsageError, match="another search: space differ"):
        SharedStudy(tmp_path, RANGES[:1], ABOUT, 0, lambda: False)
    with pytest.raises(UsageError, match="another search: run differ"):
        SharedStudy(tmp_path, RANGES, {**ABOUT, "run": "oce"}, 0, lambda: False)


def test_a_file_that_is_no_study_is_named(tmp_path: Path) -> None:
    (tmp_path / STUDY_FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match=STUDY_FILE):
        opened(tmp_path)


def test_once_stopped_nothing_is_taken(tmp_path: Path) -> None:
    search = SharedStudy(tmp_path, RANGES, ABOUT, 0, lambda: True)
    assert search.take(5) is None


def test_a_trial_whose_run_broke_is_left_to_the_next_command(tmp_path: Path) -> None:
    search = opened(tmp_path)
    taken = search.take(2)
    assert taken is not None
    with taken[1]:
        search.leave(taken[0], "its process was killed")
    (trial,) = search.trials()
    assert (trial.state, trial.signal, trial.more) == ("open", None, {"why": "its process was killed"})
    work(search, 2)
    assert [item.state for item in search.trials()] == ["open", "done"]  # not tried again at once
    work(opened(tmp_path), 2)
    assert [item.state for item in opened(tmp_path).trials()] == ["done", "done"]
