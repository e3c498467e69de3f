"""The label-free choice: the best evaluation wins, patience runs out, and what cannot be compared is refused."""

import json
import math

import pytest
import torch

from lsr_infer.errors import QualityGateError, UsageError
from lsr_train.config.command_line import resolve
from lsr_train.config.data import DataConfig, SourceConfig
from lsr_train.config.fields import with_fields
from lsr_train.config.run import Config, SelectionConfig
from lsr_train.data.labels import CITYSCAPES_19
from lsr_train.engine.selection import SelectionSignals, Selector
from lsr_train.engine.setup import _held_out, _selector, collapse_advice
from lsr_train.evaluation.signals import ClassSignals, CollapseWatch


def selector(**options: object) -> Selector:
    return Selector(SelectionConfig(**options), lambda network: SelectionSignals({"flip": 0.0}))  # type: ignore[arg-type]


def test_the_best_evaluation_wins_and_patience_runs_out() -> None:
    chosen = selector(every=10, patience=2)
    values = ((10, 0.2), (20, 0.4), (30, 0.3))
    assert [chosen.update(step, SelectionSignals({"flip": value})) for step, value in values] == [1, 1, 0]
    assert not chosen.exhausted
    assert not chosen.update(40, SelectionSignals({"flip": 0.4}))
    assert chosen.exhausted
    assert chosen.best_step == 20
    assert chosen.scores(40) == {"label_free_flip": 0.4}
    again = selector(every=10, patience=2)
    again.load_state(chosen.state())
    assert again.exhausted
    assert again.best_step == 20


def test_evaluations_come_when_they_are_due() -> None:
    assert [selector(every=10).due(step, last=False) for step in (5, 10, 20)] == [False, True, True]
    assert selector(every=0).due(7, last=True)
    assert not selector(signal="none", every=10).due(10, last=True)
    assert not Selector(SelectionConfig(every=10), None).due(10, last=True)


def test_a_signal_that_is_no_number_is_refused() -> None:
    with pytest.raises(QualityGateError, match="flip"):
        selector().update(1, SelectionSignals({"flip": math.nan}))


def found(flip: float, *shares: float) -> SelectionSignals:
    share = torch.tensor(shares, dtype=torch.float64)
    return SelectionSignals({"flip": flip}, ClassSignals(share=share, confidence=share, flip=share))


def test_a_class_that_dies_stops_the_selection_and_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    chosen = Selector(SelectionConfig(every=10), lambda network: found(0), CollapseWatch(("road", "tree", "train")))
    assert chosen.evaluates_first
    chosen.start(found(0.1, 0.7, 0.2995, 0.0005))
    assert chosen.update(10, found(0.2, 0.75, 0.25, 0.0))  # train was too rare to be watched
    assert not chosen.update(20, found(0.3, 0.98, 0.02, 0.0))
    assert not caplog.records  # one evaluation is not enough, and no warning
    assert not chosen.update(30, found(0.4, 0.98, 0.02, 0.0))
    assert not chosen.update(40, found(0.5, 0.98, 0.02, 0.0))
    assert [record.message for record in caplog.records if "tree has collapsed" in record.message] == [
        record.message for record in caplog.records
    ]
    assert len(caplog.records) == 1
    assert chosen.best_step == 10
    again = Selector(SelectionConfig(every=10), lambda network: found(0), CollapseWatch(("road", "tree", "train")))
    again.load_state(json.loads(json.dumps(chosen.state())))
    assert not again.update(50, found(0.6, 0.98, 0.02, 0.0))
    assert len(caplog.records) == 1
    assert again.update(60, found(0.6, 0.9, 0.1, 0.0))  # it came back
    assert again.best_step == 60


def test_the_first_low_evaluation_of_a_class_is_logged_and_why_nothing_was_selected(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    chosen = Selector(SelectionConfig(every=10), lambda network: found(0), CollapseWatch(("road", "tree")))
    chosen.start(found(0.1, 0.7, 0.3))
    assert chosen.nothing_because == ()
    chosen.update(10, found(0.2, 0.98, 0.02))
    assert [record.message.partition(" was")[0] for record in caplog.records] == ["step 10: class tree"]
    chosen.update(20, found(0.2, 0.98, 0.02))
    chosen.update(30, found(0.2, 0.98, 0.02))
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert chosen.nothing_because == ("tree",)
    assert chosen.update(40, found(0.2, 0.7, 0.3))
    chosen.update(50, found(0.2, 0.98, 0.02))
    assert chosen.nothing_because == ()  # there is one from before


def test_one_process_logs_and_gives_the_advice(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    for log in (False, True):
        caplog.clear()
        chosen = Selector(SelectionConfig(), lambda network: found(0), CollapseWatch(("road", "tree")), "Do this.")
        chosen.start(found(0.1, 0.7, 0.3))
        assert not any(chosen.update(step, found(0.2, 0.98, 0.02), log=log) for step in (10, 20, 30))
        assert [record.message.endswith("Do this.") for record in caplog.records] == [True] * log


@pytest.mark.parametrize(
    ("recipe", "more", "named", "not_named"),
    [
        ("toytown_self_training", {"self_training.alignment": 0.5}, "--self_training.alignment", "entropy"),
        ("toytown_self_training", {"self_training.alignment_of": "probabilities"}, "alignment_of labels", "entropy"),
        ("toytown_self_training", {"self_training.alignment": 1.0}, "--optim.lr", "alignment"),
        ("toytown_self_training", {"self_training.alignment": 0.0}, "--self_training.alignment 1", "entropy"),
        ("toytown_lsr", {}, "--optim.lr", "alignment"),
        ("toytown_lsr_em", {}, "--weights.entropy", "alignment"),
    ],
)
def test_the_advice_can_be_followed(recipe: str, more: dict[str, float], named: str, not_named: str) -> None:
    advice = collapse_advice(with_fields(resolve("adapt", ["--recipe", recipe], None).config, more))
    assert named in advice
    assert not_named not in advice


def test_a_class_that_recovers_and_dies_again_is_named_again() -> None:
    watch = CollapseWatch(("road", "tree"), patience=2)
    watch.start([0.7, 0.3])
    shares = (0.0, 0.0, 0.0, 0.3, 0.0, 0.0, 0.0)
    assert [watch.observe([0.7, share]) for share in shares] == [(), ("tree",), (), (), (), ("tree",), ()]


def test_without_a_start_nothing_is_watched() -> None:
    watch = CollapseWatch(("a", "b"))
    assert watch.observe([1.0, 0.0]) == ()
    assert watch.low == ()


def config(split: str, held_out: str, signal: str = "source") -> Config:
    source = SourceConfig(layout="toytown-game", split=split, height=48, width=96, limit=2)
    return Config(data=DataConfig(source=source), selection=SelectionConfig(signal=signal, source_split=held_out))  # type: ignore[arg-type]


def test_what_is_held_out_is_not_trained_on(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for split in ("", "val"):
        with pytest.raises(UsageError, match="nothing is held out"):
            _held_out(config(split, "val"), CITYSCAPES_19, tmp_path)
    frames = _held_out(config("train", "val"), CITYSCAPES_19, tmp_path)
    assert frames is not None
    assert len(frames) > 2


def test_the_source_signal_needs_no_target(tmp_path) -> None:  # type: ignore[no-untyped-def]
    settings = config("train", "val")
    frames = _held_out(settings, CITYSCAPES_19, tmp_path)
    assert _selector(settings, CITYSCAPES_19, None, frames).evaluate is not None
    assert _selector(config("train", "val", "flip"), CITYSCAPES_19, None, frames).evaluate is None
