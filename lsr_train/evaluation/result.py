"""Writes and reads the result of an evaluation as a JSON document, and shows it as a table.

The document carries the protocol and the data next to every figure, shares of 1 in full precision, null where there is
no value, and no path of the machine it was made on.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor

from lsr_infer.errors import InputError
from lsr_infer.labelspace import LabelSpace
from lsr_train.evaluation.scores import Evaluation
from lsr_train.evaluation.text_table import TextTable
from lsr_train.metrics import UNSTABLE_BELOW, mean_adapted_to_supervised_ratio, mean_iou, standard_deviation

__all__ = [
    "STEADIER", "Supervised", "gain_in_words", "read_result", "result_document", "result_table", "subsets_in_words",
]  # fmt: skip


RESULT_FORMAT = 1
"""Version of the document."""


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """The whole result of supervised training on the target, for mASR, and its IoUs [C], NaN where it has none."""

    document: Mapping[str, Any]
    iou: Tensor
    name: str


class _ResultDocument(msgspec.Struct):
    model: dict[str, Any]
    data: dict[str, Any]
    protocol: dict[str, Any]
    label_space: dict[str, Any]
    iou: dict[str, Annotated[float, msgspec.Meta(ge=0, le=1)] | None]


def read_result(path: Path, space: LabelSpace | None = None) -> Supervised:
    """Read a document that `evaluate --out` wrote, to compare with; where a space is given, it must have its classes.

    Raises:
        InputError: it cannot be read, is no such document, or has other classes.
    """
    try:
        document = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}). Name a file that evaluate --out wrote."
        ) from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: this is no JSON. Name a file that evaluate --out wrote.") from error
    if not isinstance(document, dict) or document.get("kind") != "evaluation":
        raise InputError(f"{path}: this is no result of an evaluation. Name a file that evaluate --out wrote.")
    if document.get("format") != RESULT_FORMAT:
        raise InputError(f"{path}: result of format {document.get('format')!r}; this version reads {RESULT_FORMAT}.")
    try:
        checked = msgspec.convert(document, _ResultDocument)
        names = LabelSpace.from_dict(checked.label_space).names
        values = [checked.iou[name] for name in names]
    except (msgspec.ValidationError, KeyError, InputError) as error:
        raise InputError(f"{path}: the result is damaged ({type(error).__name__} {error}). Evaluate again.") from error
    if space is not None and names != space.names:
        raise InputError(
            f"{path}: the supervised result is on the classes {', '.join(names)}; these are {', '.join(space.names)}. "
            "Evaluate both with the same --label_space."
        )
    iou = torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float64)
    return Supervised(document=document, iou=iou, name=path.name)


def _number(value: float) -> float | None:
    """Return a number that JSON has; None for NaN."""
    return None if math.isnan(value) else value


def _subset_scores(iou: Tensor, space: LabelSpace, indices: Sequence[int]) -> dict[str, Any]:
    return {
        "classes": [space.names[index] for index in indices],
        "empty": [space.names[index] for index in indices if iou[index].isnan()],
        "miou": _number(mean_iou(iou, indices)),
        "std": _number(standard_deviation(iou, indices)),
    }


def _compared(iou: Tensor, supervised: Supervised, space: LabelSpace) -> dict[str, Any]:
    """Return mASR by Eq. 9 and with the floor, over all classes and each subset."""

    def ratio(subset: Sequence[int] | None, floor: float = 0.0) -> dict[str, Any]:
        result = mean_adapted_to_supervised_ratio(iou, supervised.iou, floor, subset=subset)
        return {
            "masr": _number(result.value),
            "left_out": [space.names[index] for index in result.left_out],
            "unstable": [space.names[index] for index in result.unstable],
        }

    def both(subset: Sequence[int] | None) -> dict[str, Any]:
        return {**ratio(subset), "with_floor": {"floor": UNSTABLE_BELOW, **ratio(subset, UNSTABLE_BELOW)}}

    ratios = mean_adapted_to_supervised_ratio(iou, supervised.iou).ratio
    return {
        "file": supervised.name,
        "model": supervised.document.get("model"),
        "miou": _number(mean_iou(supervised.iou)),
        **both(None),
        "ratio": dict(zip(space.names, ratios, strict=True)),
        "iou": {name: _number(value) for name, value in zip(space.names, supervised.iou.tolist(), strict=True)},
        "subsets": {name: both(indices) for name, indices in space.subsets.items()},
    }


def result_document(
    evaluation: Evaluation,
    space: LabelSpace,
    *,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    protocol: Mapping[str, Any],
    supervised: Supervised | None = None,
    worst: int = 0,
) -> dict[str, Any]:
    """Collect everything about an evaluation as plain JSON data; model, data and protocol are described by such data.

    `supervised` is the result to compare with, for mASR; `worst` says how many of the worst frames to list.
    """
    iou, counts = evaluation.iou, evaluation.matrix
    pixels = int(counts.sum())
    ranked = sorted((item for item in evaluation.frame_miou if not math.isnan(item[1])), key=lambda item: item[1])
    document: dict[str, Any] = {
        "kind": "evaluation",
        "format": RESULT_FORMAT,
        "model": dict(model),
        "data": {**data, "frames": evaluation.frames, "labelled_pixels": pixels, "void_pixels": evaluation.void},
        "protocol": dict(protocol),
        "label_space": space.to_dict(),
        **_subset_scores(iou, space, range(space.num_classes)),
        "pixel_accuracy": _number(float(counts.diagonal().sum()) / pixels if pixels else math.nan),
        "iou": {name: _number(value) for name, value in zip(space.names, iou.tolist(), strict=True)},
        "subsets": {name: _subset_scores(iou, space, indices) for name, indices in space.subsets.items()},
        "worst": [{"file": Path(file).name, "miou": miou} for file, miou in ranked[:worst]],
        "confusion": counts.tolist(),
    }
    if supervised is not None:
        document["supervised"] = _compared(iou, supervised, space)
    return document


STEADIER = "std: of the IoU over classes; lower is steadier, not better."
"""The note under a table that has it."""


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _masr_notes(compared: Mapping[str, Any]) -> list[str]:
    """Name what mASR leaves out and what makes it unstable."""
    floored = compared["with_floor"]
    notes = []
    if compared["left_out"]:
        notes.append(f"mASR leaves out {', '.join(compared['left_out'])}: supervised IoU 0, or no pixel at all.")
    if compared["unstable"]:
        names = [f"{name} ({_percent(compared['iou'][name])})" for name in compared["unstable"]]
        notes.append(
            f"mASR is unstable: its supervised IoU is below {_percent(floored['floor'])} for {', '.join(names)}; "
            f"the second figure leaves {'it' if len(names) == 1 else 'them'} out."
        )
    return notes


_MOST_CHANGED = 4
_POINTS = 0.1
"""Below so many points two networks are called as good as each other: that is what is printed."""


def gain_in_words(
    before: str, after: str, miou: tuple[float, float], iou: tuple[Mapping[str, Any], Mapping[str, Any]],
    spread: float = 0.0,
) -> str:  # fmt: skip
    """Say in one sentence how a network compares with another, and which classes changed most, in points of IoU.

    Args:
        before: the name of the other.
        after: its name.
        miou: of both, shares of 1.
        iou: of both by class, shares of 1 or None.
        spread: over seeds, a share of 1; a gain that is no greater tells nothing.
    """
    means = [100 * value for value in miou]
    gain = means[1] - means[0]
    changes = {
        name: 100 * (value - iou[0][name])
        for name, value in iou[1].items()
        if value is not None and iou[0].get(name) is not None
    }
    largest = sorted(changes, key=lambda name: -abs(changes[name]))[:_MOST_CHANGED]
    most = ", ".join(f"{name} {changes[name]:+.1f}" for name in largest if abs(changes[name]) >= _POINTS) or "none"
    verdict = f"{abs(gain):.1f} points {'better' if gain > 0 else 'worse'} than {before}"
    if abs(gain) < _POINTS:
        verdict = f"as good as {before}"
    elif abs(gain) <= 100 * spread:
        verdict += f", no more than seeds differ by ({100 * spread:.1f})"
    return f"{after} is {verdict} (mIoU {means[1]:.1f} % and {means[0]:.1f} %). Most changed: {most}."


def subsets_in_words(space: LabelSpace) -> tuple[str, ...]:
    """Say of every subset of the classes, in a line each, which they are."""
    notes = []
    for name, indices in space.subsets.items():
        others = [other for index, other in enumerate(space.names) if index not in indices]
        few = len(others) < len(indices)
        listed = ", ".join(others if few else [space.names[index] for index in indices])
        notes.append(f"{name}: {len(indices)} of the {space.num_classes} classes, {'all but ' if few else ''}{listed}.")
    return tuple(f"subset {note}" for note in notes)


def result_table(document: Mapping[str, Any]) -> TextTable:
    """Return the figures of a `result_document` as a table in per cent, with protocol and data under it."""
    compared = document.get("supervised")
    header = ("class", "IoU", "supervised", "ratio") if compared else ("class", "IoU")
    blank = ("", "") if compared else ()

    def row(name: str, value: str, *more: str) -> tuple[str, ...]:
        return (name, value, *(more if more else blank))

    rows: list[tuple[str, ...] | None] = []
    for name, value in document["iou"].items():
        more = (_percent(compared["iou"][name]), _percent(compared["ratio"][name])) if compared else ()
        rows.append(row(name, _percent(value), *more))
    rows.append(None)
    groups = {f"{len(document['classes'])} classes": document, **{
        f"subset {name}": scores for name, scores in document["subsets"].items()
    }}  # fmt: skip
    for name, scores in groups.items():
        theirs = (_percent(compared["miou"]), "") if compared and scores is document else ()
        rows += [row(f"mIoU, {name}", _percent(scores["miou"]), *theirs), row(f"std, {name}", _percent(scores["std"]))]
    notes = [f"protocol: {document['protocol']['text']}", f"data: {document['data']['text']}"]
    notes += [*subsets_in_words(LabelSpace.from_dict(document["label_space"])), STEADIER]
    if document["empty"]:
        notes.append(f"left out of the mean, neither labelled nor predicted: {', '.join(document['empty'])}.")
    if compared:
        floor = _percent(compared["with_floor"]["floor"])
        each = {"all": compared, **compared["subsets"]}
        for name, scores in each.items():
            where = "" if name == "all" else f", subset {name}"
            rows.append(row(f"mASR (Eq. 9){where}", "", "", _percent(scores["masr"])))
            rows.append(row(f"mASR, supervised >= {floor}{where}", "", "", _percent(scores["with_floor"]["masr"])))
        notes += _masr_notes(compared)
    return TextTable(header=header, rows=tuple(rows), title=document["model"]["text"], notes=tuple(notes))
