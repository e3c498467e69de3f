"""Runs `evaluate`: opens device, model and data, checks the outputs, scores, and writes the result."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.files import check_output_folder, refuse_existing, write_json
from lsr_infer.io.store_cache import local_path
from lsr_infer.labelspace import IGNORE_INDEX, LabelSpace
from lsr_infer.system.progress import with_progress
from lsr_infer.text import printable_json
from lsr_train.config.data import SourceConfig
from lsr_train.data.classes_file import load_label_space
from lsr_train.data.labelled import LabelledImages, open_labelled
from lsr_train.data.labels import translation
from lsr_train.data.scan import user_cache_folder
from lsr_train.evaluation.models import ScoredModel, open_scored_model, predicted_space
from lsr_train.evaluation.options import EvaluateOptions
from lsr_train.evaluation.result import Supervised, read_result, result_document, result_table
from lsr_train.evaluation.scores import check_folder, score, write_worst
from lsr_train.evaluation.text_table import terminal

__all__ = ["evaluate", "open_data"]

logger = logging.getLogger(__name__)


def _spaces(options: EvaluateOptions, model: ScoredModel) -> tuple[LabelSpace, LabelSpace]:
    """Return the classes the network predicts and those that are scored."""
    wanted = None if options.label_space == "auto" else load_label_space(options.label_space)
    own = predicted_space(options.model, model.space, model.num_classes, wanted)
    return own, wanted or own


def _relabel(own: LabelSpace, space: LabelSpace) -> NDArray[np.uint8] | None:
    """Return the table from predicted classes to scored ones; None where they are the same."""
    if own.names == space.names:
        return None
    table = translation(own, space)
    without = [name for index, name in enumerate(own.names) if table[index] == IGNORE_INDEX]
    if without:  # their pixels could not be counted
        raise UsageError(
            f"the network also predicts {', '.join(without)}, which {space.name} has not. Leave --label_space out; "
            "the mean over each subset of the network's own classes is printed, too."
        )
    return table


def open_data(options: EvaluateOptions, size: tuple[int, int], space: LabelSpace) -> LabelledImages:
    """Open the labelled frames that are scored (Toytown is rendered at `size`)."""
    source = SourceConfig(
        layout=options.layout, root=options.data, split=options.split, ids=options.ids, height=size[0], width=size[1],
        limit=options.limit, ignore_mask=options.ignore_mask, image_suffix=options.image_suffix,
        label_suffix=options.label_suffix,
    )  # fmt: skip
    return open_labelled(
        source, space, label_space=options.label_space, on_bad=options.on_bad, cache=user_cache_folder()
    )


def _about_data(options: EvaluateOptions, frames: LabelledImages, space: LabelSpace) -> dict[str, Any]:
    """Describe the data set without naming a place on this machine."""
    name = Path(options.data).name if options.data else options.layout
    split = options.split or "every split"
    left_out = f", {len(frames.left_out)} unusable left out" if frames.left_out else ""
    mask = f", ignore mask {Path(options.ignore_mask).name}" if options.ignore_mask else ""
    return {
        "name": name,
        "layout": options.layout,
        "split": options.split,
        "ids": options.ids,
        "limit": options.limit,
        "left_out": len(frames.left_out),
        "text": f"{name} ({options.layout}, {split}), {len(frames)} frames{left_out}{mask}, {space.name}",
    }


def _check_outputs(options: EvaluateOptions) -> None:
    """Refuse outputs that are there already or cannot be made, before anything is computed."""
    if options.out:
        path = Path(options.out)
        refuse_existing(path, overwrite=options.overwrite)
        check_output_folder(path.parent)
    if options.overlay_dir:
        check_folder(Path(options.overlay_dir), overwrite=options.overwrite)
        check_output_folder(Path(options.overlay_dir))


def _warn_where_different(supervised: Supervised, about: dict[str, Any], protocol: dict[str, Any]) -> None:
    """Say where the supervised result was made in another way, since mASR divides one by the other."""
    other = supervised.document
    pairs = [(key, other.get("protocol", {}).get(key), protocol[key]) for key in ("kind", "height", "width", "scales")]
    pairs += [(key, other.get("data", {}).get(key), about[key]) for key in ("name", "layout", "split", "limit")]
    found = [f"{key} {theirs} there and {ours} here" for key, theirs, ours in pairs if theirs != ours]
    if found:
        logger.warning("%s was made differently: %s. mASR divides by it.", supervised.name, ", ".join(found))


def evaluate(options: EvaluateOptions) -> int:
    """Score a checkpoint or an exported file and write what was asked for.

    Returns:
        0, or 6 where unusable files were left out (`--on_bad skip`).
    """
    model = open_scored_model(options)
    own, space = _spaces(options, model)
    relabel = _relabel(own, space)
    supervised = read_result(local_path(options.supervised), space) if options.supervised else None
    frames = open_data(options, model.size, space)
    _check_outputs(options)
    ready = model.prepare()
    about, shown = _about_data(options, frames, space), ready.protocol
    if supervised is not None:
        _warn_where_different(supervised, about, shown)
    logger.info("%s on %s: %s; %s", model.about["text"], model.device, about["text"], shown["text"])
    try:
        evaluation = score(
            ready.predict,
            with_progress(frames, "scoring", len(frames)),
            space.num_classes,
            resized=model.size if options.protocol == "resized" else None,
            relabel=relabel,
            worst=options.overlays,
        )
    except UsageError:
        raise  # a ValueError too, and not about the data
    except ValueError as error:
        raise InputError(f"{options.data or options.layout}: {error}.") from error
    document = result_document(
        evaluation, space, model=model.about, data=about, protocol=shown, supervised=supervised,
        worst=max(options.overlays, 10),
    )  # fmt: skip
    if options.out:
        write_json(Path(options.out), document, overwrite=options.overwrite)
        logger.info("result written to %s", options.out)
    text = printable_json(document, allow_nan=False) + "\n" if options.json else terminal(result_table(document))
    print(text, end="")  # noqa: T201 - the result
    if options.overlays:
        written = write_worst(Path(options.overlay_dir), evaluation.worst, space)
        logger.info("%d pictures of the worst frames in %s", len(written), options.overlay_dir)
    return 6 if frames.left_out or ready.left_out else 0
