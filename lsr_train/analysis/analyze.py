"""Draws the figures of the paper, and what they leave out, of one network or several."""

import io
import json
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from lsr_infer.errors import UsageError
from lsr_infer.io.atomic import write_bytes, write_json, write_text
from lsr_infer.io.paths import check_place, place_error
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
from lsr_train.analysis.numbers import (
    band_iou,
    can_embed,
    embed,
    inter_prototype_angles,
    polar,
    pseudo_accuracy,
    pseudo_coverage,
    reliability,
    share,
    summary,
)
from lsr_train.analysis.observation import Observation, Opened, SpreadFrames, observe_network, open_network
from lsr_train.analysis.options import CAPTIONS, FIGURES, FORMATS, AnalyzeOptions
from lsr_train.data.footage import evenly
from lsr_train.data.labelled import LabelledImages
from lsr_train.device import choose_device
from lsr_train.evaluation.evaluate import open_data
from lsr_train.evaluation.scores import check_folder
from lsr_train.runs.checkpoint import model_hash
from lsr_train.runs.folder import MODEL_FILE, RunFolder, Table, resolve_model

__all__ = [
    "Series",
    "analyze",
    "gallery_figure",
    "gradient_curves",
    "pseudo_label_figure",
    "signals_of",
    "training_curves",
]

logger = logging.getLogger(__name__)

Series = Mapping[str, tuple[Sequence[int], Sequence[float]]]
"""Steps and values by name."""
_CLOCK = frozenset({"source_images_per_second", "loader_wait_share", "steps_that_waited", "learning_rate"})


def _read(file: Path, without: Collection[str] = ()) -> Series:
    """Return the columns of a table by step; a value that is no finite number is left out, and an empty column too."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row in Table(file).read():
        try:
            step = int(row["step"])
            values = {name: float(value) for name, value in row.items() if name != "step" and name not in without}
        except (KeyError, ValueError, TypeError):
            continue  # a row that a kill left unfinished
        for name, value in values.items():
            if math.isfinite(value):
                steps, numbers = found.setdefault(name, ([], []))
                steps.append(step)
                numbers.append(value)
    return found


def training_curves(run: Path) -> Series:
    """Return loss terms and diagnostics of a run folder's metrics.csv; empty where there is none."""
    return _read(run / "metrics.csv", _CLOCK)


def gradient_curves(run: Path) -> Series:
    """Return the norms of each term's gradient of a run folder's gradients.csv; empty where there is none."""
    return _read(run / "gradients.csv")


def signals_of(run: Path) -> Series:
    """Return the label-free signals of a run folder's signals.csv; empty where there is none."""
    return _read(run / "signals.csv")


def gallery_figure(name: str, seen: Mapping[str, Observation], seed: int = 0) -> Figure:
    """Draw one figure of networks that were looked at.

    Args:
        name: qualitative, downsampling, shares, norms, angles, tsne, pseudo_labels, reliability or borders.
        seen: by network, on the same frames; the figures that show data alone take the first.
        seed: of t-SNE.

    Raises:
        NothingToDraw: there are no data for it.
        KeyError: there is no such figure.
    """
    first = next(iter(seen.values()))
    space = first.space
    if name == "qualitative":
        return qualitative_figure({key: item.pictures for key, item in seen.items()}, space)
    if name == "downsampling":
        return downsampling_figure(first.pictures[0], space)
    if name == "shares":
        void = (float(share(first.nearest)[-1]), float(share(first.histogram)[-1]))
        return shares_figure(space, share(first.pixels), share(first.nearest[:-1]), share(first.cells), void)
    if name == "norms":
        return polar_figure({key: polar(item) for key, item in seen.items()}, space)
    if name == "angles":
        return angles_figure({key: inter_prototype_angles(item) for key, item in seen.items()}, space)
    if name == "tsne":
        if few := [key for key, item in seen.items() if not can_embed(item.features)]:
            raise NothingToDraw(f"{few[0]} has too few labelled feature cells")
        points = {key: (embed(item.features, seed), item.feature_labels) for key, item in seen.items()}
        return embedding_figure(points, space)
    if name == "pseudo_labels":
        return pseudo_label_figure({key: {0: item} for key, item in seen.items()})
    if name == "reliability":
        curves = {
            key: (*reliability(item), share(item.bin_count), item.expected_calibration_error)
            for key, item in seen.items()
        }
        return reliability_figure(curves)
    if name == "borders":
        shares = share(first.confusion.sum(dim=(1, 2)))
        return borders_figure({key: band_iou(item) for key, item in seen.items()}, shares)
    raise KeyError(name)


def pseudo_label_figure(looks: Mapping[str, Mapping[int, Observation]]) -> Figure:
    """Draw accuracy and coverage of pseudo-labels, by network and step."""
    space = next(iter(next(iter(looks.values())).values())).space
    values = {
        "accuracy": {name: [pseudo_accuracy(seen) for seen in series.values()] for name, series in looks.items()},
        "coverage": {name: [pseudo_coverage(seen) for seen in series.values()] for name, series in looks.items()},
    }
    return class_lines_figure({name: list(series) for name, series in looks.items()}, values, space, "%")


_DPI = 200


@dataclass(frozen=True, kw_only=True)
class _Looked:
    """A network that was looked at.

    Args:
        opened: what it is.
        seen: what was seen.
        over_training: further looks by step, at the kept checkpoints of a run; this one's among them.
    """

    opened: Opened
    seen: Observation
    over_training: dict[int, Observation]


def analyze(options: AnalyzeOptions) -> int:
    """Look at every network and write what was asked for.

    Returns:
        0, or 6 where unusable files were left out (`--on_bad skip`), or a figure that was asked for by name.

    Raises:
        LsrError: with the exit code of what went wrong.
    """
    out = Path(options.out)
    if options.threads:
        torch.set_num_threads(options.threads)
    choose_device(options.device, options.precision)
    opened = {name: open_network(options, path, resolve_model(path)) for name, path in options.named.items()}
    first = next(iter(opened.values()))
    for name, item in opened.items():
        if item.space.names != first.space.names:
            raise UsageError(f"{name} has other classes ({item.space.name}) than the first ({first.space.name}).")
    frames = open_data(options.scoring("-"), first.size, first.space)
    check_folder(out, overwrite=options.overwrite, flag="--out")
    check_place(out)
    chosen = SpreadFrames(frames, options.frames)
    looked = {name: _look(options, item, chosen) for name, item in opened.items()}
    with styled():
        drawn = dict(_draw(options, looked))
        _write(options, out, drawn)
    document = _document(options, looked, frames)
    write_json(out / "analysis.json", document)
    write_text(out / "captions.md", _captions(options, drawn, looked))
    logger.info("%d figures, captions.md and analysis.json are in %s", len(drawn), out)
    if options.json:
        print(json.dumps(document, allow_nan=False))  # noqa: T201 - the result
    missing = options.figures != "all" and set(options.figure_names) - set(drawn)
    return 6 if frames.left_out or missing else 0


# -- looking --------------------------------------------------------------------------------------------------------


def _look(options: AnalyzeOptions, opened: Opened, frames: SpreadFrames) -> _Looked:
    """Look at one network, and at the other checkpoints of its run where that is asked for."""
    seen = observe_network(options, opened, frames, str(opened.path), evenly(len(frames), options.pictures))
    series: dict[int, Observation] = {}
    if options.over_training and (opened.path / "checkpoints").is_dir():
        run = RunFolder(opened.path)
        for step in run.steps():
            file = run.checkpoint(step) / MODEL_FILE
            if file.resolve() == opened.file.resolve():
                series[step] = seen
            else:
                series[step] = observe_network(
                    options, open_network(options, opened.path, file), frames, f"{opened.path}, {step}", ()
                )
    return _Looked(opened=opened, seen=seen, over_training=series)


# -- drawing --------------------------------------------------------------------------------------------------------


def _draw(options: AnalyzeOptions, looked: dict[str, _Looked]) -> Iterator[tuple[str, Figure]]:
    """Yield the figures that are asked for and that there are data for."""
    for name in options.figure_names:
        try:
            yield name, _figure(name, options, looked)
        except NothingToDraw as error:
            level = logging.INFO if options.figures == "all" and name in ("curves", "gradients") else logging.WARNING
            logger.log(level, "%s is left out: %s", FIGURES[name], error)


def _figure(name: str, options: AnalyzeOptions, looked: dict[str, _Looked]) -> Figure:
    """Draw one figure.

    Raises:
        NothingToDraw: there are no data for it.
    """
    if name == "pseudo_labels":
        return pseudo_label_figure({
            key: item.over_training or {item.opened.info.step: item.seen} for key, item in looked.items()
        })  # fmt: skip
    if name not in ("curves", "gradients"):
        return gallery_figure(name, {key: item.seen for key, item in looked.items()}, options.seed)
    read = {"curves": training_curves, "gradients": gradient_curves}[name]
    runs: dict[str, Series] = {key: read(item.opened.path) for key, item in looked.items()}
    runs = {key: series for key, series in runs.items() if series}
    label = "value" if name == "curves" else "gradient norm on the backbone, unweighted"
    if not runs:
        what = "--log.gradients while training writes them" if name == "gradients" else "they are in run folders"
        raise NothingToDraw(f"no network that is named has any ({what})")
    return terms_figure(runs, label, log=name == "gradients")


# -- writing --------------------------------------------------------------------------------------------------------


def _write(options: AnalyzeOptions, out: Path, drawn: dict[str, Figure]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise place_error(out, error) from error
    for name in FIGURES.values():  # of an earlier call: its figures would stand beside other captions
        for kind in FORMATS:
            (out / f"{name}.{kind}").unlink(missing_ok=True)
    undated: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
    for name, figure in drawn.items():
        for kind in options.format_names:
            data = io.BytesIO()
            figure.savefig(data, format=kind, dpi=_DPI, metadata=undated[kind])
            write_bytes(out / f"{FIGURES[name]}.{kind}", data.getvalue())


def _document(options: AnalyzeOptions, looked: dict[str, _Looked], frames: LabelledImages) -> dict[str, Any]:
    """Return the numbers behind the figures, without a place on this machine."""
    return {
        "kind": "analysis",
        "format": 1,
        "data": {
            "name": Path(options.data).name if options.data else options.layout, "layout": options.layout,
            "split": options.split, "frames": next(iter(looked.values())).seen.frames, "left_out": len(frames.left_out),
        },
        "confidence": options.confidence,
        "per_class": options.per_class,
        "seed": options.seed,
        "networks": {
            name: {
                "file": item.opened.file.name,
                "sha256": model_hash(item.opened.file),
                "method": item.opened.info.method,
                "step": item.opened.info.step,
                "height": item.opened.size[0],
                "width": item.opened.size[1],
                **summary(item.seen),
                "over_training": {
                    str(step): summary(look)["pseudo_labels"] for step, look in item.over_training.items()
                },
            }
            for name, item in looked.items()
        },
    }  # fmt: skip


def _captions(options: AnalyzeOptions, drawn: dict[str, Figure], looked: dict[str, _Looked]) -> str:
    """Say what each figure shows, and of what."""
    first = next(iter(looked.values())).seen
    data = Path(options.data).name if options.data else options.layout
    lines = [f"# {', '.join(looked)} on {data}{f' {options.split}' * bool(options.split)}, {first.frames} frames", ""]
    for name in drawn:
        sample = f" {options.per_class} vectors of each class at most." if name in ("norms", "tsne") else ""
        lines += [f"**{FIGURES[name]}**: {CAPTIONS[name]}{sample}", ""]
    return "\n".join(lines)
