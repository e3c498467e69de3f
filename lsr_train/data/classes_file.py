"""A user's own classes: the file `classes.yaml`, read and checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lsr_infer.errors import InputError, UsageError
from lsr_infer.labelspace import IGNORE_INDEX, LabelSpace
from lsr_train.data.labels import LABEL_SPACES, Classes, Color, IdMap

__all__ = ["load_classes", "load_label_space"]


def load_label_space(name: str) -> LabelSpace:
    """Return a built-in space by name, or a user's from a YAML file.

    Raises:
        UsageError: there is neither such a name nor such a file.
        InputError: the file is not as `load_classes` wants it.
    """
    if name in LABEL_SPACES:
        return LABEL_SPACES[name]
    path = Path(name)
    if path.suffix.lower() in (".yaml", ".yml"):
        return load_classes(path).space
    raise UsageError(f"label_space is {name!r}; allowed: {', '.join(LABEL_SPACES)} or a YAML file. Set --label_space.")


def load_classes(path: Path) -> Classes:
    """Read a `classes.yaml`.

    The file names each class and its colour, and what the label files hold for it: `ids`, or RGB `label_colors`. Where
    no class has either, the ids are the classes' own numbers from 0. What is listed under `ignore` is void, and so is
    id 255::

        name: my simulator
        classes:
          - {name: road, color: [128, 64, 128], ids: [1, 24]}
          - {name: car, color: [0, 0, 142], ids: [14]}
        ignore: [0, 23]
        subsets: {drivable: [road]}

    Raises:
        InputError: the file is missing, no YAML, or not of this form; names the entry.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Set --label_space or make the file.") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: is no readable YAML: {line}") from error
    return _classes(path, document)


def _fail(path: Path, what: str) -> InputError:
    return InputError(f"{path}: {what}")


def _keys(path: Path, where: str, entry: Any, allowed: tuple[str, ...]) -> Mapping[str, Any]:
    """Check that `entry` is a mapping with known keys only."""
    if not isinstance(entry, dict):
        raise _fail(path, f"{where} is {entry!r:.80}; a mapping with {', '.join(allowed)} is needed.")
    unknown = sorted(str(key) for key in entry if key not in allowed)
    if unknown:
        raise _fail(path, f"{where} has {', '.join(unknown)}; allowed: {', '.join(allowed)}.")
    return entry


def _list(path: Path, where: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _fail(path, f"{where} is {value!r:.80}; a list is needed.")
    return value


def _number(path: Path, where: str, value: Any, largest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise _fail(path, f"{where} is {value!r:.80}; allowed: whole numbers 0 to {largest}.")
    return value


def _color(path: Path, where: str, value: Any) -> Color:
    values = _list(path, where, value)
    if len(values) != 3:
        raise _fail(path, f"{where} is {value!r:.80}; [red, green, blue] is needed.")
    red, green, blue = (_number(path, where, item, 255) for item in values)
    return red, green, blue


def _raw(path: Path, where: str, value: Any, *, colors: bool) -> int:
    """Read an id, or a colour as one number."""
    if not colors:
        return _number(path, where, value, 0xFFFF)
    red, green, blue = _color(path, where, value)
    return red << 16 | green << 8 | blue


def _classes(path: Path, document: Any) -> Classes:
    """Check a parsed `classes.yaml` and build what it says."""
    top = _keys(path, "the file", document, ("name", "classes", "ignore", "subsets"))
    entries = [
        _keys(path, f"classes[{index}]", entry, ("name", "color", "ids", "label_colors"))
        for index, entry in enumerate(_list(path, "classes", top.get("classes")))
    ]
    names: list[str] = []
    for index, entry in enumerate(entries):
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            raise _fail(path, f"classes[{index}].name is {name!r:.80}; a text is needed.")
        names.append(name)
    subsets: dict[str, tuple[int, ...]] = {}
    wanted = top.get("subsets", {})
    if not isinstance(wanted, dict):
        raise _fail(path, f"subsets is {wanted!r:.80}; a mapping of names to lists of classes is needed.")
    for key, members in wanted.items():
        unknown = [member for member in _list(path, f"subsets.{key}", members) if member not in names]
        if unknown:
            raise _fail(path, f"subsets.{key} holds {unknown[0]!r:.80}; allowed: {', '.join(names)}.")
        subsets[str(key)] = tuple(names.index(member) for member in members)
    try:
        space = LabelSpace(
            name=str(top.get("name", path.resolve().parent.name or "own")),
            names=tuple(names),
            colors=tuple(
                _color(path, f"{name}.color", entry.get("color")) for name, entry in zip(names, entries, strict=True)
            ),
            subsets=subsets,
        )
    except InputError as error:
        raise error if str(error).startswith(str(path)) else _fail(path, str(error)) from error
    return Classes(space=space, id_map=_id_map(path, top, names, entries))


def _id_map(path: Path, top: Mapping[str, Any], names: list[str], entries: list[Mapping[str, Any]]) -> IdMap:
    """Collect what the label files hold for each class and for void."""
    colors = any("label_colors" in entry for entry in entries)
    if colors and any("ids" in entry for entry in entries):
        raise _fail(path, "some classes have ids and some label_colors; label files hold one or the other.")
    key = "label_colors" if colors else "ids"
    own = not colors and not any("ids" in entry for entry in entries)
    labels: dict[int, int] = {}
    show = IdMap(name=str(path), labels={}, colors=colors).show

    def add(value: int, label: int, where: str) -> None:
        if value in labels:
            raise _fail(path, f"{where}: {show(value)} was already given to another class or to ignore.")
        labels[value] = label

    for index, (name, entry) in enumerate(zip(names, entries, strict=True)):
        values = [index] if own else _list(path, f"{name}.{key}", entry.get(key, []))
        for value in values:
            add(_raw(path, f"{name}.{key}", value, colors=colors), index, name)
    for value in _list(path, "ignore", top.get("ignore", [])):
        add(_raw(path, "ignore", value, colors=colors), IGNORE_INDEX, "ignore")
    if not colors:
        labels.setdefault(IGNORE_INDEX, IGNORE_INDEX)
    return IdMap(name=str(path), labels=labels, colors=colors)
