"""What a run logged over its steps, read back from its folder."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lsr_train.runs.folder import Table

__all__ = ["Series", "gradient_curves", "signals_of", "training_curves"]

Series = Mapping[str, tuple[Sequence[int], Sequence[float]]]
"""Steps and values by name."""
_CLOCK = frozenset({"source_images_per_second", "loader_wait_share", "steps_that_waited", "learning_rate"})


def _read(file: Path, without: Collection[str] = ()) -> Series:
    """Return the columns of a table by step; a value that is no finite number is left out, and an empty column too."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row in Table(file).read():
        try:
            step = int(row["step"])
            values = {name: float(value) for name, value in row.items() if name != "step" and name not in without}
        except (KeyError, ValueError, TypeError):
            continue  # a row that a kill left unfinished
        for name, value in values.items():
            if math.isfinite(value):
                steps, numbers = found.setdefault(name, ([], []))
                steps.append(step)
                numbers.append(value)
    return found


def training_curves(run: Path) -> Series:
    """Return loss terms and diagnostics of a run folder's metrics.csv; empty where there is none."""
    return _read(run / "metrics.csv", _CLOCK)


def gradient_curves(run: Path) -> Series:
    """Return the norms of each term's gradient of a run folder's gradients.csv; empty where there is none."""
    return _read(run / "gradients.csv")


def signals_of(run: Path) -> Series:
    """Return the label-free signals of a run folder's signals.csv; empty where there is none."""
    return _read(run / "signals.csv")
