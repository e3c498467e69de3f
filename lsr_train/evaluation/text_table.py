"""A table as text for a terminal, as Markdown, LaTeX and CSV. It knows no metric; cells are strings."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

__all__ = ["Table", "comma_separated", "latex", "markdown", "terminal"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under a header.

    Args:
        header: column names; the first column holds names, the others figures.
        rows: cells, as many a row as the header has; None is a line between groups.
        title: one line above.
        notes: lines below.
        best: positions (row, column) of the best cells.
        second: those of the runners-up.

    Raises:
        ValueError: a row has another number of cells.
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

    def marked(self, best: str, second: str) -> "Table":
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
        return Table(header=self.header, rows=rows, title=self.title, notes=self.notes)

    def escaped(self, escape: Callable[[str], str]) -> "Table":
        """Return the table with every text escaped, the marks kept."""
        rows = tuple(None if row is None else tuple(map(escape, row)) for row in self.rows)
        header, notes = tuple(map(escape, self.header)), tuple(map(escape, self.notes))
        return replace(self, header=header, rows=rows, title=escape(self.title), notes=notes)


def terminal(table: Table) -> str:
    """Return the table as aligned text; names to the left, figures to the right, `*` at the best, `+` at the second."""
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


def _escaped(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown, best bold and second underlined; lines between groups are left out."""
    table = table.escaped(_escaped).marked("**{}**", "<u>{}</u>")

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cells) + " |"

    rule = line(("---", *("---:" for _ in table.header[1:])))
    body = [line(row) for row in table.rows if row is not None]
    title = [f"**{table.title}**", ""] if table.title else []
    notes = ["", *(f"{note}  " for note in table.notes)] if table.notes else []
    return "\n".join([*title, line(table.header), rule, *body, *notes]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "\n": " ",
}  # fmt: skip


def _latex_escaped(cell: str) -> str:
    return re.sub(r"[\\&%$#_{}~^±\n]", lambda found: _LATEX[found[0]], cell)


def latex(table: Table) -> str:
    """Return the table as a LaTeX `tabular` with booktabs' rules, best bold and second underlined.

    Title and notes are comments, for a caption to be written from.
    """
    table = table.escaped(_latex_escaped).marked(r"\textbf{{{}}}", r"\underline{{{}}}")

    def line(cells: tuple[str, ...]) -> str:
        return " & ".join(cells) + r" \\"

    body = [r"\midrule" if row is None else line(row) for row in table.rows]
    return "\n".join([
        *(f"% {text}" for text in (table.title, *table.notes) if text), r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{l" + "r" * (len(table.header) - 1) + "}", r"\toprule", line(table.header), r"\midrule",
        *body, r"\bottomrule", r"\end{tabular}",
    ]) + "\n"  # fmt: skip


def comma_separated(table: Table) -> str:
    """Return header and rows as CSV, without marks, title and notes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.header, *(row for row in table.rows if row is not None)])
    return text.getvalue()
