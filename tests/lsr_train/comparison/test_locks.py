"""Locks between processes, and between threads of one."""

import threading
from pathlib import Path

import pytest

from lsr_infer.errors import InputError
from lsr_train.comparison.schedule import claim, exclusive, is_held


def test_one_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    assert not is_held(file)
    first = claim(file)
    assert first is not None
    assert claim(file) is None
    assert is_held(file)
    first.close()
    assert not is_held(file)


def test_a_block_waits_and_says_so_once(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    held = claim(file)
    assert held is not None
    said: list[str] = []
    entered = threading.Event()

    def wait() -> None:
        with exclusive(file, lambda: False, lambda: said.append("waiting")):
            entered.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not entered.wait(0.5)
    held.close()
    assert entered.wait(20)
    thread.join()
    assert said == ["waiting"]
    assert not is_held(file)


def test_waiting_can_be_given_up(tmp_path: Path) -> None:
    held = claim(tmp_path / "lock")
    with exclusive(tmp_path / "lock", lambda: True, lambda: None):
        assert held is not None
    assert is_held(tmp_path / "lock")
    held.close()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        claim(tmp_path / "nowhere" / "lock")
