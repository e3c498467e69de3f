"""Where a build stands, from the phases its builder reports, and the way to stop it.

A builder calls from threads of its own and nests its phases; what is shown is one share of the whole.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["BuildProgress", "monitor", "terminal_progress"]

logger = logging.getLogger(__name__)

Show = Callable[[float, str], None]
_LINE_SECONDS = 10.0
_REDRAW_SECONDS = 0.1


class _Phase:
    """A phase that has begun."""

    def __init__(self, name: str, parent: str | None, steps: int) -> None:
        self.name, self.parent, self.steps, self.done = name, parent, max(1, steps), 0


class BuildProgress:
    """The phases of one build; every method may be called from any thread.

    Args:
        show: called with the share done, 0..1 and never falling, and the name of the innermost phase. No exception may
            pass through the builder, so one of its own stops the build.
    """

    def __init__(self, show: Show | None = None) -> None:
        self._show = show or (lambda share, name: None)
        self._lock = threading.Lock()
        self._phases: list[_Phase] = []
        self._share = 0.0
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether the build was asked to stop."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask the builder to stop at its next step."""
        self._cancelled.set()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Note that a phase begins."""
        with self._lock:
            self._phases.append(_Phase(name, parent, steps))
            self._tell()

    def step(self, name: str) -> bool:
        """Note that a step of a phase is done; returns whether to go on."""
        with self._lock:
            phase = next((one for one in reversed(self._phases) if one.name == name), None)
            if phase is not None:
                phase.done = min(phase.done + 1, phase.steps)
            self._tell()
        return not self.cancelled

    def finish(self, name: str) -> None:
        """Note that a phase has ended."""
        with self._lock:
            index = max((n for n, one in enumerate(self._phases) if one.name == name), default=None)
            if index is not None:
                phase = self._phases.pop(index)
                if phase.parent is None and not self.cancelled:
                    self._share = 1.0
            self._tell()

    def again(self) -> None:
        """Show what was shown last, so that a clock beside it goes on during a long step."""
        with self._lock:
            if self._phases:
                self._tell()

    def _tell(self) -> None:
        roots = [phase for phase in self._phases if phase.parent is None]
        self._share = max(self._share, *(self._of(phase) for phase in roots), 0.0)
        try:
            self._show(self._share, self._phases[-1].name if self._phases else "")
        except Exception:
            if not self.cancelled:
                logger.exception("the progress of the build cannot be shown, so it stops")
            self.cancel()

    def _of(self, phase: _Phase) -> float:
        """Return the share of a phase that is done, its inner phases included."""
        inner = max((self._of(one) for one in self._phases if one.parent == phase.name and one is not phase), default=0)
        return min(1.0, (phase.done + min(inner, 0.999)) / phase.steps)


def monitor(module: Any, progress: BuildProgress) -> Any:
    """Return an IProgressMonitor of a library that reports to `progress`.

    It has to outlive the build.
    """

    def initialise(self: Any) -> None:
        module.IProgressMonitor.__init__(self)

    def phase_start(self: Any, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        progress.start(phase_name, parent_phase, num_steps)

    def phase_finish(self: Any, phase_name: str) -> None:
        progress.finish(phase_name)

    def step_complete(self: Any, phase_name: str, step: int) -> bool:
        return progress.step(phase_name)

    members = {
        "__init__": initialise,
        "phase_start": phase_start,
        "phase_finish": phase_finish,
        "step_complete": step_complete,
    }
    return type("Monitor", (module.IProgressMonitor,), members)()


@contextmanager
def terminal_progress() -> Iterator[BuildProgress]:
    """Give a `BuildProgress` that shows a bar on a terminal, and a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield BuildProgress(_Lines())
        return
    from tqdm import tqdm

    with tqdm(total=100, unit="%", bar_format="{l_bar}{bar}| {elapsed}", desc="building") as bar:
        shown = 0.0

        def show(share: float, name: str) -> None:
            nonlocal shown
            bar.n = 100 * share
            bar.set_description_str(f"building: {name[:40]}" if name else "building", refresh=False)
            if time.monotonic() >= shown + _REDRAW_SECONDS:  # steps come by the hundred, and some take seconds
                shown = time.monotonic()
                bar.refresh()

        yield BuildProgress(show)


class _Lines:
    """A line at the beginning and every so many seconds."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, share: float, name: str) -> None:
        now = time.monotonic()
        if name and now >= self._next:
            self._next = now + _LINE_SECONDS
            logger.info("building: %d %% (%s)", round(100 * share), name)
