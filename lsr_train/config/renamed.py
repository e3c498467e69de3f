"""Translates the names that earlier versions gave to options, fields and values.

Command lines, recipes and the config.yaml of a run folder pass through here before anything else reads them. An old
name works and is answered by one warning with the new one; a field that is gone may keep a value that meant nothing
special, and is refused at any other.
"""

import copy
import logging
from collections.abc import Mapping
from typing import Any

from lsr_infer.errors import UsageError

__all__ = ["REMOVED", "RENAMED", "RENAMED_OPTIONS", "RENAMED_VALUES", "current_argv", "current_document"]

logger = logging.getLogger(__name__)

RENAMED: Mapping[str, str] = {}
"""Old dotted name of a field, or of a whole section -> its name now."""

RENAMED_VALUES: Mapping[tuple[str, Any], Any] = {}
"""Field by its name now, and old value -> the value now."""

REMOVED: Mapping[str, tuple[Any, ...]] = {}
"""Old field that is gone -> the values that meant nothing special; they are dropped, others are refused."""

RENAMED_OPTIONS: Mapping[tuple[str, str], str] = {("ablate", "row"): "run"}
"""Command and old option that is no field -> its name now."""

_STAGES = ("source_stage.", "target_only.")
_ASSIGNING = ("sweep", "search")
"""Options of `ablate` whose value is FIELD=VALUES."""

_told: set[str] = set()


def _tell(message: str, level: int) -> None:
    """Log a message, once in a process."""
    if message not in _told:
        _told.add(message)
        logger.log(level, message)


def _current_name(name: str, where: str, level: int) -> str:
    """Return the name now of a field or section, by the longest old name it begins with."""
    for old in sorted(RENAMED, key=len, reverse=True):
        if name == old or name.startswith(f"{old}."):
            new = RENAMED[old] + name.removeprefix(old)
            _tell(f"{where}{name} is now called {new}; the old name will go in a later version.", level)
            return new
    return name


def _current_value(name: str, value: Any, where: str, level: int) -> Any:
    if not isinstance(value, str | int | float) or (name, value) not in RENAMED_VALUES:
        return value
    new = RENAMED_VALUES[name, value]
    _tell(f"{where}{name} {value} is now called {new}; the old name will go in a later version.", level)
    return new


def _is(value: Any, other: Any) -> bool:
    """Whether two values are one, however a command line or YAML writes it."""
    try:
        return float(value) == float(other)
    except (TypeError, ValueError):
        return str(value).lower() == str(other).lower()


def _drop(name: str, value: Any, where: str, level: int) -> None:
    """Pass over a field that is gone.

    Raises:
        UsageError: its value meant something.
    """
    if not any(_is(value, harmless) for harmless in REMOVED[name]):
        allowed = " or ".join(str(harmless) for harmless in REMOVED[name])
        raise UsageError(
            f"{where}{name} is {value}, and this version has no {name} any more (it always is {allowed}). Leave it "
            "out, or take version 0.1.0."
        )
    _tell(f"{where}{name} is gone, and {value} is what always holds; leave it out.", level)


def current_argv(command: str, argv: list[str]) -> list[str]:
    """Translate the words of a command line.

    Args:
        command: the command's name.
        argv: the words after it.

    Raises:
        UsageError: a field that is gone has a value that this version does not know.
    """
    translated: list[str] = []
    words = iter(argv)
    for word in words:
        option, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not option:
            translated.append(word)
            continue
        stage = next((prefix for prefix in _STAGES if option.startswith(prefix)), "")
        name = option.removeprefix(stage)
        if (command, name) in RENAMED_OPTIONS:
            new = RENAMED_OPTIONS[command, name]
            _tell(f"--{name} is now called --{new}; the old name will go in a later version.", logging.WARNING)
            name = new
        else:
            name = _current_name(name, "--", logging.WARNING)
        has_value = name in REMOVED or name in _ASSIGNING or any(name == field for field, _ in RENAMED_VALUES)
        if has_value and not equals:
            value = next(words, "--")
            if value.startswith("--"):
                raise UsageError(f"--{option} needs a value.")
        if name in REMOVED:
            _drop(name, value, "--", logging.WARNING)
            continue
        if name in _ASSIGNING:
            value = _current_assignment(value)
        value = _current_value(name, value, "--", logging.WARNING)
        translated += [f"--{stage}{name}={value}"] if equals else [f"--{stage}{name}", *([value] if has_value else [])]
    return translated


def _current_assignment(text: str) -> str:
    """Translate FIELD=VALUE,VALUE."""
    name, equals, values = text.partition("=")
    name = _current_name(name, "", logging.WARNING)
    if name in REMOVED:
        raise UsageError(f"this version has no {name} any more. Leave it out, or take version 0.1.0.")
    return name + equals + ",".join(str(_current_value(name, v, "", logging.WARNING)) for v in values.split(","))


def current_document(document: Any, where: str, *, of_a_run: bool = False, lenient: bool = False) -> Any:
    """Translate what a YAML file of a configuration holds.

    Args:
        document: a tree of mappings; anything else comes back as it is. Not changed.
        where: the file, for messages.
        of_a_run: whether it is the config.yaml of a run folder, in which nobody is asked to write something else.
        lenient: drop fields that are gone whatever their value was, as where a run is only shown.

    Raises:
        UsageError: a field has its old and its new name, or one that is gone has a value that this version does not
            know.
    """
    if not isinstance(document, dict):
        return document
    document = copy.deepcopy(document)
    level = logging.INFO if of_a_run else logging.WARNING
    where = f"{where}: " if where else ""
    for old in RENAMED:
        holder, key = _holder(document, old)
        if holder is None:
            continue
        _put(document, _current_name(old, where, level), holder.pop(key), where)
        _prune(document, old)
    for name in REMOVED:
        holder, key = _holder(document, name)
        if holder is None:
            continue
        value = holder.pop(key)
        if not lenient:
            _drop(name, value, where, level)
        _prune(document, name)
    for name in {field for field, _ in RENAMED_VALUES}:
        holder, key = _holder(document, name)
        if holder is not None:
            holder[key] = _current_value(name, holder[key], where, level)
    return document


def _holder(document: dict[str, Any], name: str) -> tuple[dict[str, Any] | None, str]:
    """Return the mapping that holds a field, None where there is none, and the field's key in it."""
    *sections, key = name.split(".")
    node: Any = document
    for section in sections:
        node = node.get(section) if isinstance(node, dict) else None
    return (node, key) if isinstance(node, dict) and key in node else (None, key)


def _put(document: dict[str, Any], name: str, value: Any, where: str) -> None:
    """Put a value at its place; a section joins what is there."""
    *sections, key = name.split(".")
    node = document
    for section in sections:
        below = node.setdefault(section, {})
        if not isinstance(below, dict):
            return  # whoever reads the document says what is wrong
        node = below
    if isinstance(value, dict) and isinstance(node.get(key), dict):
        for below, inner in value.items():
            _put(node[key], str(below), inner, where)
    elif key in node:
        raise UsageError(f"{where}{name} is there twice, by its old name and its new one. Take one of them out.")
    else:
        node[key] = value


def _prune(document: dict[str, Any], name: str) -> None:
    """Take out the sections above a field that hold nothing any more."""
    sections = name.split(".")[:-1]
    while sections:
        holder, key = _holder(document, ".".join(sections))
        if holder is None or holder[key] != {}:
            return
        del holder[key]
        sections.pop()
