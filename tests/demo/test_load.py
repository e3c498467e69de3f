"""Many visitors at once, with sessions or, as programs, without; figures come from tests/benchmarks/demo_page.py."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks.demo_page import Load, picture_of
from tests.demo.conftest import running_page

pytest.importorskip("gradio", reason="the extra demo is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("sessions", [True, False], ids=["sessions", "programs"])
def test_twenty_visitors_are_all_served(tmp_path: Path, clip_of: Callable[[int], Path], sessions: bool) -> None:
    with running_page(tmp_path) as page:
        load = Load(page, picture_of(tmp_path), clip_of(299), clients=20, seconds=60, sessions=sessions).run()
        assert set(load["ended"]) == {"picture", "cancelled clip"}  # anything else is an error by its text
        assert load["ended"]["cancelled clip"] > 2
        assert load["answers_at_the_end"] == 200
        assert load["wait_worst_over_median"] < 3  # a ratio of waits: the queue is fair
        assert load["files_at_the_end"] == 0  # what a program asked for is in its answer
