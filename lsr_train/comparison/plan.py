"""A comparison as a file: the rows of a table, what they share, and what was published of them.

The file names recipes for the shared source stage and for what all rows have in common; a row then says only what it
differs in. It is plain YAML and holds no path of a machine.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from lsr_infer.errors import InputError, UsageError
from lsr_train.config.fields import fields_of
from lsr_train.config.methods import check_name
from lsr_train.config.run import Config

__all__ = [
    "FIELDS",
    "Comparison",
    "Published",
    "Row",
    "chosen_rows",
    "comparison_names",
    "meant",
    "read_comparison",
]

_EVALUATE = (
    "layout", "split", "ids", "label_space", "limit", "ignore_mask", "on_bad", "protocol", "height", "width", "scales",
    "flip", "batch_norm_frames", "precision",
)  # fmt: skip
"""Options of `evaluate` that all rows of a table have in common."""
FIELDS = frozenset(name for name, _ in fields_of(Config()))
"""Every field of a configuration by dotted name."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table.

    Args:
        name: what the table calls it.
        method: that is trained; empty takes the one of `recipe`.
        recipe: a recipe of its own; empty takes the comparison's.
        set: fields of the configuration by dotted name.
        train: false scores the source stage as it is.
        batch_norm: `target` scores with statistics re-estimated on the target's frames.

    Raises:
        UsageError: it contradicts itself.
    """

    name: str
    method: str = ""
    recipe: str = ""
    set: Mapping[str, Any] = field(default_factory=dict)
    train: bool = True
    batch_norm: str = "stored"

    def __post_init__(self) -> None:
        for key, kind in (("method", str), ("recipe", str), ("set", dict), ("train", bool), ("batch_norm", str)):
            if not isinstance(getattr(self, key), kind):
                raise UsageError(f"row {self.name}: {key} is {getattr(self, key)!r}, which is no {kind.__name__}.")
        if not self.train and (self.method or self.recipe or self.set):
            raise UsageError(f"row {self.name} is not trained (train: false), so it has no method, recipe or set.")
        if self.batch_norm not in ("stored", "target"):
            raise UsageError(f"row {self.name}: batch_norm is {self.batch_norm!r}; allowed: stored, target.")
        for name in self.set:
            if name not in FIELDS:
                raise UsageError(f"row {self.name}: there is no field {name}.{meant(str(name), FIELDS)}")
        if self.method:
            check_name(self.method)


@dataclass(frozen=True, kw_only=True)
class Published:
    """Figures that others printed, shown beside ours and marked as theirs.

    Args:
        source: where they were printed.
        miou: mean IoU in per cent by the name of a row.
    """

    source: str = ""
    miou: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A table to be made.

    Args:
        name: of the file.
        source: recipe of the source stage that all adapted rows start from.
        base: recipe that rows without one of their own follow in all but their method.
        evaluate: options of `evaluate`, the same for all.
        rows: of the table, in order.
        published: figures of others.
    """

    name: str
    source: str
    base: str
    evaluate: Mapping[str, Any]
    rows: tuple[Row, ...]
    published: Published = Published()


def meant(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Return a question after the nearest of the names that are there; empty where none is near."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)
    return f" Did you mean {near[0]}?" if near else ""


def comparison_names() -> list[str]:
    """Return the names of the comparisons that come with the package."""
    folder = resources.files("lsr_train") / "comparisons"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def _comparison_path(name: str) -> Path:
    """Find a comparison by name, or a YAML file by path."""
    names = comparison_names()
    if name in names:
        return Path(str(resources.files("lsr_train") / "comparisons" / f"{name}.yaml"))
    if Path(name).is_file():
        return Path(name)
    raise UsageError(
        f"there is no comparison {name!r}.{meant(name, names, 0.4)} Comparisons: {', '.join(names)}; or a path to a "
        "YAML file."
    )


def read_comparison(name: str) -> Comparison:
    """Read a comparison.

    Args:
        name: of one that comes with the package, or a YAML file.

    Raises:
        UsageError: there is none of that name, or what it says is not allowed.
        InputError: the file cannot be read or is no YAML.
    """
    path = _comparison_path(name)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read. Name a YAML file.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: this is no plain YAML ({' '.join(str(error).split())[:200]}).") from error
    if isinstance(document, dict) and "method" in document and "rows" not in document:
        raise UsageError(
            f"{path}: this is the recipe of one run. Name a comparison: {', '.join(comparison_names())}, or a YAML "
            "file with source, base, evaluate and rows."
        )
    try:
        return _comparison(path.stem, document)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _check_names(document: Any, allowed: Iterable[str], where: str) -> Mapping[str, Any]:
    """Return a mapping whose keys are all known."""
    if not isinstance(document, dict):
        raise UsageError(f"{where} is no mapping of keys to values.")
    for key in document:
        if key not in allowed:
            allowed_names = ", ".join(allowed)
            raise UsageError(f"{where} has {key!r}; allowed: {allowed_names}.{meant(str(key), allowed)}")
    return document


def _comparison(name: str, document: Any) -> Comparison:
    """Check a document and build what it says."""
    parts = _check_names(document, ("source", "base", "evaluate", "rows", "published"), "a comparison")
    for part in ("source", "base", "evaluate", "rows"):
        if part not in parts:
            raise UsageError(f"a comparison needs {part}.")
    rows = parts["rows"]
    if not isinstance(rows, dict) or not rows:
        raise UsageError("rows is no mapping of names to what they are.")
    published = _check_names(parts.get("published", {}), ("source", "miou"), "published")
    miou = published.get("miou", {})
    if not isinstance(miou, dict) or not all(isinstance(value, int | float) for value in miou.values()):
        raise UsageError("published.miou is no mapping of rows to per cents.")
    return Comparison(
        name=name,
        source=str(parts["source"]),
        base=str(parts["base"]),
        evaluate=_check_names(parts["evaluate"], _EVALUATE, "evaluate"),
        rows=tuple(_row(str(key), value) for key, value in rows.items()),
        published=Published(source=str(published.get("source", "")), miou=miou),
    )


def _row(name: str, document: Any) -> Row:
    keys = ("method", "recipe", "set", "train", "batch_norm")
    return Row(name=name, **_check_names({} if document is None else document, keys, f"row {name}"))


def chosen_rows(comparison: Comparison, names: Iterable[str], flag: str = "methods") -> tuple[Row, ...]:
    """Return the rows that a user asks for.

    Args:
        comparison: with all of its rows.
        names: of rows; a method that has none (FILE.py:CLASS, or one that is registered) becomes one that follows the
            base recipe.
        flag: that named them, for messages.

    Raises:
        UsageError: a name is neither, or comes twice.
    """
    by_name = {row.name: row for row in comparison.rows}
    rows: list[Row] = []
    for name in names:
        if name in {row.name for row in rows}:
            raise UsageError(f"--{flag} has {name} twice.")
        if name in by_name:
            rows.append(by_name[name])
            continue
        try:
            rows.append(Row(name=name, method=name))
        except UsageError as error:
            if ".py" in name:
                raise UsageError(f"--{flag}: {error} A method of your own is named as FILE.py:CLASS.") from error
            raise UsageError(
                f"--{flag} has {name!r}, and {comparison.name} has no such row.{meant(name, by_name)} Rows: "
                f"{', '.join(by_name)}; or a method of your own as FILE.py:CLASS."
            ) from error
    return tuple(rows)
