"""Which frames are taken, and at which size they are seen."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsr_infer.errors import UsageError
from lsr_infer.labelspace import LabelSpace
from lsr_infer.pipeline.options import SegmentOptions, Selection, WorkingSize
from lsr_infer.render.draw import MaskIds
from lsr_infer.video.containers import VideoInfo
from tests.lsr_infer.onnxfile import manifest


def taken(selection: Selection, times: list[float]) -> list[float]:
    keep = selection.picker()
    return [time for time in times if keep(time)]


def test_one_of_n_and_so_many_a_second() -> None:
    times = [n / 30 for n in range(90)]
    assert taken(Selection(every=7), times) == times[::7]
    assert taken(Selection(fps=10), times) == times[::3]
    assert taken(Selection(fps=60), times) == times  # never more than there are
    rounded = [round(time, 3) for time in times]
    assert len(taken(Selection(fps=30), rounded)) == 90
    assert len(taken(Selection(fps=12.5), times)) == pytest.approx(3 * 12.5, abs=1)


@given(st.floats(0.5, 50), st.lists(st.floats(0.0, 0.5), min_size=1, max_size=100))
def test_a_rate_is_never_exceeded_and_gaps_are_not_made_up_for(fps: float, gaps: list[float]) -> None:
    times = np.cumsum(gaps).tolist()
    chosen = taken(Selection(fps=fps), times)
    assert chosen[0] == times[0]
    assert len(chosen) <= (times[-1] - times[0]) * fps + 1 + len(chosen) * 0.002 * fps
    assert len(taken(Selection(fps=1e9), times)) <= len(times)


@pytest.mark.parametrize("wrong", [{"every": 0}, {"fps": 0}, {"fps": float("nan")}, {"start": -1}, {"duration": 0}])
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(wrong))}"):
        Selection(**wrong)  # type: ignore[arg-type]  # fields of several types


def test_the_rate_of_what_is_taken() -> None:
    assert Selection().rate(Fraction(30000, 1001)) == Fraction(30000, 1001)
    assert Selection(every=3).rate(Fraction(30)) == 10
    assert Selection(fps=12.5).rate(Fraction(25)) == Fraction(25, 2)
    assert Selection(fps=50.0).rate(Fraction(25)) == 25
    assert Selection(every=2, fps=5.0).rate(Fraction(8)) == 4


def test_how_many_frames_are_expected() -> None:
    info = VideoInfo(width=1, height=1, fps=25, frames=100, duration=4.0, time_base=1)  # type: ignore[arg-type]
    assert Selection().expected(info) == 100
    assert Selection(start=1, duration=2).expected(info) == 50
    assert Selection(every=3, max_frames=20).expected(info) == 20
    assert Selection(every=10).expected(info) == 10
    assert Selection(fps=5).expected(info) == 21


def test_working_sizes_fit_the_model_or_are_refused() -> None:
    free, fixed = manifest(), manifest(fixed_size=True)
    WorkingSize(size=(64, 96)).check(fixed)
    WorkingSize(tile="auto").check(fixed)
    assert WorkingSize(stride=2).of(free, 480, 644) == (240, 320)
    assert WorkingSize().of(free, 480, 640) is None
    assert WorkingSize(size=(8, 16)).of(free, 480, 640) == (8, 16)
    for wrong, where in (
        (WorkingSize(size=(64, 104)), fixed),
        (WorkingSize(tile=(128, 96)), fixed),
        (WorkingSize(stride=2), fixed),
        (WorkingSize(size=(60, 96)), free),
    ):
        with pytest.raises(UsageError):
            wrong.check(where)
    with pytest.raises(UsageError, match="one of them"):
        WorkingSize(size=(8, 8), tile="auto")


def test_masks_may_hold_the_ids_of_cityscapes() -> None:
    space = LabelSpace(name="some", names=("bicycle", "road", "sky"), colors=((1, 2, 3), (4, 5, 6), (7, 8, 9)))
    ids = MaskIds.of("cityscapes", space)
    np.testing.assert_array_equal(ids.numbers(np.array([[0, 1], [2, 255]], np.uint8)), [[33, 7], [23, 0]])
    assert ids.palette[[33, 7, 23, 0]].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 0, 0]]
    with pytest.raises(UsageError, match="car park"):
        MaskIds.of("cityscapes", LabelSpace(name="x", names=("car park",), colors=((0, 0, 0),)))
    with pytest.raises(UsageError, match="kitti; allowed: train, cityscapes"):
        SegmentOptions(sources=("x.mp4",), output=Path("y"), save=frozenset({"mask"}), mask_ids="kitti")
