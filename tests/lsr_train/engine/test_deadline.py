"""How long a run is where it has to end at a given time: a clock that the test moves."""

import pytest

from lsr_train.engine import deadline as module
from lsr_train.engine.deadline import Deadline, Schedule


class Clock:
    """Stands in for `time`, and runs a schedule to its end with steps that take what the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module, "time", self)

    def monotonic(self) -> float:
        return self.now

    def run(self, schedule: Schedule, seconds: list[float], every: int = 0, evaluation: float = 0.0) -> list[float]:
        """Return the position before each step; the last of `seconds` holds to the end."""
        step, positions = 0, []
        while step < schedule.steps:
            positions.append(schedule.position(step))
            step += 1
            took = seconds[min(step, len(seconds)) - 1]
            self.now += took
            schedule.stepped(step, took)
            if step >= schedule.steps or (every and step % every == 0):
                self.now += evaluation
                schedule.evaluated(evaluation)
        return positions


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_without_a_deadline_a_step_is_a_step(clock: Clock) -> None:
    positions = clock.run(Schedule(7), [100.0])
    assert positions == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.7, 5.0])
def test_it_ends_in_time_whatever_a_step_takes(clock: Clock, factor: float) -> None:
    """400 steps of half a second and four evaluations of ten seconds were planned into 240 seconds."""
    schedule = Schedule(400, 100, Deadline(ends=1240.0, most=800, evaluation=10.0))
    positions = clock.run(schedule, [0.5 * factor], every=100, evaluation=10.0)
    assert clock.now == pytest.approx(1240, rel=0.02)
    assert positions == sorted(positions)
    assert 395 <= schedule.position(schedule.steps) == pytest.approx(400)
    assert len(positions) == schedule.steps


def test_a_machine_that_gets_slower_in_the_middle_has_fewer_steps(clock: Clock) -> None:
    schedule = Schedule(400, 0, Deadline(ends=1200.0, most=800))
    positions = clock.run(schedule, [0.5] * 200 + [2.0])
    assert clock.now == pytest.approx(1200, abs=4)
    assert positions[:200] == list(range(200))
    assert 240 < schedule.steps < 260
    assert positions[-1] == pytest.approx(400, abs=10)


def test_a_fast_machine_does_no_more_than_the_most_steps(clock: Clock) -> None:
    schedule = Schedule(50, 0, Deadline(ends=2000.0, most=100))
    clock.run(schedule, [0.5])
    assert schedule.steps == 100


def test_a_deadline_that_has_passed_leaves_one_step(clock: Clock) -> None:
    schedule = Schedule(50, 0, Deadline(ends=900.0, most=800))
    assert len(clock.run(schedule, [1.0])) == 2
    assert schedule.position(2) == 50


def test_a_resumed_run_goes_on_on_the_same_course(clock: Clock) -> None:
    schedule = Schedule(400, 0, Deadline(ends=1200.0, most=800))
    for step in range(1, 60):
        clock.now += 2.0
        schedule.stepped(step, 2.0)
    again = Schedule(400)
    again.load_state(schedule.state())
    assert again.steps == schedule.steps < 400
    assert [again.position(step) for step in range(59, 90)] == [schedule.position(step) for step in range(59, 90)]
