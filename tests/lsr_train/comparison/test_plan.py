"""Comparison files: what may be said in them, and that every shipped one plans."""

from functools import cache
from pathlib import Path

import pytest
import yaml

from lsr_infer.errors import InputError, UsageError
from lsr_train.comparison.matrix import Given, adapting_run, source_run, supervised_run
from lsr_train.comparison.spec import chosen_rows, comparison_names, read_comparison
from lsr_train.config.command_line import resolve
from lsr_train.config.fields import fields_of, is_about_terms, with_method
from lsr_train.config.run import Config

PAPER = (
    "source-only", "target-only", "adaptsegnet-feat", "minent", "sapnet", "maxsquare-iw", "oce", "lsr", "lsr-em",
)  # fmt: skip


@cache
def recipe(name: str) -> Config:
    return resolve("pretrain", ["--recipe", name], None).config


@pytest.mark.parametrize("name", comparison_names())
def test_every_shipped_comparison_has_the_papers_rows_and_plans(name: str, tmp_path: Path) -> None:
    comparison = read_comparison(name)
    assert {row.name for row in comparison.rows} >= set(PAPER)
    given = Given(config=recipe(comparison.base), names=frozenset())
    stage = source_run(Given(config=recipe(comparison.source), names=frozenset()), given, 3, tmp_path)
    assert (stage.config.method, stage.config.seed, stage.command) == ("source-only", 3, "pretrain")
    base = dict(fields_of(recipe(comparison.base)))
    for row in comparison.rows:
        if not row.train:
            continue
        own = recipe(row.recipe or comparison.base)
        if row.name == "target-only":
            run = supervised_run(row, Given(config=own, names=frozenset()), given, 3, tmp_path)
            assert (run.config.method, run.command) == ("target-only", "pretrain")
            source, target = run.config.data.source, given.config.data.target
            assert (source.height, source.width) == (target.height, target.width)  # the bound sees what the rows see
            continue
        run = adapting_run(row, own, "START", 3, tmp_path)
        assert run.config.method == ("source-only" if row.name == "control" else row.name)
        assert (run.config.seed, run.config.init) == (3, "START")
        # what the paper's rows compare is the method; self-training follows recipes of its own
        same = ("data.", "network.") if row.name in (*PAPER, "control") else ()
        for field, value in fields_of(run.config):
            if field.startswith(same) and field not in ("network.weights", "network.forward"):
                assert value == base[field], (row.name, field)


def test_published_figures_are_of_rows() -> None:
    for name in comparison_names():
        comparison = read_comparison(name)
        assert set(comparison.published.miou) <= {row.name for row in comparison.rows}


def write(folder: Path, **parts: object) -> str:
    document = {"source": "toytown_source", "base": "toytown_lsr", "evaluate": {}, "rows": {"lsr": None}, **parts}
    file = folder / "own.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"rows": {}}, "rows is no mapping"),
        ({"rows": {"a": {"methd": "lsr"}}}, "Did you mean method"),
        ({"rows": {"a": {"method": "lrs"}}}, "lrs"),
        ({"rows": {"a": {"set": {"weights.clusters": 1}}}}, "Did you mean weights.cluster"),
        ({"rows": {"a": {"train": False, "method": "lsr"}}}, "not trained"),
        ({"rows": {"a": {"batch_norm": "train"}}}, "allowed: stored, target"),
        ({"rows": {"a": {"train": "no"}}}, "no bool"),
        ({"evaluate": {"out": "x"}}, "evaluate has 'out'"),
        ({"published": {"miou": {"lsr": "46"}}}, "per cents"),
        ({"extra": 1}, "'extra'"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, parts: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        read_comparison(write(tmp_path, **parts))
    assert "own.yaml" in str(caught.value)


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("source: a\nbase: b\nrows: {a: }\n", encoding="utf-8")
    with pytest.raises(UsageError, match="needs evaluate"):
        read_comparison(str(tmp_path / "own.yaml"))


def test_no_yaml(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match=r"own\.yaml"):
        read_comparison(str(tmp_path / "own.yaml"))


def test_an_unknown_name_and_a_training_recipe_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean toytown"):
        read_comparison("toytwn")
    (tmp_path / "run.yaml").write_text("method: lsr\n", encoding="utf-8")
    with pytest.raises(UsageError, match="recipe of one run"):
        read_comparison(str(tmp_path / "run.yaml"))


def test_rows_are_chosen_in_the_order_asked_for() -> None:
    comparison = read_comparison("toytown")
    assert [row.name for row in chosen_rows(comparison, ["oce", "lsr"])] == ["oce", "lsr"]
    with pytest.raises(UsageError, match="twice"):
        chosen_rows(comparison, ["lsr", "lsr"])
    with pytest.raises(UsageError, match="Did you mean minent"):
        chosen_rows(comparison, ["minnent"])


def test_a_method_change_resets_what_belongs_to_terms_and_nothing_else() -> None:
    before = recipe("toytown_lsr_st")
    after = with_method(before, "minent", {"weights.entropy": 0.25})
    fresh, old = dict(fields_of(Config())), dict(fields_of(before))
    for name, value in fields_of(after):
        if name == "method":
            assert value == "minent"
        elif name == "weights.entropy":
            assert value == 0.25
        else:
            assert value == (fresh if is_about_terms(name) else old)[name], name
    assert old["weights.self_training"] == 1.0
    assert after.weights.self_training == 0.0


def test_a_foreign_method_keeps_the_fields_of_terms(tmp_path: Path) -> None:
    before = recipe("toytown_lsr")
    (tmp_path / "mine.py").touch()
    after = with_method(before, f"{tmp_path / 'mine.py'}:Mine", {})
    assert after.weights == before.weights


def test_a_row_that_sets_what_its_method_does_not_read_is_refused(tmp_path: Path) -> None:
    comparison = read_comparison(write(tmp_path, rows={"a": {"method": "minent", "set": {"critic.lr": 0.5}}}))
    with pytest.raises(UsageError, match=r"row a: .*critic\.lr"):
        adapting_run(comparison.rows[0], recipe("toytown_lsr"), "START", 0, tmp_path)
