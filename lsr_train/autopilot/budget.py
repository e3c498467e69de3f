"""Measures the time of a training step, and divides a time budget between the two stages.

The time is that of the real engine on real batches, thrown away.
"""

import math
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lsr_infer.errors import UsageError
from lsr_train.config.fields import field_of
from lsr_train.config.run import Config
from lsr_train.data.loading import Batches
from lsr_train.engine.loop import Engine, Networks, build_accelerator
from lsr_train.engine.selection import Selector
from lsr_train.engine.setup import RunInputs, network_spec
from lsr_train.evaluation.signals import SIGNAL_BATCH, label_free_signals
from lsr_train.network import DeepLabV2
from lsr_train.runs.folder import RunFolder

__all__ = [
    "ENOUGH", "LEAST_STEPS", "OVERRUN", "SOURCE_SHARE", "USED_SHARE", "USEFUL_STEPS", "Budget", "BudgetError",
    "Lengths", "Stage", "StageCost", "format_duration", "measure_cost", "plan_lengths", "too_short", "with_length",
]  # fmt: skip

SOURCE_SHARE = 0.55
"""Of the budget, for the source stage. Ours, from the real pair: 2400 source steps of 0.24 s and 1200 of 0.40 s."""
USED_SHARE = 0.9
"""Of what is left of the budget, planned for; the rest is for checkpoints and steps slower than measured. Ours."""
USEFUL_STEPS = 200
"""Of either stage, unless its own recipe does with fewer: smaller images are tried where a budget has no time for so
many. Ours: below, the rate has hardly left its warm-up."""
LEAST_STEPS = 20
"""Of either stage; a budget without time for so many is refused. Ours."""
ENOUGH = 0.8
"""Of the planned source steps: a finished source stage of so many is used again. Ours: on a busy machine the time of a
step differs by about so much from one measurement to the next."""
_SPARE = 1.5
"""An error names half more than was measured. With `OVERRUN` it holds where a busy machine takes three times as long
when it is measured again. Ours."""
OVERRUN = 2.0
"""Times a budget that the fewest steps of all may take, with a warning, before it is refused. Ours."""


def format_duration(seconds: float) -> str:
    """Return a time as text, rounded up so that it can be given as a budget: 90s, 13m, 2.5h."""
    if seconds <= 120:
        return f"{math.ceil(seconds)}s"
    if seconds <= 7200:
        return f"{math.ceil(seconds / 60)}m"
    return f"{math.ceil(seconds / 360) / 10:g}h"


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """The seconds of a stage: an optimiser step, an evaluation of the signals, and what precedes the first step."""

    step: float
    evaluation: float
    start: float = 0.0


def with_length(config: Config, steps: int, keep: Collection[str]) -> dict[str, Any]:
    """Return the fields of a run of another length: steps, and in proportion warm-up, evaluations and checkpoints.

    `keep` has the dotted names that the user has set and that stay.
    """
    share = steps / config.train.steps
    values: dict[str, Any] = {"train.steps": steps}
    for name in ("optim.warmup_steps", "selection.every", "train.checkpoint_every"):
        value = field_of(config, name)
        if value and name not in keep:
            values[name] = max(1, round(value * share))
    if config.optim.poly_steps and "optim.poly_steps" not in keep:
        values["optim.poly_steps"] = max(steps, round(config.optim.poly_steps * share))
    return values


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage as its recipe has it, whose length is the most that is planned, its cost, and the fewest steps."""

    config: Config
    cost: StageCost
    fewest: int = LEAST_STEPS

    @property
    def least(self) -> int:
        """The fewest steps that are planned."""
        return min(self.fewest, self.config.train.steps)

    @property
    def fixed(self) -> float:
        """Seconds besides the steps; a run of any length is evaluated as often as its recipe says, and at the end."""
        selection, steps = self.config.selection, self.config.train.steps
        evaluations = 0 if selection.signal == "none" else 1 + math.ceil(steps / (selection.every or steps))
        return self.cost.start + evaluations * self.cost.evaluation

    def seconds(self, steps: int) -> float:
        """Return the seconds of so many steps, evaluations included."""
        return self.fixed + steps * self.cost.step

    def steps(self, seconds: float) -> int:
        """Return the steps that fit, but no fewer than the least and no more than the recipe's."""
        fitting = int((seconds - self.fixed) / self.cost.step)
        return max(self.least, min(self.config.train.steps, fitting))

    def describe(self) -> str:
        """Return the least steps and their time as text."""
        return f"{self.least} of {self.cost.step:.3g} s"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A time budget of the whole command, how much of it has passed, and how often what is left may be taken."""

    seconds: float
    passed: float
    overrun: float = 1.0

    @property
    def usable(self) -> float:
        """Seconds that are planned for."""
        return (self.seconds - self.passed) * USED_SHARE

    def check(self, needed: float, what: str) -> None:
        """Raise `BudgetError` where so many seconds are more than may be taken."""
        if needed > self.usable * self.overrun:
            raise BudgetError(self, needed, what)


class BudgetError(UsageError):
    """The fewest steps, `what` as text, take `needed` seconds and do not fit into a budget."""

    def __init__(self, budget: Budget, needed: float, what: str) -> None:
        wanted = format_duration((budget.passed + needed / USED_SHARE) * _SPARE)
        super().__init__(
            f"the budget of {format_duration(budget.seconds)} is too small: the fewest steps, {what}, need about "
            f"{wanted} with evaluations. Set --budget {wanted}, or a smaller network (--network.backbone, "
            "--network.width)."
        )
        self.budget, self.needed = budget, needed

    @property
    def share(self) -> float:
        """Of the seconds that are needed, those that there are."""
        return max(0.0, self.budget.usable) / self.needed


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Optimiser steps of the two stages; `source` is 0 where the source stage that is ready will do."""

    source: int
    adapted: int


def plan_lengths(budget: Budget, source: Stage, adapted: Stage, ready: int = 0) -> Lengths:
    """Divide what is left of a budget between the stages; time that one cannot use goes to the other.

    Args:
        budget: of both.
        source: the source stage.
        adapted: the adaptation.
        ready: steps of a finished source stage that fits; 0 where there is none.

    Raises:
        BudgetError: the least of both does not fit.
    """
    usable = budget.usable
    source_steps = source.steps(_granted(usable, SOURCE_SHARE, adapted))
    if ready >= ENOUGH * source_steps:
        budget.check(adapted.seconds(adapted.least), f"{adapted.describe()} for the adaptation")
        return Lengths(source=0, adapted=adapted.steps(usable))
    what = f"{source.describe()} for the source stage and {adapted.describe()} for the adaptation"
    budget.check(source.seconds(source.least) + adapted.seconds(adapted.least), what)
    return Lengths(source=source_steps, adapted=adapted.steps(_granted(usable, 1 - SOURCE_SHARE, source)))


def too_short(budget: Budget, lengths: Lengths, stages: tuple[Stage, Stage]) -> str | None:
    """Say that a plan has too few steps to be useful, and what budget would have enough; None where it has."""
    useful = [replace(stage, fewest=USEFUL_STEPS) for stage in stages]
    planned = (lengths.source, lengths.adapted)
    if all(steps >= stage.least for steps, stage in zip(planned, useful, strict=True) if steps):
        return None
    seconds = sum(stage.seconds(stage.least) for steps, stage in zip(planned, useful, strict=True) if steps)
    enough = format_duration((budget.passed + seconds / USED_SHARE) * _SPARE)
    steps = f"{lengths.source} and {lengths.adapted} steps"
    return f"the budget is too short to be useful, {steps}; --budget {enough} would have enough"


def _granted(usable: float, share: float, other: Stage) -> float:
    """Return a stage's seconds: its share, and what the other cannot use, but not what that needs at least."""
    spare = usable - other.seconds(other.config.train.steps)
    return min(max(usable * share, spare), usable - other.seconds(other.least))


_SECONDS, _FEWEST_STEPS, _MOST_STEPS, _FRAMES = 3.0, 2, 12, 2
"""Of a measurement: steps are timed for so many seconds, but so many of them; signals on so many frames."""


def measure_cost(prepared: RunInputs, folder: Path) -> StageCost:
    """Measure the seconds of a run's steps and evaluations on this machine, waiting for the loader included.

    One step before is not counted, which builds what is built once. Nothing of it remains: `folder` is a name
    where nothing is written, and a run seeds its generators itself when it starts.
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
    with prepared.batches(0, with_target=engine.method.uses_target) as batches:
        while len(times) <= _FEWEST_STEPS or (sum(times[1:]) < _SECONDS and len(times) <= _MOST_STEPS):
            times.append(_step_seconds(engine, batches))
    frame = _evaluation_seconds(prepared, network)
    evaluation = 0.0 if config.selection.signal == "none" else frame * config.selection.frames
    # AdaBN is one forward a frame where an evaluation is four and the drawing of classes
    start = frame / 4 * config.network.batch_norm_frames if config.network.batch_norm == "target" else 0.0
    return StageCost(step=sum(times[1:]) / len(times[1:]), evaluation=evaluation, start=start)


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
    label_free_signals(network, frames.batches(SIGNAL_BATCH), precision=precision)
    return (time.perf_counter() - start) / len(frames)
