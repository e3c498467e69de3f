"""Rows that are one row with something changed."""

import pytest

from lsr_infer.errors import UsageError
from lsr_train.comparison.spec import Row, Span, spans_of, sweeps, without_each
from lsr_train.config.command_line import resolve
from lsr_train.config.run import Config


def recipe(name: str) -> Config:
    return resolve("pretrain", ["--recipe", name], None).config


LSR_EM = recipe("toytown_lsr_em")


def test_each_term_and_the_histogram_are_left_out() -> None:
    rows = without_each(Row(name="lsr-em", recipe="toytown_lsr_em"), LSR_EM)
    assert [row.name for row in rows] == [
        "lsr-em", "lsr-em, without cluster", "lsr-em, without perpendicularity", "lsr-em, without norm",
        "lsr-em, without entropy", "lsr-em, nearest labels",
    ]  # fmt: skip
    assert [dict(row.set) for row in rows] == [
        {}, {"weights.cluster": 0.0}, {"weights.perpendicularity": 0.0}, {"weights.norm": 0.0},
        {"weights.entropy": 0.0}, {"histogram.mode": "nearest"},
    ]  # fmt: skip
    assert {row.recipe for row in rows} == {"toytown_lsr_em"}


def test_what_a_method_does_not_read_is_no_variant() -> None:
    """On directions alone the histogram's mode is not read, and self-training without its teacher is none."""
    rows = without_each(Row(name="lsr-st"), recipe("toytown_lsr_st"))
    left_out = ("cluster", "perpendicularity", "prototype")
    assert [row.name for row in rows] == ["lsr-st", *(f"lsr-st, without {name}" for name in left_out)]


def test_nothing_to_leave_out() -> None:
    with pytest.raises(UsageError, match="no term that could be left out"):
        without_each(Row(name="control"), recipe("toytown_source"))


def test_sweeps_multiply() -> None:
    row = Row(name="lsr-em", set={"weights.norm": 0.5})
    rows = sweeps(row, LSR_EM, ["weights.cluster=1e-5,1e-4,0.0001", "train.steps=10,20"])
    assert [dict(row.set) for row in rows] == [
        {"weights.norm": 0.5, "weights.cluster": cluster, "train.steps": steps}
        for cluster in (1e-5, 1e-4) for steps in (10, 20)
    ]  # fmt: skip
    assert rows[0].name == "lsr-em, weights.cluster=1e-05, train.steps=10"
    assert all(isinstance(row.set["train.steps"], int) for row in rows)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("weights.cluster=1e-6..1e-3", (1e-6, 1e-3, True)),
        ("weights.cluster=1e-6..1e-3:linear", (1e-6, 1e-3, False)),
        ("weights.cluster=1e-4..5e-4", (1e-4, 5e-4, False)),
        ("weights.cluster=1e-4..5e-4:log", (1e-4, 5e-4, True)),
        ("weights.cluster=0..1", (0.0, 1.0, False)),
        ("optim.warmup_steps=1..100", (1, 100, True)),
    ],
)
def test_spans(text: str, expected: tuple[float, float, bool]) -> None:
    (span,) = spans_of(LSR_EM, [text])
    assert (span.low, span.high, span.log) == expected
    assert isinstance(span, Span)
    assert isinstance(span.low, int) == text.startswith("optim.warmup")
    assert span.now == (20 if text.startswith("optim") else LSR_EM.weights.cluster)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weights.clusters=1..2", "Did you mean weights.cluster"),
        ("weights.cluster", "FIELD=…"),
        ("=1..2", "FIELD=…"),
        ("weights.cluster=1", "LOW..HIGH"),
        ("weights.cluster=1..2:exp", "LOW..HIGH"),
        ("weights.cluster=2..1", "below the second"),
        ("weights.cluster=0..1:log", "above 0"),
        ("weights.cluster=a..1", "no number"),
        ("weights.cluster=nan..1", "no finite number"),
        ("optim.warmup_steps=0.5..3", "no whole number"),
        ("optim.name=1..2", "which is no number"),
        ("train.channels_last=0..1", "which is no number"),
        ("seed=0..3", "Set --seeds"),
    ],
)
def test_what_is_wrong_with_a_search_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        spans_of(LSR_EM, [text])


def test_a_field_comes_once() -> None:
    with pytest.raises(UsageError, match="twice"):
        spans_of(LSR_EM, ["weights.cluster=1..2"] * 2)
    with pytest.raises(UsageError, match="twice"):
        sweeps(Row(name="a"), LSR_EM, ["weights.cluster=1,2"] * 2)
    with pytest.raises(UsageError, match="no number"):
        sweeps(Row(name="a"), LSR_EM, ["weights.cluster=1,,2"])
