"""Collects the results of a comparison in one document, and renders it as a table."""

import json
import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lsr_infer.errors import InputError
from lsr_infer.labelspace import LabelSpace
from lsr_train.comparison.matrix import SOURCE_STAGE, ScoredRun, folder_name, last_checkpoint
from lsr_train.comparison.spec import ComparisonSpec
from lsr_train.evaluation.result import STEADIER, Supervised, gain_in_words, read_result, subsets_in_words
from lsr_train.evaluation.text_table import TextTable
from lsr_train.metrics import UNSTABLE_BELOW, mean_adapted_to_supervised_ratio
from lsr_train.runs.folder import RunFolder

__all__ = ["TABLE_FORMAT", "LeftOut", "comparison_document", "comparison_table", "table_networks"]

TABLE_FORMAT = 1
_BOUND = "target-only"  # the method that a table is measured against, whose runs do not compete in it


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """The name of work that is not in a table, and the reason in one line."""

    name: str
    why: str


def comparison_document(
    comparison: ComparisonSpec,
    scored: Sequence[ScoredRun],
    left_out: list[LeftOut],
    diverged: Mapping[str, str],
    supervised: Path | None = None,
) -> dict[str, Any]:
    """Collect the results of a comparison as plain JSON data.

    Args:
        comparison: its runs, and what they share.
        scored: one entry a run and seed; a run that diverged at any seed, or lacks one, has no means.
        left_out: what failed, and so has no figure whatever lies there; a result that cannot be read is added.
        diverged: messages of the entries that diverged, by their names.
        supervised: the result that mASR divides by where the table has no `target-only` network.

    Raises:
        InputError: `supervised` cannot be read.
    """
    without = {item.name for item in left_out} | set(diverged)
    results, space = _read([item for item in scored if item.name not in without], comparison.further, left_out)
    bound: dict[int, Tensor] = {}
    if supervised is not None and space is not None:
        theirs = read_result(supervised, space).iou
        bound = {item.seed: theirs for item in scored}
    bound |= {
        item.seed: results[item.result].iou
        for item in scored
        if item.training is not None and item.training.config.method == _BOUND and item.result in results
    }
    rows = []
    for run in comparison.runs:
        entries = [
            _entry(item, results, space, bound, diverged, comparison.further)
            for item in scored
            if item.run.name == run.name
        ]
        rows.append({"run": run.name, "seeds": entries, **_means(entries)})
    first = next(iter(results.values()), None)
    return {
        "kind": "comparison",
        "format": TABLE_FORMAT,
        "name": comparison.name,
        "protocol": None if first is None else first.document["protocol"],
        "precisions": sorted({str(item.document["protocol"].get("precision")) for item in results.values()}),
        "data": None if first is None else first.document["data"],
        "label_space": None if space is None else space.to_dict(),
        "rows": rows,
        **(
            {"further": {name: dict(options) for name, options in comparison.further.items()}}
            if comparison.further
            else {}
        ),
        "published": {"source": comparison.published.source, "miou": dict(comparison.published.miou)},
        "left_out": [{"name": item.name, "why": item.why} for item in left_out],
    }


def _read(
    scored: Sequence[ScoredRun], further: Iterable[str], left_out: list[LeftOut]
) -> tuple[dict[Path, Supervised], LabelSpace | None]:
    """Read every result that is there, and the classes of all; one that cannot be, or has others, is left out."""
    found: dict[Path, Supervised] = {}
    space: LabelSpace | None = None
    for item in scored:
        for file in (item.result, item.selected, *map(item.further, further)):
            if not file.is_file():
                continue
            try:
                if space is None:
                    space = LabelSpace.from_dict(json.loads(file.read_text(encoding="utf-8"))["label_space"])
                found[file] = read_result(file, space)
            except InputError as error:
                left_out.append(LeftOut(name=item.name, why=str(error)))
            except (OSError, ValueError, KeyError, TypeError) as error:
                left_out.append(LeftOut(name=item.name, why=f"{file}: it is no result ({error})."))
    return found, space


def _selected(item: ScoredRun, results: Mapping[Path, Supervised]) -> float | None:
    """Return the mean IoU of the checkpoint that was selected without labels; None where none was."""
    if item.training is None:
        return None
    run = RunFolder(item.training.folder)
    try:
        best, last = run.pointer("best"), run.pointer("last")
    except InputError:
        return None
    result = results.get(item.result if best == last else item.selected)
    return None if best is None or result is None else result.document["miou"]


def _entry(
    item: ScoredRun, results: Mapping[Path, Supervised], space: LabelSpace | None, bound: Mapping[int, Tensor],
    diverged: Mapping[str, str], further: Collection[str],
) -> dict[str, Any]:  # fmt: skip
    """Return the figures of one run for one seed."""
    about: dict[str, Any] = {"seed": item.seed}
    if item.training is not None:
        about |= {"method": item.training.config.method, "steps": item.training.config.train.steps}
    if item.name in diverged:
        return {**about, "state": "diverged", "why": diverged[item.name]}
    result = results.get(item.result)
    if result is None or space is None:
        return {**about, "state": "missing"}
    document = result.document
    scores: dict[str, Any] = {"miou": document["miou"], "std": document["std"]}
    subsets = {n: {"miou": part["miou"], "std": part["std"]} for n, part in document["subsets"].items()}
    if item.seed in bound:
        scores |= _ratios(result.iou, bound[item.seed], None)
        for name, indices in space.subsets.items():
            subsets[name] |= _ratios(result.iou, bound[item.seed], indices)
    if further:
        scores["further"] = {name: _miou(results.get(item.further(name))) for name in further}
    return {
        **about, "state": "done", **scores, "iou": document["iou"], "subsets": subsets,
        "selected_miou": _selected(item, results),
    }  # fmt: skip


def _miou(result: Supervised | None) -> float | None:
    return None if result is None else result.document["miou"]


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
    names = ("miou", "std", "masr", "masr_with_floor", "selected_miou", "further", "iou", "subsets")
    figures = [{name: entry[name] for name in names if name in entry} for entry in entries]
    return {"mean": _over(figures, statistics.fmean), "spread": _over(figures, _deviation)}


def _deviation(values: Sequence[float]) -> float:
    """Return the sample's standard deviation, 0 of a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _over(values: Sequence[Any], take: Callable[[Sequence[float]], float]) -> Any:
    """Return what `take` makes of each figure of equal trees; None where one of its values is missing."""
    if any(isinstance(value, Mapping) for value in values):
        names = dict.fromkeys(name for value in values for name in value)
        return {name: _over([value.get(name) for value in values], take) for name in names}
    return None if None in values else take(values)


@dataclass(frozen=True, kw_only=True)
class _Column:
    """One column of figures."""

    title: str
    keys: tuple[str, ...]  # the way to it in a run's mean or spread
    ranked: bool = True  # whether more is better, so that the best are marked
    spread: bool = False  # whether the spread over seeds is shown
    of: str = "mean"  # the figures that `keys` leads into: mean or spread

    def value(self, row: Mapping[str, Any], of: str = "") -> float | None:
        found: Any = row[of or self.of]
        for key in self.keys:
            found = None if found is None else found.get(key)
        return None if found is None else float(found)


def _figures(done: Sequence[Mapping[str, Any]], *, numbers: bool) -> list[_Column]:
    """Return the columns of the figures over classes, from the means of the runs that are done."""

    def with_spread(title: str, *keys: str) -> list[_Column]:
        more = [_Column(title=f"{title} spread", keys=keys, of="spread")] if numbers else []
        return [_Column(title=title, keys=keys, spread=not numbers), *more]

    columns = with_spread("mIoU", "miou")
    columns.append(_Column(title="selected", keys=("selected_miou",)))
    for name in done[0].get("further", ()):
        columns += with_spread(f"mIoU {name}", "further", name)
    columns.append(_Column(title="std", keys=("std",), ranked=False))
    if any("masr" in mean for mean in done):
        columns += [*with_spread("mASR", "masr"), _Column(title="mASR*", keys=("masr_with_floor",))]
    for name in done[0]["subsets"]:
        for title, key in (("mIoU", "miou"), ("std", "std"), ("mASR", "masr")):
            if any(key in mean["subsets"][name] for mean in done):
                keys = ("subsets", name, key)
                columns.append(_Column(title=f"{title} {name}", keys=keys, ranked=key != "std"))
    return columns


def _cell(row: Mapping[str, Any], column: _Column) -> str:
    if row["mean"] is None:
        return ""
    value = column.value(row)
    if value is None:
        return "-"
    spread = column.value(row, "spread") if column.spread and len(row["seeds"]) > 1 else None
    return f"{100 * value:.1f}" if spread is None else f"{100 * value:.1f} ± {100 * spread:.1f}"


def _state(row: Mapping[str, Any]) -> str:
    """Return how many seeds of a run are done, and the states of the others."""
    states = [entry["state"] for entry in row["seeds"]]
    others = [f"{states.count(state)} {state}" for state in ("diverged", "missing") if state in states]
    return ", ".join((str(states.count("done")), *others))


def _is_bound(row: Mapping[str, Any]) -> bool:
    """Whether a run is what the others are measured against."""
    return any(entry.get("method") == _BOUND for entry in row["seeds"])


def _first_and_best(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the first run that has a mean, and the best of the others; the supervised bound does not compete."""
    done = [row for row in rows if row["mean"] is not None and row["mean"]["miou"] is not None and not _is_bound(row)]
    return [*done[:1], *sorted(done[1:], key=lambda row: -row["mean"]["miou"])[:1]]


def table_networks(folder: Path, document: Mapping[str, Any]) -> dict[str, Path]:
    """Return the last checkpoints of a table's first and best run by name, of their first seeds.

    Only runs whose networks lie in the folder of the table count; a first run that was not trained is the source stage.
    """
    found: dict[str, Path] = {}
    for place, row in enumerate(document["rows"]):
        names = [folder_name(_name(row)), *([SOURCE_STAGE] if place == 0 else [])]
        runs = (folder / name / f"seed-{row['seeds'][0]['seed']}" for name in names)
        found |= {_name(row): last_checkpoint(run) for run in runs if RunFolder(run).pointer("last") is not None}
    return {
        _name(row): found[_name(row)] for row in _first_and_best(row for row in document["rows"] if _name(row) in found)
    }


def _headline(document: Mapping[str, Any]) -> str:
    """Say how the best run compares with the first one that is done; nothing where there are no two."""
    pair = _first_and_best(document["rows"])
    if len(pair) < 2:
        return ""
    first, best = pair
    spread = max((row["spread"]["miou"] for row in pair if len(row["seeds"]) > 1), default=0.0)
    miou, iou = (tuple(row["mean"][key] for row in pair) for key in ("miou", "iou"))
    return gain_in_words(_name(first), _name(best), miou, iou, spread)


def _ranked(rows: Sequence[Mapping[str, Any]], column: _Column) -> tuple[set[int], set[int]]:
    """Return the runs that are best in a column, and the runners-up; equal as shown is equal."""
    values: dict[int, float] = {}
    for position, row in enumerate(rows):
        bound = _is_bound(row)
        value = None if bound or not column.ranked else column.value(row)
        if value is not None:
            values[position] = round(100 * value, 1)
    order = sorted(set(values.values()), reverse=True)
    if len(order) < 2:
        return set(), set()
    best = {position for position, value in values.items() if value == order[0]}
    second = {position for position, value in values.items() if value == order[1]} if len(best) == 1 else set()
    return best, second


def comparison_table(
    document: Mapping[str, Any], part: Literal["all", "figures", "classes"] = "all", *, numbers: bool = False
) -> TextTable:
    """Return what `comparison_document` makes as a table in per cent.

    Args:
        document: the comparison.
        part: `figures` leaves the classes out, `classes` all but them and the notes.
        numbers: a spread is a column of its own, for programs to read; else it stands behind its mean.
    """
    rows, published = document["rows"], document["published"]["miou"] if part != "classes" else {}
    done = [row["mean"] for row in rows if row["mean"] is not None]
    columns = _figures(done, numbers=numbers) if done and part != "classes" else []
    if done and part != "figures":
        columns += [_Column(title=name, keys=("iou", name)) for name in done[0]["iou"]]
    header = ["method", "seeds", *(column.title for column in columns), *(["published mIoU"] if published else [])]
    cells = []
    for row in rows:
        figures = [_cell(row, column) for column in columns]
        name = _name(row)
        theirs = [f"{published[name]:.1f}" if name in published else "-"] if published else []
        cells.append((name, _state(row), *figures, *theirs))
    best: set[tuple[int, int]] = set()
    second: set[tuple[int, int]] = set()
    for position, column in enumerate(columns, start=2):
        first, runners_up = _ranked(rows, column)
        best |= {(row, position) for row in first}
        second |= {(row, position) for row in runners_up}
    return TextTable(
        header=tuple(header), rows=tuple(cells), title=document["name"] if part != "classes" else "",
        headline=_headline(document) if part != "classes" else "",
        notes=_notes(document) if part != "classes" else (),
        best=frozenset(best), second=frozenset(second),
    )  # fmt: skip


def _name(row: Mapping[str, Any]) -> str:
    """Return the name of the run in a row; files of 0.1.0 call it `row`."""
    return str(row["run"] if "run" in row else row["row"])


def _notes(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return how the figures were made, and what is not among them."""
    rows = document["rows"]
    means = {_name(row): row["mean"] for row in rows if row["mean"] is not None}
    notes = []
    if document["protocol"] is not None:
        notes += [f"protocol: {document['protocol']['text']}", f"data: {document['data']['text']}"]
        notes.append(
            "per cent, means over seeds (± sample deviation) of the last checkpoint; selected: of the one chosen "
            "without labels."
        )
        notes += [STEADIER, *subsets_in_words(LabelSpace.from_dict(document["label_space"]))]
        for name, differing in document.get("further", {}).items():
            shown = ", ".join(f"{option} {value}" for option, value in differing.items())
            notes.append(f"mIoU {name}: the same networks with {shown}.")
    if any("masr" in mean for mean in means.values()):
        notes.append("mASR: Eq. 9; mASR*: without classes whose supervised IoU is below 5 %.")
        lacking = [name for name, mean in means.items() if mean.get("masr") is None]
        if lacking:
            notes.append(f"no mASR for {', '.join(lacking)}: target-only is not there for every seed of it.")
    if len(document.get("precisions", ())) > 1:
        notes.append(f"scored in {', '.join(document['precisions'])}: not all in the same precision.")
    if len({entry["steps"] for row in rows for entry in row["seeds"] if entry.get("steps")}) > 1:
        lengths = {_name(row): row["seeds"][0]["steps"] for row in rows if row["seeds"][0].get("steps")}
        notes.append(f"steps: {', '.join(f'{name} {count}' for name, count in lengths.items())}.")
    if document["published"]["miou"]:
        notes.append(f"published mIoU: not ours, printed in {document['published']['source']}.")
    for row in rows:
        if row["mean"] is None:
            states = [
                f"seed {entry['seed']} "
                + (f"mIoU {100 * entry['miou']:.1f} %" if entry["state"] == "done" else entry["state"])
                for entry in row["seeds"]
            ]
            notes.append(f"{_name(row)}: {', '.join(states)}; no mean is given.")
    notes += [f"left out: {item['name']}: {item['why']}" for item in document["left_out"]]
    return tuple(notes)
