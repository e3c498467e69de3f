"""Shows names and messages that come from elsewhere as themselves: on a terminal, in JSON, in CSV and in Markdown."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["NAMED_FOLDERS", "csv_cell", "folders_of", "from_csv_cell", "markdown_text", "printable", "printable_json"]

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
"""Control characters, marks that change the direction of writing or cannot be seen, and bytes of a name that are no
text."""


def printable(text: str) -> str:
    """Return a text in one line with control characters escaped as Python writes them, such as a backslash and `x1b`.

    Names of files, classes and streams come from elsewhere, and a terminal obeys what it is sent.
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def printable_json(document: Any, **options: Any) -> str:
    """Return a document as JSON whose texts have the same characters as JSON's own escapes; options of `json.dumps`."""

    def escaped(found: re.Match[str]) -> str:
        if found[0] == "\n":  # of the layout: those of texts are escaped already
            return "\n"
        return "\\u007f" if found[0] == "\x7f" else json.dumps(found[0])[1:-1]

    return _UNPRINTABLE.sub(escaped, json.dumps(document, **options))


_FORMULA = re.compile("'*[=+@\uff1d\uff0b\uff0d\uff20-]")
_FIGURE = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|-|-inf")


def csv_cell(value: Any) -> Any:
    """Return a printable cell of a CSV file that no spreadsheet takes for a formula: an apostrophe goes before it.

    Figures, and the dash where there is none, stay as they are.
    """
    text = printable(value) if isinstance(value, str) else value
    formula = isinstance(text, str) and _FORMULA.match(text) and not _FIGURE.fullmatch(text)
    return f"'{text}" if formula else text


def from_csv_cell(cell: Any) -> Any:
    """Return what `csv_cell` was given, unprintable characters as their escapes; what is no text stays as it is."""
    return cell[1:] if isinstance(cell, str) and cell.startswith("'") and _FORMULA.match(cell) else cell


def markdown_text(text: str) -> str:
    """Return a text that Markdown shows as it is, in one line."""
    return re.sub(r"[\\`*\[\]<>|~$]|^#|&(?=#?\w+;)|(?<!\w)_|_(?!\w)", r"\\\g<0>", printable(text))


NAMED_FOLDERS = 3
"""Folders that a message names one by one."""


def folders_of(files: Iterable[Path]) -> str:
    """Name the folders that files lie in: each of up to three, else the one above all of them."""
    folders = sorted({str(path.parent) for path in files})
    if len(folders) <= NAMED_FOLDERS:
        return ", ".join(folders)
    return f"{os.path.commonpath(folders)} ({len(folders)} folders below)"
