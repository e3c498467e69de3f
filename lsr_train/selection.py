"""The choice of the best checkpoint without a target label.

A look computes signals on unlabelled target frames (and, if wanted, on held-out source images); the configured one
decides. No target label can get here: what it is given has none.
"""

import math
from collections.abc import Mapping
from typing import Any, Protocol

from lsr_infer.errors import QualityGateError
from lsr_train.config import SelectionConfig
from lsr_train.network import DeepLabV2

__all__ = ["Look", "Selector"]


class Look(Protocol):
    """Computes the signals of a network."""

    def __call__(self, network: DeepLabV2) -> dict[str, float]:
        """Return signals by name; for each, higher is better."""
        ...


class Selector:
    """Keeps the best step by a label-free signal, and says when to stop.

    Args:
        config: which signal, how often, how much patience.
        look: computes the signals; None where there are no target frames, so that nothing is selected.
    """

    def __init__(self, config: SelectionConfig, look: Look | None) -> None:
        self.config = config
        self.look = look
        self._best: float | None = None
        self._best_step: int | None = None
        self._without = 0
        self._latest: dict[str, Any] = {}

    def due(self, step: int, *, last: bool) -> bool:
        """Whether `step` is one to look at."""
        if self.look is None or self.config.signal == "none":
            return False
        return last or bool(self.config.every and step % self.config.every == 0)

    def update(self, step: int, signals: Mapping[str, float]) -> bool:
        """Take in the signals of a step and return whether it is the best so far.

        Raises:
            QualityGateError: the deciding signal is not a number.
        """
        value = signals[self.config.signal]
        if not math.isfinite(value):
            raise QualityGateError(
                f"the {self.config.signal} signal at step {step} is {value}: nothing to choose by. Set "
                "--selection.signal to another, or none."
            )
        finite = {name: signal for name, signal in signals.items() if math.isfinite(signal)}
        self._latest = {"step": step, **finite}
        improved = self._best is None or value > self._best
        if improved:
            self._best, self._best_step, self._without = value, step, 0
        else:
            self._without += 1
        return improved

    @property
    def best_step(self) -> int | None:
        """The selected step so far."""
        return self._best_step

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
        return {"best": self._best, "best_step": self._best_step, "without": self._without, "latest": self._latest}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        self._best, self._best_step = state["best"], state["best_step"]
        self._without, self._latest = int(state["without"]), dict(state["latest"])
