"""How far a table is: steps of running trainings, what an earlier command did, and what ended early."""

import json
from pathlib import Path

from lsr_train.comparison.activity import Activity, TableWatch


def at_step(folder: Path, step: int) -> Path:
    """Make a run folder whose log has come to a step, with a row behind it that a kill left unfinished."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{number},0.5\n" for number in range(10, step + 1, 10))
    (folder / "metrics.csv").write_text(f"step,loss\n{rows}{step + 10}", encoding="utf-8")
    return folder


def finished(folder: Path, step: int) -> Path:
    at_step(folder, step)
    (folder / "status.json").write_text(json.dumps({"state": "finished", "step": step}), encoding="utf-8")
    (folder / f"checkpoints/step-{step}").mkdir(parents=True)
    (folder / "checkpoints/last").write_text(f"step-{step}\n", encoding="utf-8")
    return folder


def activity(folder: Path, steps: int) -> Activity:
    return Activity(name=f"{folder.name}, seed 0", log=folder.with_suffix(".log"), folder=folder, steps=steps)


def test_the_share_follows_the_steps_of_what_runs(tmp_path: Path) -> None:
    one, other = at_step(tmp_path / "lsr", 20), tmp_path / "minent"
    running = [activity(one, 100)]
    watch = TableWatch(lambda: running, {one: 100, other: 100})
    assert watch.look() == (10, "lsr, seed 0: step 20 of 100")
    at_step(one, 60)
    running.append(activity(other, 100))
    assert watch.look() == (30, "lsr, seed 0: step 60 of 100; minent, seed 0: step 0 of 100")


def test_what_an_earlier_command_finished_or_began_counts(tmp_path: Path) -> None:
    early = finished(tmp_path / "early", 40)  # it stopped before its last step
    begun = at_step(tmp_path / "begun", 50)
    assert TableWatch(list, {early: 100, begun: 100}).look() == (75, "")


def test_a_training_that_ends_early_counts_whole(tmp_path: Path) -> None:
    folder = at_step(tmp_path / "wild", 10)
    running = [activity(folder, 100)]
    watch = TableWatch(lambda: running, {folder: 100})
    assert watch.look()[0] == 10
    running.clear()
    assert watch.look()[0] == 100


def test_scores_count_too(tmp_path: Path) -> None:
    folder = finished(tmp_path / "lsr", 100)
    scoring = Activity(name="scoring lsr, seed 0", log=tmp_path / "log")
    ended = 0
    watch = TableWatch(lambda: [scoring], {folder: 100}, 2, lambda: ended)
    share, remark = watch.look()
    assert 90 < share < 100
    assert remark == "scoring lsr, seed 0"
    ended = 2
    assert watch.look()[0] == 100


def test_a_table_of_networks_that_are_there_counts_its_scores() -> None:
    watch = TableWatch(list, {}, 4, lambda: 1)
    assert watch.look() == (25, "")
