"""Finds the commands that the documents and the notebook show."""

import json
import re
from pathlib import Path

__all__ = ["EXAMPLES", "NOTEBOOK", "PAGES", "README", "REPOSITORY", "shown_commands"]

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / "README.md"
PAGES = sorted((REPOSITORY / "docs").rglob("*.md"))
EXAMPLES = REPOSITORY / "examples"
NOTEBOOK = EXAMPLES / "quickstart.ipynb"
_WITHIN_TEXT = re.compile(r"`((?:python|lsr-infer|make|pip) [^`\n]+)`")
_NAME_ALONE = re.compile(r"python -m lsr_train \w+|lsr-infer (info|bench|serve-config|archive)")


def shown_commands(*files: Path) -> list[str]:
    """Return every command of the files' shell blocks, tables and sentences, and of a notebook's shell cells.

    Comments are left out, and so is what only names a command, without the arguments that it needs.
    """
    found: set[str] = set()
    for file in files:
        text = file.read_text(encoding="utf-8")
        blocks = _cells(text) if file.suffix == ".ipynb" else re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
        lines = [line.split("#")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        named = _WITHIN_TEXT.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        found |= {re.sub(r"\s+", " ", line) for line in (*lines, *named) if line and not _NAME_ALONE.fullmatch(line)}
    return sorted(found)


def _cells(text: str) -> list[str]:
    """Return the shell cells of a notebook, without the lines that make them such."""
    cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    return [cell.partition("%%bash -e\n")[2] for cell in cells if "%%bash -e\n" in cell]
