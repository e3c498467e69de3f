from dataclasses import replace

import pytest

from lsr_train.evaluation.text_table import TERMINAL_WIDTH, TextTable, comma_separated, latex, markdown, terminal

TABLE = TextTable(
    header=("class", "IoU"), rows=(("road", "96.5"), None, ("a|b", "1.0")), title="t", notes=("protocol: native",)
)


def test_terminal() -> None:
    assert terminal(TABLE) == "t\nclass   IoU\n-----------\nroad   96.5\n-----------\na|b     1.0\nprotocol: native\n"


def test_markdown() -> None:
    expected = "**t**\n\n| class | IoU |\n| --- | ---: |\n| road | 96.5 |\n| a\\|b | 1.0 |\n\nprotocol: native  \n"
    assert markdown(TABLE) == expected


def test_ragged_rows_raise() -> None:
    with pytest.raises(ValueError, match="cells"):
        TextTable(header=("a", "b"), rows=(("only",),))


MARKED = TextTable(
    header=("a_b", "IoU"), rows=(("x|y & z", "50 ± 1"), None, ("{~}", "40%")), title="50%\n", notes=("# note",),
    best=frozenset({(0, 1)}), second=frozenset({(2, 1)}),
)  # fmt: skip


def test_marks() -> None:
    assert "*50 ± 1" in terminal(MARKED)
    assert "+40%" in terminal(MARKED)
    assert terminal(MARKED).endswith("* best, + runner-up\n")
    assert "| x\\|y & z | **50 ± 1** |" in markdown(MARKED)
    assert "| <u>40%</u> |" in markdown(MARKED)


def test_latex() -> None:
    assert latex(MARKED).splitlines() == [
        r"% 50\% ", r"% \# note", r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{lr}", r"\toprule", r"a\_b & IoU \\", r"\midrule",
        r"x\textbar{}y \& z & \textbf{50 $\pm$ 1} \\", r"\midrule", r"\{\textasciitilde{}\} & \underline{40\%} \\",
        r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip


def test_a_headline_comes_first_in_every_form_but_csv() -> None:
    told = replace(TABLE, headline="a_1 is 3.0 points better than b.")
    assert terminal(told).startswith("a_1 is 3.0 points better than b.\nt\n")
    assert markdown(told).startswith("a_1 is 3.0 points better than b.\n\n**t**\n")
    assert latex(told).startswith("% a\\_1 is 3.0 points better than b.\n% t\n")
    assert comma_separated(told) == comma_separated(TABLE)


def test_a_wide_table_comes_in_blocks_that_fit_and_begin_with_the_names() -> None:
    header = ("method", *(f"class {number}" for number in range(30)))
    rows = tuple((name, *(f"{number}.{place}" for number in range(30))) for place, name in enumerate(("lsr", "minent")))
    text = terminal(TextTable(header=header, rows=rows, notes=("word " * 40, "/a" * 80)))
    lines = text.splitlines()
    assert max(len(line) for line in lines if "/a" not in line) <= TERMINAL_WIDTH
    blocks = [line for line in lines if line.startswith("method ")]
    assert len(blocks) == 4
    assert [name for line in blocks for name in line.split()[1:] if name != "class"] == [str(n) for n in range(30)]
    assert sum(line.startswith("minent ") for line in lines) == len(blocks)
    assert "/a" * 80 in text


def test_a_column_that_is_too_wide_for_itself_stands_alone() -> None:
    text = terminal(TextTable(header=("n" * 90, "f" * 30, "g"), rows=(("a", "1", "2"),)))
    assert [line.split() for line in text.splitlines() if "n" in line] == [["n" * 90, "f" * 30], ["n" * 90, "g"]]


def test_comma_separated() -> None:
    assert comma_separated(MARKED) == "a_b,IoU\nx|y & z,50 ± 1\n{~},40%\n"


HOSTILE = TextTable(
    header=("=cmd()", "\x1b[31m"), rows=(("[3ex]", "-"), ("*", "-1.5"), ("a\nb\r% c", "+x")), title="$t\r\\input{x}",
    notes=("\x9b1m\u202e", "\rnote"),
)  # fmt: skip


def test_names_command_nothing() -> None:
    for text in (terminal(HOSTILE), markdown(HOSTILE), latex(HOSTILE), comma_separated(HOSTILE)):
        assert all(line.isprintable() for line in text.split("\n"))
    assert terminal(HOSTILE).splitlines()[1].split() == ["=cmd()", r"\x1b[31m"]
    for line in latex(HOSTILE).splitlines():
        assert not line.startswith(("[", "*"))
        assert line.startswith("%") or "input" not in line
    assert comma_separated(HOSTILE).splitlines() == [
        r"'=cmd(),\x1b[31m", "[3ex],-", "*,-1.5", r"a\nb\r% c,'+x",
    ]  # fmt: skip
