"""Writes and reads the result of an evaluation as a JSON document, and shows it as a table.

The document carries the protocol and the data next to every figure, shares of 1 in full precision, null where there is
no value, and no path of the machine it was made on. A table is text for a terminal, Markdown, LaTeX or CSV.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from torch import Tensor

from lsr_infer.errors import InputError
from lsr_infer.labelspace import LabelSpace
from lsr_infer.text import csv_cell, markdown_text, printable
from lsr_train.evaluation.scores import Evaluation
from lsr_train.metrics import UNSTABLE_BELOW, mean_adapted_to_supervised_ratio, mean_iou, standard_deviation

__all__ = [
    "Supervised", "TextTable", "comma_separated", "latex", "markdown", "read_result", "result_document",
    "result_table", "terminal",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """Rows of cells under a header, a title above and notes below.

    Args:
        header: column names; the first column holds names, the others figures.
        rows: cells, as many a row as the header has; None is a line between groups.
        best: positions (row, column) of the best cells.
        second: those of the runners-up.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...] | None, ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    best: frozenset[tuple[int, int]] = frozenset()
    second: frozenset[tuple[int, int]] = frozenset()

    def __post_init__(self) -> None:
        for row in self.rows:
            if row is not None and len(row) != len(self.header):
                raise ValueError(f"row {row} has {len(row)} cells, the header {len(self.header)}")

    def marked(self, best: str, second: str) -> "TextTable":
        """Return the table with the best and second cells put into formats such as `**{}**`."""

        def cells(position: int, row: tuple[str, ...] | None) -> tuple[str, ...] | None:
            if row is None:
                return None
            return tuple(
                best.format(cell) if (position, column) in self.best
                else second.format(cell) if (position, column) in self.second
                else cell
                for column, cell in enumerate(row)
            )  # fmt: skip

        rows = tuple(cells(position, row) for position, row in enumerate(self.rows))
        return TextTable(header=self.header, rows=rows, title=self.title, notes=self.notes)

    def escaped(self, escape: Callable[[str], str]) -> "TextTable":
        """Return the table with every text escaped, the marks kept."""
        rows = tuple(None if row is None else tuple(map(escape, row)) for row in self.rows)
        header, notes = tuple(map(escape, self.header)), tuple(map(escape, self.notes))
        return replace(self, header=header, rows=rows, title=escape(self.title), notes=notes)


def terminal(table: TextTable) -> str:
    """Return the table as aligned text; names to the left, figures to the right, `*` at the best, `+` at the second."""
    table = table.escaped(printable)
    if table.best or table.second:
        table = table.marked("*{}", "+{}")
        table = replace(table, notes=(*table.notes, "* best, + runner-up"))
    rows = [table.header, *(row for row in table.rows if row is not None)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.header))]

    def line(row: tuple[str, ...]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return "  ".join(cells).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    body = [rule if row is None else line(row) for row in table.rows]
    title = [table.title] if table.title else []
    return "\n".join([*title, line(table.header), rule, *body, *table.notes]) + "\n"


def markdown(table: TextTable) -> str:
    """Return the table in GitHub's Markdown, best bold and second underlined; lines between groups are left out."""
    table = table.escaped(markdown_text).marked("**{}**", "<u>{}</u>")

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cells) + " |"

    rule = line(("---", *("---:" for _ in table.header[1:])))
    body = [line(row) for row in table.rows if row is not None]
    title = [f"**{table.title}**", ""] if table.title else []
    notes = ["", *(f"{note}  " for note in table.notes)] if table.notes else []
    return "\n".join([*title, line(table.header), rule, *body, *notes]) + "\n"


_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "*": "{*}",  # the last two would belong to the \\ before them
})  # fmt: skip


def latex(table: TextTable) -> str:
    """Return the table as a LaTeX `tabular` with booktabs' rules, best bold and second underlined.

    Title and notes are comments, for a caption to be written from.
    """
    table = table.escaped(lambda cell: printable(cell.replace("\n", " ")).translate(_LATEX)).marked(
        r"\textbf{{{}}}", r"\underline{{{}}}"
    )

    def line(cells: tuple[str, ...]) -> str:
        return " & ".join(cells) + r" \\"

    body = [r"\midrule" if row is None else line(row) for row in table.rows]
    return "\n".join([
        *(f"% {text}" for text in (table.title, *table.notes) if text), r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{l" + "r" * (len(table.header) - 1) + "}", r"\toprule", line(table.header), r"\midrule",
        *body, r"\bottomrule", r"\end{tabular}",
    ]) + "\n"  # fmt: skip


def comma_separated(table: TextTable) -> str:
    """Return header and rows as CSV, without marks, title and notes."""
    text = io.StringIO()
    rows = [table.header, *(row for row in table.rows if row is not None)]
    csv.writer(text, lineterminator="\n").writerows(map(csv_cell, row) for row in rows)
    return text.getvalue()


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
