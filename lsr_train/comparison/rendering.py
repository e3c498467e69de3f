"""A comparison's document as a table: per cent, mean and spread over seeds, the best and the runner-up marked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lsr_train.evaluation.text_table import Table

__all__ = ["comparison_table"]

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
        document: as `lsr_train.comparison.outcome.comparison_document` makes it.
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
