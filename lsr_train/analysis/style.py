"""How figures look: one size of type, colours that colour-blind people tell apart, nothing that needs a screen.

Figures are made without pyplot, so nothing global changes and no window system is asked for.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lsr_infer.labelspace import LabelSpace

__all__ = ["COLORS", "COLUMN", "MARKERS", "PAGE", "class_colors", "figure", "legend_below", "panels", "styled"]

PAGE = 7.0
"""Width of a page of print, in inches."""
COLUMN = 3.4
"""Width of one of two columns."""
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B2A600")
"""Okabe and Ito's, told apart with every common kind of colour blindness; yellow darkened for white paper."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""One a colour: networks and terms are told apart without it; classes, by their names beside them or below."""
_STYLE: Any = {  # matplotlib types its keys one by one
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # letters stay letters, which publishers ask for
    "svg.hashsalt": "lsr",  # the same figure is the same file
}


@contextmanager
def styled(*, letters: bool = True) -> Iterator[None]:
    """Draw and write figures in this style within a block.

    Args:
        letters: SVG keeps text as text, to be edited; else as outlines, which look alike everywhere.
    """
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every font that goes into a PDF
    with matplotlib.rc_context({**_STYLE, "svg.fonttype": "none" if letters else "path"}):
        yield


def figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def panels(count: int, columns: int, width: float, height: float, **more: Any) -> tuple[Figure, list[Any]]:
    """Return a figure with `count` axes, row by row.

    Args:
        count: how many.
        columns: of the grid, at most.
        width: of the figure, in inches.
        height: of a row.
        more: for `Figure.subplots`.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    drawn = figure(width, height * rows)
    axes = drawn.subplots(rows, columns, squeeze=False, **more).flatten().tolist()
    for spare in axes[count:]:
        spare.remove()
    return drawn, axes[:count]


def class_colors(space: LabelSpace) -> NDArray[np.float64]:
    """Return the classes' own colours, [C,3] of 0..1."""
    return np.asarray(space.colors, np.float64) / 255


def legend_below(drawn: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Put one legend below all axes, as wide as the figure allows."""
    letter, swatch = 0.062, 0.42  # inches, in this style's type
    widest = max(len(name) for name in names) * letter + swatch
    columns = max(1, min(len(names), int(drawn.get_figwidth() / widest)))
    drawn.legend(handles, names, loc="outside lower center", ncols=columns, handlelength=1.2, columnspacing=1)
