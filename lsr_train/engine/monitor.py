"""Records a run: sums of the loss terms on the device, the time of the steps, and the tables and scalars of the log.

The sums are read in one transfer a row, and with them the first step at which each term was not finite.
"""

import math
import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lsr_infer.io.files import writing
from lsr_infer.labelspace import LabelSpace
from lsr_train.engine.selection import SelectionSignals
from lsr_train.runs.folder import RunFolder

__all__ = ["RunLog", "StepClock", "TermMonitor", "gradient_norms"]


class _Means(NamedTuple):
    """Mean of each term since the last reset, the latest diagnostics, and the step of a term's first bad value."""

    means: dict[str, float]
    first_bad: dict[str, int]


class TermMonitor:
    """Accumulates loss terms on the device they are computed on."""

    def __init__(self) -> None:
        self.names: list[str] = []  # of the terms, in the order of the sums
        self._sums: Tensor | None = None
        self._first_bad: Tensor | None = None
        self._diagnostic_names: list[str] = []
        self._diagnostics: Tensor | None = None
        self._count = 0

    def observe(self, step: int, terms: Mapping[str, Tensor], diagnostics: Mapping[str, Tensor]) -> None:
        """Add the terms of one micro-batch, the same ones at every call; starts no transfer."""
        values = torch.stack([value.detach().double() for value in terms.values()])  # [T]
        if self._sums is None or self._first_bad is None:
            self.names = list(terms)
            self._sums = torch.zeros_like(values)
            self._first_bad = torch.full_like(values, -1)
        self._sums = self._sums + values
        new = ~torch.isfinite(values) & (self._first_bad < 0)
        self._first_bad = torch.where(new, float(step), self._first_bad)
        self._count += 1
        if diagnostics:
            self._diagnostic_names = list(diagnostics)
            self._diagnostics = torch.stack([value.detach().double() for value in diagnostics.values()])

    def read(self) -> _Means:
        """Fetch everything in one transfer; the sums go on."""
        if self._sums is None or self._first_bad is None:
            return _Means({}, {})
        parts = [self._sums, self._first_bad, *([] if self._diagnostics is None else [self._diagnostics])]
        values = torch.cat(parts).tolist()
        count = len(self.names)
        means = {name: value / max(self._count, 1) for name, value in zip(self.names, values[:count], strict=True)}
        bad = {n: int(v) for n, v in zip(self.names, values[count : 2 * count], strict=True) if v >= 0}
        return _Means(means | dict(zip(self._diagnostic_names, values[2 * count :], strict=True)), bad)

    def reset(self) -> None:
        """Begin a new interval; the first bad steps stay known."""
        if self._sums is not None:
            self._sums = torch.zeros_like(self._sums)
        self._count = 0

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint needs for the next log line to come out the same."""
        return {} if self._sums is None else {"sums": self._sums.cpu(), "count": torch.tensor(self._count)}

    def load_state(self, names: list[str], state: Mapping[str, Tensor], device: torch.device) -> None:
        """Take up what `state` returned."""
        if not state:
            return
        self.names = names
        self._sums = state["sums"].to(device)
        self._first_bad = torch.full_like(self._sums, -1)
        self._count = int(state["count"])


def gradient_norms(terms: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, float]:
    """Return the norm of each term's gradient over some parameters (0 without a graph); graphs and gradients stay."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    norms = dict.fromkeys(terms, 0.0)
    for name, value in terms.items():
        if value.requires_grad:
            gradients = torch.autograd.grad(value, trained, retain_graph=True, allow_unused=True)
            squares = [gradient.float().square().sum() for gradient in gradients if gradient is not None]
            norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return norms


_READY_SECONDS = 0.01
"""A step waited for the loader when its batch took longer than this; taking one that lies ready took about 2 ms
(four images of 320x240)."""


class StepClock:
    """Times the steps since the last row of the log."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.steps = 0
        self._waited = 0.0
        self._late = 0

    def count(self, waited: float) -> None:
        """Add a step that waited so many seconds for its batches."""
        self.steps += 1
        self._waited += waited
        self._late += waited > _READY_SECONDS

    def leave_out(self, seconds: float) -> None:
        """Leave out time in which no step was made."""
        self._started += seconds

    def seconds(self) -> float:
        """Return the time since the start, above 0."""
        return max(time.perf_counter() - self._started, 1e-9)

    def figures(self, images: int) -> dict[str, float]:
        """Return the columns of the log that measure time; `images` were trained on."""
        seconds = self.seconds()
        return {
            "source_images_per_second": round(images / seconds, 3),
            "loader_wait_share": round(self._waited / seconds, 4),
            "steps_that_waited": round(self._late / self.steps, 4),
        }


class _EventFile:
    """A file of TensorBoard's, written on this thread.

    torch's `SummaryWriter` writes on one of its own, where a full disk is a traceback and not the run's error.

    Args:
        folder: where the files of all starts of the run lie.
        step: the first one that is written; TensorBoard drops what older files have from there on.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        # TensorBoard reads files in the order of their names, also where the clock has jumped back since the last one.
        older = [int(match[1]) for path in folder.iterdir() if (match := re.match(r"events\S*?\.(\d+)\.", path.name))]
        now = max([int(time.time()), *(second + 1 for second in older)])
        name = f"events.out.tfevents.{now:010d}.{platform.node() or 'host'}.{os.getpid()}.0"
        self._file = (folder / name).open("ab")
        self._records = RecordWriter(self._file)
        self._event = Event
        for event in (Event(file_version="brain.Event:2"), Event(session_log=SessionLog(status=SessionLog.START))):
            self._write(step, event)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add the scalars of a step."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(step, self._event(summary=Summary(value=values)))

    def _write(self, step: int, event: Any) -> None:
        event.wall_time, event.step = time.time(), step
        self._records.write(event.SerializeToString())
        self._file.flush()

    def close(self) -> None:
        with suppress(OSError):  # what could not be written has been an error before
            self._file.close()


class RunLog:
    """Writes the tables of a run, and with `tensorboard` the same as scalars."""

    def __init__(self, run: RunFolder, *, tensorboard: bool) -> None:
        self._run = run
        self._tensorboard = tensorboard
        self._events: _EventFile | None = None

    def row(self, step: int, means: Mapping[str, float], clock: Mapping[str, float]) -> None:
        """Write a row of metrics.csv: means of the terms and diagnostics, and what measures time."""
        self._run.metrics.append({"step": step, **means, **clock})
        self._scalars(step, {**means, **clock})

    def signals(self, step: int, found: SelectionSignals, space: LabelSpace) -> None:
        """Write a row of signals.csv, and one of classes.csv for each class."""
        self._run.signals.append({"step": step, **found.signals})
        scalars = {f"signal/{name}": value for name, value in found.signals.items()}
        if found.classes is not None:
            columns = {name: value.tolist() for name, value in vars(found.classes).items()}
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
        """Close TensorBoard's file."""
        if self._events is not None:
            self._events.close()

    def _scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        if not self._tensorboard:
            return
        with writing(self._run.path / "tensorboard"):
            if self._events is None:
                self._events = _EventFile(self._run.path / "tensorboard", step)
            self._events.write(step, scalars)
