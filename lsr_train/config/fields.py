"""Reads and changes the fields of a configuration by their dotted names."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lsr_train.config.methods import METHOD_SPECS, is_foreign
from lsr_train.config.run import Config

__all__ = ["field_of", "fields_of", "is_about_terms", "is_of_all_stages", "with_fields", "with_method"]


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


_OF_ALL_STAGES = frozenset({
    "label_space", "network.backbone", "network.width", "network.output_stride", "network.stem", "network.dilations",
    "network.normalization", "network.weights", "augment.crop_height", "augment.crop_width", "train.device",
    "train.precision", "train.threads", "train.channels_last", "train.compile",
})  # fmt: skip


def is_of_all_stages(name: str) -> bool:
    """Whether a field, by its dotted name, is the same in the source stage and in what starts from it."""
    return name in _OF_ALL_STAGES or name.startswith(("data.", "log."))


def is_about_terms(name: str) -> bool:
    """Whether a field, by its dotted name, belongs to the loss terms of methods: their weights and their options."""
    section = name.partition(".")[0]
    options = (option for spec in METHOD_SPECS.values() for option in spec.options)
    return section == "weights" or any(option.partition(".")[0] == section for option in options)


def with_method(config: Config, method: str, values: Mapping[str, Any]) -> Config:
    """Return a configuration that is equal but for the method and what belongs to its terms.

    Args:
        config: of another method, or of the same.
        method: by name. One that is none of this package's keeps the terms' fields as they are, since only it knows
            which of them it reads.
        values: of the method's terms, or anything else, by dotted name; every weight and option of terms that is not
            among them goes back to its default.

    Raises:
        UsageError: the values do not fit together.
    """
    fresh = {} if is_foreign(method) else {n: value for n, value in fields_of(Config()) if is_about_terms(n)}
    return with_fields(config, {**fresh, "method": method, **values})


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
