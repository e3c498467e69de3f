"""Builds and renders the page: summaries, tables, curves, scores, and the worst frames with sliders.

It is one HTML file that needs nothing but itself: text, tables and pictures are in it. Its Content-Security-Policy
forbids the browser every request, so that a mistake here would show instead of leaking.
"""

import base64
import contextlib
import io
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lsr_infer.errors import InputError
from lsr_infer.labelspace import LabelSpace
from lsr_infer.render.overlay import overlay
from lsr_infer.system.progress import with_progress
from lsr_infer.text import printable
from lsr_train.analysis.analyze import figure_of, logged_curves
from lsr_train.analysis.drawings import NothingToDraw, terms_figure
from lsr_train.analysis.observation import (
    Observation,
    OpenedNetwork,
    ShownFrame,
    SpreadFrames,
    observe_network,
    open_network,
)
from lsr_train.analysis.options import CAPTIONS, ReportOptions
from lsr_train.config.fields import plain_fields
from lsr_train.config.run import Config
from lsr_train.data.scan import cut
from lsr_train.evaluation.evaluate import open_data
from lsr_train.evaluation.result import gain_in_words, subsets_in_words
from lsr_train.evaluation.scores import OVERLAY_ALPHA
from lsr_train.evaluation.text_table import TextTable
from lsr_train.metrics import mean_iou
from lsr_train.runs.folder import resolve_model

__all__ = [
    "ReportPage", "Section", "ShownRun", "configuration_section", "curves_section", "environment_section",
    "network_sections", "render_page", "summary_section",
]  # fmt: skip

logger = logging.getLogger(__name__)

_PICTURE_WIDTH = 720
_JPEG_QUALITY = 82
_FIGURES = {
    "reliability": "Reliability", "borders": "Borders", "pseudo_labels": "Pseudo-labels",
    "angles": "Angles between prototypes", "norms": "Norms and angles", "tsne": "t-SNE",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ShownRun:
    """A run folder as it is shown: its configuration, also as text, its status and what it was computed with."""

    path: Path
    config: Config
    text: str
    status: Mapping[str, Any]
    environments: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class _PagePicture:
    """A picture in the page, as a `data:` address."""

    title: str
    uri: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class _LayeredFrame:
    """A frame as layers of one size, two of which are shown at first on either side of a slider.

    `legend` has the classes that are there, each with its colour in CSS.
    """

    title: str
    legend: Sequence[tuple[str, str]]
    layers: Sequence[_PagePicture]
    left: int
    right: int


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page, in the order of its fields; its `headline`, if any, stands above all parts."""

    key: str  # its address within the page
    title: str
    headline: str = ""
    text: Sequence[str] = ()  # paragraphs
    tables: Sequence[TextTable] = ()
    figures: Sequence[_PagePicture] = ()
    frames: Sequence[_LayeredFrame] = ()  # with sliders
    folds: Mapping[str, str] = field(default_factory=dict)  # long texts by title, folded away


@dataclass(frozen=True, kw_only=True)
class ReportPage:
    """A page; `left_out` has one line for each thing that is not in it."""

    title: str
    subtitle: str
    left_out: Sequence[str] = ()
    sections: Sequence[Section] = ()


def render_page(page: ReportPage) -> str:
    """Return the page as HTML; every text in it is printable and escaped."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import escape

    def shown(value: Any) -> Any:
        return printable(value) if type(value) is str else value  # what is escaped already is of another type

    def lines(text: str) -> Any:
        return escape("\n".join(map(printable, text.split("\n"))))

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, finalize=shown)
    environment.filters["lines"] = lines
    text = (resources.files("lsr_train.report") / "page.html").read_text(encoding="utf-8")
    return environment.from_string(text).render(page=page)


def _picture(title: str, data: bytes, kind: str, caption: str = "") -> _PagePicture:
    uri = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return _PagePicture(title=title, uri=uri, caption=caption)


def _vector_picture(title: str, drawn: Figure, caption: str) -> _PagePicture:
    data = io.BytesIO()
    drawn.savefig(data, format="svg", metadata={"Date": None}, dpi=150)
    return _picture(title, data.getvalue(), "image/svg+xml", caption)


def _jpeg(title: str, picture: NDArray[np.uint8]) -> _PagePicture:
    height, width = picture.shape[:2]
    if width > _PICTURE_WIDTH:
        size = (_PICTURE_WIDTH, max(1, round(height * _PICTURE_WIDTH / width)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert done  # a picture in memory of a supported type
    return _picture(title, data.tobytes(), "image/jpeg")


def summary_section(runs: Mapping[str, ShownRun]) -> Section:
    """Return method, state, start and signals of every run."""
    best = [(run.status.get("selection") or {}).get("best_step") for run in runs.values()]
    rows = {
        "method": [run.config.method for run in runs.values()],
        "state": [f"{r.status['state']}, step {r.status['step']} of {r.status['steps']}" for r in runs.values()],
        "selected step": ["none" if step is None else str(step) for step in best],
        "starts from": [_start(run.config.init) for run in runs.values()],
        "network": [f"{r.config.network.backbone} x {r.config.network.width:g}" for r in runs.values()],
        "seed": [str(run.config.seed) for run in runs.values()],
    }
    labelled = [run.config.data.labelled for run in runs.values()]
    if any(part.given for part in labelled):
        rows["labels of the target"] = [Path(part.name).name if part.given else "none" for part in labelled]
    signals = [logged_curves(run.path, "signals") for run in runs.values()]
    for name in dict.fromkeys(name for series in signals for name in series):
        cells = [f"{s[name][1][0]:.3f} → {s[name][1][-1]:.3f}" if name in s else "-" for s in signals]
        rows[f"{name}, first and last evaluation"] = cells
    return Section(key="runs", title="Runs", tables=[_by_run(runs, rows)])


def _by_run(runs: Mapping[str, ShownRun], rows: Mapping[str, Sequence[str]], corner: str = "") -> TextTable:
    """Return a table with a column for each run."""
    return TextTable(header=(corner, *runs), rows=tuple((name, *cells) for name, cells in rows.items()))


def _start(init: str) -> str:
    """Name a checkpoint by its run, without the folders around it."""
    parts = [part for part in Path(init).parts if part != "checkpoints"]
    named = 2 if parts and (parts[-1] in ("last", "best") or parts[-1].startswith(("step-", "seed-"))) else 1
    return "/".join(parts[-named:]) or "-"


def curves_section(runs: Mapping[str, ShownRun]) -> Section | None:
    """Return curves of what was logged; None where nothing was."""
    found: list[_PagePicture] = []
    kinds = (
        ("Label-free signals", "signals", "higher is better", "Of unlabelled frames, at each evaluation."),
        ("Training curves", "metrics", "value", CAPTIONS["curves"]),
        ("Gradient norms", "gradients", "norm", CAPTIONS["gradients"]),
    )
    for title, table, label, caption in with_progress(kinds, "curves", len(kinds), unit="figure"):
        series = {name: item for name, run in runs.items() if (item := logged_curves(run.path, table))}
        if series:
            drawn = terms_figure(series, label, log=table == "gradients")
            found.append(_vector_picture(title, drawn, caption))
    return Section(key="curves", title="Curves", figures=found) if found else None


def configuration_section(runs: Mapping[str, ShownRun]) -> Section:
    """Return the fields in which runs differ, and every configuration as it is."""
    values = [plain_fields(run.config) for run in runs.values()]
    rows = {
        name: [text if len(text) <= 60 else f"…{text[-58:]}" for text in (str(value[name]) for value in values)]
        for name in values[0]
        if any(other[name] != values[0][name] for other in values[1:])
    }
    tables = [_by_run(runs, rows, "field that differs")] if rows else []
    folds = {f"{name}: config.yaml": run.text for name, run in runs.items()}
    return Section(key="configuration", title="Configuration", tables=tables, folds=folds)


def environment_section(runs: Mapping[str, ShownRun]) -> Section:
    """Return what each run was computed with; where it was resumed elsewhere, both."""
    keys = ("device", "cores", "threads", "memory_gib", "system", "python", "version", "commit", "started")
    rows: dict[str, list[str]] = {}
    for run in runs.values():
        for key in keys:
            values = dict.fromkeys(str(entry.get(key, "-")) for entry in run.environments)
            rows.setdefault(key, []).append("; ".join(values) or "-")
        packages = run.environments[-1].get("packages", {}) if run.environments else {}
        versions = ", ".join(f"{name} {version}" for name, version in packages.items())
        rows.setdefault("packages", []).append(versions or "-")
        rows.setdefault("precision", []).append(run.config.train.precision)
    return Section(key="environment", title="Hardware and versions", tables=[_by_run(runs, rows)])


def network_sections(options: ReportOptions, runs: Mapping[str, Path], left_out: list[str]) -> list[Section]:
    """Run every network on labelled frames and return scores, worst frames and figures.

    `left_out` takes a line for every network and frame that cannot be used.
    """
    opened = _open(options, runs, left_out)
    if not opened:
        return []
    first = next(iter(opened.values()))
    frames = open_data(options.scoring("-"), first.size, first.space)
    left_out += cut([f"frame {line}" for line in frames.left_out])
    chosen = SpreadFrames(frames, options.frames)
    observed = {name: observe_network(options, item, chosen, name, ()) for name, item in opened.items()}
    miou = next(reversed(observed.values())).frame_miou
    worst = sorted((place for place, value in enumerate(miou) if not math.isnan(value)), key=lambda place: miou[place])
    few = [chosen[place] for place in worst[: options.worst]]
    shown = {
        name: observe_network(options, item, few, name, range(len(few))).shown if few else []
        for name, item in opened.items()
    }
    layered = []
    for rank, place in enumerate(worst[: options.worst]):
        scores = ", ".join(f"{name} {100 * item.frame_miou[place]:.1f} %" for name, item in observed.items())
        layered.append(_layered_frame({name: item[rank] for name, item in shown.items()}, scores, first.space))
    size = f"{first.size[1]}x{first.size[0]}"
    text = f"{len(chosen)} frames at {size}, native protocol: logits upsampled to the labels' size."
    about = f"The frames on which {list(opened)[-1]} is worst. Drag the slider; choose below it what is left and right."
    table = _scores(observed, first.space)
    headline = _headline(observed, first.space)
    return [
        Section(key="scores", title="Scores", headline=headline, text=[text], tables=[table]),
        Section(key="worst", title="Worst frames", text=[about], frames=layered),
        Section(key="figures", title="Figures", figures=_figures(options, observed)),
    ]


def _open(options: ReportOptions, runs: Mapping[str, Path], left_out: list[str]) -> dict[str, OpenedNetwork]:
    """Open every run's network; one that cannot be, or has other classes than the first, is named and left out."""
    opened: dict[str, OpenedNetwork] = {}
    for name, path in runs.items():
        try:
            item = open_network(options, path, resolve_model(path))
            first = next(iter(opened.values()), item)
            if item.space.names != first.space.names:
                raise InputError(f"it has other classes ({item.space.name}) than the first ({first.space.name}).")
            opened[name] = item
        except InputError as error:
            left_out.append(f"{name}, its network: {error}")
            logger.error("%s: its network is left out: %s", name, error)
    return opened


def _scores(observed: Mapping[str, Observation], space: LabelSpace) -> TextTable:
    """Return IoU and its means, a run a row."""
    columns = ["mIoU", *(f"mIoU {name}" for name in space.subsets), *space.names]
    values = {}
    for name, item in observed.items():
        iou = item.iou
        values[name] = [mean_iou(iou), *(mean_iou(iou, indices) for indices in space.subsets.values()), *iou.tolist()]
    best = set()
    for column in range(len(columns)):
        figures = [round(100 * row[column], 1) for row in values.values()]
        known = {value for value in figures if not math.isnan(value)}
        if len(known) > 1:
            best |= {(place, column + 1) for place, value in enumerate(figures) if value == max(known)}
    cells = tuple(
        (name, *("-" if math.isnan(value) else f"{100 * value:.1f}" for value in row)) for name, row in values.items()
    )
    notes = subsets_in_words(space)
    return TextTable(header=("per cent", *columns), rows=cells, best=frozenset(best), notes=notes)


def _headline(observed: Mapping[str, Observation], space: LabelSpace) -> str:
    """Say how the last network compares with the first."""
    (before, first), *_, (after, last) = [*observed.items(), *observed.items()]
    means = mean_iou(first.iou), mean_iou(last.iou)
    if before == after:
        return f"{after}: mIoU {100 * means[1]:.1f} %."
    by_class = [
        {name: None if math.isnan(value) else value for name, value in zip(space.names, item.iou.tolist(), strict=True)}
        for item in (first, last)
    ]
    return gain_in_words(before, after, means, (by_class[0], by_class[1]))


def _layered_frame(shown: Mapping[str, ShownFrame], scores: str, space: LabelSpace) -> _LayeredFrame:
    """Return one frame with its labels and every network's classes as layers."""
    first = next(iter(shown.values()))
    classes = [("labels", first.labels), *((name, item.classes) for name, item in shown.items())]
    layers = [_jpeg("frame", first.frame)]
    layers += [_jpeg(name, overlay(first.frame, drawn, space, OVERLAY_ALPHA)) for name, drawn in classes]
    before = 2 if len(shown) > 1 else 1  # against the labels where there is one network
    title = f"{Path(first.file).name}: mIoU {scores}"
    there = np.unique(np.stack([drawn for _, drawn in classes])).tolist()
    legend = [(space.names[n], f"#{bytes(space.colors[n]).hex()}") for n in there if n < space.num_classes]
    return _LayeredFrame(title=title, legend=legend, layers=layers, left=before, right=len(layers) - 1)


def _figures(options: ReportOptions, observed: Mapping[str, Observation]) -> list[_PagePicture]:
    """Draw the figures of networks; one without data is left out."""
    drawn = []
    for name, title in with_progress(_FIGURES.items(), "drawing", len(_FIGURES), unit="figure"):
        with contextlib.suppress(NothingToDraw):
            drawn.append(_vector_picture(title, figure_of(name, observed, options.seed), CAPTIONS[name]))
    return drawn
