"""Names that come from elsewhere are shown as themselves, and command nothing."""

import csv
import io
import json

import pytest

from lsr_infer.text import csv_cell, from_csv_cell, markdown_text, printable, printable_json

HOSTILE = (
    "\x1b[31mred",
    "a\nb",
    "a\rb",
    "\u202egnp.exe",
    "bell\x07\x9b1m",
    "\x7f",
    "\u2066x",
    "half\udc80",
    "a\u200bb",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_printed_is_printable(name: str) -> None:
    assert printable(name).isprintable()
    for options in ({"ensure_ascii": False}, {"indent": 2, "ensure_ascii": False}, {"indent": 1}):
        text = printable_json({"name": [name], name: 1}, **options)
        assert all(line.isprintable() for line in text.split("\n"))
        assert json.loads(text) == {"name": [name], name: 1}


def test_letters_of_every_language_stay() -> None:
    for name in ("Straße", "道路", "طريق", "सड़क", "a b\u3000c", "👩\u200d🚒", "e\u0301", "x=1, $y_2$ <b>&amp;</b>"):
        assert printable(name) == name


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1+1", "-cmd|' /C calc'!A1", "@SUM(A1)", "\t=1", "=\x1b", "＝1", "'=1", "''-x"]
)
def test_no_cell_of_a_csv_is_a_formula(cell: str) -> None:
    text = io.StringIO()
    csv.writer(text).writerow([csv_cell(cell)])
    (row,) = csv.reader(io.StringIO(text.getvalue()))
    assert row[0][0] in "'\\"
    assert from_csv_cell(row[0]) == printable(cell)


@pytest.mark.parametrize(
    "cell", ["-", "-1.5", "+2", "1e-05", "-inf", "nan", "50.0 ± 1.0", "it's", "'road", 3, -2.5, None]
)
def test_figures_and_plain_names_stay(cell: object) -> None:
    assert csv_cell(cell) == cell
    assert from_csv_cell(cell) == cell or str(cell).startswith("'")


def test_markdown_shows_a_name_as_it_is() -> None:
    assert markdown_text("source-only lsr_plus 50.5 %") == "source-only lsr_plus 50.5 %"
    assert markdown_text("<b>*x*</b> [a](b) | _y_ `z` $q$\n") == r"\<b\>\*x\*\</b\> \[a\](b) \| \_y\_ \`z\` \$q\$\\n"
