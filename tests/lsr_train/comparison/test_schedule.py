"""Locks, and work shared out over devices: order, failure, and processes that never outlive who started them."""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lsr_infer.errors import InputError, UsageError
from lsr_infer.system.process import usable_cores
from lsr_train.comparison.activity import Activity
from lsr_train.comparison.schedule import (
    Busy,
    LocalWorkers,
    Processes,
    ScheduledTask,
    Slot,
    acquire,
    device_slots,
    is_locked,
    run_tasks,
)
from tests.lsr_train.training_runs import REPOSITORY

ONE, TWO = [Slot(device="cpu")], [Slot(device="cpu"), Slot(device="cpu")]


def recording(done: list[str], name: str, *, fails: bool = False) -> Callable[[], None]:
    def work() -> None:
        if fails:
            raise InputError("broken")
        done.append(name)

    return work


@pytest.mark.parametrize("slots", [ONE, TWO])
def test_what_waits_for_a_failure_is_left_out_and_the_rest_is_done(slots: list[Slot]) -> None:
    done: list[str] = []
    failures: list[tuple[str, str | None]] = []
    broken = ScheduledTask(name="broken", work=recording(done, "broken", fails=True))
    good = ScheduledTask(name="good", work=recording(done, "good"))
    tasks = [
        broken, good,
        ScheduledTask(name="after broken", work=recording(done, "after broken"), after=broken),
        ScheduledTask(name="after good", work=recording(done, "after good"), after=good),
    ]  # fmt: skip
    run_tasks(
        tasks,
        LocalWorkers(slots),
        lambda task, error: failures.append((task.name, None if error is None else str(error))),
    )
    assert sorted(done) == ["after good", "good"]
    assert sorted(failures) == [("after broken", None), ("broken", "broken")]


def test_what_another_process_is_working_on_is_tried_again_after_the_rest() -> None:
    done: list[str] = []
    tries = iter([True, True, False])

    def busy() -> None:
        if next(tries):
            raise Busy
        done.append("busy")

    tasks = [ScheduledTask(name="busy", work=busy), ScheduledTask(name="free", work=recording(done, "free"))]
    failures: list[str] = []
    run_tasks(tasks, LocalWorkers(ONE), lambda task, error: failures.append(task.name))
    assert (done, failures) == (["free", "busy"], [])


def test_tasks_are_done_in_their_order_where_nothing_has_to_wait() -> None:
    done: list[str] = []
    first, second = (ScheduledTask(name=name, work=recording(done, name)) for name in ("first", "second"))
    tasks = [
        first, second,
        ScheduledTask(name="after second", work=recording(done, "after second"), after=second),
        ScheduledTask(name="after first", work=recording(done, "after first"), after=first),
        ScheduledTask(name="free", work=recording(done, "free")),
    ]  # fmt: skip
    run_tasks(tasks, LocalWorkers(ONE), lambda task, error: None)
    assert done == ["first", "second", "free", "after first", "after second"]


def test_two_slots_work_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=20)
    failures: list[str] = []
    tasks = [ScheduledTask(name=str(index), work=lambda: meeting.wait() and None) for index in range(2)]
    run_tasks(tasks, LocalWorkers(TWO), lambda task, error: failures.append(f"{task.name} {error!r}"))
    assert failures == []


def test_each_slot_does_one_piece_of_work_at_a_time() -> None:
    workers = LocalWorkers([Slot(device="cpu"), Slot(device="cuda")])
    meeting, taken = threading.Barrier(2, timeout=20), []

    activity = Activity(name="x", log=Path("log"))

    def work(slot: Slot, _: Processes) -> None:
        assert slot.device not in taken
        taken.append(slot.device)
        meeting.wait()
        taken.remove(slot.device)

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(workers.do, work, activity) for _ in range(6)]:
            done.result()
    assert taken == []
    assert {workers.do(lambda slot, _: slot.device, activity) for _ in range(2)} == {"cpu", "cuda"}


def test_device_slots() -> None:
    cores = usable_cores()
    share = {"OMP_NUM_THREADS": str(max(1, cores // 2)), "MKL_NUM_THREADS": str(max(1, cores // 2))}
    assert device_slots(["auto"], {}) == [Slot(device="auto")]
    assert device_slots(["cpu", "cpu"], {}) == [Slot(device="cpu", environment=share)] * 2
    assert device_slots(["cpu", "cpu"], {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}) == [Slot(device="cpu")] * 2
    of_two = [Slot(device="cuda", environment={"CUDA_VISIBLE_DEVICES": number}) for number in ("4", "7")]
    assert device_slots(["cuda:0", "cuda:1"], {"CUDA_VISIBLE_DEVICES": "4,7"}) == of_two
    for names, text in (([], "is empty"), (["gpu"], "allowed"), (["cpu:0"], "allowed"), (["cuda:x"], "allowed")):
        with pytest.raises(UsageError, match=text):
            device_slots(names, {})
    with pytest.raises(UsageError, match="shows 1"):
        device_slots(["cuda:1"], {"CUDA_VISIBLE_DEVICES": "0"})


def test_a_command_runs_in_a_process_of_its_own_and_its_code_comes_back(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("error: of an earlier command\n", encoding="utf-8")
    command = ["evaluate", str(tmp_path / "none.pth"), "--layout", "toytown-camera"]
    result = Processes().run([command], ONE[0], Activity(name="scoring", log=log))
    assert result.code == 4
    assert "none.pth" in result.error
    lines = log.read_text(encoding="utf-8").splitlines()
    assert lines[1].startswith("$ python -m lsr_train evaluate")
    assert f"error: {result.error}" in lines


def test_once_stopped_nothing_starts(tmp_path: Path) -> None:
    processes = Processes()
    processes.stop()
    assert processes.run([["evaluate"]], ONE[0], Activity(name="x", log=tmp_path / "log")).code == 130


def test_one_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    assert not is_locked(file)
    with acquire(file):
        assert is_locked(file)
        with pytest.raises(Busy):
            acquire(file)
    assert not is_locked(file)


def test_a_blocking_lock_waits(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    entered = threading.Event()

    def wait() -> None:
        with acquire(file, blocking=True):
            entered.set()

    thread = threading.Thread(target=wait)
    with acquire(file):
        thread.start()
        assert not entered.wait(0.5)
    assert entered.wait(20)
    thread.join()
    assert not is_locked(file)


def test_a_killed_process_lets_go_of_its_lock(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from lsr_train.comparison.schedule import acquire\n"
        "held = acquire(Path(sys.argv[1]))\n"
        "print('held', flush=True)\n"
        "time.sleep(300)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "lock")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert is_locked(tmp_path / "lock")
        process.kill()
        process.wait()
    assert not is_locked(tmp_path / "lock")


def test_a_lock_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/lock: cannot be written"):
        acquire(tmp_path / "file" / "lock")
