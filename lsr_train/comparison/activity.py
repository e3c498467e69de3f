"""Follows the runs of a table while they train and are scored: who is at which step, and how far the table is."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from lsr_train.runs.folder import RunFolder
from lsr_train.runs.matching import is_finished

__all__ = ["Activity", "TableWatch"]

_SCORING_SHARE = 0.05
"""Of the steps of the longest training, for what scoring takes. Ours; scoring has no steps to count."""


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What a process of a table does, and its log; a training has a run folder, and its steps."""

    name: str
    log: Path
    folder: Path | None = None
    steps: int = 0

    def __str__(self) -> str:
        if self.folder is None:
            return self.name
        return f"{self.name}: step {RunFolder(self.folder).metrics.last_step()} of {self.steps}"


class TableWatch:
    """How far the runs of a table are.

    Args:
        running: returns what processes do at the moment.
        steps: of every training, by its run folder.
        entries: how many results are scored.
        ended: returns how many of them are there, or will never be.
    """

    def __init__(
        self, running: Callable[[], Collection[Activity]], steps: Mapping[Path, int], entries: int = 0,
        ended: Callable[[], int] = lambda: 0,
    ) -> None:  # fmt: skip
        self._running, self._steps, self._ended = running, steps, ended
        self._done = {folder: _steps_of(folder, most) for folder, most in steps.items()}
        self._followed: set[Path] = set()
        self._scoring = _SCORING_SHARE * max((1, *steps.values()))
        self._total = sum(steps.values()) + entries * self._scoring

    def look(self) -> tuple[float, str]:
        """Return the share of the table that is done, in per cent, and what is under way."""
        running = self._running()
        folders = {item.folder for item in running if item.folder is not None and item.folder in self._steps}
        for folder in folders:
            self._done[folder] = _steps_of(folder, self._steps[folder])
        for folder in self._followed - folders:  # it has ended, whatever it ended in
            self._done[folder] = self._steps[folder]
        self._followed = folders
        done = sum(self._done.values()) + self._ended() * self._scoring
        return 100 * done / self._total, "; ".join(map(str, running))


def _steps_of(folder: Path, most: int) -> int:
    return most if is_finished(folder) else min(most, RunFolder(folder).metrics.last_step())
