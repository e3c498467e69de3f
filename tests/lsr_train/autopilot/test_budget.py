"""From seconds to steps."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lsr_infer.errors import UsageError
from lsr_train.autopilot.budget import (
    LEAST_STEPS,
    MOST,
    SOURCE_SHARE,
    Budget,
    Stage,
    StageCost,
    format_duration,
    plan_stages,
)
from lsr_train.config.command_line import parse_duration
from lsr_train.config.fields import field_of, fields_of, with_fields
from lsr_train.config.run import Config, SelectionConfig
from lsr_train.config.training import OptimConfig, TrainConfig


def stage(steps: int, seconds: float, frame: float = 0.0, every: int = 0) -> Stage:
    selection = SelectionConfig(signal="flip", every=every, frames=60)
    cost = StageCost(step=seconds, frame=frame)
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


def planned(seconds: float, first: Stage, second: Stage, ready: int = 0, passed: float = 0.0) -> tuple[int, int]:
    """Return the steps of both stages, 0 for a source stage that is ready."""
    plan = plan_stages(Budget(seconds=seconds, passed=passed), first, second, ready)
    return plan.source.steps if plan.source else 0, plan.adapted.steps


def test_a_budget_is_shared_out() -> None:
    """But for two seconds of the summary, and for two checkpoints of a stage, two seconds each."""
    steps = planned(1000, stage(10_000, 0.25), stage(10_000, 0.5))
    expected = (998 * SOURCE_SHARE - 4) / 0.25, (998 * (1 - SOURCE_SHARE) - 4) / 0.5
    assert steps == pytest.approx(expected, abs=2)


def test_no_stage_is_longer_than_four_recipes_and_the_other_has_the_rest() -> None:
    assert planned(1000, stage(100, 0.25), stage(10_000, 0.5)) == (400, int((998 - 104 - 4) / 0.5))
    assert planned(1000, stage(10_000, 0.25), stage(75, 0.5)) == (int((998 - 154 - 4) / 0.25), 300)


@example(seconds=248.0, passed=0.0, source=1.0, adapted=2.0, frame=1.0, source_steps=6, steps=20, slower=1.0)
@given(
    seconds=st.floats(1, 1e5), passed=st.floats(0, 100), source=st.floats(0.01, 5), adapted=st.floats(0.01, 5),
    frame=st.floats(0, 1), source_steps=st.integers(1, 20_000), steps=st.integers(1, 20_000),
    slower=st.floats(0.5, 3.9),
)  # fmt: skip
def test_a_plan_fits_its_budget_or_what_is_named_is_taken_on_a_slower_machine(
    seconds: float, passed: float, source: float, adapted: float, frame: float, source_steps: int, steps: int,
    slower: float,
) -> None:  # fmt: skip
    def stages(factor: float) -> tuple[Stage, Stage]:
        return (
            stage(source_steps, factor * source, factor * frame, 1000),
            stage(steps, factor * adapted, factor * frame, 500),
        )

    try:
        plan = plan_stages(Budget(seconds=seconds, passed=passed), *stages(1))
    except UsageError as error:
        enough = parse_duration(str(error).split("--budget ")[1].split(",")[0])
        assert enough > seconds
        again = plan_stages(Budget(seconds=enough, passed=passed), *stages(slower))
        assert again.source is not None
        return
    assert plan.source is not None
    assert min(LEAST_STEPS, source_steps) <= plan.source.steps <= MOST * source_steps
    assert min(LEAST_STEPS, steps) <= plan.adapted.steps <= MOST * steps
    if plan.source.steps > LEAST_STEPS and plan.adapted.steps > LEAST_STEPS:
        in_all = plan.source.seconds + plan.adapted.seconds + plan.adapted.summary
        assert in_all <= (seconds - passed) * (1 + 1e-9)


def test_a_source_stage_that_is_ready_gives_its_time_to_the_adaptation() -> None:
    stages = stage(10_000, 0.25), stage(10_000, 0.5)
    steps = planned(1000, *stages)
    assert planned(1000, *stages, ready=math.ceil(0.8 * steps[0])) == (0, int((998 - 4) / 0.5))
    assert planned(1000, *stages, ready=steps[0] // 2) == steps


def test_evaluations_take_their_part_and_no_more_than_their_share() -> None:
    """Sixty frames of a second were sixty seconds: a stage of 400 has twenty, three times; one of 4000 all, nine."""
    long, short = (stage(10_000, 0.25, 1.0, 1000).plan(seconds) for seconds in (10_000, 400))
    assert (long.values["selection.frames"], long.evaluation) == (60, 62)
    assert long.steps == int((10_000 - 11 * 62) / 0.25)
    assert (short.values["selection.frames"], short.evaluation) == (20, 22)
    assert short.steps == int((400 - 2 * 22) / 0.25)
    assert short.values["selection.every"] == short.values["train.checkpoint_every"] == short.steps
    kept = Stage(config=Config(), cost=StageCost(step=0.25, frame=1.0), keep={"selection.frames"}).plan(400)
    assert "selection.frames" not in kept.values


def test_the_schedule_follows_the_length_but_what_is_stated_stays() -> None:
    config = Config(
        train=TrainConfig(steps=4000, checkpoint_every=500),
        optim=OptimConfig(warmup_steps=100, poly_steps=8000),
        selection=SelectionConfig(every=1000, signal="none"),
    )
    cost = StageCost(step=1.0)
    short = with_fields(config, Stage(config=config, cost=cost).plan(400 + 10).values)
    assert (short.train.steps, short.train.checkpoint_every, short.selection.every) == (400, 100, 100)
    assert (short.optim.warmup_steps, short.optim.poly_steps) == (10, 800)
    kept = with_fields(config, Stage(config=config, cost=cost, keep={"selection.every"}).plan(410).values)
    assert (kept.selection.every, kept.train.checkpoint_every) == (1000, 100)


def test_a_plan_is_a_table() -> None:
    budget = Budget(seconds=1000, passed=7)
    lines = plan_stages(budget, stage(10_000, 0.25), stage(10_000, 0.5)).table(budget)
    assert [line.split()[0] for line in lines] == ["plan", "steps", "source", "adaptation", "summary", "until"]
    assert lines[2].split()[-3:] == ["2164", "0.25", "10m"]


def test_too_few_steps_are_warned_of_with_a_budget_that_has_enough() -> None:
    budget = Budget(seconds=100, passed=1)
    stages = stage(10_000, 0.5), stage(10_000, 1.0)
    short = plan_stages(budget, *stages).too_short(budget)
    assert short is not None
    enough = Budget(seconds=parse_duration(short.split("--budget ")[1].split(" ")[0]), passed=1)
    assert plan_stages(enough, *stages).too_short(enough) is None


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
