"""From seconds to steps."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsr_infer.errors import UsageError
from lsr_train.autopilot.budget import (
    LEAST_STEPS,
    SOURCE_SHARE,
    USED_SHARE,
    Budget,
    Stage,
    StageCost,
    format_duration,
    plan_lengths,
    with_length,
)
from lsr_train.config.command_line import parse_duration
from lsr_train.config.fields import field_of, fields_of, with_fields
from lsr_train.config.run import Config, SelectionConfig
from lsr_train.config.training import OptimConfig, TrainConfig


def stage(steps: int, seconds: float, evaluation: float = 0.0, every: int = 0) -> Stage:
    selection = SelectionConfig(signal="flip", every=every)
    cost = StageCost(step=seconds, evaluation=evaluation)
    return Stage(config=Config(train=TrainConfig(steps=steps), selection=selection), cost=cost)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5h", 5400)])
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-5m", "1h30m", "0s", "5 m", "1e3s"])
def test_what_is_no_duration_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="90s, 30m or 2h"):
        parse_duration(text)


@given(seconds=st.floats(0.1, 1e6))
def test_a_formatted_duration_can_be_given_and_is_enough(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) >= seconds - 1e-6


def test_a_budget_is_shared_out() -> None:
    lengths = plan_lengths(Budget(seconds=1000, passed=0), stage(10_000, 0.25), stage(10_000, 0.5))
    assert lengths.source == int(1000 * USED_SHARE * SOURCE_SHARE / 0.25)
    assert lengths.adapted == pytest.approx(1000 * USED_SHARE * (1 - SOURCE_SHARE) / 0.5, abs=1)


def test_no_stage_is_longer_than_its_recipe_and_the_other_has_the_rest() -> None:
    lengths = plan_lengths(Budget(seconds=1000, passed=0), stage(400, 0.25), stage(10_000, 0.5))
    assert lengths.source == 400
    assert lengths.adapted == int((1000 * USED_SHARE - 100) / 0.5)
    lengths = plan_lengths(Budget(seconds=1000, passed=0), stage(10_000, 0.25), stage(300, 0.5))
    assert lengths.source == int((1000 * USED_SHARE - 150) / 0.25)
    assert lengths.adapted == 300


@given(
    seconds=st.floats(1, 1e5), passed=st.floats(0, 100), source=st.floats(0.01, 5), adapted=st.floats(0.01, 5),
    evaluation=st.floats(0, 20), source_steps=st.integers(1, 20_000), steps=st.integers(1, 20_000),
)  # fmt: skip
def test_a_plan_fits_its_budget_or_names_what_would(
    seconds: float, passed: float, source: float, adapted: float, evaluation: float, source_steps: int, steps: int
) -> None:
    first, second = stage(source_steps, source, evaluation, 1000), stage(steps, adapted, evaluation, 500)
    budget = Budget(seconds=seconds, passed=passed)
    try:
        lengths = plan_lengths(budget, first, second)
    except UsageError as error:
        enough = parse_duration(str(error).split("--budget ")[1].split(",")[0])
        assert enough > seconds
        lengths = plan_lengths(Budget(seconds=enough, passed=passed), first, second)
        budget = Budget(seconds=enough, passed=passed)
    assert min(LEAST_STEPS, source_steps) <= lengths.source <= source_steps
    assert min(LEAST_STEPS, steps) <= lengths.adapted <= steps
    assert first.seconds(lengths.source) + second.seconds(lengths.adapted) <= budget.usable * (1 + 1e-9)


def test_a_source_stage_that_is_ready_gives_its_time_to_the_adaptation() -> None:
    stages = stage(10_000, 0.25), stage(10_000, 0.5)
    planned = plan_lengths(Budget(seconds=1000, passed=0), *stages)
    again = plan_lengths(Budget(seconds=1000, passed=0), *stages, ready=math.ceil(0.8 * planned.source))
    assert (again.source, again.adapted) == (0, int(1000 * USED_SHARE / 0.5))
    assert plan_lengths(Budget(seconds=1000, passed=0), *stages, ready=planned.source // 2) == planned


def test_evaluations_take_their_part() -> None:
    """Ten evaluations of nine seconds are 90 seconds that are no steps."""
    without = plan_lengths(Budget(seconds=1000, passed=0), stage(10_000, 0.25), stage(10_000, 0.5))
    lengths = plan_lengths(Budget(seconds=1000, passed=0), stage(10_000, 0.25, 9.0, 10_000 // 9), stage(10_000, 0.5))
    assert without.source - lengths.source == pytest.approx(11 * 9.0 / 0.25, abs=1)


def test_the_schedule_follows_the_length_but_what_is_stated_stays() -> None:
    config = Config(
        train=TrainConfig(steps=4000, checkpoint_every=500),
        optim=OptimConfig(warmup_steps=100, poly_steps=8000),
        selection=SelectionConfig(every=1000),
    )
    short = with_fields(config, with_length(config, 400, set()))
    assert (short.train.steps, short.train.checkpoint_every, short.selection.every) == (400, 50, 100)
    assert (short.optim.warmup_steps, short.optim.poly_steps) == (10, 800)
    kept = with_fields(config, with_length(config, 400, {"selection.every"}))
    assert (kept.selection.every, kept.train.checkpoint_every) == (1000, 50)
    assert with_fields(config, with_length(config, 3, set())).train.checkpoint_every == 1


def test_fields_are_changed_together_and_checked_once() -> None:
    config = Config()
    crop = {"augment.crop_height": 64, "augment.crop_width": 32}  # either alone is refused
    changed = with_fields(config, {**crop, "seed": 3, "data.source.height": 64, "optim.lr_multipliers.head": 2.0})
    assert field_of(changed, "augment.crop_width") == 32
    assert changed.seed == 3
    different = {name for name, value in fields_of(changed) if field_of(config, name) != value}
    assert different == {*crop, "seed", "data.source.height", "optim.lr_multipliers.head"}
    with pytest.raises(UsageError, match="go together"):
        with_fields(config, {"augment.crop_height": 64})
