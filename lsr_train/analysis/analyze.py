"""Draws the figures of the paper, and what they leave out, of one network or several."""

import io
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from lsr_infer.errors import UsageError
from lsr_infer.io.files import check_output_folder, output_path_error, write_bytes, write_json, write_text
from lsr_infer.parity.frame_set import evenly
from lsr_infer.system.progress import with_progress
from lsr_infer.text import markdown_text, printable_json
from lsr_train.analysis import drawings, numbers
from lsr_train.analysis.drawings import NothingToDraw
from lsr_train.analysis.observation import Observation, OpenedNetwork, SpreadFrames, observe_network, open_network
from lsr_train.analysis.options import CAPTIONS, FIGURES, FORMATS, AnalyzeOptions
from lsr_train.data.labelled import LabelledImages
from lsr_train.device import choose_device
from lsr_train.evaluation.evaluate import open_data
from lsr_train.evaluation.scores import check_folder
from lsr_train.runs.checkpoint import model_hash
from lsr_train.runs.folder import MODEL_FILE, RunFolder, resolve_model

__all__ = ["Series", "analyze", "figure_of", "logged_curves"]

logger = logging.getLogger(__name__)

Series = Mapping[str, tuple[Sequence[int], Sequence[float]]]  # steps and values by name
_CLOCK = frozenset({"source_images_per_second", "loader_wait_share", "steps_that_waited", "learning_rate"})
_DPI = 200


@dataclass(frozen=True, kw_only=True)
class _Analyzed:
    """A network, its observation, and those of the other kept checkpoints of its run by step."""

    opened: OpenedNetwork
    observation: Observation
    over_training: dict[int, Observation]


def analyze(options: AnalyzeOptions) -> int:
    """Observe every network and write what was asked for.

    Returns:
        0, or 6 where unusable files were left out (`--on_bad skip`), or a figure that was asked for by name.
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
    check_output_folder(out)
    chosen = SpreadFrames(frames, options.frames)
    analyzed = {name: _analyzed(options, item, chosen) for name, item in opened.items()}
    with drawings.styled():
        drawn = dict(_draw(options, analyzed))
        _write_figures(options, out, drawn)
    document = _document(options, analyzed, frames)
    write_json(out / "analysis.json", document)
    write_text(out / "captions.md", _captions(options, drawn, analyzed))
    logger.info("%d figures, captions.md and analysis.json are in %s", len(drawn), out)
    if options.json:
        print(printable_json(document, allow_nan=False))  # noqa: T201 - the result
    missing = options.figures != "all" and set(options.figure_names) - set(drawn)
    return 6 if frames.left_out or missing else 0


def _analyzed(options: AnalyzeOptions, opened: OpenedNetwork, frames: SpreadFrames) -> _Analyzed:
    """Observe one network, and the other checkpoints of its run where that is asked for."""
    own = observe_network(options, opened, frames, str(opened.path), evenly(len(frames), options.pictures))
    series: dict[int, Observation] = {}
    if options.over_training and (opened.path / "checkpoints").is_dir():
        run = RunFolder(opened.path)
        for step in run.steps():
            file = run.checkpoint(step) / MODEL_FILE
            if file.resolve() == opened.file.resolve():
                series[step] = own
            else:
                other = open_network(options, opened.path, file)
                series[step] = observe_network(options, other, frames, f"{opened.path}, {step}", ())
    return _Analyzed(opened=opened, observation=own, over_training=series)


def logged_curves(run: Path, table: str) -> Series:
    """Return the columns of a run folder's `metrics`, `gradients` or `signals`.

    A value that is no finite number is left out, and an empty column too; nothing is left where there is no such table.
    """
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row in getattr(RunFolder(run), table).read():
        try:
            step = int(row["step"])
            values = {name: float(value) for name, value in row.items() if name != "step" and name not in _CLOCK}
        except (KeyError, ValueError, TypeError):
            continue  # a row that a kill left unfinished
        for name, value in values.items():
            if math.isfinite(value):
                steps, series = found.setdefault(name, ([], []))
                steps.append(step)
                series.append(value)
    return found


def figure_of(name: str, observations: Mapping[str, Observation], seed: int = 0) -> Figure:
    """Draw one figure of networks.

    Args:
        name: qualitative, downsampling, shares, norms, angles, tsne, pseudo_labels, reliability or borders.
        observations: by network, of the same frames; the figures that show data alone take the first.
        seed: of t-SNE.

    Raises:
        NothingToDraw: there are no data for it.
    """
    first = next(iter(observations.values()))
    space, share = first.space, numbers.share
    if name == "qualitative":
        return drawings.qualitative_figure({key: item.shown for key, item in observations.items()}, space)
    if name == "downsampling":
        return drawings.downsampling_figure(first.shown[0], space)
    if name == "shares":
        void = (float(share(first.nearest)[-1]), float(share(first.histogram)[-1]))
        cells = share(first.nearest[:-1]), share(first.cells)
        return drawings.shares_figure(space, share(first.pixels), *cells, void)
    if name == "norms":
        return drawings.polar_figure({key: numbers.polar(item) for key, item in observations.items()}, space)
    if name == "angles":
        return drawings.angles_figure({key: numbers.inter_prototype_angles(item) for key, item in observations.items()})
    if name == "tsne":
        if few := [key for key, item in observations.items() if len(item.features) < numbers.FEWEST_TO_EMBED]:
            raise NothingToDraw(f"{few[0]} has too few labelled feature cells")
        points = {key: (numbers.embed(item.features, seed), item.feature_labels) for key, item in observations.items()}
        return drawings.embedding_figure(points, space)
    if name == "pseudo_labels":
        return _pseudo_label_figure({key: {0: item} for key, item in observations.items()})
    if name == "reliability":
        return drawings.reliability_figure({
            key: (*numbers.reliability(item), share(item.bin_count), item.expected_calibration_error)
            for key, item in observations.items()
        })  # fmt: skip
    if name == "borders":
        scores = {key: numbers.band_iou(item) for key, item in observations.items()}
        return drawings.borders_figure(scores, share(first.confusion.sum(dim=(1, 2))))
    raise KeyError(name)


def _pseudo_label_figure(observations: Mapping[str, Mapping[int, Observation]]) -> Figure:
    """Draw accuracy and coverage of pseudo-labels, by network and step."""
    space = next(iter(next(iter(observations.values())).values())).space
    values = {
        what: {name: [of(item) for item in series.values()] for name, series in observations.items()}
        for what, of in (("accuracy", numbers.pseudo_accuracy), ("coverage", numbers.pseudo_coverage))
    }
    steps = {name: list(series) for name, series in observations.items()}
    return drawings.class_lines_figure(steps, values, space, "%")


def _draw(options: AnalyzeOptions, analyzed: dict[str, _Analyzed]) -> Iterator[tuple[str, Figure]]:
    """Yield the figures that are asked for and that there are data for."""
    for name in with_progress(options.figure_names, "drawing", len(options.figure_names), unit="figure"):
        try:
            yield name, _figure(name, options, analyzed)
        except NothingToDraw as error:
            level = logging.INFO if options.figures == "all" and name in ("curves", "gradients") else logging.WARNING
            logger.log(level, "%s is left out: %s", FIGURES[name], error)


def _figure(name: str, options: AnalyzeOptions, analyzed: dict[str, _Analyzed]) -> Figure:
    """Draw one figure; raises `NothingToDraw`."""
    if name == "pseudo_labels":
        return _pseudo_label_figure({
            key: item.over_training or {item.opened.info.step: item.observation} for key, item in analyzed.items()
        })  # fmt: skip
    if name not in ("curves", "gradients"):
        return figure_of(name, {key: item.observation for key, item in analyzed.items()}, options.seed)
    table = "metrics" if name == "curves" else name
    runs = {key: series for key, item in analyzed.items() if (series := logged_curves(item.opened.path, table))}
    label = "value" if name == "curves" else "gradient norm on the backbone, unweighted"
    if not runs:
        what = "--log.gradients while training writes them" if name == "gradients" else "they are in run folders"
        raise NothingToDraw(f"no network that is named has any ({what})")
    return drawings.terms_figure(runs, label, log=name == "gradients")


def _write_figures(options: AnalyzeOptions, out: Path, drawn: dict[str, Figure]) -> None:
    try:
        for name in FIGURES.values():  # of an earlier call: its figures would stand beside other captions
            for kind in FORMATS:
                (out / f"{name}.{kind}").unlink(missing_ok=True)
    except OSError as error:
        raise output_path_error(out, error) from error
    undated: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
    for name, figure in with_progress(drawn.items(), "writing", len(drawn), unit="figure"):
        for kind in options.format_names:
            data = io.BytesIO()
            figure.savefig(data, format=kind, dpi=_DPI, metadata=undated[kind])
            write_bytes(out / f"{FIGURES[name]}.{kind}", data.getvalue())


def _document(options: AnalyzeOptions, analyzed: dict[str, _Analyzed], frames: LabelledImages) -> dict[str, Any]:
    """Return the numbers behind the figures, without a path of this machine."""
    return {
        "kind": "analysis",
        "format": 1,
        "data": {
            "name": Path(options.data).name if options.data else options.layout, "layout": options.layout,
            "split": options.split, "frames": next(iter(analyzed.values())).observation.frames,
            "left_out": len(frames.left_out),
        },
        "confidence": options.confidence, "per_class": options.per_class, "seed": options.seed,
        "networks": {
            name: {
                "file": item.opened.file.name, "sha256": model_hash(item.opened.file),
                "method": item.opened.info.method, "step": item.opened.info.step,
                "height": item.opened.size[0], "width": item.opened.size[1],
                **numbers.summary(item.observation),
                "over_training": {
                    str(step): numbers.summary(other)["pseudo_labels"] for step, other in item.over_training.items()
                },
            }
            for name, item in analyzed.items()
        },
    }  # fmt: skip


def _captions(options: AnalyzeOptions, drawn: dict[str, Figure], analyzed: dict[str, _Analyzed]) -> str:
    """Return the captions of the figures, under a title with networks and data."""
    frames = next(iter(analyzed.values())).observation.frames
    data = Path(options.data).name if options.data else options.layout
    names, split = markdown_text(f"{', '.join(analyzed)} on {data}"), f" {options.split}" * bool(options.split)
    lines = [f"# {names}{split}, {frames} frames", ""]
    for name in drawn:
        sample = f" {options.per_class} vectors of each class at most." if name in ("norms", "tsne") else ""
        lines += [f"**{FIGURES[name]}**: {CAPTIONS[name]}{sample}", ""]
    return "\n".join(lines)
