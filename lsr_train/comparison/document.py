"""Collects the results of a comparison in one document, and renders it as a table."""

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lsr_infer.errors import InputError
from lsr_infer.labelspace import LabelSpace
from lsr_train.comparison.matrix import Score
from lsr_train.comparison.spec import Comparison
from lsr_train.evaluation.result import Supervised, Table, read_result
from lsr_train.metrics import UNSTABLE_BELOW, mean_adapted_to_supervised_ratio
from lsr_train.runs.folder import RunFolder

__all__ = ["TABLE_FORMAT", "LeftOut", "comparison_document", "comparison_table"]

TABLE_FORMAT = 1
"""Version of the document."""
_SUPERVISED = "target-only"


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Work that is not in a table.

    Args:
        name: of the row and seed, or of the source stage.
        why: in one line.
    """

    name: str
    why: str


@dataclass(frozen=True, kw_only=True)
class _Read:
    """The results that could be read.

    Args:
        by_file: each.
        space: the classes of all of them; None where there is none.
    """

    by_file: Mapping[Path, Supervised]
    space: LabelSpace | None


def comparison_document(
    comparison: Comparison,
    scores: Sequence[Score],
    left_out: list[LeftOut],
    diverged: Mapping[str, str],
    supervised: Path | None = None,
) -> dict[str, Any]:
    """Collect the results of a comparison.

    Args:
        comparison: with its rows.
        scores: one entry a row and seed.
        left_out: what failed, and so has no figure whatever lies there; a result that cannot be read is added.
        diverged: what was said of the entries that diverged, by their names.
        supervised: the result that mASR divides by where the table has no row of a `target-only` network.

    Returns:
        Plain JSON data. A row that diverged at any seed, or lacks one, has no means.

    Raises:
        InputError: `supervised` cannot be read.
    """
    gone = {item.name for item in left_out} | set(diverged)
    read = _read([score for score in scores if score.name not in gone], left_out)
    bound: dict[int, Tensor] = {}
    if supervised is not None and read.space is not None:
        theirs = read_result(supervised, read.space).iou
        bound = {score.seed: theirs for score in scores}
    bound |= {
        score.seed: read.by_file[score.result].iou
        for score in scores
        if score.run is not None and score.run.config.method == _SUPERVISED and score.result in read.by_file
    }
    rows = []
    for row in comparison.rows:
        entries = [_entry(score, read, bound, diverged) for score in scores if score.row.name == row.name]
        rows.append({"row": row.name, "seeds": entries, **_means(entries)})
    first = next(iter(read.by_file.values()), None)
    return {
        "kind": "comparison",
        "format": TABLE_FORMAT,
        "name": comparison.name,
        "protocol": None if first is None else first.document["protocol"],
        "precisions": sorted({str(item.document["protocol"].get("precision")) for item in read.by_file.values()}),
        "data": None if first is None else first.document["data"],
        "label_space": None if read.space is None else read.space.to_dict(),
        "rows": rows,
        "published": {"source": comparison.published.source, "miou": dict(comparison.published.miou)},
        "left_out": [{"name": item.name, "why": item.why} for item in left_out],
    }


def _read(scores: Sequence[Score], left_out: list[LeftOut]) -> _Read:
    """Read every result that is there; one that cannot be is left out."""
    found: dict[Path, Supervised] = {}
    space: LabelSpace | None = None
    for score in scores:
        for file in (score.result, score.selected):
            if not file.is_file():
                continue
            try:
                if space is None:
                    space = LabelSpace.from_dict(json.loads(file.read_text(encoding="utf-8"))["label_space"])
                found[file] = read_result(file, space)
            except InputError as error:
                left_out.append(LeftOut(name=score.name, why=str(error)))
            except (OSError, ValueError, KeyError, TypeError) as error:
                left_out.append(LeftOut(name=score.name, why=f"{file}: it is no result ({error})."))
    return _Read(by_file=found, space=space)


def _selected(score: Score, read: _Read) -> float | None:
    """Return the mean IoU of the checkpoint that was selected without labels; None where none was."""
    if score.run is None:
        return None
    run = RunFolder(score.run.folder)
    try:
        best, last = run.pointer("best"), run.pointer("last")
    except InputError:
        return None
    result = read.by_file.get(score.result if best == last else score.selected)
    return None if best is None or result is None else result.document["miou"]


def _entry(score: Score, read: _Read, bound: Mapping[int, Tensor], diverged: Mapping[str, str]) -> dict[str, Any]:
    """Return what one row has for one seed."""
    about: dict[str, Any] = {"seed": score.seed}
    if score.run is not None:
        about |= {"method": score.run.config.method, "steps": score.run.config.train.steps}
    if score.name in diverged:
        return {**about, "state": "diverged", "why": diverged[score.name]}
    result = read.by_file.get(score.result)
    if result is None:
        return {**about, "state": "missing"}
    document, space = result.document, read.space
    assert space is not None  # it was read
    scores = {"miou": document["miou"], "std": document["std"]}
    subsets = {n: {"miou": part["miou"], "std": part["std"]} for n, part in document["subsets"].items()}
    if score.seed in bound:
        scores |= _ratios(result.iou, bound[score.seed], None)
        for name, indices in space.subsets.items():
            subsets[name] |= _ratios(result.iou, bound[score.seed], indices)
    return {
        **about, "state": "done", **scores, "iou": document["iou"], "subsets": subsets,
        "selected_miou": _selected(score, read),
    }  # fmt: skip


def _ratios(adapted: Tensor, supervised: Tensor, subset: Sequence[int] | None) -> dict[str, float | None]:
    """Return mASR by Eq. 9, and without classes that supervised training hardly learns."""
    values = {
        "masr": mean_adapted_to_supervised_ratio(adapted, supervised, subset=subset).value,
        "masr_with_floor": mean_adapted_to_supervised_ratio(adapted, supervised, UNSTABLE_BELOW, subset=subset).value,
    }
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _means(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean and spread over seeds of every figure; none where a seed is not done."""
    if not entries or any(entry["state"] != "done" for entry in entries):
        return {"mean": None, "spread": None}
    names = ("miou", "std", "masr", "masr_with_floor", "selected_miou")

    def over_seeds(take: Callable[[Sequence[float]], float]) -> dict[str, Any]:
        """Return what `take` makes of every figure's values; None where one of them is missing."""

        def of(values: Sequence[float | None]) -> float | None:
            known = [value for value in values if value is not None]
            return take(known) if len(known) == len(values) else None

        subsets = entries[0]["subsets"]
        return {
            **{
                name: of([entry.get(name) for entry in entries])
                for name in names
                if any(name in entry for entry in entries)
            },
            "iou": {name: of([entry["iou"][name] for entry in entries]) for name in entries[0]["iou"]},
            "subsets": {
                subset: {
                    name: of([entry["subsets"][subset].get(name) for entry in entries])
                    for name in dict.fromkeys(name for entry in entries for name in entry["subsets"][subset])
                }
                for subset in subsets
            },
        }

    return {"mean": over_seeds(statistics.fmean), "spread": over_seeds(statistics.pstdev)}


_BOUND = "target-only"
"""The method that a table is measured against, whose rows so do not compete in it."""


@dataclass(frozen=True, kw_only=True)
class _Column:
    """One column of figures.

    Args:
        title: its header.
        value: takes it from a row's mean or spread.
        lower_is_better: whether the smallest wins.
        spread: whether the spread over seeds is shown.
        of: what `value` is taken from.
    """

    title: str
    value: Callable[[Mapping[str, Any]], float | None]
    lower_is_better: bool = False
    spread: bool = False
    of: Literal["mean", "spread"] = "mean"


def _done(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row["mean"] for row in document["rows"] if row["mean"] is not None]


def _figures(document: Mapping[str, Any]) -> list[_Column]:
    """Return the columns of what is over classes."""
    done = _done(document)
    if not done:
        return []
    columns = [
        _Column(title="mIoU", value=lambda mean: mean["miou"], spread=True),
        _Column(title="selected", value=lambda mean: mean["selected_miou"]),
        _Column(title="std", value=lambda mean: mean["std"], lower_is_better=True),
    ]
    if any("masr" in mean for mean in done):
        columns.append(_Column(title="mASR", value=lambda mean: mean.get("masr"), spread=True))
        columns.append(_Column(title="mASR*", value=lambda mean: mean.get("masr_with_floor")))
    for name in done[0]["subsets"]:
        for title, key in (("mIoU", "miou"), ("std", "std"), ("mASR", "masr")):
            if any(key in mean["subsets"][name] for mean in done):
                value = _of_subset(name, key)
                columns.append(_Column(title=f"{title} {name}", value=value, lower_is_better=key == "std"))
    return columns


def _classes(document: Mapping[str, Any]) -> list[_Column]:
    """Return a column a class."""
    return [_Column(title=name, value=_of_class(name)) for mean in _done(document)[:1] for name in mean["iou"]]


def _of_subset(name: str, key: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda mean: mean["subsets"][name].get(key)


def _of_class(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda mean: mean["iou"][name]


def _cell(row: Mapping[str, Any], column: _Column) -> str:
    if row["mean"] is None:
        return ""
    value = column.value(row[column.of])
    if value is None:
        return "-"
    spread = column.value(row["spread"]) if column.spread and len(row["seeds"]) > 1 else None
    return f"{100 * value:.1f}" if spread is None else f"{100 * value:.1f} ± {100 * spread:.1f}"


def _apart(column: _Column) -> list[_Column]:
    """Return a column's mean and, where it has one, its spread as columns of their own."""
    if not column.spread:
        return [column]
    return [replace(column, spread=False), replace(column, title=f"{column.title} spread", spread=False, of="spread")]


def _state(row: Mapping[str, Any]) -> str:
    """Say how many seeds a row has, and what became of the others."""
    states = [entry["state"] for entry in row["seeds"]]
    shown = [str(states.count("done"))]
    shown += [f"{states.count(state)} {state}" for state in ("diverged", "missing") if state in states]
    return ", ".join(shown)


def _ranked(rows: Sequence[Mapping[str, Any]], column: _Column) -> tuple[set[int], set[int]]:
    """Return the rows that are best in a column, and the runners-up; equal as shown is equal."""
    values: dict[int, float] = {}
    for position, row in enumerate(rows):
        bound = any(entry.get("method") == _BOUND for entry in row["seeds"])
        value = None if row["mean"] is None or bound else column.value(row["mean"])
        if value is not None:
            values[position] = round(100 * value, 1)
    order = sorted(set(values.values()), reverse=not column.lower_is_better)
    if len(values) < 2 or len(order) < 2:
        return set(), set()
    best = {position for position, value in values.items() if value == order[0]}
    second = {position for position, value in values.items() if value == order[1]} if len(best) == 1 else set()
    return best, second


def comparison_table(
    document: Mapping[str, Any], part: Literal["all", "figures", "classes"] = "all", *, numbers: bool = False
) -> Table:
    """Return a comparison as a table in per cent.

    Args:
        document: as `lsr_train.comparison.document.comparison_document` makes it.
        part: `figures` leaves the classes out, `classes` all but them and the notes.
        numbers: a spread is a column of its own, for programs to read; else it stands behind its mean.
    """
    rows, columns = document["rows"], [*_figures(document), *_classes(document)]
    published = document["published"]["miou"]
    if part != "all":
        columns = _figures(document) if part == "figures" else _classes(document)
        published = published if part == "figures" else {}
    if numbers:
        columns = [one for column in columns for one in _apart(column)]
    header = ["method", "seeds", *(column.title for column in columns), *(["published mIoU"] if published else [])]
    cells = []
    for row in rows:
        figures = [_cell(row, column) for column in columns]
        theirs = [f"{published[row['row']]:.1f}" if row["row"] in published else "-"] if published else []
        cells.append((row["row"], _state(row), *figures, *theirs))
    best: set[tuple[int, int]] = set()
    second: set[tuple[int, int]] = set()
    for position, column in enumerate(columns, start=2):
        first, runners_up = _ranked(rows, column)
        best |= {(row, position) for row in first}
        second |= {(row, position) for row in runners_up}
    return Table(
        header=tuple(header), rows=tuple(cells), title=document["name"] if part != "classes" else "",
        notes=_notes(document) if part != "classes" else (),
        best=frozenset(best), second=frozenset(second),
    )  # fmt: skip


def _notes(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Say how the figures were made, and what is not among them."""
    notes = []
    if document["protocol"] is not None:
        notes += [f"protocol: {document['protocol']['text']}", f"data: {document['data']['text']}"]
        notes.append(
            "per cent, means over seeds (± population's spread) of the last checkpoint; selected: of the one chosen "
            "without labels; std: over classes."
        )
    if any(row["mean"] is not None and "masr" in row["mean"] for row in document["rows"]):
        notes.append("mASR: Eq. 9; mASR*: without classes whose supervised IoU is below 5.")
        lacking = [
            row["row"] for row in document["rows"] if row["mean"] is not None and row["mean"].get("masr") is None
        ]
        if lacking:
            notes.append(f"no mASR for {', '.join(lacking)}: target-only is not there for every seed of it.")
    if len(document.get("precisions", ())) > 1:
        notes.append(f"scored in {', '.join(document['precisions'])}: not all in the same precision.")
    steps = {entry.get("steps") for row in document["rows"] for entry in row["seeds"]} - {None}
    if len(steps) > 1:
        lengths = {row["row"]: row["seeds"][0]["steps"] for row in document["rows"] if row["seeds"][0].get("steps")}
        notes.append(f"steps: {', '.join(f'{name} {count}' for name, count in lengths.items())}.")
    if document["published"]["miou"]:
        notes.append(f"published mIoU: not ours, printed in {document['published']['source']}.")
    for row in document["rows"]:
        if row["mean"] is None:
            notes += [f"{row['row']}: {_by_seed(row)}; no mean is given."]
    notes += [f"left out: {item['name']}: {item['why']}" for item in document["left_out"]]
    return tuple(notes)


def _by_seed(row: Mapping[str, Any]) -> str:
    def one(entry: Mapping[str, Any]) -> str:
        return f"mIoU {100 * entry['miou']:.1f}" if entry["state"] == "done" else str(entry["state"])

    return ", ".join(f"seed {entry['seed']} {one(entry)}" for entry in row["seeds"])
