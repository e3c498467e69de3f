"""Reads comparison files, and derives variants of a row.

The file names recipes for the shared source stage and for what all rows have in common; a row then says only what it
differs in. It is plain YAML and holds no path of a machine.
"""

import difflib
import itertools
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from lsr_infer.errors import InputError, UsageError
from lsr_train.config.fields import field_of, fields_of, with_fields
from lsr_train.config.methods import METHOD_WEIGHTS, WEIGHT_NAMES, check_name
from lsr_train.config.run import Config, is_foreign

__all__ = [
    "FIELDS",
    "Comparison",
    "Published",
    "Row",
    "Span",
    "chosen_rows",
    "comparison_names",
    "meant",
    "read_comparison",
    "spans_of",
    "sweeps",
    "without_each",
]

logger = logging.getLogger(__name__)

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


_SEPARATE = frozenset({"seed", "init", "method"})
"""Fields that a table has other words for."""


def without_each(row: Row, config: Config) -> tuple[Row, ...]:
    """Return a row, it without each of its terms, and it with feature labels by plain subsampling (Fig. 3a).

    Args:
        row: of a table.
        config: what it trains with; a weight of 0 is no term.

    Raises:
        UsageError: there is nothing that could be left out.
    """
    known = WEIGHT_NAMES if is_foreign(config.method) else METHOD_WEIGHTS[config.method]
    changes: dict[str, dict[str, Any]] = {
        f"without {name}": {f"weights.{name}": 0.0} for name in known if getattr(config.weights, name)
    }
    changes["nearest labels"] = {"histogram.mode": "nearest"}
    rows = [row]
    for name, change in changes.items():
        if all(field_of(config, field) == value for field, value in change.items()):
            continue
        try:
            with_fields(config, change)
        except UsageError as error:
            logger.info("%s: not for %s (%s)", name, row.name, error)
            continue
        rows.append(replace(row, name=f"{row.name}, {name}", set={**row.set, **change}))
    if len(rows) == 1:
        raise UsageError(f"row {row.name} has no term that could be left out. Name another with --row.")
    return tuple(rows)


def _numeric(config: Config, name: str) -> int | float:
    """Return the value of a numeric field.

    Raises:
        UsageError: there is no such field, it is no number, or a table has other words for it.
    """
    if name not in FIELDS:
        raise UsageError(f"there is no field {name}.{meant(name, FIELDS)}")
    if name in _SEPARATE:
        raise UsageError(f"{name} cannot be varied here. Set --{'seeds' if name == 'seed' else 'row'}.")
    value = field_of(config, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} is {value!r}, which is no number.")
    return value


def _number(text: str, like: float, name: str) -> int | float:
    """Read a number of a field's own type."""
    try:
        value = float(text)
        if isinstance(like, int):
            if value != int(value):
                raise ValueError
            return int(value)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{name}: {text!r} is no {'whole ' if isinstance(like, int) else ''}number.") from error
    if not math.isfinite(value):
        raise UsageError(f"{name}: {text!r} is no finite number.")
    return value


def _field_and_values(text: str, flag: str) -> tuple[str, str]:
    """Split `field=values`.

    Raises:
        UsageError: it has another form.
    """
    name, equals, values = text.partition("=")
    if not (name and equals and values):
        raise UsageError(f"--{flag} has {text!r}; FIELD=… is needed, such as weights.cluster=1e-5.")
    return name.strip(), values


def sweeps(row: Row, config: Config, texts: Sequence[str]) -> tuple[Row, ...]:
    """Return a row over the values of fields, every combination of several.

    Args:
        row: of a table.
        config: what it trains with.
        texts: such as `weights.cluster=1e-5,1e-4`.

    Raises:
        UsageError: a text has another form, its field is no number, or comes twice.
    """
    axes: dict[str, list[int | float]] = {}
    for text in texts:
        name, values = _field_and_values(text, "sweep")
        if name in axes:
            raise UsageError(f"--sweep has {name} twice.")
        like = _numeric(config, name)
        axes[name] = list(dict.fromkeys(_number(value, like, name) for value in values.split(",")))
    rows = []
    for point in itertools.product(*axes.values()):
        change = dict(zip(axes, point, strict=True))
        shown = ", ".join(f"{name}={value:g}" for name, value in change.items())
        rows.append(replace(row, name=f"{row.name}, {shown}", set={**row.set, **change}))
    return tuple(rows)


@dataclass(frozen=True, kw_only=True)
class Span:
    """Where a search may put a field.

    Args:
        field: by dotted name.
        low: the smallest value.
        high: the largest.
        log: whether equal factors are equal steps.
        now: what the row has.
    """

    field: str
    low: int | float
    high: int | float
    log: bool
    now: int | float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, without what the row has."""
        return {"low": self.low, "high": self.high, "log": self.log}


def spans_of(config: Config, texts: Sequence[str]) -> tuple[Span, ...]:
    """Read where a search may go.

    Args:
        config: what the row trains with.
        texts: such as `weights.cluster=1e-6..1e-3`. Where both ends are above 0 and at least tenfold apart, equal
            factors are equal steps; `:log` and `:linear` behind it say so or otherwise.

    Raises:
        UsageError: a text has another form, its field is no number, or comes twice.
    """
    spans: dict[str, Span] = {}
    for text in texts:
        name, values = _field_and_values(text, "search")
        ends, _, scale = values.partition(":")
        low_text, dots, high_text = ends.partition("..")
        if not dots or scale not in ("", "log", "linear"):
            raise UsageError(f"--search has {text!r}; LOW..HIGH is needed, or LOW..HIGH:log, LOW..HIGH:linear.")
        if name in spans:
            raise UsageError(f"--search has {name} twice.")
        now = _numeric(config, name)
        low, high = _number(low_text, now, name), _number(high_text, now, name)
        if low >= high or (scale == "log" and low <= 0):
            raise UsageError(
                f"--search has {text!r}; the first must be below the second{', and above 0' * bool(scale)}."
            )
        log = scale == "log" or (scale == "" and low > 0 and high >= 10 * low)
        spans[name] = Span(field=name, low=low, high=high, log=log, now=now)
    return tuple(spans.values())
