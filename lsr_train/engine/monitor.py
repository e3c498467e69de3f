"""What the loop adds up on the device between two log lines, without waiting for it.

Sums of the loss terms and the first step at which each was not finite; one transfer reads it all. Beside it, and only
where it is asked for, how hard each term pulls on the weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Reading", "TermMonitor", "gradient_norms"]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a transfer brought.

    Args:
        means: mean of each term since the last reading that was taken, and the latest value of each diagnostic.
        first_bad: step of the first non-finite value, by term; terms that stayed finite are absent.
    """

    means: dict[str, float]
    first_bad: dict[str, int]


class TermMonitor:
    """Accumulates loss terms on the device they are computed on."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sums: Tensor | None = None
        self._first_bad: Tensor | None = None
        self._diagnostic_names: list[str] = []
        self._diagnostics: Tensor | None = None
        self._count = 0

    def observe(self, step: int, terms: Mapping[str, Tensor], diagnostics: Mapping[str, Tensor]) -> None:
        """Add the terms of one micro-batch; starts no transfer.

        Args:
            step: the step they belong to.
            terms: scalars on one device; the same keys at every call.
            diagnostics: detached scalars on the same device, of which the latest stand for themselves.
        """
        values = torch.stack([value.detach().double() for value in terms.values()])  # [T]
        if self._sums is None or self._first_bad is None:
            self._names = list(terms)
            self._sums = torch.zeros_like(values)
            self._first_bad = torch.full_like(values, -1)
        self._sums = self._sums + values
        new = ~torch.isfinite(values) & (self._first_bad < 0)
        self._first_bad = torch.where(new, float(step), self._first_bad)
        self._count += 1
        if diagnostics:
            self._diagnostic_names = list(diagnostics)
            self._diagnostics = torch.stack([value.detach().double() for value in diagnostics.values()])

    def read(self) -> Reading:
        """Fetch everything in one transfer; the sums go on."""
        if self._sums is None or self._first_bad is None:
            return Reading(means={}, first_bad={})
        parts = [self._sums, self._first_bad, *([] if self._diagnostics is None else [self._diagnostics])]
        values = torch.cat(parts).tolist()
        count = len(self._names)
        means = {name: value / max(self._count, 1) for name, value in zip(self._names, values[:count], strict=True)}
        bad = {n: int(v) for n, v in zip(self._names, values[count : 2 * count], strict=True) if v >= 0}
        return Reading(means=means | dict(zip(self._diagnostic_names, values[2 * count :], strict=True)), first_bad=bad)

    def reset(self) -> None:
        """Begin a new interval; the first bad steps stay known."""
        if self._sums is not None:
            self._sums = torch.zeros_like(self._sums)
        self._count = 0

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint needs for the next log line to come out the same."""
        if self._sums is None:
            return {}
        return {"sums": self._sums.cpu(), "count": torch.tensor(self._count)}

    def load_state(self, names: list[str], state: Mapping[str, Tensor], device: torch.device) -> None:
        """Take up what `state` returned."""
        if not state:
            return
        self._names = names
        self._sums = state["sums"].to(device)
        self._first_bad = torch.full_like(self._sums, -1)
        self._count = int(state["count"])

    @property
    def names(self) -> list[str]:
        """Names of the terms, in the order of the sums."""
        return self._names


def gradient_norms(terms: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, float]:
    """Return the norm of each term's gradient over some parameters, and leave terms and gradients as they are.

    Args:
        terms: scalars with a graph that is still to be used; a term without one has norm 0.
        parameters: those that need no gradient are left out.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    norms = {}
    for name, value in terms.items():
        if not value.requires_grad:
            norms[name] = 0.0
            continue
        gradients = torch.autograd.grad(value, trained, retain_graph=True, allow_unused=True)
        squares = [gradient.float().square().sum() for gradient in gradients if gradient is not None]
        norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return norms
