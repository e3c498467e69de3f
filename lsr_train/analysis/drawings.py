"""Draws figures from numbers; nothing is computed here.

Figures are made without pyplot, so nothing global changes and no window system is asked for.
"""

import itertools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from lsr_infer.labelspace import LabelSpace
from lsr_infer.render.overlay import colorize
from lsr_infer.text import printable
from lsr_train.analysis.numbers import Polar
from lsr_train.analysis.observation import BANDS, ShownFrame

__all__ = [
    "NothingToDraw", "angles_figure", "borders_figure", "class_lines_figure", "downsampling_figure", "embedding_figure",
    "polar_figure", "qualitative_figure", "reliability_figure", "shares_figure", "styled", "terms_figure",
]  # fmt: skip

_PAGE, _COLUMN = 7.0, 3.4
"""Widths in inches of a page of print, and of one of two columns."""
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B2A600")
"""Okabe and Ito's, told apart with every common kind of colour blindness; yellow darkened for white paper."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""One a colour: networks and terms are told apart without it; classes, by their names beside them or below."""
_LINES = ("-", "--")
_HATCHES = ("", "////")
_OWN_SHARE = 0.8
"""Share of a class's sector that its vectors may fill in the polar figure."""
_STYLE: Any = {  # matplotlib types its keys one by one
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), 8),
    **dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 7),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "pdf.fonttype": 42,  # letters stay letters, which publishers ask for
    "svg.hashsalt": "lsr",  # the same figure is the same file
    "text.parse_math": False,  # names of classes and networks may hold a $
    "text.usetex": False,
}


@contextmanager
def styled(*, letters: bool = True) -> Iterator[None]:
    """Draw and write figures in this style within a block; SVG keeps text as `letters`, or as outlines."""
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every font that goes into a PDF
    with matplotlib.rc_context({**_STYLE, "svg.fonttype": "none" if letters else "path"}):
        yield


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")  # inches


def _one_panel(width: float, height: float) -> tuple[Figure, Any]:
    drawn = _figure(width, height)
    return drawn, drawn.subplots()


def _panels(count: int, columns: int, width: float, height: float, **more: Any) -> tuple[Figure, list[Any]]:
    """Return a figure with `count` axes, row by row."""
    columns = min(columns, count)
    rows = -(-count // columns)
    drawn = _figure(width, height * rows)
    axes = drawn.subplots(rows, columns, squeeze=False, **more).flatten().tolist()
    for spare in axes[count:]:
        spare.remove()
    return drawn, axes[:count]


def _names(space: LabelSpace) -> list[str]:
    return [printable(name) for name in space.names]


def _logarithmic(axis: Any) -> None:
    """Give the y axis a scale of powers of ten, whose ticks are written without mathematical markup."""
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(LogFormatter())
    axis.yaxis.set_minor_formatter(LogFormatter())


def _class_colors(space: LabelSpace) -> NDArray[np.float64]:
    return np.asarray(space.colors, np.float64) / 255


def _legend_below(drawn: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Put one legend below all axes, as wide as the figure allows."""
    letter, swatch = 0.062, 0.42  # inches, in this style's type
    widest = max(len(name) for name in names) * letter + swatch
    columns = max(1, min(len(names), int(drawn.get_figwidth() / widest)))
    drawn.legend(handles, names, loc="outside lower center", ncols=columns, handlelength=1.2, columnspacing=1)


class NothingToDraw(Exception):  # noqa: N818 - no error: there are no data for a figure
    """There are no data for a figure."""


def _style(place: int) -> dict[str, Any]:
    """Return colour and marker of a network by its place; beyond eight a line style tells them apart as well."""
    index, turn = place % len(_COLORS), place // len(_COLORS)
    return {"color": _COLORS[index], "marker": _MARKERS[index], "linestyle": ("-", "--", ":", "-.")[turn % 4]}


def _rgb(classes: NDArray[np.integer[Any]], space: LabelSpace) -> NDArray[np.uint8]:
    return np.ascontiguousarray(colorize(classes, space)[..., ::-1])


def _show(axes: Any, picture: NDArray[np.uint8], title: str = "") -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set_title(title)
    axes.set_axis_off()


def _swatches(drawn: Figure, space: LabelSpace, *labels: NDArray[np.integer[Any]]) -> None:
    """Put colours and names of the classes that `labels` hold below all axes."""
    present = np.unique(np.concatenate([found.ravel() for found in labels]))
    present = present[present < space.num_classes]
    colors, names = _class_colors(space)[present], [_names(space)[index] for index in present]
    handles = [Patch(facecolor=color, edgecolor="0.3", linewidth=0.3) for color in colors]
    if names:
        _legend_below(drawn, handles, names)


def downsampling_figure(picture: ShownFrame, space: LabelSpace) -> Figure:
    """Draw a frame, its labels, and the labels of its feature cells by both schemes (Fig. 3b)."""
    height, width = picture.labels.shape
    drawn, axes = _panels(4, 2, _PAGE, _PAGE / 2 * height / width + 0.25)
    _show(axes[0], np.ascontiguousarray(picture.frame[..., ::-1]), "frame")
    _show(axes[1], _rgb(picture.labels, space), "labels")
    _show(axes[2], _rgb(picture.nearest, space), "feature labels, nearest")
    _show(axes[3], _rgb(picture.histogram, space), "feature labels, histogram-aware (void is black)")
    _swatches(drawn, space, picture.labels, picture.nearest, picture.histogram)
    return drawn


def shares_figure(
    space: LabelSpace, pixels: Tensor, nearest: Tensor, histogram: Tensor, void: tuple[float, float]
) -> Figure:
    """Draw each class's share [C] of the pixels, and of the feature cells that both schemes label (Fig. 4).

    `void` has the shares of all cells that each scheme leaves void.
    """
    drawn, axes = _one_panel(_PAGE, 2.4)
    places = np.arange(space.num_classes)
    bars = (
        ("pixels", pixels, "0.6", ""),
        (f"cells, nearest ({100 * void[0]:.0f} % void)", nearest, _COLORS[1], "////"),
        (f"cells, histogram-aware ({100 * void[1]:.0f} % void)", histogram, _COLORS[0], ""),
    )
    for shift, (name, values, color, hatch) in zip((-0.27, 0.0, 0.27), bars, strict=True):
        style: dict[str, Any] = {"color": color, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
        axes.bar(places + shift, 100 * values.numpy(), 0.26, label=name, **style)
    _logarithmic(axes)
    axes.set_ylabel("share of what is labelled, %")
    axes.set_xticks(places, _names(space), rotation=35, ha="right", rotation_mode="anchor")
    axes.grid(visible=False, axis="x")
    drawn.legend(loc="outside upper center", ncols=3)
    return drawn


def polar_figure(spreads: Mapping[str, Polar], space: LabelSpace) -> Figure:
    """Draw norms along the radius and angles to the class's prototype around its sector (Fig. 5).

    Sectors are arbitrary, and which side of its prototype a vector lies on is drawn at random, as in the paper. A grey
    line is the median of the sample's norms, the band around it holds 95 %. A norm of 0 lies at the centre.

    Raises:
        NothingToDraw: no vector has a norm above 0.
    """
    drawn, axes = _panels(
        len(spreads), 3, _PAGE if len(spreads) > 1 else _COLUMN, 2.6, subplot_kw={"projection": "polar"}
    )
    colors, sector = _class_colors(space), 2 * math.pi / space.num_classes
    norms = np.concatenate([spread.norms.numpy() for spread in spreads.values()])
    if not (norms > 0).any():
        raise NothingToDraw("no feature vector has a norm above 0")
    low, high = np.log10(norms[norms > 0].min()), np.log10(norms.max())
    margin = 0.15 * max(high - low, 0.1)
    side = np.random.default_rng(0)
    for axis, (name, spread) in zip(axes, spreads.items(), strict=True):
        labels = spread.labels.numpy()
        turned = side.choice((-1.0, 1.0), len(labels)) * spread.angles.numpy() / 90 * sector / 2 * _OWN_SHARE
        radius = np.log10(np.maximum(spread.norms.numpy(), 10 ** (low - margin)))
        axis.scatter(labels * sector + turned, radius, s=2, c=colors[labels], linewidths=0, rasterized=True)
        around = np.linspace(0, 2 * math.pi, 200)
        ends = (spread.low, spread.median, spread.high)
        inner, middle, outer = (math.log10(max(end, 10 ** (low - margin))) for end in ends)
        axis.fill_between(around, inner, outer, color="0.5", alpha=0.2, linewidth=0)
        axis.plot(around, np.full_like(around, middle), color="0.25")
        axis.set_ylim(low - margin, high + margin)
        axis.set_xticks(np.arange(space.num_classes) * sector, _names(space), fontsize=6)
        axis.yaxis.set_major_locator(MaxNLocator(4))
        axis.yaxis.set_major_formatter(lambda value, _: f"{10**value:.0f}" if value >= 1 else f"{10**value:.2g}")
        axis.tick_params(axis="y", labelsize=5.5)
        axis.set_rlabel_position(math.degrees(sector / 2))
        axis.set_title(f"{name}\nnorm {spread.median:.3g} [{spread.low:.3g}, {spread.high:.3g}]")
    return drawn


def angles_figure(angles: Mapping[str, Tensor]) -> Figure:
    """Draw each prototype's mean angle to the others, and their distribution, against 90 degrees (Fig. 6)."""
    drawn, axes = _one_panel(_COLUMN, 2.4)
    known = [values.numpy()[~np.isnan(values.numpy())] for values in angles.values()]
    axes.boxplot(known, positions=range(len(known)), widths=0.5, showfliers=False, medianprops={"color": "0.2"})
    for place, values in enumerate(known):
        spread = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else np.zeros(len(values))
        index = place % len(_COLORS)
        axes.scatter(place + spread, np.sort(values), s=10, marker=_MARKERS[index], color=_COLORS[index], zorder=3)
    axes.axhline(90, color=_COLORS[1], linestyle="--", linewidth=1)
    axes.annotate("perpendicular", (0, 90), xytext=(2, 2), textcoords="offset points", fontsize=7, color=_COLORS[1])
    axes.set_xlim(-0.6, len(known) - 0.4)
    means = [f"{name}\nmean {values.mean():.1f}°" for name, values in zip(angles, known, strict=True)]
    axes.set_xticks(range(len(known)), means)
    axes.set_ylabel("mean angle to the others, °")
    axes.grid(visible=False, axis="x")
    return drawn


def embedding_figure(embeddings: Mapping[str, tuple[NDArray[np.float32], Tensor]], space: LabelSpace) -> Figure:
    """Draw t-SNE points [N,2] with their classes [N], each class named at its median or near it (Fig. 7)."""
    drawn, axes = _panels(len(embeddings), 2, _PAGE if len(embeddings) > 1 else _COLUMN, 3.2)
    colors, names = _class_colors(space), _names(space)
    for axis, (name, (points, labels)) in zip(axes, embeddings.items(), strict=True):
        axis.scatter(points[:, 0], points[:, 1], s=2, c=colors[labels.numpy()], linewidths=0, rasterized=True)
        axis.set_title(name)
        axis.set_xticks([])
        axis.set_yticks([])
    _swatches(drawn, space, *(labels.numpy() for _, labels in embeddings.values()))
    drawn.draw_without_rendering()  # places are looked for in the axes as they will be
    for axis, (points, labels) in zip(axes, embeddings.values(), strict=True):
        classes = labels.numpy()
        present = np.unique(classes)
        medians = np.stack([np.median(points[classes == index], axis=0) for index in present])
        _write_apart(axis, [names[index] for index in present], medians)
    return drawn


def _write_apart(axis: Any, names: Sequence[str], places: NDArray[np.floating[Any]]) -> None:
    """Write names at places [N,2] of the data, or as near as no name lies on another, with a line from there."""
    box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.6}
    line = {"arrowstyle": "-", "color": "0.4", "linewidth": 0.4, "shrinkA": 0, "shrinkB": 0}
    style: dict[str, Any] = {"fontsize": 5.5, "ha": "center", "va": "center", "bbox": box, "arrowprops": line}
    texts = [axis.annotate(name, place, place, **style) for name, place in zip(names, places, strict=True)]
    boxes = [Text.get_window_extent(text) for text in texts]  # without the line
    sizes = np.array([(item.width, item.height) for item in boxes]) + axis.figure.dpi / 24  # 3 points between them
    found = _apart(axis.transData.transform(places), sizes, axis.bbox.extents)
    for text, place in zip(texts, axis.transData.inverted().transform(found), strict=True):
        text.set_position(place)


def _apart(
    centres: NDArray[np.float64], sizes: NDArray[np.float64], bounds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Move boxes of `sizes` [N,2] from their `centres` [N,2] to the nearest places where none lies on an earlier one.

    All stay within `bounds`, left, bottom, right, top. Where there is no room, a box lies where it covers the least.
    """
    turns = np.arange(0, 2 * math.pi, math.pi / 12)
    rings = np.stack([np.cos(turns), np.sin(turns)], axis=1)  # [T,2]
    steps = np.arange(0, np.hypot(*(bounds[2:] - bounds[:2])), sizes[:, 1].min() / 4)
    ways = (steps[:, None, None] * rings).reshape(-1, 2)  # [S,2], the shortest first
    found = np.empty_like(centres)
    for index, (centre, size) in enumerate(zip(centres, sizes, strict=True)):
        tried = np.clip(centre + ways, bounds[:2] + size / 2, bounds[2:] - size / 2)  # [S,2]
        gaps = (sizes[:index] + size) / 2 - abs(tried[:, None] - found[:index])  # [S,index,2]
        covered = np.prod(gaps.clip(min=0), axis=2).sum(axis=1)
        found[index] = tried[np.argmin(covered)]
    return found


def qualitative_figure(pictures: Mapping[str, Sequence[ShownFrame]], space: LabelSpace) -> Figure:
    """Draw a row for each frame: the frame, its labels, and the prediction of each network (Fig. 2)."""
    names, columns = list(pictures), 2 + len(pictures)
    first = pictures[names[0]]
    height, width = first[0].labels.shape
    drawn = _figure(_PAGE, _PAGE / columns * height / width * len(first) + 0.6)
    axes = drawn.subplots(len(first), columns, squeeze=False)
    for row, picture in enumerate(first):
        titled = row == 0
        _show(axes[row, 0], np.ascontiguousarray(picture.frame[..., ::-1]), "frame" if titled else "")
        _show(axes[row, 1], _rgb(picture.labels, space), "labels" if titled else "")
        for column, name in enumerate(names, start=2):
            _show(axes[row, column], _rgb(pictures[name][row].classes, space), name if titled else "")
    shown = [picture for row in pictures.values() for picture in row]
    _swatches(drawn, space, *(found for picture in shown for found in (picture.labels, picture.classes)))
    return drawn


def reliability_figure(curves: Mapping[str, tuple[Tensor, Tensor, Tensor, float]]) -> Figure:
    """Draw accuracy against confidence, the share of pixels in each bin below, with the ECE (Guo et al. 2017)."""
    drawn = _figure(_COLUMN, 3.2)
    above, below = drawn.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot((0, 1), (0, 1), color="0.5", linestyle="--", linewidth=1)
    handles: list[Any] = []
    names: list[str] = []  # not as labels of the lines, of which a legend leaves out those that begin with _
    for place, (name, (confidence, accuracy, shares, error)) in enumerate(curves.items()):
        style = _style(place)
        handles += above.plot(confidence.numpy(), accuracy.numpy(), **style)
        names.append(f"{name}: ECE {100 * error:.1f} %")
        below.plot(confidence.numpy(), 100 * shares.numpy(), **style)
    above.set_ylabel("share that is right")
    above.set_ylim(-0.02, 1.02)
    above.set_xlim(-0.02, 1.02)
    above.legend(handles, names, loc="upper left")
    _logarithmic(below)
    below.set_ylabel("pixels, %")
    below.set_xlabel("confidence")
    return drawn


def borders_figure(scores: Mapping[str, Tensor], shares: Tensor) -> Figure:
    """Draw the mean IoU of each network in each band of distance from a border [D], with the bands' pixels [D]."""
    drawn, axes = _one_panel(_COLUMN, 2.4)
    ends = [0.0, *BANDS]
    names = [f"{low:g}-{high:g}" for low, high in itertools.pairwise(ends)] + [f"> {BANDS[-1]:g}"]
    names[0] = f"≤ {BANDS[0]:g}"
    ticks = [f"{name}\n{100 * value:.0f} %" for name, value in zip(names, shares.tolist(), strict=True)]
    lines = [
        axes.plot(range(len(values)), 100 * values.numpy(), **_style(place))[0]
        for place, values in enumerate(scores.values())
    ]
    axes.set_xticks(range(len(names)), ticks)
    axes.set_xlabel("pixels from the nearest border; share of all pixels")
    axes.set_ylabel("mIoU within the band, %")
    axes.legend(lines, list(scores))
    return drawn


def class_lines_figure(
    steps: Mapping[str, Sequence[int]],
    values: Mapping[str, Mapping[str, Sequence[Tensor]]],
    space: LabelSpace,
    label: str,
) -> Figure:
    """Draw a small panel for each class: figures over steps, or bars where every network was evaluated once.

    Args:
        steps: by network, S of them.
        values: by kind of figure and network, S tensors [C] of shares of 1. Networks differ in colour and marker, kinds
            in line style and hatch.
        space: the classes.
        label: of the axis of figures.
    """
    over_steps = any(len(each) > 1 for each in steps.values())
    handles: dict[str, Any] = {}
    drawn, axes = _panels(space.num_classes, 4, _PAGE, 1.35, sharey=True, sharex=True)
    for index, axis in enumerate(axes):
        for kind, (what, series) in enumerate(values.items()):
            for place, (name, found) in enumerate(series.items()):
                shown = [100 * float(item[index]) for item in found]
                if over_steps:
                    style = {**_style(place), "linestyle": _LINES[kind]}
                    (handles[f"{name}, {what}"],) = axis.plot(steps[name], shown, **style)
                else:
                    style = {"color": _COLORS[place % len(_COLORS)], "hatch": _HATCHES[kind], "edgecolor": "white"}
                    handles[f"{name}, {what}"] = axis.bar(place * len(values) + kind, shown[0], **style)
        if not over_steps:
            axis.set_xticks([])
        axis.set_title(_names(space)[index])
        axis.set_ylim(0, 100)
    _legend_below(drawn, list(handles.values()), list(handles))
    drawn.supylabel(label, fontsize=8)
    for axis in axes[-4:] if over_steps else ():
        axis.set_xlabel("step")
    return drawn


def terms_figure(
    runs: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float]]]], label: str, *, log: bool = False
) -> Figure:
    """Draw a small panel for each loss term: its value over steps in each run, on an axis with this label."""
    terms = list(dict.fromkeys(name for series in runs.values() for name in series))
    drawn, axes = _panels(len(terms), 3, _PAGE, 1.5)
    for axis, term in zip(axes, terms, strict=True):
        for place, series in enumerate(runs.values()):
            if term in series:
                markers = max(1, len(series[term][0]) // 6)
                axis.plot(*series[term], markevery=markers, **_style(place))
        axis.set_title(printable(term))
        if log:
            _logarithmic(axis)
    _legend_below(drawn, [Line2D([], [], **_style(place)) for place in range(len(runs))], list(runs))
    for axis in axes[-3:]:
        axis.set_xlabel("step")
    drawn.supylabel(label, fontsize=8)
    return drawn
