"""Rows that are one row with something changed: a part left out, or a field over several values."""

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lsr_infer.errors import UsageError
from lsr_train.comparison.plan import FIELDS, Row, meant
from lsr_train.config.fields import field_of, with_fields
from lsr_train.config.methods import METHOD_WEIGHTS, WEIGHT_NAMES
from lsr_train.config.run import Config, is_foreign

__all__ = ["Span", "spans_of", "sweeps", "without_each"]

logger = logging.getLogger(__name__)

_SEPARATE = frozenset({"seed", "init", "method"})
"""Fields that a table has other words for."""


def without_each(row: Row, config: Config) -> tuple[Row, ...]:
    """Return a row, it without each of its terms, and it with feature labels by plain subsampling (Fig. 3a).

    Args:
        row: of a table.
        config: what it trains with; a weight of 0 is no term.

    Raises:
        UsageError: there is nothing that could be left out.
    """
    known = WEIGHT_NAMES if is_foreign(config.method) else METHOD_WEIGHTS[config.method]
    changes: dict[str, dict[str, Any]] = {
        f"without {name}": {f"weights.{name}": 0.0} for name in known if getattr(config.weights, name)
    }
    changes["nearest labels"] = {"histogram.mode": "nearest"}
    rows = [row]
    for name, change in changes.items():
        if all(field_of(config, field) == value for field, value in change.items()):
            continue
        try:
            with_fields(config, change)
        except UsageError as error:
            logger.info("%s: not for %s (%s)", name, row.name, error)
            continue
        rows.append(replace(row, name=f"{row.name}, {name}", set={**row.set, **change}))
    if len(rows) == 1:
        raise UsageError(f"row {row.name} has no term that could be left out. Name another with --row.")
    return tuple(rows)


def _numeric(config: Config, name: str) -> int | float:
    """Return the value of a numeric field.

    Raises:
        UsageError: there is no such field, it is no number, or a table has other words for it.
    """
    if name not in FIELDS:
        raise UsageError(f"there is no field {name}.{meant(name, FIELDS)}")
    if name in _SEPARATE:
        raise UsageError(f"{name} cannot be varied here. Set --{'seeds' if name == 'seed' else 'row'}.")
    value = field_of(config, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} is {value!r}, which is no number.")
    return value


def _number(text: str, like: float, name: str) -> int | float:
    """Read a number of a field's own type."""
    try:
        value = float(text)
        if isinstance(like, int):
            if value != int(value):
                raise ValueError
            return int(value)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{name}: {text!r} is no {'whole ' if isinstance(like, int) else ''}number.") from error
    if not math.isfinite(value):
        raise UsageError(f"{name}: {text!r} is no finite number.")
    return value


def _field_and_values(text: str, flag: str) -> tuple[str, str]:
    """Split `field=values`.

    Raises:
        UsageError: it has another form.
    """
    name, equals, values = text.partition("=")
    if not (name and equals and values):
        raise UsageError(f"--{flag} has {text!r}; FIELD=… is needed, such as weights.cluster=1e-5.")
    return name.strip(), values


def sweeps(row: Row, config: Config, texts: Sequence[str]) -> tuple[Row, ...]:
    """Return a row over the values of fields, every combination of several.

    Args:
        row: of a table.
        config: what it trains with.
        texts: such as `weights.cluster=1e-5,1e-4`.

    Raises:
        UsageError: a text has another form, its field is no number, or comes twice.
    """
    axes: dict[str, list[int | float]] = {}
    for text in texts:
        name, values = _field_and_values(text, "sweep")
        if name in axes:
            raise UsageError(f"--sweep has {name} twice.")
        like = _numeric(config, name)
        axes[name] = list(dict.fromkeys(_number(value, like, name) for value in values.split(",")))
    rows = []
    for point in itertools.product(*axes.values()):
        change = dict(zip(axes, point, strict=True))
        shown = ", ".join(f"{name}={value:g}" for name, value in change.items())
        rows.append(replace(row, name=f"{row.name}, {shown}", set={**row.set, **change}))
    return tuple(rows)


@dataclass(frozen=True, kw_only=True)
class Span:
    """Where a search may put a field.

    Args:
        field: by dotted name.
        low: the smallest value.
        high: the largest.
        log: whether equal factors are equal steps.
        now: what the row has.
    """

    field: str
    low: int | float
    high: int | float
    log: bool
    now: int | float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, without what the row has."""
        return {"low": self.low, "high": self.high, "log": self.log}


def spans_of(config: Config, texts: Sequence[str]) -> tuple[Span, ...]:
    """Read where a search may go.

    Args:
        config: what the row trains with.
        texts: such as `weights.cluster=1e-6..1e-3`. Where both ends are above 0 and at least tenfold apart, equal
            factors are equal steps; `:log` and `:linear` behind it say so or otherwise.

    Raises:
        UsageError: a text has another form, its field is no number, or comes twice.
    """
    spans: dict[str, Span] = {}
    for text in texts:
        name, values = _field_and_values(text, "search")
        ends, _, scale = values.partition(":")
        low_text, dots, high_text = ends.partition("..")
        if not dots or scale not in ("", "log", "linear"):
            raise UsageError(f"--search has {text!r}; LOW..HIGH is needed, or LOW..HIGH:log, LOW..HIGH:linear.")
        if name in spans:
            raise UsageError(f"--search has {name} twice.")
        now = _numeric(config, name)
        low, high = _number(low_text, now, name), _number(high_text, now, name)
        if low >= high or (scale == "log" and low <= 0):
            raise UsageError(
                f"--search has {text!r}; the first must be below the second{', and above 0' * bool(scale)}."
            )
        log = scale == "log" or (scale == "" and low > 0 and high >= 10 * low)
        spans[name] = Span(field=name, low=low, high=high, log=log, now=now)
    return tuple(spans.values())
