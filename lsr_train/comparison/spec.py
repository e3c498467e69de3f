"""Reads comparison files, and derives variants of one of their runs.

A file names recipes for the shared source stage and for what all runs have in common; a run then says only what it
differs in. It is plain YAML and holds no path of a machine.
"""

import itertools
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from lsr_infer.errors import UsageError
from lsr_train.config.fields import field_of, fields_of, hint, with_fields
from lsr_train.config.recipes import read_yaml
from lsr_train.config.renamed import current_fields
from lsr_train.config.run import METHOD_SPECS, WEIGHT_NAMES, Config, check_name, is_foreign

__all__ = [
    "ComparisonSpec", "Published", "RunSpec", "SearchRange", "comparison_names", "read_comparison",
    "search_ranges", "select_runs", "sweeps", "without_each",
]  # fmt: skip

logger = logging.getLogger(__name__)

_FOLDER = resources.files("lsr_train") / "comparisons"
_EVALUATE = (
    "layout", "split", "ids", "label_space", "limit", "ignore_mask", "on_bad", "protocol", "height", "width", "scales",
    "flip", "batch_norm_frames", "precision", "image_suffix", "label_suffix",
)  # fmt: skip
"""Options of `evaluate` that all runs of a table have in common."""
_FIELDS = frozenset(name for name, _ in fields_of(Config()))
_SEPARATE = frozenset({"seed", "init", "method"})
"""Fields that a table has other options for."""


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run of a comparison, trained and scored for each seed; raises `UsageError` where it contradicts itself."""

    name: str
    method: str = ""  # empty takes the one of `recipe`
    recipe: str = ""  # empty takes the comparison's
    set: Mapping[str, Any] = field(default_factory=dict)  # fields of the configuration by dotted name
    train: bool = True  # false scores the source stage as it is
    batch_norm: str = "stored"  # `target` scores with statistics re-estimated on the target's frames

    def __post_init__(self) -> None:
        for key, kind in (("method", str), ("recipe", str), ("set", dict), ("train", bool), ("batch_norm", str)):
            if not isinstance(getattr(self, key), kind):
                raise UsageError(f"run {self.name}: {key} is {getattr(self, key)!r}, which is no {kind.__name__}.")
        if not self.train and (self.method or self.recipe or self.set):
            raise UsageError(f"run {self.name} is not trained (train: false), so it has no method, recipe or set.")
        if self.batch_norm not in ("stored", "target"):
            raise UsageError(f"run {self.name}: batch_norm is {self.batch_norm!r}; allowed: stored, target.")
        for name in self.set:
            if name not in _FIELDS:
                raise UsageError(f"run {self.name}: there is no field {name}.{hint(str(name), _FIELDS)}")
        if self.method:
            check_name(self.method)


@dataclass(frozen=True, kw_only=True)
class Published:
    """Figures that others printed: where, and mean IoU in per cent by the name of a run."""

    source: str = ""
    miou: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ComparisonSpec:
    """A table to be made."""

    name: str
    source: str  # recipe of the source stage that all adapted runs start from
    base: str  # recipe that runs without one of their own follow in all but their method
    evaluate: Mapping[str, Any]  # options of `evaluate`, the same for all
    runs: tuple[RunSpec, ...]
    published: Published = Published()
    set: Mapping[str, Any] = field(default_factory=dict)  # fields of the configuration that all stages get
    further: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # more scorings by name: what differs


def comparison_names() -> list[str]:
    """Return the names of the comparisons that come with the package."""
    return sorted(Path(item.name).stem for item in _FOLDER.iterdir() if item.name.endswith(".yaml"))


def read_comparison(name: str) -> ComparisonSpec:
    """Read a comparison that comes with the package, or a YAML file.

    Raises:
        UsageError: there is none of that name, or what it says is not allowed.
        InputError: the file cannot be read or is no YAML.
    """
    names = comparison_names()
    path = _shipped(name) if name in names else Path(name)
    if not path.is_file():
        raise UsageError(
            f"there is no comparison {name!r}.{hint(name, names)} Comparisons: {', '.join(names)}; or a "
            "path to a YAML file."
        )
    document = read_yaml(path)
    if isinstance(document, dict) and "method" in document and not {"runs", "rows"} & document.keys():
        raise UsageError(
            f"{path}: this is the recipe of one run. Name a comparison: {', '.join(names)}, or a YAML file with "
            "source, base, evaluate and runs."
        )
    try:
        if isinstance(document, dict) and "like" in document:
            document = _merged(read_yaml(_shipped(document.pop("like"))), document)
        return _comparison(path.stem, document)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _shipped(name: Any) -> Path:
    """Return the file of a comparison that comes with the package."""
    names = comparison_names()
    if name not in names:
        raise UsageError(f"like names {name!r}; allowed: {', '.join(names)}.{hint(str(name), names)}")
    return Path(str(_FOLDER / f"{name}.yaml"))


def _merged(base: Any, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a comparison with what another says otherwise; its runs are added or take the place of runs."""
    runs = document.get("runs", {})
    return {**base, **document, "runs": {**base["runs"], **runs} if isinstance(runs, dict) else runs}


def _check_names(document: Any, allowed: Sequence[str], where: str) -> Mapping[str, Any]:
    """Return a mapping whose keys are all known."""
    if not isinstance(document, dict):
        raise UsageError(f"{where} is no mapping of keys to values.")
    for key in document:
        if key not in allowed:
            raise UsageError(f"{where} has {key!r}; allowed: {', '.join(allowed)}.{hint(str(key), allowed)}")
    return document


def _comparison(name: str, document: Any) -> ComparisonSpec:
    """Check a document and build its comparison."""
    if isinstance(document, dict) and "rows" in document and "runs" not in document:  # as 0.1.0 called them
        document = {"runs" if key == "rows" else key: value for key, value in document.items()}
    parts = _check_names(
        document, ("source", "base", "evaluate", "runs", "published", "set", "further"), "a comparison"
    )
    for part in ("source", "base", "evaluate", "runs"):
        if part not in parts:
            raise UsageError(f"a comparison needs {part}.")
    runs = parts["runs"]
    if not isinstance(runs, dict) or not runs:
        raise UsageError("runs is no mapping of names to what they are.")
    published = _check_names(parts.get("published", {}), ("source", "miou"), "published")
    miou = published.get("miou", {})
    if not isinstance(miou, dict) or not all(isinstance(value, int | float) for value in miou.values()):
        raise UsageError("published.miou is no mapping of runs to per cents.")
    further = parts.get("further", {})
    if not isinstance(further, dict):
        raise UsageError("further is no mapping of names to options of evaluate.")
    keys = ("method", "recipe", "set", "train", "batch_norm")
    return ComparisonSpec(
        name=name,
        source=str(parts["source"]),
        base=str(parts["base"]),
        evaluate=_check_names(parts["evaluate"], _EVALUATE, "evaluate"),
        runs=tuple(
            _run(str(key), _check_names({} if value is None else value, keys, f"run {key}"))
            for key, value in runs.items()
        ),
        published=Published(source=str(published.get("source", "")), miou=miou),
        set=current_fields(_check_names(parts.get("set", {}), sorted(_FIELDS), "set"), "set"),
        further={str(key): _check_names(value, _EVALUATE, f"further {key}") for key, value in further.items()},
    )


def _run(name: str, parts: Mapping[str, Any]) -> RunSpec:
    """Build a run; fields that it sets by an old name get the new one."""
    values = parts.get("set", {})
    return RunSpec(name=name, **{**parts, "set": current_fields(values, name) if isinstance(values, dict) else values})


def select_runs(comparison: ComparisonSpec, names: Iterable[str], flag: str = "methods") -> tuple[RunSpec, ...]:
    """Return the runs that a user asks for.

    Args:
        comparison: its runs, and what they share.
        names: of runs; a method that has none (FILE.py:CLASS, or one that is registered) becomes one that follows the
            base recipe.
        flag: that named them, for messages.
    """
    by_name = {run.name: run for run in comparison.runs}
    runs: dict[str, RunSpec] = {}
    for name in names:
        if name in runs:
            raise UsageError(f"--{flag} has {name} twice.")
        try:
            runs[name] = by_name[name] if name in by_name else RunSpec(name=name, method=name)
        except UsageError as error:
            if ".py" in name:
                raise UsageError(f"--{flag}: {error} A method of your own is named as FILE.py:CLASS.") from error
            raise UsageError(
                f"--{flag} has {name!r}, and {comparison.name} has no such run.{hint(name, by_name)} Runs: "
                f"{', '.join(by_name)}; or a method of your own as FILE.py:CLASS."
            ) from error
    return tuple(runs.values())


def without_each(run: RunSpec, config: Config) -> tuple[RunSpec, ...]:
    """Return a run, it without each of its terms, and it with feature labels by plain subsampling (Fig. 3a).

    A weight of 0 in `config`, which the run trains with, is no term.
    """
    known = WEIGHT_NAMES if is_foreign(config.method) else METHOD_SPECS[config.method].weights
    changes: dict[str, tuple[str, Any]] = {
        f"without {name}": (f"weights.{name}", 0.0) for name in known if getattr(config.weights, name)
    }
    changes["nearest labels"] = ("histogram.mode", "nearest")
    runs = [run]
    for name, (changed, value) in changes.items():
        if field_of(config, changed) == value:
            continue
        try:
            with_fields(config, {changed: value})
        except UsageError as error:
            logger.info("%s: not for %s (%s)", name, run.name, error)
            continue
        runs.append(replace(run, name=f"{run.name}, {name}", set={**run.set, changed: value}))
    if len(runs) == 1:
        raise UsageError(f"run {run.name} has no term that could be left out. Name another with --run.")
    return tuple(runs)


def _numeric_field(config: Config, text: str, flag: str) -> tuple[str, str, int | float]:
    """Split `field=values`, and return the field, the values and what the field has."""
    name, equals, values = text.partition("=")
    if not (name and equals and values):
        raise UsageError(f"--{flag} has {text!r}; FIELD=… is needed, such as weights.cluster=1e-5.")
    name = name.strip()
    if name not in _FIELDS:
        raise UsageError(f"there is no field {name}.{hint(name, _FIELDS)}")
    if name in _SEPARATE:
        raise UsageError(f"{name} cannot be varied here. Set --{'seeds' if name == 'seed' else 'run'}.")
    value = field_of(config, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{name} is {value!r}, which is no number.")
    return name, values, value


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


def sweeps(run: RunSpec, config: Config, texts: Sequence[str]) -> tuple[RunSpec, ...]:
    """Return a run over the values of fields, such as `weights.cluster=1e-5,1e-4`, every combination of several."""
    axes: dict[str, list[int | float]] = {}
    for text in texts:
        name, values, like = _numeric_field(config, text, "sweep")
        if name in axes:
            raise UsageError(f"--sweep has {name} twice.")
        axes[name] = list(dict.fromkeys(_number(value, like, name) for value in values.split(",")))
    runs = []
    for point in itertools.product(*axes.values()):
        change = dict(zip(axes, point, strict=True))
        shown = ", ".join(f"{name}={value:g}" for name, value in change.items())
        runs.append(replace(run, name=f"{run.name}, {shown}", set={**run.set, **change}))
    return tuple(runs)


@dataclass(frozen=True, kw_only=True)
class SearchRange:
    """The values that a search may give a field."""

    field: str
    low: int | float
    high: int | float
    log: bool  # equal factors are equal steps
    current: int | float  # the run's own

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, without the run's own value."""
        return {"low": self.low, "high": self.high, "log": self.log}


def search_ranges(config: Config, texts: Sequence[str]) -> tuple[SearchRange, ...]:
    """Read the ranges of a search, such as `weights.cluster=1e-6..1e-3`.

    Where both ends are above 0 and at least tenfold apart, equal factors are equal steps; `:log` and `:linear` behind
    it say so or otherwise.
    """
    ranges: dict[str, SearchRange] = {}
    for text in texts:
        name, values, current = _numeric_field(config, text, "search")
        ends, _, scale = values.partition(":")
        low_text, dots, high_text = ends.partition("..")
        if not dots or scale not in ("", "log", "linear"):
            raise UsageError(f"--search has {text!r}; LOW..HIGH is needed, or LOW..HIGH:log, LOW..HIGH:linear.")
        if name in ranges:
            raise UsageError(f"--search has {name} twice.")
        low, high = _number(low_text, current, name), _number(high_text, current, name)
        if low >= high or (scale == "log" and low <= 0):
            above = ", and above 0" if scale else ""
            raise UsageError(f"--search has {text!r}; the first must be below the second{above}.")
        log = scale == "log" or (scale == "" and low > 0 and high >= 10 * low)
        ranges[name] = SearchRange(field=name, low=low, high=high, log=log, current=current)
    return tuple(ranges.values())
