"""A watch over the classes of a network that trains on its own labels: none shall die unseen.

Self-training can drop a class for another without any loss rising. What it cannot hide is the share of the target's
pixels that are given to the class, which needs no label to count. Nothing here knows a network or a run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["CollapseWatch", "nothing_selected"]


def nothing_selected(names: Sequence[str]) -> str:
    """Say of a run without a selected checkpoint which classes kept it from one, and what it has instead."""
    return f"no checkpoint was selected: {', '.join(names)} had collapsed; this is the last one"


class CollapseWatch:
    """Compares each class's share of the target's pixels with its share at the start.

    Args:
        names: of the classes.
        looks: so many looks in a row below the bar are "for long". Ours: one look in a row was passed by classes that
            came back.
    """

    FALLS_BELOW = 0.1
    """Of the share at the start."""
    LEAST_SHARE = 1e-3
    """Classes that start below this are not watched: their share is noise. Ours."""

    def __init__(self, names: Sequence[str], looks: int = 2) -> None:
        self.names, self.looks = tuple(names), looks
        self._start: list[float] | None = None
        self._low = [0] * len(self.names)
        self._said: set[str] = set()

    def begin(self, shares: Sequence[float]) -> None:
        """Take the shares [C] before the first step as what is compared with."""
        self._start = list(shares)

    def observe(self, shares: Sequence[float]) -> tuple[str, ...]:
        """Take in the shares [C] of a look.

        Returns:
            Classes that have now been low for long and were not returned since they last were well.
        """
        if self._start is None:
            return ()
        new = []
        for place, (name, start, share) in enumerate(zip(self.names, self._start, shares, strict=True)):
            low = start >= self.LEAST_SHARE and share < self.FALLS_BELOW * start
            self._low[place] = self._low[place] + 1 if low else 0
            if not low:
                self._said.discard(name)
            if self._low[place] >= self.looks and name not in self._said:
                self._said.add(name)
                new.append(name)
        return tuple(new)

    @property
    def low(self) -> tuple[str, ...]:
        """Classes that were low at the last look."""
        return tuple(name for name, count in zip(self.names, self._low, strict=True) if count)

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, as plain data."""
        return {"start": self._start, "low": self._low, "said": sorted(self._said)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned."""
        self._start = None if state["start"] is None else [float(share) for share in state["start"]]
        self._low = [int(count) for count in state["low"]]
        self._said = set(state["said"])
