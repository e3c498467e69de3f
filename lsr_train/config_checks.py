"""Checks that the fields of a configuration share: a wrong value is a `UsageError` that names field and flag."""

import math
from typing import Any

from lsr_infer.errors import UsageError

__all__ = ["in_range", "one_of"]


def one_of(key: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise unless `value` is among `allowed`."""
    if value not in allowed:
        names = ", ".join(str(item) for item in allowed)
        raise UsageError(f"{key} is {value!r}; allowed: {names}. Set --{key}.")


def in_range(key: str, value: float, low: float, high: float = math.inf, *, open_low: bool = False) -> None:
    """Raise unless `value` is a finite number in [low, high], or in (low, high] with `open_low`."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UsageError(f"{key} is {value!r}; a number is needed. Set --{key}.")
    inside = math.isfinite(value) and (low < value if open_low else low <= value) and value <= high
    if not inside:
        bracket = "(" if open_low else "["
        end = f"{high:g}]" if math.isfinite(high) else "infinity)"
        raise UsageError(f"{key} is {value}; allowed: {bracket}{low:g}, {end}. Set --{key}.")
