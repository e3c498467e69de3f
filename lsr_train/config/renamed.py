"""Translates what earlier versions called options, fields and values.

Command lines, recipes and the config.yaml of a run folder pass through here before anything else reads them. An old
name works and is answered by a warning with the new one; a field that is gone may keep a value that meant nothing
special, and is refused at any other.
"""

import copy
import logging
from collections.abc import Mapping
from typing import Any

from lsr_infer.errors import UsageError

__all__ = ["current_argv", "current_document", "current_fields"]

logger = logging.getLogger(__name__)

RENAMED_VALUES: Mapping[tuple[str, Any], Any] = {
    ("latent.form", "printed"): "paper",
    ("latent.form", "scale-free"): "cosine",
}
"""Field, as SECTION.NAME, and old value -> the value now."""

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


def _fields() -> dict[str, None]:
    return dict.fromkeys((*REMOVED, *(field for field, _ in RENAMED_VALUES)))


def _current(name: str, value: Any, where: str, level: int = logging.WARNING) -> Any:
    """Return the value now of a field; of one that is gone, `UsageError` unless its value meant nothing special."""
    if isinstance(value, str | int | float) and (name, value) in RENAMED_VALUES:
        new = RENAMED_VALUES[name, value]
        logger.log(level, "%s%s %s is now called %s; the old name will go in a later version.", where, name, value, new)
        return new
    if name in REMOVED:
        if not any(_is(value, harmless) for harmless in REMOVED[name]):
            allowed = " or ".join(str(harmless) for harmless in REMOVED[name])
            raise UsageError(
                f"{where}{name} is {value}. Only an earlier version had this field; now it always is {allowed}. Leave "
                "it out, and train a run that had it again."
            )
        logger.log(level, "%s%s is gone, and %s is what always holds; leave it out.", where, name, value)
    return value


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
        option, equals, value = word.partition("=")
        name = option.removeprefix("--")
        for stage in _STAGES:
            name = name.removeprefix(stage)
        if option.startswith("--") and (command, name) in RENAMED_OPTIONS:
            new = RENAMED_OPTIONS[command, name]
            logger.warning("--%s is now called --%s; the old name will go in a later version.", name, new)
            translated.append(f"--{new}{equals}{value}")
            continue
        if not option.startswith("--") or name not in {*_ASSIGNING, *_fields()} or not (equals or rest):
            translated.append(word)
            continue
        value = value if equals else rest.pop(0)
        if name in _ASSIGNING:
            field, assigned, values = value.partition("=")
            if field in REMOVED:
                raise UsageError(f"--{name}: only an earlier version had {field}; nothing replaces it. Leave it out.")
            value = f"{field}{assigned}{','.join(str(_current(field, text, '')) for text in values.split(','))}"
        value = _current(name, value, "--")
        if name not in REMOVED:
            translated.append(f"{option}={value}")
    return translated


def current_fields(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Translate values by dotted name, such as what a comparison sets for a run; raises as `current_argv`."""
    current = {name: _current(str(name), value, f"{where}: ") for name, value in values.items()}
    return {name: value for name, value in current.items() if name not in REMOVED}


def current_document(document: Any, where: str, *, level: int = logging.WARNING, lenient: bool = False) -> Any:
    """Translate what a YAML file of a configuration holds.

    Args:
        document: a tree of mappings, not changed; anything else comes back as it is.
        where: the file, for messages.
        level: of `logging`, at which old names are told.
        lenient: whether fields that are gone are dropped whatever their value was, as where a run is only shown.

    Raises:
        UsageError: a field that is gone has a value other than the one that now always holds.
    """
    if not isinstance(document, dict):
        return document
    document = copy.deepcopy(document)
    for name in _fields():
        section, _, key = name.partition(".")
        fields = document.get(section)
        if not isinstance(fields, dict) or key not in fields:
            continue
        value = fields.pop(key)
        if name not in REMOVED or not lenient:
            value = _current(name, value, f"{where}: " if where else "", level)
        if name not in REMOVED:
            fields[key] = value
        elif not fields:
            del document[section]
    return document
