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

__all__ = ["current_argv", "current_document", "current_fields"]

logger = logging.getLogger(__name__)

RENAMED: Mapping[str, str] = {}
"""Old dotted name of a field, or of a whole section -> its name now."""

RENAMED_VALUES: Mapping[tuple[str, Any], Any] = {
    ("latent.form", "printed"): "paper",
    ("latent.form", "scale-free"): "cosine",
}
"""Field by its name now, and old value -> the value now."""

REMOVED: Mapping[str, tuple[Any, ...]] = {
    "clustering.distance": ("l2",),
    "norm.variant": ("absolute",),
}
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


def _current(name: str, value: Any, where: str, level: int = logging.WARNING) -> tuple[str, Any]:
    """Return name and value now of a field, or of a section, whose value comes back as it is."""
    old = max((old for old in RENAMED if f"{name}.".startswith(f"{old}.")), key=len, default="")
    if old:
        new = RENAMED[old] + name.removeprefix(old)
        _tell(f"{where}{name} is now called {new}; the old name will go in a later version.", level)
        name = new
    if isinstance(value, str | int | float) and (name, value) in RENAMED_VALUES:
        new = RENAMED_VALUES[name, value]
        _tell(f"{where}{name} {value} is now called {new}; the old name will go in a later version.", level)
        value = new
    if name in REMOVED:
        if not any(_is(value, harmless) for harmless in REMOVED[name]):
            allowed = " or ".join(str(harmless) for harmless in REMOVED[name])
            raise UsageError(
                f"{where}{name} is {value}. Only an earlier version had this field; now it always is {allowed}. Leave "
                "it out, and train a run that had it again."
            )
        _tell(f"{where}{name} is gone, and {value} is what always holds; leave it out.", level)
    return name, value


def _is(value: Any, other: Any) -> bool:
    """Whether two values are one, however a command line or YAML writes it."""
    try:
        return float(value) == float(other)
    except (TypeError, ValueError):
        return str(value).lower() == str(other).lower()


def current_argv(command: str, argv: list[str]) -> list[str]:
    """Translate what follows a command's name on a command line.

    Raises:
        UsageError: a field that is gone has a value other than the one that now always holds.
    """
    translated: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            translated.append(word)
            continue
        option, equals, value = word.removeprefix("--").partition("=")
        stage = next((prefix for prefix in _STAGES if option.startswith(prefix)), "")
        name = option.removeprefix(stage)
        if (command, name) in RENAMED_OPTIONS:
            new = RENAMED_OPTIONS[command, name]
            _tell(f"--{name} is now called --{new}; the old name will go in a later version.", logging.WARNING)
            name = new
        if name not in REMOVED:
            name, _ = _current(name, None, "--")
        if not equals and rest and name in {*REMOVED, *_ASSIGNING, *(field for field, _ in RENAMED_VALUES)}:
            equals, value = "=", rest.pop(0)
        if name in _ASSIGNING:
            field, _, values = value.partition("=")
            pairs = [_current(field, text, "") for text in values.split(",")]
            field = pairs[0][0]
            if field in REMOVED:
                raise UsageError(f"--{name}: only an earlier version had {field}; nothing replaces it. Leave it out.")
            value = f"{field}={','.join(str(text) for _, text in pairs)}"
        name, value = _current(name, value, "--")
        if name not in REMOVED:
            translated.append(f"--{stage}{name}{equals}{value}")
    return translated


def current_fields(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Translate values by dotted name, such as what a comparison sets for a run; raises as `current_argv`."""
    pairs = [_current(str(name), value, f"{where}: ") for name, value in values.items()]
    return {name: value for name, value in pairs if name not in REMOVED}


def current_document(document: Any, where: str, *, of_a_run: bool = False, lenient: bool = False) -> Any:
    """Translate what a YAML file of a configuration holds.

    Args:
        document: a tree of mappings, not changed; anything else comes back as it is.
        where: the file, for messages.
        of_a_run: whether it is the config.yaml of a run folder, in which nobody is asked to write something else.
        lenient: whether fields that are gone are dropped whatever their value was, as where a run is only shown.

    Raises:
        UsageError: a field has its old and its new name, or one that is gone has a value other than the one that now
            always holds.
    """
    if not isinstance(document, dict):
        return document
    document = copy.deepcopy(document)
    level = logging.INFO if of_a_run else logging.WARNING
    where = f"{where}: " if where else ""
    for name in (*RENAMED, *REMOVED, *(field for field, _ in RENAMED_VALUES)):
        found = _take(document, name)
        if not found or (lenient and name in REMOVED):
            continue
        new, value = _current(name, found[0], where, level)
        if new not in REMOVED:
            _put(document, new, value, where)
    return document


def _take(document: dict[str, Any], name: str) -> list[Any]:
    """Take a field out, with the sections that hold nothing without it; return its value, or nothing."""
    head, _, below = name.partition(".")
    if head not in document or (below and not isinstance(document[head], dict)):
        return []
    if not below:
        return [document.pop(head)]
    found = _take(document[head], below)
    if found and not document[head]:
        del document[head]
    return found


def _put(document: dict[str, Any], name: str, value: Any, where: str) -> None:
    """Put a value at its place, where no other may be; a section joins what is there."""
    *sections, key = name.split(".")
    node = document
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            return  # whoever reads the document reports it
    if isinstance(value, dict) and isinstance(node.get(key), dict):
        for below, inner in value.items():
            _put(node[key], str(below), inner, where)
    elif key in node:
        raise UsageError(f"{where}{name} is there twice, by its old name and its new one. Take one of them out.")
    else:
        node[key] = value
