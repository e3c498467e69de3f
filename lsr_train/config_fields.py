"""Fields of a configuration by their dotted names, to read and to change many at once."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lsr_train.config import Config

__all__ = ["field_of", "fields_of", "with_fields"]


def field_of(config: Config, name: str) -> Any:
    """Return a field, such as that of `data.source.height`."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def fields_of(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted name and value of every field that is no section."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from fields_of(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", value


def with_fields(config: Config, values: Mapping[str, Any]) -> Config:
    """Return a configuration with other values; every check runs once, after all of them are set.

    Args:
        config: not changed.
        values: by dotted name.

    Raises:
        UsageError: the values do not fit together.
    """
    changed: Config = _with(config, values)
    return changed


def _with(node: Any, values: Mapping[str, Any]) -> Any:
    """Replace the fields of a section, those below it first."""
    here = {name: value for name, value in values.items() if "." not in name}
    below: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        head, dot, rest = name.partition(".")
        if dot:
            below.setdefault(head, {})[rest] = value
    sections = {head: _with(getattr(node, head), rest) for head, rest in below.items()}
    return replace(node, **here, **sections)
