"""Shows tables as text: for a terminal, in Markdown, LaTeX or CSV."""

import csv
import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from lsr_infer.text import csv_cell, markdown_text, printable

__all__ = ["TERMINAL_WIDTH", "TextTable", "comma_separated", "latex", "markdown", "terminal"]

TERMINAL_WIDTH = 100
"""Characters of a line on a terminal."""
_GAP = 2


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """Rows of cells under a header, a headline and a title above and notes below.

    Args:
        header: column names; the first column holds names, the others figures.
        rows: cells, as many a row as the header has; None is a line between groups.
        best: positions (row, column) of the best cells.
        second: those of the runners-up.
        headline: what the table comes to, in one sentence.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...] | None, ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    best: frozenset[tuple[int, int]] = frozenset()
    second: frozenset[tuple[int, int]] = frozenset()
    headline: str = ""

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
        return replace(self, rows=rows, best=frozenset(), second=frozenset())

    def escaped(self, escape: Callable[[str], str]) -> "TextTable":
        """Return the table with every text escaped, the marks kept."""
        rows = tuple(None if row is None else tuple(map(escape, row)) for row in self.rows)
        header, notes = tuple(map(escape, self.header)), tuple(map(escape, self.notes))
        return replace(
            self, header=header, rows=rows, title=escape(self.title), notes=notes, headline=escape(self.headline)
        )


def terminal(table: TextTable) -> str:
    """Return the table as aligned text; names to the left, figures to the right, `*` at the best, `+` at the second.

    A table wider than `TERMINAL_WIDTH` comes in blocks of columns, each of which begins with the first column.
    """
    table = table.escaped(printable)
    if table.best or table.second:
        table = table.marked("*{}", "+{}")
        table = replace(table, notes=(*table.notes, "* best, + runner-up"))
    rows = [table.header, *(row for row in table.rows if row is not None)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.header))]
    blocks = "\n\n".join("\n".join(_block(table, widths, columns)) for columns in _blocks(widths))
    above, below = [text for text in (table.headline, table.title) if text], table.notes
    return "\n".join([*map(_wrapped, above), blocks, *map(_wrapped, below)]) + "\n"


def _blocks(widths: Sequence[int]) -> list[list[int]]:
    """Return columns in blocks that fit, the first column in each."""
    blocks = [[0]]
    room = TERMINAL_WIDTH - widths[0]
    for column, width in enumerate(widths[1:], start=1):
        if len(blocks[-1]) > 1 and width + _GAP > room:
            blocks.append([0])
            room = TERMINAL_WIDTH - widths[0]
        blocks[-1].append(column)
        room -= width + _GAP
    return blocks


def _block(table: TextTable, widths: Sequence[int], columns: Sequence[int]) -> Iterator[str]:
    """Yield the lines of some columns."""

    def line(row: tuple[str, ...]) -> str:
        first, *others = columns
        cells = [row[first].ljust(widths[first]), *(row[column].rjust(widths[column]) for column in others)]
        return (_GAP * " ").join(cells).rstrip()

    rule = "-" * (sum(widths[column] for column in columns) + _GAP * (len(columns) - 1))
    yield from (line(table.header), rule)
    yield from (rule if row is None else line(row) for row in table.rows)


def _wrapped(text: str) -> str:
    """Return a text in lines that fit; a longer word, such as a path, stays whole."""
    return textwrap.fill(
        text, TERMINAL_WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )  # fmt: skip


def markdown(table: TextTable) -> str:
    """Return the table in GitHub's Markdown, best bold and second underlined; lines between groups are left out."""
    table = table.escaped(markdown_text).marked("**{}**", "<u>{}</u>")

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cells) + " |"

    rule = line(("---", *("---:" for _ in table.header[1:])))
    body = [line(row) for row in table.rows if row is not None]
    above = [line for text in (table.headline, table.title and f"**{table.title}**") if text for line in (text, "")]
    notes = ["", *(f"{note}  " for note in table.notes)] if table.notes else []
    return "\n".join([*above, line(table.header), rule, *body, *notes]) + "\n"


_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "*": "{*}",  # the last two would belong to the \\ before them
})  # fmt: skip


def latex(table: TextTable) -> str:
    """Return the table as a LaTeX `tabular` with booktabs' rules, best bold and second underlined.

    Headline, title and notes are comments, for a caption to be written from.
    """
    table = table.escaped(lambda cell: printable(cell.replace("\n", " ")).translate(_LATEX)).marked(
        r"\textbf{{{}}}", r"\underline{{{}}}"
    )

    def line(cells: tuple[str, ...]) -> str:
        return " & ".join(cells) + r" \\"

    body = [r"\midrule" if row is None else line(row) for row in table.rows]
    about = (table.headline, table.title, *table.notes)
    return "\n".join([
        *(f"% {text}" for text in about if text), r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{l" + "r" * (len(table.header) - 1) + "}", r"\toprule", line(table.header), r"\midrule",
        *body, r"\bottomrule", r"\end{tabular}",
    ]) + "\n"  # fmt: skip


def comma_separated(table: TextTable) -> str:
    """Return header and rows as CSV, without marks, title and notes."""
    text = io.StringIO()
    rows = [table.header, *(row for row in table.rows if row is not None)]
    csv.writer(text, lineterminator="\n").writerows(map(csv_cell, row) for row in rows)
    return text.getvalue()
