import pytest

from lsr_train.report.table import Table, markdown, terminal

TABLE = Table(
    header=("class", "IoU"), rows=(("road", "96.5"), None, ("a|b", "1.0")), title="t", notes=("protocol: native",)
)


def test_terminal() -> None:
    assert terminal(TABLE) == "t\nclass   IoU\n-----------\nroad   96.5\n-----------\na|b     1.0\nprotocol: native\n"


def test_markdown() -> None:
    expected = "**t**\n\n| class | IoU |\n| --- | ---: |\n| road | 96.5 |\n| a\\|b | 1.0 |\n\nprotocol: native  \n"
    assert markdown(TABLE) == expected


def test_ragged_rows_raise() -> None:
    with pytest.raises(ValueError, match="cells"):
        Table(header=("a", "b"), rows=(("only",),))
