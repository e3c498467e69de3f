"""Measures the time of a training step, and plans both stages of `adapt` into a time budget.

The time is that of the real engine on real batches, thrown away. A plan is what training begins with: while it runs,
its length follows the clock (`lsr_train.engine.deadline`).
"""

import math
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch

from lsr_infer.errors import UsageError
from lsr_infer.system.progress import Progress
from lsr_train.config.run import Config
from lsr_train.data.loading import Batches
from lsr_train.engine.loop import Engine, Networks, build_accelerator
from lsr_train.engine.selection import Selector
from lsr_train.engine.setup import RunInputs, network_spec
from lsr_train.evaluation.signals import SIGNAL_BATCH, label_free_signals
from lsr_train.network import DeepLabV2
from lsr_train.runs.folder import RunFolder

__all__ = [
    "ADAPTATION", "ENOUGH", "LEAST_STEPS", "MOST", "SOURCE", "SOURCE_SHARE", "USEFUL_STEPS", "WANTED_STEPS", "Budget",
    "Plan", "Stage", "StageCost", "StagePlan", "Times", "format_duration", "measure_cost", "plan_stages",
]  # fmt: skip

SOURCE, ADAPTATION = "source stage", "adaptation"
"""What the stages are called."""
SOURCE_SHARE = 0.55
"""Of the budget, for the source stage. Ours, from the real pair: 2400 source steps of 0.24 s and 1200 of 0.40 s."""
WANTED_STEPS = 600
"""Of either stage: larger images are taken where there is time for so many. Ours."""
USEFUL_STEPS = 200
"""Of either stage; fewer are done with a warning. Ours: below, the rate has hardly left its warm-up."""
LEAST_STEPS = 20
"""Of either stage; a budget without time for so many is refused. Ours."""
MOST = 4.0
"""Times a recipe's steps that a long budget gives. Ours."""
ENOUGH = 0.8
"""Of the planned source steps: a finished source stage of so many is used again. Ours: on a busy machine the time of a
step differs by about so much from one measurement to the next."""
_SPARE = 2.0
"""An error names twice what was measured, and a plan may take twice the time that there is before it is refused: the
named budget is taken even where a busy machine takes four times as long when it is measured again. Ours."""
_EVALUATED, _FRAMES_SHARE = 0.15, 0.05
"""Of a stage's time, for all evaluations, and for the frames of one or of batch-norm's statistics. Ours."""
_FEWEST_FRAMES, _FEWEST_STATISTICS = 8, 16
_CHECKPOINT_SECONDS = 2.0
"""Of a checkpoint, or of the summary's files. Measured 1 to 2 on a ResNet-50."""


def format_duration(seconds: float) -> str:
    """Return a time as text, rounded up so that it can be given as a budget: 90s, 13m, 2.5h."""
    if seconds <= 120:
        return f"{math.ceil(seconds)}s"
    if seconds <= 7200:
        return f"{math.ceil(seconds / 60)}m"
    return f"{math.ceil(seconds / 360) / 10:g}h"


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """The seconds of an optimiser step, and of a target frame in an evaluation of the signals, a mirrored one included.

    `frame` is 0 where there is no target frame.
    """

    step: float
    frame: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What a stage does in its time.

    Args:
        steps: of the optimiser.
        values: the fields of its configuration by dotted name, `train.steps` among them.
        seconds: in all.
        most: steps that a faster machine may do.
        evaluation: seconds of one evaluation with its checkpoint.
        summary: seconds of evaluating two networks on as many frames and of drawing the pictures.
    """

    steps: int
    values: dict[str, Any]
    seconds: float
    most: int
    evaluation: float
    summary: float


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage as its recipe has it, its cost, and the dotted names of the fields that the user has set."""

    config: Config
    cost: StageCost
    keep: Collection[str] = ()

    def fewest(self, steps: int) -> int:
        """Return so many steps, or the recipe's where it does with fewer."""
        return min(steps, self.config.train.steps)

    def plan(self, seconds: float) -> StagePlan:
        """Fit steps and evaluations into a time, but no fewer than the least and no more than `MOST` allows."""
        config, frame = self.config, self.cost.frame
        room = seconds * _FRAMES_SHARE
        frames = self._frames("selection.frames", config.selection.frames, _FEWEST_FRAMES, room)
        evaluation = _CHECKPOINT_SECONDS + (frames * frame if config.selection.signal != "none" else 0.0)
        values: dict[str, Any] = {"selection.frames": frames}
        start = 0.0
        if config.network.batch_norm == "target":  # one forward a frame where an evaluation has four and their classes
            statistics = self._frames(
                "network.batch_norm_frames", config.network.batch_norm_frames, _FEWEST_STATISTICS, 4 * room
            )
            values["network.batch_norm_frames"] = statistics
            start = statistics * frame / 4
        every, most = config.selection.every, int(MOST * config.train.steps)
        wanted = math.ceil(config.train.steps / every) if every else 1
        number = max(1, min(wanted, int(_EVALUATED * seconds / evaluation) - 1))
        fixed = start + (number + 1) * evaluation  # one is before the first step
        fitting = int((seconds - fixed) / self.cost.step)
        steps = max(self.fewest(LEAST_STEPS), min(most, fitting))
        values |= self._lengths(steps, number)
        return StagePlan(
            steps=steps, values={name: value for name, value in values.items() if name not in self.keep},
            seconds=fixed + steps * self.cost.step, most=most, evaluation=evaluation,
            summary=_CHECKPOINT_SECONDS + 2 * (frames + 3) * frame,
        )  # fmt: skip

    def _frames(self, name: str, wanted: int, fewest: int, seconds: float) -> int:
        if name in self.keep or not self.cost.frame:
            return wanted
        return int(max(min(wanted, fewest), min(wanted, seconds / self.cost.frame)))

    def _lengths(self, steps: int, evaluations: int) -> dict[str, Any]:
        """Return the fields of a run of so many steps; a checkpoint comes with each evaluation."""
        optim, share = self.config.optim, steps / self.config.train.steps
        every = max(1, math.ceil(steps / evaluations))
        values: dict[str, Any] = {"train.steps": steps, "train.checkpoint_every": every}
        if self.config.selection.every:
            values["selection.every"] = every
        if optim.warmup_steps:
            values["optim.warmup_steps"] = max(1, round(optim.warmup_steps * share))
        if optim.poly_steps:
            values["optim.poly_steps"] = max(steps, round(optim.poly_steps * share))
        return values


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A time budget of the whole command, and how much of it has passed, in seconds."""

    seconds: float
    passed: float


class StageTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Of a stage: its seconds, the most steps it does in them, and the seconds of an evaluation."""

    seconds: float
    most: int
    evaluation: float


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of the whole command and of its summary, and what each planned stage has, by name."""

    budget: float
    summary: float
    stages: dict[str, StageTimes]


class _Least(NamedTuple):
    seconds: float
    what: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What both stages do; `source` is None where the source stage that is ready will do."""

    source: StagePlan | None
    adapted: StagePlan
    stages: tuple[Stage, Stage] = field(repr=False)

    @property
    def _planned(self) -> list[tuple[str, Stage, StagePlan]]:
        both = zip((SOURCE, ADAPTATION), self.stages, (self.source, self.adapted), strict=True)
        return [(name, stage, plan) for name, stage, plan in both if plan is not None]

    def times(self, budget: Budget) -> Times:
        """Return the times to keep to."""
        stages = {
            name: StageTimes(seconds=plan.seconds, most=plan.most, evaluation=plan.evaluation)
            for name, _, plan in self._planned
        }
        return Times(budget=budget.seconds, summary=self.adapted.summary, stages=stages)

    @property
    def least(self) -> _Least:
        """What the fewest steps of the planned stages take."""
        plans = [(name, stage, stage.plan(0.0)) for name, stage, _ in self._planned]
        what = " and ".join(f"{plan.steps} of {stage.cost.step:.3g} s for the {name}" for name, stage, plan in plans)
        return _Least(seconds=sum(plan.seconds for *_, plan in plans) + plans[-1][2].summary, what=what)

    def has(self, steps: int) -> bool:
        """Whether each stage has so many steps, or as many as its recipe."""
        return all(plan.steps >= stage.fewest(steps) for _, stage, plan in self._planned)

    def table(self, budget: Budget) -> list[str]:
        """Return the plan as lines."""
        rows = [("", "steps", "s a step", "time")]
        rows += [
            (name, str(plan.steps), f"{stage.cost.step:.3g}", format_duration(plan.seconds))
            for name, stage, plan in self._planned
        ]
        rows += [
            ("summary", "", "", format_duration(self.adapted.summary)),
            ("until here", "", "", format_duration(budget.passed)),
        ]
        lines = [f"{name:<13}{steps:>7}{step:>10}{duration:>8}" for name, steps, step, duration in rows]
        return [f"plan for {format_duration(budget.seconds)}; the steps follow the clock:", *lines]

    def too_short(self, budget: Budget) -> str | None:
        """Say that there are too few steps to be useful, and what budget would have enough; None where it has."""
        if self.has(USEFUL_STEPS):
            return None
        lacking = sum(
            max(0, stage.fewest(USEFUL_STEPS) - plan.steps) * stage.cost.step for _, stage, plan in self._planned
        )
        enough = format_duration(_SPARE * (budget.seconds + lacking))
        steps = " and ".join(str(plan.steps) for _, _, plan in self._planned)
        return f"the budget is too short to be useful, {steps} steps; --budget {enough} would have enough"


def plan_stages(budget: Budget, source: Stage, adapted: Stage, ready: int = 0) -> Plan:
    """Divide what is left of a budget between the stages; time that one cannot use goes to the other.

    Args:
        budget: of both, and of the summary.
        source: the source stage.
        adapted: the adaptation.
        ready: steps of a finished source stage that fits; 0 where there is none.

    Raises:
        UsageError: the least of both takes more than twice the time there is; names a budget that will do.
    """
    left = max(0.0, budget.seconds - budget.passed)
    usable = max(0.0, left - adapted.plan(left).summary)  # of as many frames as it could ever have
    first = source.plan(usable * SOURCE_SHARE)
    stages = (source, adapted)
    if ready >= ENOUGH * first.steps:
        plan = Plan(source=None, adapted=adapted.plan(usable), stages=stages)
    else:
        second = adapted.plan(usable - first.seconds)
        plan = Plan(
            source=source.plan(max(usable * SOURCE_SHARE, usable - second.seconds)), adapted=second, stages=stages
        )
    least = plan.least
    if least.seconds > _SPARE * left:
        wanted = format_duration(_SPARE * (budget.passed + least.seconds))
        raise UsageError(
            f"the budget of {format_duration(budget.seconds)} is too small: the fewest steps, {least.what}, take about "
            f"{format_duration(least.seconds)} with evaluations and the summary, and {format_duration(budget.passed)} "
            f"have passed. Set --budget {wanted}, or a smaller network (--network.backbone, --network.width)."
        )
    return plan


_FEWEST_STEPS, _MOST_STEPS, _FRAMES = 1, 12, 2
"""Of a measurement: steps that are timed, however long they take, and at most; signals on so many frames."""


def measure_cost(prepared: RunInputs, folder: Path, seconds: float = 3.0) -> StageCost:
    """Measure the seconds of a run's steps and evaluations on this machine, waiting for the loader included.

    Steps are timed for so many `seconds`. One step before is not counted, which builds what is built once. Nothing of
    it remains: `folder` is a name where nothing is written, and a run seeds its generators itself when it starts.
    """
    config = replace(prepared.config, init="")
    if config.self_training.rectify:  # from the first step on, as in nearly all of the run
        config = replace(config, self_training=replace(config.self_training, rectify_from=0))
    torch.manual_seed(config.seed)
    accelerator = build_accelerator(config, prepared.accelerator.device)
    network = DeepLabV2(network_spec(config, prepared.space)).to(accelerator.device)
    networks, selector = Networks(network=network), Selector(config.selection, None)
    engine = Engine(config, prepared.space, networks, accelerator, RunFolder(folder), selector)
    engine.model.train()
    engine.method.train()
    times: list[float] = []
    measuring = Progress(f"measuring a step of {config.method}", _MOST_STEPS + 1, unit="step")
    with measuring, prepared.batches(0, with_target=engine.method.uses_target) as batches:
        while len(times) <= _FEWEST_STEPS or (sum(times) < seconds and len(times) <= _MOST_STEPS):
            times.append(_step_seconds(engine, batches))
            measuring.step()
    frame = _evaluation_seconds(prepared, network)
    return StageCost(step=sum(times[1:]) / len(times[1:]), frame=frame)


def _step_seconds(engine: Engine, batches: Batches) -> float:
    """Return the seconds of a step, until the device has done it."""
    start = time.perf_counter()
    engine.train_step(batches)
    if engine.accelerator.device.type == "cuda":
        torch.cuda.synchronize(engine.accelerator.device)
    return time.perf_counter() - start


def _evaluation_seconds(prepared: RunInputs, network: DeepLabV2) -> float:
    """Return the seconds of an evaluation of the signals for each frame; 0 where there is no target frame."""
    precision = prepared.config.train.precision
    if prepared.target is None:
        return 0.0
    frames = prepared.target.evenly(_FRAMES)
    assert precision != "auto"  # the command has chosen
    start = time.perf_counter()
    label_free_signals(network, frames.batches(SIGNAL_BATCH, what="measuring an evaluation"), precision=precision)
    return (time.perf_counter() - start) / len(frames)
