"""Locks, and work shared out over devices: order, failure, and processes that never outlive who started them."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lsr_infer.errors import InputError, UsageError
from lsr_train.comparison.schedule import Busy, Children, Job, Slot, claim, exclusive, is_held, run_jobs, slots_of

ONE, TWO = [Slot(device="cpu")], [Slot(device="cpu"), Slot(device="cpu")]


def recording(done: list[str], name: str, *, fails: bool = False) -> Callable[[Slot], None]:
    def work(_: Slot) -> None:
        if fails:
            raise InputError("broken")
        done.append(name)

    return work


@pytest.mark.parametrize("slots", [ONE, TWO])
def test_what_waits_for_a_failure_is_left_out_and_the_rest_goes_on(slots: list[Slot]) -> None:
    done: list[str] = []
    failures: list[tuple[str, str | None]] = []
    broken = Job(name="broken", work=recording(done, "broken", fails=True))
    good = Job(name="good", work=recording(done, "good"))
    jobs = [
        broken, good,
        Job(name="after broken", work=recording(done, "after broken"), after=broken),
        Job(name="after good", work=recording(done, "after good"), after=good),
    ]  # fmt: skip
    run_jobs(
        jobs, slots, Children(), lambda job, error: failures.append((job.name, None if error is None else str(error)))
    )
    assert sorted(done) == ["after good", "good"]
    assert sorted(failures) == [("after broken", None), ("broken", "broken")]
    assert [job.state for job in jobs] == ["failed", "done", "failed", "done"]


def test_what_another_process_is_at_is_tried_again_after_the_rest() -> None:
    done: list[str] = []
    tries = iter([True, True, False])

    def busy(_: Slot) -> None:
        if next(tries):
            raise Busy
        done.append("busy")

    jobs = [Job(name="busy", work=busy), Job(name="free", work=recording(done, "free"))]
    failures: list[str] = []
    run_jobs(jobs, ONE, Children(), lambda job, error: failures.append(job.name))
    assert (done, failures) == (["free", "busy"], [])


def test_two_places_work_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=20)
    failures: list[str] = []
    jobs = [Job(name=str(index), work=lambda _: meeting.wait() and None) for index in range(2)]
    run_jobs(jobs, TWO, Children(), lambda job, error: failures.append(f"{job.name} {error!r}"))
    assert failures == []


def test_places() -> None:
    cores = len(os.sched_getaffinity(0))
    share = {"OMP_NUM_THREADS": str(max(1, cores // 2)), "MKL_NUM_THREADS": str(max(1, cores // 2))}
    assert slots_of(["auto"], {}) == [Slot(device="auto")]
    assert slots_of(["cpu", "cpu"], {}) == [Slot(device="cpu", environment=share)] * 2
    assert slots_of(["cpu", "cpu"], {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}) == [Slot(device="cpu")] * 2
    of_two = [Slot(device="cuda", environment={"CUDA_VISIBLE_DEVICES": number}) for number in ("4", "7")]
    assert slots_of(["cuda:0", "cuda:1"], {"CUDA_VISIBLE_DEVICES": "4,7"}) == of_two
    for names, text in (([], "is empty"), (["gpu"], "allowed"), (["cpu:0"], "allowed"), (["cuda:x"], "allowed")):
        with pytest.raises(UsageError, match=text):
            slots_of(names, {})
    with pytest.raises(UsageError, match="shows 1"):
        slots_of(["cuda:1"], {"CUDA_VISIBLE_DEVICES": "0"})


def test_a_command_runs_in_a_process_of_its_own_and_its_code_comes_back(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert Children().run([["evaluate", str(tmp_path / "none.pth"), "--layout", "toytown-camera"]], ONE[0], log) == 4
    said = log.read_text(encoding="utf-8")
    assert said.startswith("$ python -m lsr_train evaluate")
    assert "error: " in said


def test_once_stopped_nothing_begins(tmp_path: Path) -> None:
    children = Children()
    children.stop()
    assert children.run([["evaluate"]], ONE[0], tmp_path / "log") == 130


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
