"""Comparison files: what is allowed in them, that every shipped one plans, and variants of a run."""

from functools import cache
from pathlib import Path

import pytest
import yaml

from lsr_infer.errors import InputError, UsageError
from lsr_train.comparison.matrix import Overrides, adapting_run, plan_table, source_run, supervised_run
from lsr_train.comparison.options import CompareOptions, TableArguments
from lsr_train.comparison.spec import (
    RunSpec,
    SearchRange,
    comparison_names,
    read_comparison,
    search_ranges,
    select_runs,
    sweeps,
    without_each,
)
from lsr_train.config.command_line import resolve
from lsr_train.config.fields import fields_of
from lsr_train.config.run import Config, is_about_terms, with_method

PAPER = (
    "source-only", "target-only", "adaptsegnet-feat", "minent", "sapnet", "maxsquare-iw", "oce", "lsr", "lsr-em",
)  # fmt: skip


@cache
def recipe(name: str) -> Config:
    return resolve("pretrain", ["--recipe", name], None).config


@pytest.mark.parametrize("name", comparison_names())
def test_every_shipped_comparison_has_the_papers_runs_and_plans(name: str, tmp_path: Path) -> None:
    comparison = read_comparison(name)
    assert {run.name for run in comparison.runs} >= set(PAPER)
    given = Overrides(config=recipe(comparison.base), names=frozenset())
    stage = source_run(Overrides(config=recipe(comparison.source), names=frozenset()), given, 3, tmp_path)
    assert (stage.config.method, stage.config.seed, stage.command) == ("source-only", 3, "pretrain")
    base = dict(fields_of(recipe(comparison.base)))
    for spec in comparison.runs:
        if not spec.train:
            continue
        own = recipe(spec.recipe or comparison.base)
        if spec.name == "target-only":
            run = supervised_run(spec, Overrides(config=own, names=frozenset()), given, 3, tmp_path)
            assert (run.config.method, run.command) == ("target-only", "pretrain")
            source, target = run.config.data.source, given.config.data.target
            assert (source.height, source.width) == (target.height, target.width)  # the bound sees what the others see
            continue
        run = adapting_run(spec, own, "START", 3, tmp_path)
        assert run.config.method == ("source-only" if spec.name == "control" else spec.name)
        assert (run.config.seed, run.config.init) == (3, "START")
        # what the paper's runs compare is the method; self-training follows recipes of its own
        same = ("data.", "network.") if spec.name in (*PAPER, "control") else ()
        for field, value in fields_of(run.config):
            if field.startswith(same) and field not in ("network.weights", "network.forward"):
                assert value == base[field], (spec.name, field)


def test_published_figures_are_of_runs() -> None:
    for name in comparison_names():
        comparison = read_comparison(name)
        assert set(comparison.published.miou) <= {run.name for run in comparison.runs}


def write(folder: Path, **parts: object) -> str:
    document = {"source": "toytown_source", "base": "toytown_lsr", "evaluate": {}, "runs": {"lsr": None}, **parts}
    file = folder / "own.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"runs": {}}, "runs is no mapping"),
        ({"runs": {"a": {"methd": "lsr"}}}, "Did you mean method"),
        ({"runs": {"a": {"method": "lrs"}}}, "lrs"),
        ({"runs": {"a": {"set": {"weights.clusters": 1}}}}, "Did you mean weights.cluster"),
        ({"runs": {"a": {"train": False, "method": "lsr"}}}, "not trained"),
        ({"runs": {"a": {"batch_norm": "train"}}}, "allowed: stored, target"),
        ({"runs": {"a": {"train": "no"}}}, "no bool"),
        ({"evaluate": {"out": "x"}}, "evaluate has 'out'"),
        ({"published": {"miou": {"lsr": "46"}}}, "per cents"),
        ({"extra": 1}, "'extra'"),
        ({"like": "toytwon"}, "Did you mean toytown"),
        ({"set": {"data.source.hight": 1}}, "data.source.hight"),
        ({"further": {"train": {"out": "x"}}}, "further train has 'out'"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, parts: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text) as caught:
        read_comparison(write(tmp_path, **parts))
    assert "own.yaml" in str(caught.value)


def test_a_file_may_say_what_it_differs_in_from_another(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("like: streets_camvid\nruns: {minent: {method: minent}}\n", encoding="utf-8")
    mine, theirs = read_comparison(str(file)), read_comparison("streets_camvid")
    assert (mine.source, mine.evaluate, len(mine.runs)) == (theirs.source, theirs.evaluate, len(theirs.runs))
    changed = {run.name for run, other in zip(mine.runs, theirs.runs, strict=True) if run != other}
    assert changed == {"minent"}


def test_what_a_comparison_sets_holds_for_all_stages(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    data = ["--source", str(tmp_path), "--target", str(tmp_path)]
    plan = plan_table(
        read_comparison("streets_idd"), CompareOptions(recipe="streets_idd"), TableArguments(runs=data), tmp_path
    )
    stage = source_run(plan.source, plan.given, 0, tmp_path).config
    (spec,) = select_runs(plan.comparison, ["lsr-st"])
    for config in (stage, plan.training(spec, tmp_path, 0).config):
        assert (config.label_space, config.data.source.ids, config.data.target.layout) == ("auto", "auto", "folder")
    (bound,) = select_runs(plan.comparison, ["target-only"])
    source = plan.training(bound, tmp_path, 0).config.data.source
    assert (source.layout, source.ids, source.root) == ("folder", "auto", str(tmp_path))


def test_runs_may_be_called_rows_as_in_version_0_1(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("source: a\nbase: b\nevaluate: {}\nrows: {lsr: }\n", encoding="utf-8")
    assert [run.name for run in read_comparison(str(tmp_path / "old.yaml")).runs] == ["lsr"]
    with pytest.raises(UsageError, match="a comparison has 'rows'"):
        read_comparison(write(tmp_path, rows={"lsr": None}))


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("source: a\nbase: b\nruns: {a: }\n", encoding="utf-8")
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


def test_runs_are_selected_in_the_order_asked_for() -> None:
    comparison = read_comparison("toytown")
    assert [run.name for run in select_runs(comparison, ["oce", "lsr"])] == ["oce", "lsr"]
    with pytest.raises(UsageError, match="twice"):
        select_runs(comparison, ["lsr", "lsr"])
    with pytest.raises(UsageError, match="Did you mean minent"):
        select_runs(comparison, ["minnent"])


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
    (tmp_path / "mine.py").write_text("class Mine: ...\n", encoding="utf-8")
    after = with_method(before, f"{tmp_path / 'mine.py'}:Mine", {})
    assert after.weights == before.weights


def test_a_run_that_sets_what_its_method_does_not_read_is_refused(tmp_path: Path) -> None:
    comparison = read_comparison(write(tmp_path, runs={"a": {"method": "minent", "set": {"critic.lr": 0.5}}}))
    with pytest.raises(UsageError, match=r"run a: .*critic\.lr"):
        adapting_run(comparison.runs[0], recipe("toytown_lsr"), "START", 0, tmp_path)


LSR_EM = recipe("toytown_lsr_em")


def test_each_term_and_the_histogram_are_left_out() -> None:
    runs = without_each(RunSpec(name="lsr-em", recipe="toytown_lsr_em"), LSR_EM)
    assert [run.name for run in runs] == [
        "lsr-em", "lsr-em, without cluster", "lsr-em, without perpendicularity", "lsr-em, without norm",
        "lsr-em, without entropy", "lsr-em, nearest labels",
    ]  # fmt: skip
    assert [dict(run.set) for run in runs] == [
        {}, {"weights.cluster": 0.0}, {"weights.perpendicularity": 0.0}, {"weights.norm": 0.0},
        {"weights.entropy": 0.0}, {"histogram.mode": "nearest"},
    ]  # fmt: skip
    assert {run.recipe for run in runs} == {"toytown_lsr_em"}


def test_what_a_method_does_not_read_is_no_variant() -> None:
    """On directions alone the histogram's mode is not read, and self-training without its teacher is none."""
    runs = without_each(RunSpec(name="lsr-st"), recipe("toytown_lsr_st"))
    left_out = ("cluster", "perpendicularity", "prototype")
    assert [run.name for run in runs] == ["lsr-st", *(f"lsr-st, without {name}" for name in left_out)]


def test_nothing_to_leave_out() -> None:
    with pytest.raises(UsageError, match="no term that could be left out"):
        without_each(RunSpec(name="control"), recipe("toytown_source"))


def test_sweeps_multiply() -> None:
    run = RunSpec(name="lsr-em", set={"weights.norm": 0.5})
    runs = sweeps(run, LSR_EM, ["weights.cluster=1e-5,1e-4,0.0001", "train.steps=10,20"])
    assert [dict(run.set) for run in runs] == [
        {"weights.norm": 0.5, "weights.cluster": cluster, "train.steps": steps}
        for cluster in (1e-5, 1e-4) for steps in (10, 20)
    ]  # fmt: skip
    assert runs[0].name == "lsr-em, weights.cluster=1e-05, train.steps=10"
    assert all(isinstance(run.set["train.steps"], int) for run in runs)


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
def test_search_ranges(text: str, expected: tuple[float, float, bool]) -> None:
    (span,) = search_ranges(LSR_EM, [text])
    assert (span.low, span.high, span.log) == expected
    assert isinstance(span, SearchRange)
    assert isinstance(span.low, int) == text.startswith("optim.warmup")
    assert span.current == (20 if text.startswith("optim") else LSR_EM.weights.cluster)


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
        search_ranges(LSR_EM, [text])


def test_a_field_comes_once() -> None:
    with pytest.raises(UsageError, match="twice"):
        search_ranges(LSR_EM, ["weights.cluster=1..2"] * 2)
    with pytest.raises(UsageError, match="twice"):
        sweeps(RunSpec(name="a"), LSR_EM, ["weights.cluster=1,2"] * 2)
    with pytest.raises(UsageError, match="no number"):
        sweeps(RunSpec(name="a"), LSR_EM, ["weights.cluster=1,,2"])
