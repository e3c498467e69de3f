"""What a run writes while it trains: rows of its tables, and the same as TensorBoard scalars."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lsr_infer.labelspace import LabelSpace
from lsr_train.engine.selection import Sight
from lsr_train.runs.folder import RunFolder

__all__ = ["Pace", "RunLog"]

_READY_SECONDS = 0.01
"""A step waited for the loader when its batch took longer than this; taking one that lies ready took about 2 ms
(four images of 320x240)."""


@dataclass
class Pace:
    """The time of the steps since the last row of the log.

    Args:
        begun: when they began, on the monotonic clock.
        steps: how many there were.
        waited: seconds they spent waiting for the loader.
        late: how many of them had to wait.
    """

    begun: float = field(default_factory=time.perf_counter)
    steps: int = 0
    waited: float = 0.0
    late: int = 0

    def count(self, waited: float) -> None:
        """Add a step that waited so many seconds for its batches."""
        self.steps += 1
        self.waited += waited
        self.late += waited > _READY_SECONDS

    def leave_out(self, seconds: float) -> None:
        """Leave out time in which no step was made."""
        self.begun += seconds

    def seconds(self) -> float:
        """Return the time since the beginning, above 0."""
        return max(time.perf_counter() - self.begun, 1e-9)

    def figures(self, images: int) -> dict[str, float]:
        """Return the columns of the log that measure the clock; `images` were trained on."""
        seconds = self.seconds()
        return {
            "source_images_per_second": round(images / seconds, 3),
            "loader_wait_share": round(self.waited / seconds, 4),
            "steps_that_waited": round(self.late / self.steps, 4),
        }


class RunLog:
    """The log of a run. TensorBoard's writer is made at the first row, which says where the run goes on.

    Args:
        run: where everything is written.
        tensorboard: whether to write TensorBoard events too.
    """

    def __init__(self, run: RunFolder, *, tensorboard: bool) -> None:
        self._run = run
        self._tensorboard = tensorboard
        self._writer: Any = None

    def row(self, step: int, means: Mapping[str, float], clock: Mapping[str, float]) -> None:
        """Write a row of metrics.csv: means of the terms and diagnostics, and what measures the clock."""
        self._run.metrics.append({"step": step, **means, **clock})
        self._scalars(step, {**means, **clock})

    def sight(self, step: int, sight: Sight, space: LabelSpace) -> None:
        """Write a row of signals.csv, and one of classes.csv for each class."""
        self._run.signals.append({"step": step, **sight.signals})
        scalars = {f"signal/{name}": value for name, value in sight.signals.items()}
        if sight.classes is not None:
            columns = {name: value.tolist() for name, value in vars(sight.classes).items()}
            for place, name in enumerate(space.names):
                row = {column: values[place] for column, values in columns.items()}
                self._run.classes.append({"step": step, "class": name, **row})
                scalars |= {f"class_{column}/{name}": value for column, value in row.items() if math.isfinite(value)}
        self._scalars(step, scalars)

    def gradients(self, step: int, norms: Mapping[str, float]) -> None:
        """Write a row of gradients.csv: the norm of each term's gradient."""
        self._run.gradients.append({"step": step, **norms})
        self._scalars(step, {f"gradient/{name}": value for name, value in norms.items() if math.isfinite(value)})

    def close(self) -> None:
        """Write out what TensorBoard still holds back."""
        if self._writer is not None:
            self._writer.close()

    def _scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        if not self._tensorboard:
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._run.path / "tensorboard"), purge_step=step)
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
