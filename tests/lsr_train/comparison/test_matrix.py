"""From runs of a comparison to trainings: what a command line sets for all, and where everything lies."""

from pathlib import Path

import pytest

from lsr_infer.errors import UsageError
from lsr_train.comparison.matrix import Overrides, adapting_run, check_folders, folder_name, source_run, supervised_run
from lsr_train.comparison.schedule import _resolved
from lsr_train.comparison.spec import RunSpec
from lsr_train.config.command_line import resolve


def given(*arguments: str, recipe: str = "toytown_lsr") -> Overrides:
    request = resolve("pretrain", ["--recipe", recipe, *arguments], None)
    return Overrides(config=request.config, names=request.flags)


def test_options_for_all_runs_reach_every_stage_where_they_mean_the_same(tmp_path: Path) -> None:
    all_runs = given("--data.source.limit", "7", "--data.target.height", "64", "--optim.lr", "0.5", "--log.every", "3")
    source = source_run(given(recipe="toytown_source"), all_runs, 1, tmp_path).config
    assert (source.data.source.limit, source.data.target.height, source.log.every) == (7, 64, 3)
    assert source.optim.lr == 0.003  # of its own recipe: the learning rate is the adaptation's
    bound = given(recipe="toytown_target_only")
    supervised = supervised_run(RunSpec(name="target-only"), bound, all_runs, 1, tmp_path).config
    assert supervised.data.source.height == 64  # its source is the target
    assert supervised.data.source.limit == bound.config.data.source.limit
    adapted = adapting_run(RunSpec(name="lsr"), all_runs.config, "START", 1, tmp_path).config
    assert (adapted.optim.lr, adapted.data.source.limit, adapted.network.weights) == (0.5, 7, "none")


def test_options_for_one_stage_take_precedence_over_those_for_all(tmp_path: Path) -> None:
    all_runs = given("--data.source.limit", "7", "--data.target.limit", "8", "--train.precision", "bf16")
    own = given("--data.source.limit", "9", recipe="toytown_source")
    assert source_run(own, all_runs, 1, tmp_path).config.data.source.limit == 9
    bound = given("--data.source.limit", "11", "--train.precision", "fp32", recipe="toytown_target_only")
    supervised = supervised_run(RunSpec(name="target-only"), bound, all_runs, 1, tmp_path).config
    assert (supervised.data.source.limit, supervised.train.precision) == (11, "fp32")


def test_several_sources_are_those_of_all_runs_but_of_the_supervised_bound(tmp_path: Path) -> None:
    all_runs = given("--data.source.layout", "folder", "--source", "a:2", "--source", "b:0.5", "--data.source.limit=3")
    stage = source_run(given(recipe="toytown_source"), all_runs, 1, tmp_path).config
    for config in (stage, adapting_run(RunSpec(name="lsr"), all_runs.config, "START", 1, tmp_path).config):
        assert [(item.root, item.weight, item.limit) for item in config.data.sources] == [("a", 2, 400), ("b", 0.5, 3)]
    bound = given(recipe="toytown_target_only")
    supervised = supervised_run(RunSpec(name="target-only"), bound, all_runs, 1, tmp_path).config
    assert supervised.data.sources == bound.config.data.sources
    whole = _resolved(all_runs.config)
    assert [item.root for item in whole.data.sources] == ["a", "b"]
    (tmp_path / "b").mkdir()
    by_path = given("--data.more_sources", f"[{{root: {tmp_path}/b/../b}}, {{layout: toytown-camera}}]").config
    assert [item.root for item in _resolved(by_path).data.more_sources] == [str(tmp_path / "b"), ""]


def test_the_source_stage_is_source_only(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be source-only"):
        source_run(given(), given(), 0, tmp_path)


def test_folders() -> None:
    assert folder_name("source-only + AdaBN") == "source-only-plus-AdaBN"
    assert folder_name("my file.py:Mine") == "my-file.py-Mine"
    with pytest.raises(UsageError, match="letter or digit"):
        folder_name("..")
    with pytest.raises(UsageError, match="would share"):
        check_folders([RunSpec(name="a b"), RunSpec(name="a-b")])
    with pytest.raises(UsageError, match="the source stage"):
        check_folders([RunSpec(name="source stage")])
