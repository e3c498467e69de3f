"""Divides a time budget between the two stages, from measured times."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from lsr_infer.errors import UsageError
from lsr_train.config.fields import field_of
from lsr_train.config.run import Config

__all__ = [
    "ENOUGH", "LEAST_STEPS", "SOURCE_SHARE", "USED_SHARE", "Budget", "BudgetError", "Lengths", "Stage",
    "StageCost", "format_duration", "plan_lengths", "with_length",
]  # fmt: skip

SOURCE_SHARE = 0.55
"""Of the budget, for the source stage. Ours, from the real pair: 2400 source steps of 0.24 s and 1200 of 0.40 s."""
USED_SHARE = 0.9
"""Of what is left of the budget, planned for; the rest is for checkpoints and steps slower than measured. Ours."""
LEAST_STEPS = 200
"""Of either stage, unless its own recipe does with fewer. Ours: below, the rate has hardly left its warm-up."""
ENOUGH = 0.8
"""Of the planned source steps: a finished source stage of so many is used again. Ours: on a busy machine the time of a
step differs by about so much from one measurement to the next."""
_SPARE = 1.2
"""An error names a fifth more than was measured, so that it holds when it is measured again. Ours."""
_FOLLOWING = ("optim.warmup_steps", "selection.every", "train.checkpoint_every")


def format_duration(seconds: float) -> str:
    """Return a time as text, rounded up so that it can be given as a budget: 90s, 13m, 2.5h."""
    if seconds <= 120:
        return f"{math.ceil(seconds)}s"
    if seconds <= 7200:
        return f"{math.ceil(seconds / 60)}m"
    return f"{math.ceil(seconds / 360) / 10:g}h"


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """The seconds of a stage.

    Args:
        step: an optimiser step.
        evaluation: an evaluation of the label-free signals.
        start: before its first step, such as those of statistics.
    """

    step: float
    evaluation: float
    start: float = 0.0


def with_length(config: Config, steps: int, keep: Collection[str]) -> dict[str, Any]:
    """Return the fields of a run of another length: steps, and in proportion warm-up, evaluations and checkpoints.

    Args:
        config: the run as its recipe has it.
        steps: wanted.
        keep: dotted names that the user has set and that stay.
    """
    share = steps / config.train.steps
    values: dict[str, Any] = {"train.steps": steps}
    for name in _FOLLOWING:
        value = field_of(config, name)
        if value and name not in keep:
            values[name] = max(1, round(value * share))
    if config.optim.poly_steps and "optim.poly_steps" not in keep:
        values["optim.poly_steps"] = max(steps, round(config.optim.poly_steps * share))
    return values


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage as its recipe has it, whose length is the most that is planned, and its cost."""

    config: Config
    cost: StageCost

    @property
    def least(self) -> int:
        """The fewest steps that are planned."""
        return min(LEAST_STEPS, self.config.train.steps)

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
    """A time budget of the whole command, and how much of it has passed."""

    seconds: float
    passed: float

    @property
    def usable(self) -> float:
        """Seconds that are planned for."""
        return (self.seconds - self.passed) * USED_SHARE

    def check(self, needed: float, what: str) -> None:
        """Raise `BudgetError` unless so many seconds are left."""
        if needed > self.usable:
            raise BudgetError(self, needed, what)


class BudgetError(UsageError):
    """The fewest steps do not fit into a budget.

    Args:
        budget: which.
        needed: seconds that they take.
        what: the steps as text.
    """

    def __init__(self, budget: Budget, needed: float, what: str) -> None:
        wanted = format_duration((budget.passed + needed / USED_SHARE) * _SPARE)
        super().__init__(
            f"the budget of {format_duration(budget.seconds)} is too small: the fewest steps, {what}, need about "
            f"{wanted} with evaluations. Set --budget {wanted}, or take less of everything, such as --network.backbone "
            "resnet18."
        )
        self.budget, self.needed, self.what = budget, needed, what

    @property
    def share(self) -> float:
        """Of the seconds that are needed, those that there are."""
        return max(0.0, self.budget.usable) / self.needed

    def at(self, width: int, share: float) -> "BudgetError":
        """Return what holds at a smaller size, whose images have `share` of the pixels, and the time in proportion."""
        return BudgetError(
            self.budget, self.needed * share, f"{self.what}, at {width} columns {share:.0%} of that time each"
        )


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
        BudgetError: the least of both does not fit; names what would.
    """
    usable = budget.usable
    source_steps = source.steps(_granted(usable, SOURCE_SHARE, adapted))
    if ready >= ENOUGH * source_steps:
        budget.check(adapted.seconds(adapted.least), f"{adapted.describe()} for the adaptation")
        return Lengths(source=0, adapted=adapted.steps(usable))
    what = f"{source.describe()} for the source stage and {adapted.describe()} for the adaptation"
    budget.check(source.seconds(source.least) + adapted.seconds(adapted.least), what)
    return Lengths(source=source_steps, adapted=adapted.steps(_granted(usable, 1 - SOURCE_SHARE, source)))


def _granted(usable: float, share: float, other: Stage) -> float:
    """Return a stage's seconds: its share, and what the other cannot use, but not what that needs at least."""
    spare = usable - other.seconds(other.config.train.steps)
    return min(max(usable * share, spare), usable - other.seconds(other.least))
