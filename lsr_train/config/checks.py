"""Checks values of fields; a wrong one is a `UsageError` that names the field and its option."""

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from lsr_infer.errors import UsageError

__all__ = ["at_default", "in_range", "one_of"]


def one_of(key: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise unless `value` is among `allowed`."""
    if value not in allowed:
        names = ", ".join(str(item) for item in allowed)
        raise UsageError(f"{key} is {value!r}; allowed: {names}. Set --{key}.")


def at_default(config: Any, names: Iterable[str], reader: str) -> None:
    """Raise unless fields have their defaults, because nothing reads them.

    Args:
        config: a tree of sections.
        names: `section.field` each.
        reader: what does not read them, such as `method distill`.
    """
    for name in names:
        section, field = name.split(".")
        value = getattr(getattr(config, section), field)
        default = next(item.default for item in fields(getattr(config, section)) if item.name == field)
        if value != default:
            raise UsageError(f"{name} is {value}, and {reader} does not read it. Leave --{name} out, or at {default}.")


def in_range(key: str, value: float, low: float, high: float = math.inf, *, open_low: bool = False) -> None:
    """Raise unless `value` is a finite number in [low, high], or in (low, high] with `open_low`."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UsageError(f"{key} is {value!r}; a number is needed. Set --{key}.")
    inside = math.isfinite(value) and (low < value if open_low else low <= value) and value <= high
    if not inside:
        bracket = "(" if open_low else "["
        end = f"{high:g}]" if math.isfinite(high) else "infinity)"
        raise UsageError(f"{key} is {value}; allowed: {bracket}{low:g}, {end}. Set --{key}.")
