"""Drawings where data are many, few, or odd."""

import io
import itertools
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from lsr_infer.labelspace import LabelSpace
from lsr_infer.text import printable
from lsr_train.analysis.drawings import (
    NothingToDraw,
    angles_figure,
    borders_figure,
    class_lines_figure,
    downsampling_figure,
    embedding_figure,
    polar_figure,
    qualitative_figure,
    reliability_figure,
    shares_figure,
    styled,
    terms_figure,
)
from lsr_train.analysis.numbers import Polar
from lsr_train.analysis.observation import BANDS, ShownFrame
from lsr_train.data.labels import CITYSCAPES_19

SVG = "{http://www.w3.org/2000/svg}"

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


NAMES = ("_$x", "$\\frac{$ \\", "\x1b[31m\n\u202eb", "<b>&amp;</b>")


def drawings(names: tuple[str, ...]) -> dict[str, Figure]:
    """Draw every figure with these names of classes, networks and terms."""
    count, networks = len(names), tuple(map(printable, names))  # as the options give the names of networks
    space = LabelSpace(name="odd", names=names, colors=((9, 9, 9),) * count)
    each = torch.arange(count)
    shares = torch.full((count,), 1 / count)
    spread = Polar(torch.linspace(1, 9, count), torch.linspace(0, 20, count), each)
    curve = (torch.rand(3), torch.rand(3), torch.tensor([0.1, 0.2, 0.7]), 0.1)
    classes = np.resize(np.arange(count, dtype=np.uint8), (4, 8))
    shown = ShownFrame(
        file="f", frame=np.zeros((4, 8, 3), np.uint8), labels=classes, classes=classes, nearest=classes,
        histogram=classes,
    )  # fmt: skip
    values = {"accuracy": {name: [torch.rand(count)] for name in networks}}
    over = {"coverage": {name: [torch.rand(count)] * 2 for name in networks}}
    return {
        "downsampling": downsampling_figure(shown, space),
        "shares": shares_figure(space, shares, shares, shares, (0.1, 0.2)),
        "norms": polar_figure(dict.fromkeys(networks, spread), space),
        "angles": angles_figure({name: torch.rand(4) + 85 for name in networks}),
        "tsne": embedding_figure({name: (np.eye(count, 2, dtype=np.float32), each) for name in networks}, space),
        "qualitative": qualitative_figure({name: [shown] for name in networks}, space),
        "reliability": reliability_figure(dict.fromkeys(networks, curve)),
        "borders": borders_figure({name: torch.rand(len(BANDS) + 1) for name in networks}, torch.rand(len(BANDS) + 1)),
        "bars": class_lines_figure({name: [1] for name in networks}, values, space, "%"),
        "lines": class_lines_figure({name: [1, 2] for name in networks}, over, space, "%"),
        "terms": terms_figure(
            {name: {term: ([1, 2], [0.01, 4.0]) for term in names} for name in networks}, "v", log=True
        ),
    }


def test_names_are_drawn_as_themselves() -> None:
    shown = tuple(map(printable, NAMES))
    with styled():
        for kind, figure in drawings(NAMES).items():
            data = io.BytesIO()
            figure.savefig(data, format="svg")
            texts = ["".join(item.itertext()) for item in ElementTree.fromstring(data.getvalue()).iter(f"{SVG}text")]
            lines = " ".join(texts)
            classes = kind not in ("angles", "reliability", "borders")
            for name in shown if classes else ():
                assert name.replace("  ", " ") in lines, (kind, name, texts)
            assert not any("mathdefault" in text for text in texts), kind


def test_legends_name_networks_that_begin_with_an_underscore() -> None:
    with styled():
        for kind, figure in drawings(("_one", "$two")).items():
            if kind in ("reliability", "borders", "bars", "lines", "terms"):
                legend = (figure.legends + [axes.get_legend() for axes in figure.axes if axes.get_legend()])[0]
                assert [text.get_text()[:4] for text in legend.get_texts()] == ["_one", "$two"], kind


@pytest.mark.parametrize(("networks", "spread"), [(1, 0.0), (2, 0.5)])
def test_names_of_classes_do_not_lie_on_each_other(networks: int, spread: float) -> None:
    rng = np.random.default_rng(0)
    labels = torch.arange(19).repeat(30)
    points = rng.normal(size=(len(labels), 2)) + spread * rng.normal(size=(19, 2))[labels.numpy()]
    names = (f"network {number}" for number in range(networks))
    with styled():
        figure = embedding_figure(dict.fromkeys(names, (points.astype(np.float32), labels)), CITYSCAPES_19)
        for dpi in (72, 200):  # of a page, and of a PNG
            figure.set_dpi(dpi)
            figure.draw_without_rendering()
            for axes in figure.axes:
                boxes = [Text.get_window_extent(text) for text in axes.texts]
                assert len(boxes) == 19
                assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
                room = axes.bbox.padded(1)
                assert all(room.count_contains(box.corners()) == 4 for box in boxes)
