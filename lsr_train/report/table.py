"""A table as text for a terminal and as Markdown. It knows no metric; cells are strings."""

from dataclasses import dataclass

__all__ = ["Table", "markdown", "terminal"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under a header.

    Args:
        header: column names; the first column holds names, the others figures.
        rows: cells, as many a row as the header has; None is a line between groups.
        title: one line above.
        notes: lines below.

    Raises:
        ValueError: a row has another number of cells.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...] | None, ...]
    title: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if row is not None and len(row) != len(self.header):
                raise ValueError(f"row {row} has {len(row)} cells, the header {len(self.header)}")


def terminal(table: Table) -> str:
    """Return the table as aligned text; names to the left, figures to the right."""
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
    """Return the table in GitHub's Markdown; lines between groups are left out."""

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"

    rule = line(("---", *("---:" for _ in table.header[1:])))
    body = [line(row) for row in table.rows if row is not None]
    title = [f"**{_escaped(table.title)}**", ""] if table.title else []
    notes = ["", *(f"{_escaped(note)}  " for note in table.notes)] if table.notes else []
    return "\n".join([*title, line(table.header), rule, *body, *notes]) + "\n"
