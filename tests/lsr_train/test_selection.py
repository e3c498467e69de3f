"""The label-free choice: the best look wins, patience runs out, and what cannot be compared is refused."""

import math

import pytest

from lsr_infer.errors import QualityGateError, UsageError
from lsr_train.config import Config, DataConfig, SelectionConfig, SourceConfig
from lsr_train.labels import CITYSCAPES_19
from lsr_train.preparation import _held_out, _selector
from lsr_train.selection import Selector


def selector(**options: object) -> Selector:
    return Selector(SelectionConfig(**options), lambda network: {"flip": 0.0})  # type: ignore[arg-type]


def test_the_best_look_wins_and_patience_runs_out() -> None:
    chosen = selector(every=10, patience=2)
    assert [chosen.update(step, {"flip": value}) for step, value in ((10, 0.2), (20, 0.4), (30, 0.3))] == [1, 1, 0]
    assert not chosen.exhausted
    assert not chosen.update(40, {"flip": 0.4})
    assert chosen.exhausted
    assert chosen.best_step == 20
    assert chosen.scores(40) == {"label_free_flip": 0.4}
    again = selector(every=10, patience=2)
    again.load_state(chosen.state())
    assert again.exhausted
    assert again.best_step == 20


def test_looks_come_when_they_are_due() -> None:
    assert [selector(every=10).due(step, last=False) for step in (5, 10, 20)] == [False, True, True]
    assert selector(every=0).due(7, last=True)
    assert not selector(signal="none", every=10).due(10, last=True)
    assert not Selector(SelectionConfig(every=10), None).due(10, last=True)


def test_a_signal_that_is_no_number_is_refused() -> None:
    with pytest.raises(QualityGateError, match="flip"):
        selector().update(1, {"flip": math.nan})


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
    assert _selector(settings, CITYSCAPES_19, None, frames).look is not None
    assert _selector(config("train", "val", "flip"), CITYSCAPES_19, None, frames).look is None
