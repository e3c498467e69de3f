"""Trainings on Ray: what is not there yet is said, and nothing starts once it was asked to stop."""

from pathlib import Path
from typing import Any

import pytest

from lsr_infer.errors import InputError
from lsr_train.comparison.activity import Activity
from lsr_train.comparison.remote import RayWorkers


class _Ray:
    """Stands for Ray with a cluster of two cores; starts nothing."""

    def __init__(self) -> None:
        self.started: list[Any] = []

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, **options: Any) -> Any:
        return lambda function: self

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")


def test_a_run_that_no_node_has_room_for_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert RayWorkers(_Ray(), "cpu", 2).count == 1
    assert not caplog.records
    assert RayWorkers(_Ray(), "cuda", 1).count == 1
    assert RayWorkers(_Ray(), "cpu", 3).count == 1
    texts = [record.getMessage() for record in caplog.records]
    assert ["1 CPUs and a GPU" in texts[0], "3 CPUs for a run" in texts[1]] == [True, True]


def test_nothing_starts_once_it_was_asked_to_stop(tmp_path: Path) -> None:
    workers = RayWorkers(_Ray(), "cpu", 1)
    workers.stop()
    with pytest.raises(InputError, match="second: interrupted"):
        workers.do(lambda slot, processes: 0, Activity(name="second", log=tmp_path, folder=tmp_path, steps=1))
