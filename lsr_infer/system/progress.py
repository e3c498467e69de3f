"""Shows how far a piece of work is: a bar with the time left on a terminal, elsewhere a line every half minute.

Every command shows its work with this, and with nothing else. A thread redraws the bar and writes the line, so that
neither stands still during a step that takes long.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any, Self, TypeVar

from lsr_infer.text import printable

__all__ = ["LINE_SECONDS", "Progress", "duration", "with_progress"]

logger = logging.getLogger(__name__)

LINE_SECONDS = 30.0
"""Between two lines where there is no terminal."""
_REDRAW_SECONDS = 0.5
_JOIN_SECONDS = 2.0
_REMARK = 80
Counted = TypeVar("Counted")


def duration(seconds: float) -> str:
    """Return a time as text, such as 75 s, 12 min or 2.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Progress:
    """A piece of work that is under way inside a `with` block.

    Args:
        name: of the work.
        total: how many units it has; None where nobody knows.
        unit: what is counted; `B` are bytes, `%` is the share of 100, and none is a work of one long step.
        done: units that an earlier command did.
        row: counts bars from above where several threads show one each; None is below those that are open.
        look: asked for the units that are done and a remark, where nobody calls `step`.
        silent: show nothing, as every process but the first of a training.
    """

    def __init__(
        self, name: str, total: float | None = None, *, unit: str = "frame", done: float = 0, row: int | None = None,
        look: Callable[[], tuple[float, str]] | None = None, silent: bool = False,
    ) -> None:  # fmt: skip
        self.name, self.total, self._unit = printable(name), total, unit  # a bar is written past the log
        self._first = self._done = done
        self._row, self._look, self._silent = row, look, silent
        self._remark = ""
        self._bar: Any = None
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._started = self._told = monotonic()
        if self._silent:
            return self
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=self.total, initial=self._done, desc=self.name, unit=self._unit, unit_scale=self._unit == "B",
                leave=False, position=self._row, dynamic_ncols=True, bar_format=self._form,
            )  # fmt: skip
        self._thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_SECONDS)
        if self._bar is not None:
            self._redraw()
            self._bar.close()

    def step(self, count: float = 1) -> None:
        """Count what is done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(self._done - self._bar.n)
        else:
            self._line_when_due()

    def tell(self, remark: str, line: str) -> None:
        """Show a remark beside the bar; where there is none, log a line, and the next one half a minute later."""
        if self._bar is not None:
            self._bar.set_postfix_str(printable(remark)[:_REMARK], refresh=False)
        elif not self._silent:
            with self._lock:
                self._told = monotonic()
            logger.info("%s", line)

    @property
    def left(self) -> float | None:
        """The seconds that are left; None where that cannot be told yet."""
        done, total = self._done - self._first, self.total
        if total is None or done <= 0:
            return None
        return max(0.0, total - self._done) * (monotonic() - self._started) / done

    @property
    def _form(self) -> str | None:
        """What the bar looks like; None is tqdm's own."""
        return {
            "": "{desc}: {elapsed}",
            "%": "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]",
        }.get(self._unit)

    def _watch(self) -> None:
        """Keep the bar or the lines alive until the work has ended."""
        while not self._ended.wait(self._pause()):
            if self._bar is None:
                self._line_when_due()
            else:
                self._redraw()

    def _redraw(self) -> None:
        self._ask()
        self._bar.n, self._bar.total = self._done, self.total
        if self._look is not None:
            self._bar.set_postfix_str(self._remark[:_REMARK], refresh=False)
        self._bar.refresh()

    def _pause(self) -> float:
        return _REDRAW_SECONDS if self._bar is not None else max(0.01, self._told + LINE_SECONDS - monotonic())

    def _ask(self) -> None:
        if self._look is not None:
            self._done, remark = self._look()
            self._remark = printable(remark)

    def _line_when_due(self) -> None:
        with self._lock:
            if self._silent or monotonic() < self._told + LINE_SECONDS:
                return
            self._told = monotonic()
        self._ask()
        logger.info("%s", self._line())

    def _line(self) -> str:
        """Return where the work is, in one line."""
        seconds, done = monotonic() - self._started, self._done - self._first
        if self._unit == "":
            return f"{self.name}: {duration(seconds)} so far"
        if self._unit == "%":
            return self._joined([f"{self.name}: {self._done:.0f} %"])
        of = "" if self.total is None else f" of {self._count(self.total)}"
        units = "B" if self._unit == "B" else f"{self._unit}s"
        parts = [f"{self.name}: {self._count(self._done)}{of} {units}"]
        if done > 0 and seconds > 0:
            slow = self._unit != "B" and done < seconds
            parts.append(
                f"{seconds / done:.1f} s a {self._unit}" if slow else f"{self._count(done / seconds)} {units}/s"
            )
        return self._joined(parts)

    def _joined(self, parts: list[str]) -> str:
        """Return parts of a line with the time that is left, and the remark."""
        left = [] if self.left is None else [f"{duration(self.left)} left"]
        return "; ".join((", ".join([*parts, *left]), *([self._remark] if self._remark else [])))

    def _count(self, value: float) -> str:
        if self._unit != "B":
            return f"{value:.4g}" if value < 1000 else f"{value:.0f}"
        from tqdm import tqdm

        return str(tqdm.format_sizeof(value))


def with_progress(items: Iterable[Counted], name: str, total: int | None, *, unit: str = "frame") -> Iterator[Counted]:
    """Yield items, and show how many of them are done; `total` is None where nobody knows how many there are."""
    with Progress(name, total, unit=unit) as progress:
        for item in items:
            yield item
            progress.step()
