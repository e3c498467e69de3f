"""Reads a user's own classes from a `classes.yaml`, and writes one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.store_cache import local_path
from lsr_infer.labelspace import IGNORE_INDEX, LabelSpace
from lsr_train.config.plain_yaml import load_yaml
from lsr_train.data.labels import LABEL_SPACES, Classes, Color, IdMap

__all__ = ["classes_file", "classes_text", "load_classes", "load_label_space"]


def load_label_space(name: str) -> LabelSpace:
    """Return a built-in space by name (else `UsageError`), or a user's from a YAML file, see `load_classes`."""
    if name in LABEL_SPACES:
        return LABEL_SPACES[name]
    if (file := classes_file(name)) is not None:
        return load_classes(file).space
    raise UsageError(f"label_space is {name!r}; allowed: {', '.join(LABEL_SPACES)} or a YAML file. Set --label_space.")


def classes_file(label_space: str) -> Path | None:
    """Return the YAML file that a configuration's `label_space` names, None where it names a built-in space."""
    return local_path(label_space) if label_space.lower().endswith((".yaml", ".yml")) else None


_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Rgb = tuple[_Byte, _Byte, _Byte]
_Id = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]


class _ClassEntry(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1)]
    color: _Rgb
    ids: list[_Id] | None = None
    label_colors: list[_Rgb] | None = None


class _ClassesFile(msgspec.Struct, forbid_unknown_fields=True):
    classes: list[_ClassEntry]
    name: str | int | float = ""
    ignore: list[Any] = []
    subsets: dict[Any, list[str]] = {}


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
        file = msgspec.convert(load_yaml(path.read_text(encoding="utf-8")), _ClassesFile)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Set --label_space or make the file.") from error
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {error}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: is no readable YAML: {line}") from error
    names = [entry.name for entry in file.classes]
    for key, members in file.subsets.items():
        unknown = [member for member in members if member not in names]
        if unknown:
            raise InputError(f"{path}: subsets.{key} holds {unknown[0]!r:.80}; allowed: {', '.join(names)}.")
    try:
        space = LabelSpace(
            name=str(file.name or path.resolve().parent.name or "own"),
            names=tuple(names),
            colors=tuple(entry.color for entry in file.classes),
            subsets={str(key): tuple(map(names.index, members)) for key, members in file.subsets.items()},
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Classes(space=space, id_map=_file_id_map(path, file))


def classes_text(space: LabelSpace, *, label_colors: bool = False) -> str:
    """Return the content of a `classes.yaml` that `load_classes` reads as this very space.

    Label files hold the classes' own numbers and 255 for void; with `label_colors` the classes' colours and black.
    """
    entries = [
        {"name": name, "color": list(color), **({"label_colors": [list(color)]} if label_colors else {"ids": [index]})}
        for index, (name, color) in enumerate(zip(space.names, space.colors, strict=True))
    ]
    subsets = {key: [space.names[index] for index in members] for key, members in space.subsets.items()}
    document: dict[str, Any] = {
        "name": space.name,
        "classes": entries,
        "ignore": [[0, 0, 0] if label_colors else IGNORE_INDEX],
    }
    document |= {"subsets": subsets} if subsets else {}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


def _file_id_map(path: Path, file: _ClassesFile) -> IdMap:
    """Collect what the label files hold for each class and for void."""
    colors = any(entry.label_colors is not None for entry in file.classes)
    ids = any(entry.ids is not None for entry in file.classes)
    if colors and ids:
        raise InputError(f"{path}: some classes have ids and some label_colors; label files hold one or the other.")
    kind: Any = list[_Rgb] if colors else list[_Id]
    try:
        ignored = msgspec.convert(file.ignore, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: ignore: {error}.") from error
    given: list[tuple[str, int, Sequence[int | Color]]] = [
        (entry.name, index, (entry.label_colors or ()) if colors else (entry.ids or ()) if ids else (index,))
        for index, entry in enumerate(file.classes)
    ]
    labels: dict[int, int] = {}
    show = IdMap(name=str(path), labels={}, colors=colors).show
    for name, label, values in (*given, ("ignore", IGNORE_INDEX, ignored)):
        for value in values:
            raw = value if isinstance(value, int) else value[0] << 16 | value[1] << 8 | value[2]
            if raw in labels:
                raise InputError(f"{path}: {name}: {show(raw)} was already given to another class or to ignore.")
            labels[raw] = label
    if not colors:
        labels.setdefault(IGNORE_INDEX, IGNORE_INDEX)
    return IdMap(name=str(path), labels=labels, colors=colors)
