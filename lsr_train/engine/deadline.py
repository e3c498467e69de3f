"""Says how many steps a run has and how far along each is, and plans anew where training has to end at a given time."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Deadline", "Schedule"]


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """When training, which is in one process, has to be over, and what is known of its cost before the first step.

    Args:
        ends: on `time.monotonic`'s clock.
        most: steps that are done at most, however fast the machine is.
        evaluation: seconds that an evaluation with its checkpoint is expected to take.
    """

    ends: float
    most: int
    evaluation: float = 0.0


class Schedule:
    """The course of a run: `steps` steps, over which the learning rate goes the whole way that is configured.

    With a deadline the number of steps follows the machine: where steps take longer than they did there are fewer, and
    the rest of the course is spread over those that are left. Without one nothing changes, and `position` is the step.

    Args:
        steps: as configured, the length of the course.
        every: steps between two evaluations; 0 where only the end is evaluated.
        deadline: None where the configured steps are done, however long they take.
    """

    SECONDS = 10.0
    """Between two looks at the clock; nearer to the end a tenth of what is left. Ours."""
    SLACK = 0.02
    """Change of the number of steps, as a share of those left, below which none is made. Ours."""

    def __init__(self, steps: int, every: int = 0, deadline: Deadline | None = None) -> None:
        self.configured, self.steps = steps, steps
        self._every = every
        self._deadline = deadline
        self._changed: tuple[int, float] = (0, 0.0)  # the step since which this length holds, and its position
        self._evaluation = 0.0 if deadline is None else deadline.evaluation
        self._step_seconds = 0.0
        self._stepped, self._seconds = 0, 0.0  # since the last look

    def position(self, step: int) -> float:
        """Return how many of the configured steps `step` steps stand for, at most all."""
        begin, passed = self._changed
        return passed + (step - begin) * ((self.configured - passed) / (self.steps - begin))

    def stepped(self, step: int, seconds: float) -> bool:
        """Take in that `step` steps are done, the last in so many seconds; returns whether there is another length."""
        if self._deadline is None:
            return False
        self._stepped += 1
        self._seconds += seconds
        left = self._deadline.ends - time.monotonic()
        if self._seconds < min(self.SECONDS, left / 10) or step >= self.steps:
            return False
        recent = self._seconds / self._stepped
        self._step_seconds = (self._step_seconds + recent) / 2 if self._step_seconds else recent
        self._stepped, self._seconds = 0, 0.0
        return self._plan(step, left, self._deadline.most)

    def evaluated(self, seconds: float) -> None:
        """Take in how long an evaluation with its checkpoint took."""
        self._evaluation = seconds

    def _plan(self, step: int, left: float, most: int) -> bool:
        """Give the run as many further steps as there is time for; at least one, so that its end is evaluated."""
        a_step = self._step_seconds + (self._evaluation / self._every if self._every else 0.0)
        further = max(1, math.floor((left - self._evaluation) / a_step))
        steps = max(step + 1, min(step + further, most))
        if abs(steps - self.steps) <= self.SLACK * (self.steps - step):
            return False
        self._changed = (step, self.position(step))
        self.steps = steps
        return True

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"steps": self.steps, "changed": list(self._changed)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        step, position = state["changed"]
        self.steps, self._changed = int(state["steps"]), (int(step), float(position))
