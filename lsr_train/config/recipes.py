"""Finds recipes by name, and reads and writes configurations as YAML."""

import dataclasses
import logging
import re
from collections.abc import Collection, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from lsr_infer.errors import InputError, UsageError
from lsr_train.config.fields import hint
from lsr_train.config.plain_yaml import load_yaml
from lsr_train.config.renamed import current_document
from lsr_train.config.run import Config

__all__ = [
    "build", "check_keys", "config_from_text", "flat", "read_config", "read_document", "read_yaml",
    "recipe_names", "recipe_path", "to_yaml",
]  # fmt: skip

FORMAT = 2
_FIRST_LINE = "# lsr_train configuration, format {}"
_LAST_LINE = "# end"
_LAST_OF_FORMAT_1 = {"every", "tensorboard", "gradients"}
"""The fields of the last section, `log`, in version 0.1.0, which wrote neither of these lines."""


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = resources.files("lsr_train") / "recipes"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def recipe_path(name: str) -> Path:
    """Find a recipe by name, or a YAML file by path.

    Raises:
        UsageError: it is neither; the message has the nearest name.
        InputError: it is a path that cannot be read.
    """
    names = recipe_names()
    if name in names:
        return Path(str(resources.files("lsr_train") / "recipes" / f"{name}.yaml"))
    path = Path(name)
    if path.is_dir():
        raise InputError(f"{name}: a folder, not a recipe. Name a YAML file or one of: {', '.join(names)}.")
    if not path.is_file():
        raise UsageError(
            f"there is no recipe {name!r}.{hint(name, names)} Recipes: {', '.join(names)}; or a path to a YAML file."
        )
    return path


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        InputError: it cannot be read, or is no YAML.
    """
    try:
        return load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InputError(f"{path}: cannot be read ({reason}). Name a YAML file.") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: this is no plain YAML ({' '.join(str(error).split())[:200]}).") from error


def read_document(path: Path, level: int = logging.WARNING) -> Any:
    """Read a YAML file of a configuration, old names in it translated and told at a level of `logging`.

    Raises as `read_yaml` and `current_document`.
    """
    return current_document(read_yaml(path), str(path), level=level)


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a recipe by dotted name."""
    values: dict[str, Any] = {}
    for key, value in document.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return values


def check_keys(document: Any, known: Collection[str], where: str) -> None:
    """Raise unless the YAML document of a file `where` is a tree of known keys, such as `optim.lr` in `optim`.

    Raises:
        UsageError: it is no mapping, a section holds a plain value, or a key is unknown.
    """
    sections = {key[: match.start()] for key in known for match in re.finditer(r"\.", key)}
    leaves = set(known) - sections

    def walk(value: Any, prefix: str) -> None:
        if not isinstance(value, Mapping):
            what = f"{prefix} holds {str(value)[:60]!r}" if prefix else "this is no mapping"
            raise UsageError(f"{where}: {what}; keys and values are needed there, such as {sorted(leaves)[0]}.")
        for key, below in value.items():
            name = f"{prefix}.{key}" if prefix else str(key)
            if name in sections:
                walk(below, name)
            elif name not in leaves:
                raise UsageError(f"{where}: there is no field {name}.{hint(name, leaves | sections)}")

    walk(document, "")


def build(parser: ArgumentParser, namespace: Namespace) -> Config:
    """Build the tree from what a parser of its fields has read; this runs every check."""
    values = parser.instantiate(namespace)
    return Config(**{item.name: getattr(values, item.name) for item in dataclasses.fields(Config)})


def to_yaml(config: Config) -> str:
    """Return the whole resolved tree as YAML; reading it back gives an equal object."""
    text = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, width=120)
    return f"{_FIRST_LINE.format(FORMAT)}\n{text}{_LAST_LINE}\n"


def read_config(file: Path) -> Config:
    """Read the `config.yaml` of a run; raises as `config_from_text`, and `InputError` where it cannot be read."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged, no UTF-8 text"
        raise InputError(f"{file}: cannot be read ({reason}). Put a copy of it back.") from error
    return config_from_text(text, str(file))


@cache
def _parser() -> ArgumentParser:
    """Return a parser of the tree's fields; making one takes as long as reading with it."""
    parser = ArgumentParser(allow_abbrev=False, exit_on_error=False)
    parser.add_class_arguments(Config, as_group=False)
    return parser


def config_from_text(text: str, where: str, *, lenient: bool = False) -> Config:
    """Read the text of a `config.yaml`, the file `where`, also one of an earlier version.

    `lenient` lets fields that are gone have had any value, as where a run is shown and not resumed.

    Raises:
        InputError: it is no YAML, breaks off, or a field is unknown or not allowed.
    """
    try:
        document = load_yaml(text)
        if not isinstance(document, dict) or "method" not in document:
            raise InputError(f"{where}: this is no configuration of a run (no method in it).")
        _check_whole(text, document, where)
        document = current_document(document, "", level=logging.INFO, lenient=lenient)
        parser = _parser()
        return build(parser, parser.parse_object(document))
    except InputError:
        raise
    except UsageError as error:
        raise InputError(f"{where}: {error}") from error
    except Exception as error:
        raise InputError(f"{where}: this is no configuration of a run ({' '.join(str(error).split())}).") from error


def _check_whole(text: str, document: dict[str, Any], where: str) -> None:
    """Raise unless a `config.yaml` is there to its end, since what is cut off would have its defaults."""
    marked = re.match(re.escape(_FIRST_LINE).replace(r"\{\}", r"(\d+)"), text)
    if marked and int(marked[1]) > FORMAT:
        raise InputError(f"{where}: a later version of lsr_train wrote it (format {marked[1]}). Use that one.")
    if not (text.rstrip().endswith(_LAST_LINE) if marked else set(document.get("log") or ()) >= _LAST_OF_FORMAT_1):
        raise InputError(f"{where}: it breaks off before its end. Put a whole one back.")
