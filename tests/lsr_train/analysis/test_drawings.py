"""Drawings where data are many, few, or odd."""

import pytest
import torch

from lsr_infer.labelspace import LabelSpace
from lsr_train.analysis.drawings import NothingToDraw, borders_figure, class_lines_figure, polar_figure, terms_figure
from lsr_train.analysis.numbers import Polar
from lsr_train.analysis.observation import BANDS

SPACE = LabelSpace(name="two", names=("a", "b"), colors=((255, 0, 0), (0, 255, 0)))


@pytest.mark.parametrize("count", [1, 5, 12])
def test_many_networks_are_told_apart_without_colour(count: int) -> None:
    names = [f"network {index}" for index in range(count)]
    runs = {name: {"loss": ([1, 2], [0.5, 0.4])} for name in names}
    lines = terms_figure(runs, "value").axes[0].lines
    styles = {(line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(styles) == count
    values = {kind: {name: [torch.rand(2)] for name in names} for kind in ("accuracy", "coverage")}
    bars = class_lines_figure({name: [1] for name in names}, values, SPACE, "%").axes[0].patches
    assert len(bars) == 2 * count
    assert len({bar.get_hatch() for bar in bars}) == 2
    scores = {name: torch.rand(len(BANDS) + 1) for name in names}
    assert len(borders_figure(scores, torch.rand(len(BANDS) + 1)).axes[0].lines) == count


def test_over_training_networks_have_steps_of_their_own() -> None:
    steps = {"one": [1, 2, 3], "other": [5]}
    values = {"accuracy": {name: [torch.rand(2) for _ in found] for name, found in steps.items()}}
    lines = class_lines_figure(steps, values, SPACE, "%").axes[0].lines
    assert [line.get_xdata().tolist() for line in lines] == [[1, 2, 3], [5]]


def test_a_norm_of_zero_is_drawn_at_the_centre() -> None:
    labels = torch.tensor([0, 0, 1])
    spread = Polar(torch.tensor([0.0, 1.0, 10.0]), torch.tensor([0.0, 10.0, 20.0]), labels)
    (axes,) = polar_figure({"one": spread}, SPACE).axes
    assert torch.isfinite(torch.tensor(axes.get_ylim())).all()
    with pytest.raises(NothingToDraw):
        polar_figure({"one": Polar(torch.zeros(3), torch.zeros(3), labels)}, SPACE)
