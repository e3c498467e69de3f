"""What `report` shows of networks on labelled frames: scores, the worst frames with sliders, and figures."""

import contextlib
import io
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lsr_infer.errors import InputError
from lsr_infer.labelspace import LabelSpace
from lsr_infer.render.overlay import overlay
from lsr_train.analysis.analyze import gallery_figure
from lsr_train.analysis.drawings import NothingToDraw
from lsr_train.analysis.observation import Observation, Opened, SpreadFrames, observe_network, open_network
from lsr_train.analysis.observation import Picture as Seen
from lsr_train.analysis.options import CAPTIONS
from lsr_train.evaluation.evaluate import open_data
from lsr_train.evaluation.result import Table
from lsr_train.metrics import mean_iou
from lsr_train.report.options import ReportOptions
from lsr_train.report.page import Frame, Picture, Section, data_uri
from lsr_train.runs.folder import resolve_model

__all__ = ["embedded", "network_sections"]

logger = logging.getLogger(__name__)

_PICTURE_WIDTH = 720
_JPEG_QUALITY = 82
_ALPHA = 0.55
_FIGURES = {
    "reliability": "Reliability",
    "borders": "Borders",
    "pseudo_labels": "Pseudo-labels",
    "angles": "Angles between prototypes",
    "norms": "Norms and angles",
    "tsne": "t-SNE",
}


def network_sections(options: ReportOptions, runs: Mapping[str, Path], left_out: list[str]) -> list[Section]:
    """Look at every run's network on labelled frames and return scores, worst frames and figures.

    Args:
        options: the command's own.
        runs: run folders by name.
        left_out: takes a line for every network and frame that cannot be used.

    Raises:
        LsrError: with the exit code of what is wrong with the frames.
    """
    opened = _open(options, runs, left_out)
    if not opened:
        return []
    first = next(iter(opened.values()))
    frames = open_data(options.scoring("-"), first.size, first.space)
    left_out += [f"frame {line}" for line in frames.left_out]
    chosen = SpreadFrames(frames, options.frames)
    seen = {name: observe_network(options, item, chosen, name, ()) for name, item in opened.items()}
    last = next(reversed(seen.values()))
    scored = [index for index, miou in enumerate(last.frame_miou) if not math.isnan(miou)]
    worst = sorted(scored, key=lambda index: last.frame_miou[index])[: options.worst]
    few = [chosen[index] for index in worst]
    pictures = {
        name: observe_network(options, item, few, name, range(len(few))).pictures if few else []
        for name, item in opened.items()
    }
    shown = [_frame(place, index, seen, pictures, first.space) for place, index in enumerate(worst)]
    size = f"{first.size[1]}x{first.size[0]}"
    text = f"{len(chosen)} frames at {size}, native protocol: logits upsampled to the labels' size."
    return [
        Section(key="scores", title="Scores", text=[text], tables=[_scores(seen, first.space)]),
        Section(key="worst", title="Worst frames", text=[_about_worst(opened)], frames=shown),
        Section(key="figures", title="Figures", figures=_figures(options, seen)),
    ]


def _open(options: ReportOptions, runs: Mapping[str, Path], left_out: list[str]) -> dict[str, Opened]:
    """Open every run's network; one that cannot be, or has other classes than the first, is named and left out."""
    opened: dict[str, Opened] = {}
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


def _about_worst(opened: Mapping[str, Opened]) -> str:
    last = list(opened)[-1]
    return f"The frames on which {last} is worst. Drag the slider; choose below it what is left and right."


def _scores(seen: Mapping[str, Observation], space: LabelSpace) -> Table:
    """Return IoU and its means by run, a run a row."""
    columns = ["mIoU", *(f"mIoU {name}" for name in space.subsets), *space.names]
    values = {}
    for name, look in seen.items():
        iou = look.iou
        values[name] = [mean_iou(iou), *(mean_iou(iou, indices) for indices in space.subsets.values()), *iou.tolist()]
    best = set()
    for column in range(len(columns)):
        known = [round(100 * row[column], 1) for row in values.values() if not math.isnan(row[column])]
        if len(known) > 1 and len(set(known)) > 1:
            for place, row in enumerate(values.values()):
                if round(100 * row[column], 1) == max(known):
                    best.add((place, column + 1))
    cells = tuple(
        (name, *("-" if math.isnan(value) else f"{100 * value:.1f}" for value in row)) for name, row in values.items()
    )
    return Table(header=("per cent", *columns), rows=cells, best=frozenset(best))


def _jpeg(picture: NDArray[np.uint8]) -> str:
    height, width = picture.shape[:2]
    if width > _PICTURE_WIDTH:
        size = (_PICTURE_WIDTH, max(1, round(height * _PICTURE_WIDTH / width)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert done  # a picture in memory of a supported type
    return data_uri(data.tobytes(), "image/jpeg")


def _frame(
    place: int, index: int, seen: Mapping[str, Observation], pictures: Mapping[str, Sequence[Seen]], space: LabelSpace
) -> Frame:
    """Return one frame with its labels and every network's classes as layers."""
    first = next(iter(pictures.values()))[place]
    layers = [
        Picture(title="frame", uri=_jpeg(first.frame)),
        Picture(title="labels", uri=_jpeg(overlay(first.frame, first.labels, space, _ALPHA))),
    ]
    for name, shown in pictures.items():
        layers.append(Picture(title=name, uri=_jpeg(overlay(shown[place].frame, shown[place].classes, space, _ALPHA))))
    scores = ", ".join(f"{name} {100 * look.frame_miou[index]:.1f}" for name, look in seen.items())
    before = 2 if len(pictures) > 1 else 1  # against the labels where there is one network
    return Frame(title=f"{Path(first.file).name}: mIoU {scores}", layers=layers, left=before, right=len(layers) - 1)


def embedded(title: str, drawn: Figure, caption: str) -> Picture:
    """Return a figure as a vector picture that lies in the page."""
    data = io.BytesIO()
    drawn.savefig(data, format="svg", metadata={"Date": None}, dpi=150)
    return Picture(title=title, uri=data_uri(data.getvalue(), "image/svg+xml"), caption=caption)


def _figures(options: ReportOptions, seen: Mapping[str, Observation]) -> list[Picture]:
    """Draw what is seen of the networks; a figure without data is left out."""
    drawn = []
    for name, title in _FIGURES.items():
        with contextlib.suppress(NothingToDraw):
            drawn.append(embedded(title, gallery_figure(name, seen, options.seed), CAPTIONS[name]))
    return drawn
