"""Checks, reads and changes the fields of a configuration by their dotted names."""

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping
from math import inf, isfinite, ulp
from typing import Any, Literal, TypeVar, get_args, get_origin

from lsr_infer.errors import UsageError

__all__ = [
    "ABOVE_0",
    "at_default",
    "check_fields",
    "field_of",
    "fields_of",
    "hint",
    "in_range",
    "nearest",
    "one_of",
    "plain_fields",
    "whole_numbers",
    "with_fields",
]

Tree = TypeVar("Tree")

ABOVE_0 = ulp(0.0)
"""The low end of a range that 0 is not in."""


def one_of(key: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise unless `value` is among `allowed`."""
    if value not in allowed:
        names = ", ".join(str(item) for item in allowed)
        raise UsageError(f"{key} is {value!r}; allowed: {names}. Set --{key}.")


def in_range(key: str, value: float, low: float, high: float = inf) -> None:
    """Raise unless `value` is a finite number in [low, high]."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UsageError(f"{key} is {value!r}; a number is needed. Set --{key}.")
    if not (isfinite(value) and low <= value <= high):
        start = "(0" if low == ABOVE_0 else f"[{low:g}"
        end = f"{high:g}]" if isfinite(high) else "infinity)"
        raise UsageError(f"{key} is {value}; allowed: {start}, {end}. Set --{key}.")


def whole_numbers(key: str, text: str) -> tuple[int, ...] | None:
    """Read numbers of at least 1 with commas, with or without brackets; None where the text is empty."""
    if not text:
        return None
    words = text.strip("[]() ").split(",")
    if not all(word.strip().isdecimal() and int(word) for word in words):
        raise UsageError(f"{key} is {text!r}; numbers of at least 1 with commas are needed. Set --{key}.")
    return tuple(int(word) for word in words)


def check_fields(section: Any, name: str, /, **ranges: tuple[float, float]) -> None:
    """Raise unless every `Literal` field of a section holds one of its words, and others lie in their [low, high]."""
    prefix = f"{name}." if name else ""
    for item in dataclasses.fields(section):
        if get_origin(item.type) is Literal:
            one_of(f"{prefix}{item.name}", getattr(section, item.name), get_args(item.type))
    for field, (low, high) in ranges.items():
        in_range(f"{prefix}{field}", getattr(section, field), low, high)


def at_default(config: Any, names: Iterable[str], reader: str) -> None:
    """Raise unless fields (`section.field` each) have their defaults, because `reader` does not read them."""
    for name in names:
        section, field = name.split(".")
        value = getattr(getattr(config, section), field)
        default = next(item.default for item in dataclasses.fields(getattr(config, section)) if item.name == field)
        if value != default:
            raise UsageError(f"{name} is {value}, and {reader} does not read it. Leave --{name} out, or at {default}.")


def field_of(config: Any, name: str) -> Any:
    """Return a field, such as that of `data.source.height`."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def fields_of(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted name and value of every field that is no section."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from fields_of(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", value


def plain_fields(config: Any) -> dict[str, Any]:
    """Return every value by dotted name; of a section in a list a text of what is not its default."""

    def text(section: Any) -> str:
        default = dict(fields_of(type(section)()))
        return ", ".join(f"{name} {value}" for name, value in fields_of(section) if value != default[name])

    def plain(value: Any) -> Any:
        sections = isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value))
        return "; ".join(map(text, value)) if sections else value

    return {name: plain(value) for name, value in fields_of(config)}


def with_fields(config: Tree, values: Mapping[str, Any]) -> Tree:
    """Return a configuration with other values by dotted name; every check runs once, after all of them are set.

    Raises:
        UsageError: the values do not fit together.
    """
    node: Any = config
    here: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        head, dot, rest = name.partition(".")
        if dot:
            below.setdefault(head, {})[rest] = value
        else:
            here[head] = value
    sections = {head: with_fields(getattr(node, head), rest) for head, rest in below.items()}
    changed: Tree = dataclasses.replace(node, **here, **sections)
    return changed


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that a mistyped one, such as `optim.lrr` or `lr`, most likely meant; None where none is near.

    The last part of a dotted name counts half as much again as the whole.
    """

    def score(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, name, candidate).ratio()
        last = difflib.SequenceMatcher(None, name.rpartition(".")[2], candidate.rpartition(".")[2]).ratio()
        return whole + last / 2

    best = max(sorted(known), key=score, default=None)
    return best if best is not None and score(best) >= 0.8 else None


def hint(name: str, known: Iterable[str], dashes: str = "") -> str:
    """Return a question after the nearest known name, with a space before it; empty where none is near."""
    near = nearest(name, known)
    return f" Did you mean {dashes}{near}?" if near else ""
