"""Many visitors at once; the figures come from tests/benchmarks/demo_page.py."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.demo.conftest import running_page

pytest.importorskip("gradio", reason="the extra demo is not installed")


@pytest.mark.slow
def test_ten_visitors_are_all_served_for_three_minutes(tmp_path: Path, clip_of: Callable[[int], Path]) -> None:
    from tests.benchmarks.demo_page import Load, picture_of

    with running_page(tmp_path, "--client-queue", "20") as page:  # all of them have one address
        load = Load(page, picture_of(tmp_path), clip_of(299), clients=10, seconds=180).run()
    assert set(load["ended"]) == {"picture", "cancelled clip"}  # anything else is an error by its text
    assert load["status_at_the_end"] == 200
    assert load["memory_over_highest_of_first_minute"] < 1.25
