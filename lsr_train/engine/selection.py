"""Selects the best checkpoint without a target label, and decides when to stop.

An evaluation computes signals on unlabelled target frames (and, if wanted, on held-out source images); the configured
one decides. No target label can get here: what is evaluated has none.
"""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lsr_infer.errors import QualityGateError
from lsr_train.config.run import SelectionConfig
from lsr_train.evaluation.signals import ClassSignals, CollapseWatch
from lsr_train.network import DeepLabV2

__all__ = ["SelectionSignals", "Selector"]

logger = logging.getLogger(__name__)


class SelectionSignals(NamedTuple):
    """Signals by name, higher is better for each; and of each class, None where no target frame was evaluated."""

    signals: dict[str, float]
    classes: ClassSignals | None = None


class Selector:
    """Keeps the best step by a label-free signal, and decides when to stop.

    Args:
        config: which signal, how often, how much patience.
        evaluate: computes the signals; None where there are no target frames, so that nothing is selected.
        watch: over the classes; while one of them is low, nothing is selected. None watches none.
        advice: what may help a class that has collapsed, for a message.
    """

    def __init__(
        self,
        config: SelectionConfig,
        evaluate: Callable[[DeepLabV2], SelectionSignals] | None,
        watch: CollapseWatch | None = None,
        advice: str = "",
    ) -> None:
        self.config, self.evaluate, self.watch, self.advice = config, evaluate, watch, advice
        self.best_step: int | None = None
        self._best: float | None = None
        self._without = 0
        self._latest: dict[str, Any] = {}

    def due(self, step: int, *, last: bool) -> bool:
        """Whether the network is evaluated after `step`."""
        if self.evaluate is None or self.config.signal == "none":
            return False
        return last or bool(self.config.every and step % self.config.every == 0)

    @property
    def evaluates_first(self) -> bool:
        """Whether the network is evaluated before its first step, to compare with."""
        return self.watch is not None and self.evaluate is not None and self.config.signal != "none"

    def start(self, found: SelectionSignals) -> None:
        """Take the signals before the first step."""
        if self.watch is not None and found.classes is not None:
            self.watch.start(found.classes.share.tolist())

    def update(self, step: int, found: SelectionSignals, *, log: bool = True) -> bool:
        """Take the signals of a step and return whether it is the best so far; `log` tells which classes are low.

        Raises:
            QualityGateError: the deciding signal is not a number.
        """
        value = found.signals[self.config.signal]
        if not math.isfinite(value):
            raise QualityGateError(
                f"the {self.config.signal} signal at step {step} is {value}: nothing to choose by. Set "
                "--selection.signal to another, or none."
            )
        self._latest = {"step": step, **{name: s for name, s in found.signals.items() if math.isfinite(s)}}
        improved = not self._collapses(step, found, log) and (self._best is None or value > self._best)
        if improved:
            self._best, self.best_step, self._without = value, step, 0
        else:
            self._without += 1
        return improved

    def _collapses(self, step: int, found: SelectionSignals, log: bool) -> bool:
        """Whether a class is dying; logs it at its first low evaluation, and once it has collapsed."""
        if self.watch is None or found.classes is None:
            return False
        before = self.watch.low
        collapsed = self.watch.observe(found.classes.share.tolist())
        for name in self.watch.low if log else ():
            if name not in (*before, *collapsed):
                logger.info(
                    "step %d: class %s was given less than a tenth of the target pixels it had at the start; no "
                    "checkpoint is selected while that lasts",
                    step, name,
                )  # fmt: skip
        for name in collapsed if log else ():
            logger.warning(
                "step %d: class %s has collapsed: in %d evaluations it was given less than a tenth of the target "
                "pixels it had at the start; no checkpoint is selected while that lasts. %s",
                step, name, self.watch.patience, self.advice,
            )  # fmt: skip
        return bool(self.watch.low)

    @property
    def nothing_because(self) -> tuple[str, ...]:
        """Classes that were low at the last evaluation, where no checkpoint was selected; empty where one was."""
        return self.watch.low if self.watch is not None and self.best_step is None else ()

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return bool(self.config.patience) and self._without >= self.config.patience

    def scores(self, step: int) -> dict[str, float]:
        """Return the signals of `step` where they were computed, for the checkpoint's metadata."""
        if self._latest.get("step") != step:
            return {}
        return {f"label_free_{name}": float(value) for name, value in self._latest.items() if name != "step"}

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {
            "best": self._best,
            "best_step": self.best_step,
            "without": self._without,
            "latest": self._latest,
            "watch": None if self.watch is None else self.watch.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self._best, self.best_step = state["best"], state["best_step"]
        self._without, self._latest = int(state["without"]), dict(state["latest"])
        if self.watch is not None and state.get("watch") is not None:
            self.watch.load_state(state["watch"])
