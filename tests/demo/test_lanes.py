"""The queue: fair between sessions, bounded, and rid of a job within a moment of its being cancelled."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest

from lsr_infer.web.lanes import BusyError, Job, Lane
from lsr_infer.web.limits import Limits
from lsr_infer.web.models import shipped_models
from lsr_infer.web.requests import ClipRequest, ImageRequest, ModelChoice, OpenRequest
from tests.processes import wait_until

SOURCE, ADAPTED = (ModelChoice(path=path, title=path.stem, threads=1) for path in shipped_models())
LIMITS = Limits(queue=6, session_jobs=4, job_seconds=60)
Lanes = Callable[..., Lane]


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    made: list[Lane] = []

    def make(limits: Limits = LIMITS, workers: int = 1) -> Lane:
        made.append(Lane("test", workers, limits, limits.job_seconds))
        return made[-1]

    yield make
    for lane in made:
        lane.close()


def opening(owner: str) -> Job:
    return Job(owner, OpenRequest(model=SOURCE))


def clip(owner: str, path: Path, folder: Path, limits: Limits = LIMITS) -> Job:
    folder.mkdir()
    request = ClipRequest(path=path, name=path.name, models=(SOURCE, ADAPTED), folder=folder, limits=limits)
    return Job(owner, request)


def wait(job: Job) -> Job:
    return asyncio.run(asyncio.wait_for(job.over_soon(), 60))


def test_a_job_tells_what_it_gave(lanes: Lanes) -> None:
    job = opening("ann")
    lanes().submit(job)
    wait(job)
    assert job.state == "done"
    assert job.result == {"device": "cpu", "backend": "onnxruntime", "precision": "int8"}


def test_a_job_that_fails_says_why_and_the_next_goes_on(lanes: Lanes, tmp_path: Path) -> None:
    lane, bad = lanes(), tmp_path / "street.jpg"
    bad.write_bytes(b"no picture")
    request = ImageRequest(path=bad, name="street.jpg", models=(SOURCE,), folder=tmp_path, limits=LIMITS)
    job, next_job = Job("ann", request), opening("ann")
    lane.submit(job)
    lane.submit(next_job)
    assert wait(job).state == "failed"
    assert job.error.startswith("street.jpg is no image")
    assert wait(next_job).state == "done"


def test_turns_go_round_between_owners(lanes: Lanes, tmp_path: Path, clip_of: Callable[[int], Path]) -> None:
    lane, order = lanes(), []
    first = clip("zoe", clip_of(60), tmp_path / "zoe")
    lane.submit(first)
    wait_until(lambda: first.state == "running")
    jobs = [opening("ann"), opening("ann"), opening("ann"), opening("bob"), opening("eve")]
    for job in jobs:
        begin = job.begin
        job.begin = lambda job=job, begin=begin: (order.append(job), begin())  # type: ignore[method-assign]
        lane.submit(job)
    assert [lane.position(job) for job in jobs] == [0, 3, 4, 1, 2]
    for job in jobs:
        wait(job)
    assert order == [jobs[0], jobs[3], jobs[4], jobs[1], jobs[2]]


def test_the_queue_and_each_owner_have_an_end(lanes: Lanes, tmp_path: Path, clip_of: Callable[[int], Path]) -> None:
    lane = lanes()
    first = clip("ann", clip_of(200), tmp_path / "ann")
    lane.submit(first)
    wait_until(lambda: first.state == "running")
    for _ in range(3):
        lane.submit(opening("ann"))
    with pytest.raises(BusyError, match="You have 4 jobs under way"):
        lane.submit(opening("ann"))
    for number in range(3):
        lane.submit(opening(f"guest {number}"))
    with pytest.raises(BusyError, match="6 jobs are waiting"):
        lane.submit(opening("late"))


def at_work(lane: Lane, *jobs: Job) -> int:
    """Put jobs into the queue; return the process that computes frames of the first of them."""
    for job in jobs:
        lane.submit(job)
    wait_until(lambda: bool(jobs[0].progress.get("frames")))
    worker = lane.processes[0].pid
    assert worker is not None
    return worker


def test_cancelling_ends_the_work_and_keeps_the_process(
    lanes: Lanes, tmp_path: Path, clip_of: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsr_infer.web.processes._STOP_SECONDS", 60)  # a busy machine may need more than it has
    lane = lanes()
    job, waiting = clip("ann", clip_of(400), tmp_path / "out"), opening("bob")
    worker = at_work(lane, job, waiting)
    lane.cancel(job)
    assert wait(job).state == "cancelled"
    assert job.progress["frames"] < 400
    assert list((tmp_path / "out").iterdir()) == []
    assert wait(waiting).state == "done"
    assert lane.processes[0].pid == worker


def test_a_cancelled_job_that_does_not_end_is_killed(
    lanes: Lanes, tmp_path: Path, clip_of: Callable[[int], Path]
) -> None:
    """The process is stopped, which is what a decoder that never returns looks like from outside."""
    lane = lanes()
    job, waiting = clip("ann", clip_of(400), tmp_path / "out"), opening("bob")
    worker = at_work(lane, job, waiting)
    os.kill(worker, signal.SIGSTOP)
    lane.cancel(job)
    assert wait(job).state == "cancelled"
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert wait(waiting).state == "done"


def test_a_word_to_end_that_comes_too_late_costs_the_next_job_nothing(
    lanes: Lanes, tmp_path: Path, street: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures do not heed it, so their process reads it behind its answer."""
    monkeypatch.setattr("lsr_infer.web.processes._STOP_SECONDS", 60)
    large = tmp_path / "large.png"
    assert cv2.imwrite(str(large), cv2.resize(cv2.imread(str(street)), (4096, 2048)))
    lane = lanes()
    request = ImageRequest(path=large, name="large.png", models=(SOURCE, ADAPTED), folder=tmp_path, limits=LIMITS)
    for _ in range(2):
        job, next_job = Job("ann", request), opening("bob")
        lane.submit(job)
        lane.submit(next_job)
        wait_until(lambda job=job: job.state == "running")
        worker = lane.processes[0].pid
        lane.cancel(job)
        assert wait(job).state == "cancelled"
        assert wait(next_job).state == "done"
        assert lane.processes[0].pid == worker


def test_what_is_to_follow_a_job_follows_once(lanes: Lanes, tmp_path: Path, clip_of: Callable[[int], Path]) -> None:
    lane, states = lanes(), []
    job = clip("ann", clip_of(400), tmp_path / "out")
    at_work(lane, job)
    job.when_over(lambda: states.append(job.state))
    assert states == []
    lane.cancel(job)
    wait(job)
    wait_until(lambda: bool(states))
    job.when_over(lambda: states.append("later"))
    assert states == ["cancelled", "later"]


def test_a_job_that_waits_is_cancelled_at_once(lanes: Lanes, tmp_path: Path, clip_of: Callable[[int], Path]) -> None:
    lane = lanes()
    first, second = clip("ann", clip_of(200), tmp_path / "out"), opening("bob")
    lane.submit(first)
    wait_until(lambda: first.state == "running")
    lane.submit(second)
    lane.cancel_all("bob")
    assert second.state == "cancelled"
    assert first.state == "running"


def test_a_worker_that_dies_costs_its_own_job_alone(
    lanes: Lanes, tmp_path: Path, clip_of: Callable[[int], Path]
) -> None:
    lane = lanes()
    job, next_job = clip("ann", clip_of(400), tmp_path / "out"), opening("bob")
    os.kill(at_work(lane, job, next_job), signal.SIGKILL)
    assert wait(job).state == "failed"
    assert job.error == "The server could not cope with this file. Send another one."
    assert wait(next_job).state == "done"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(job_seconds=0.5), "took longer than 0.5 s"),
        (Limits(job_bytes=1), "more memory than one job may take"),
    ],
)
def test_a_job_beyond_its_limits_is_stopped(
    lanes: Lanes, tmp_path: Path, clip_of: Callable[[int], Path], limits: Limits, words: str
) -> None:
    lane = lanes(limits)
    job = clip("ann", clip_of(400), tmp_path / "out", limits)
    lane.submit(job)
    assert wait(job).state == "failed"
    assert words in job.error


def test_a_closed_lane_leaves_no_process_behind(lanes: Lanes, tmp_path: Path, clip_of: Callable[[int], Path]) -> None:
    lane = lanes(workers=2)
    job = clip("ann", clip_of(400), tmp_path / "out")
    lane.submit(job)
    wait_until(lambda: bool(job.progress.get("frames")))
    workers = [process.pid for process in lane.processes]
    assert all(workers)
    lane.close()
    assert job.state == "cancelled"
    for worker in workers:
        assert worker is not None
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
    with pytest.raises(BusyError, match="being stopped"):
        lane.submit(opening("ann"))
