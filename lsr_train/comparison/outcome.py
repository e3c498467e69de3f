"""What came of a comparison, as one plain document: every row, every seed, and what is missing and why."""

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lsr_infer.errors import InputError
from lsr_infer.labelspace import LabelSpace
from lsr_train.comparison.matrix import Score
from lsr_train.comparison.plan import Comparison
from lsr_train.evaluation.result import Supervised, read_result
from lsr_train.metrics import UNSTABLE_BELOW, mean_adapted_to_supervised_ratio
from lsr_train.runs.folder import RunFolder

__all__ = ["TABLE_FORMAT", "LeftOut", "comparison_document"]

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
