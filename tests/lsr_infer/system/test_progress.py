"""Progress: lines where there is no terminal, a bar on one, and neither stands still during a long step."""

import io
import logging
import re
import threading

import pytest

from lsr_infer.system import progress
from lsr_infer.system.progress import Progress, duration, with_progress


class Clock:
    """A clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Clock:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    caplog.set_level(logging.INFO)
    return Clock(monkeypatch)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def bars(self) -> list[str]:
        return [bar for bar in self.getvalue().split("\r") if bar.strip()]


def test_a_line_every_half_minute_tells_rate_and_time_left(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for _ in with_progress(range(20), "scoring", 20):
        clock.now += 10
    assert caplog.messages[:2] == [
        "scoring: 3 of 20 frames, 10.0 s a frame, 3 min left",
        "scoring: 6 of 20 frames, 10.0 s a frame, 2 min left",
    ]
    assert len(caplog.messages) == 6


def test_units_may_be_done_by_the_batch(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with Progress("comparing", 400) as shown:
        for _ in range(2):
            clock.now += 40
            shown.step(100)
    assert caplog.messages == [
        "comparing: 100 of 400 frames, 2.5 frames/s, 2 min left",
        "comparing: 200 of 400 frames, 2.5 frames/s, 80 s left",
    ]


def test_what_an_earlier_command_did_counts_but_not_for_the_rate(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with Progress("lsr", 1000, unit="step", done=900) as shown:
        clock.now += 50
        shown.step(50)
    assert caplog.messages == ["lsr: 950 of 1000 steps, 1 steps/s, 50 s left"]


def test_bytes_are_counted_in_their_units(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with Progress("weights", 90e6, unit="B") as shown:
        clock.now += 30
        shown.step(60e6)
    assert caplog.messages == ["weights: 60.0M of 90.0M B, 2.00M B/s, 15 s left"]


def test_a_line_that_is_told_moves_the_next_one(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with Progress("train", 10, unit="step") as shown:
        clock.now += 29
        shown.tell("loss 1", "step 1: loss 1")
        clock.now += 29
        shown.step()
    assert caplog.messages == ["step 1: loss 1"]


def test_a_long_step_is_not_silent(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.02)
    caplog.set_level(logging.INFO)
    with Progress("tracing", unit=""):
        threading.Event().wait(0.3)
    assert len(caplog.messages) >= 2
    assert all(re.fullmatch(r"tracing: \d+ s so far", line) for line in caplog.messages)


def test_what_nobody_counts_is_asked_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.02)
    caplog.set_level(logging.INFO)
    with Progress("table", 100, unit="%", look=lambda: (25, "lsr, seed 0: step 25 of 50")):
        threading.Event().wait(0.3)
    assert caplog.messages
    assert all(re.fullmatch(r"table: 25 %, \d+ s left; lsr, seed 0: step 25 of 50", line) for line in caplog.messages)


def test_a_terminal_sees_a_bar_that_goes_on_during_a_long_step(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress, "_REDRAW_SECONDS", 0.02)
    with Progress("sc\x1b[2Joring", 4) as shown:
        shown.step()
        before = len(terminal.bars())
        threading.Event().wait(0.2)
        assert len(terminal.bars()) >= before + 2
        shown.tell("loss 1", "a line")
        shown.step()
    assert "1/4 [00:0" in terminal.bars()[before]
    assert "frame/s" in terminal.bars()[-1]
    assert "loss 1" in terminal.getvalue()
    assert "\x1b[2J" not in terminal.getvalue()


def test_other_processes_of_a_training_say_nothing(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr("sys.stderr", stream)
        with Progress("train", 2, unit="step", silent=True) as shown:
            clock.now += 60
            shown.step()
            shown.tell("loss", "step 1")
        assert stream.getvalue() == ""
    assert caplog.messages == []


def test_an_error_passes_and_ends_the_thread(clock: Clock) -> None:
    def broken() -> None:
        for _ in with_progress(range(3), "scoring", 3):
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    assert not any(thread.name == "progress" for thread in threading.enumerate())


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (75, "75 s"), (720, "12 min"), (9000, "2.5 h")])
def test_times_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
