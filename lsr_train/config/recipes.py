"""Finds recipes by name, and writes the config.yaml of a run."""

import dataclasses
import difflib
import re
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from lsr_infer.errors import InputError, UsageError
from lsr_train.config.run import Config

__all__ = ["check_whole", "recipe_names", "recipe_path", "to_yaml"]

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
    if path.is_file():
        return path
    if path.is_dir():
        raise InputError(f"{name}: a folder, not a recipe. Name a YAML file or one of: {', '.join(names)}.")
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UsageError(f"there is no recipe {name!r}.{hint} Recipes: {', '.join(names)}; or a path to a YAML file.")


def _plain(value: Any) -> Any:
    """Return tuples as lists, dataclasses as dictionaries."""
    if dataclasses.is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def to_yaml(config: Config) -> str:
    """Return the whole resolved tree as YAML; reading it back gives an equal object."""
    text = yaml.safe_dump(_plain(config), sort_keys=False, width=120)
    return f"{_FIRST_LINE.format(FORMAT)}\n{text}{_LAST_LINE}\n"


def check_whole(text: str, document: dict[str, Any], where: str) -> None:
    """Raise unless a `config.yaml` is there to its end, since what is cut off would have its defaults.

    Args:
        text: of the file.
        document: what is in it.
        where: the file, for messages.

    Raises:
        InputError: it breaks off, or was written by a later version.
    """
    marked = re.match(re.escape(_FIRST_LINE).replace(r"\{\}", r"(\d+)"), text)
    if marked and int(marked[1]) > FORMAT:
        raise InputError(f"{where}: a later version of lsr_train wrote it (format {marked[1]}). Use that one.")
    last = document.get("log")
    whole = text.rstrip().endswith(_LAST_LINE) if marked else set(last or ()) >= _LAST_OF_FORMAT_1
    if not whole:
        raise InputError(f"{where}: it breaks off before its end. Put a whole one back.")
