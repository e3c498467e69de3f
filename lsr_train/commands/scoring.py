"""What `evaluate` does once its command line is understood: device, model and data, then the outputs, then the work."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from lsr_infer.errors import InputError, UsageError
from lsr_infer.files import check_place, refuse_existing, write_json
from lsr_infer.labelspace import IGNORE_INDEX, LabelSpace
from lsr_train.checkpoint import load_model, model_hash
from lsr_train.commands.evaluate import EvaluateOptions
from lsr_train.config import TargetConfig
from lsr_train.data.footage import open_footage
from lsr_train.data.frames import LabelledFrames, TargetFrames
from lsr_train.data.scan import user_cache_folder
from lsr_train.device import choose_device, choose_precision
from lsr_train.evaluation import EvaluationProtocol, NetworkPredictor, evaluate
from lsr_train.labels import LABEL_SPACES, load_label_space, translation
from lsr_train.network import DeepLabV2
from lsr_train.preparation import take_target_statistics
from lsr_train.report.result import Supervised, read_result, result_document, result_table
from lsr_train.report.table import terminal
from lsr_train.report.worst import check_folder, write_worst
from lsr_train.run_folder import resolve_model

__all__ = ["score"]

logger = logging.getLogger(__name__)

_FOREIGN_SIZE = (512, 1024)


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A network and what its file says about it.

    Args:
        network: on the CPU.
        space: the classes it predicts; None where the file does not say.
        size: rows and columns it was trained at.
        about: plain data for the result; `text` is one line for a person.
    """

    network: DeepLabV2
    space: LabelSpace | None
    size: tuple[int, int]
    about: dict[str, Any]


def _open_model(path: Path) -> _Model:
    """Read a checkpoint of ours, or one of a layout that is recognised."""
    file = resolve_model(path)
    if file.suffix.lower() in (".onnx", ".engine"):
        raise UsageError(f"{file}: evaluate reads .safetensors and .pth. Score the checkpoint it was exported from.")
    network, info = load_model(file)
    if info.origin:
        logger.info("%s: recognised as %s", file, info.origin)
    what = info.origin or f"{info.method or 'unknown method'}, step {info.step}, {network.spec.backbone}"
    about = {
        "text": f"{file.name}: {what}",
        "file": file.name,
        "sha256": model_hash(file),
        "method": info.method,
        "step": info.step,
        "origin": info.origin,
        "network": network.spec.to_dict(),
    }
    size = (info.height or _FOREIGN_SIZE[0], info.width or _FOREIGN_SIZE[1])
    return _Model(network=network, space=info.label_space, size=size, about=about)


def _spaces(options: EvaluateOptions, model: _Model) -> tuple[LabelSpace, LabelSpace]:
    """Return the classes the network predicts and those that are scored."""
    count = model.network.spec.num_classes
    wanted = None if options.label_space == "auto" else load_label_space(options.label_space)
    own = model.space
    if own is None and wanted is not None and wanted.num_classes == count:
        own = wanted
    if own is None:
        own = next((space for space in LABEL_SPACES.values() if space.num_classes == count), None)
    if own is None:
        raise UsageError(
            f"{options.model} has {count} classes and no names for them. Set --label_space to a YAML file."
        )
    return own, wanted or own


def _relabel(own: LabelSpace, space: LabelSpace) -> NDArray[np.uint8] | None:
    """Return the table from predicted classes to scored ones; None where they are the same.

    Raises:
        UsageError: a class that may be predicted has no counterpart, so its pixels could not be counted.
    """
    if own.names == space.names:
        return None
    table = translation(own, space)
    without = [name for index, name in enumerate(own.names) if table[index] == IGNORE_INDEX]
    if without:
        raise UsageError(
            f"the network also predicts {', '.join(without)}, which {space.name} has not. Leave --label_space out; "
            "the mean over each subset of the network's own classes is printed, too."
        )
    return table


def _protocol(options: EvaluateOptions, model: _Model, device: torch.device) -> EvaluationProtocol:
    height, width = (options.height, options.width) if options.height else model.size
    return EvaluationProtocol(
        kind=options.protocol,
        height=height,
        width=width,
        scales=options.factors,
        flip=options.flip,
        precision=choose_precision(device, options.precision),
    )


def _open_data(options: EvaluateOptions, protocol: EvaluationProtocol, space: LabelSpace) -> LabelledFrames:
    frames = LabelledFrames(
        options.layout,
        options.data,
        options.split,
        options.ids,
        protocol.height,
        protocol.width,
        space,
        options.limit,
        ignore_mask=options.ignore_mask,
        label_space=options.label_space,
        on_bad=options.on_bad,
        cache=user_cache_folder(),
    )
    for line in frames.left_out:
        logger.warning("left out: %s", line)
    return frames


def _about_data(options: EvaluateOptions, frames: LabelledFrames) -> dict[str, Any]:
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
        "text": f"{name} ({options.layout}, {split}), {len(frames)} frames{left_out}{mask}, {frames.space.name}",
    }


def _reestimate(options: EvaluateOptions, network: DeepLabV2, protocol: EvaluationProtocol) -> tuple[str, int]:
    """Give the network batch-norm statistics of unlabelled target frames.

    Returns:
        A phrase for the protocol, and how many unusable frames were left out.
    """
    target = TargetConfig(
        layout=options.target_layout,
        root=options.target,
        split=options.target_split,
        height=protocol.height,
        width=protocol.width,
    )
    footage = open_footage(target, on_bad=options.on_bad, cache=user_cache_folder())
    frames = TargetFrames(footage, options.batch_norm_frames, protocol.height, protocol.width)
    return take_target_statistics(network, frames), len(footage.left_out)


def _check_outputs(options: EvaluateOptions) -> None:
    """Refuse outputs that are there already or cannot be made, before anything is computed."""
    if options.out:
        path = Path(options.out)
        refuse_existing(path, overwrite=options.overwrite)
        check_place(path.parent)
    if options.overlay_dir:
        check_folder(Path(options.overlay_dir), overwrite=options.overwrite)
        check_place(Path(options.overlay_dir))


def _warn_where_different(supervised: Supervised, about: dict[str, Any], protocol: dict[str, Any]) -> None:
    """Say where the supervised result was made in another way, since mASR divides one by the other."""
    other = supervised.document
    pairs = [(key, other.get("protocol", {}).get(key), protocol[key]) for key in ("kind", "height", "width", "scales")]
    pairs += [(key, other.get("data", {}).get(key), about[key]) for key in ("name", "layout", "split", "limit")]
    found = [f"{key} {theirs} there and {ours} here" for key, theirs, ours in pairs if theirs != ours]
    if found:
        logger.warning("%s was made differently: %s. mASR divides by it.", supervised.name, ", ".join(found))


def score(options: EvaluateOptions) -> int:
    """Score a checkpoint and write what was asked for.

    Returns:
        0, or 6 where unusable files were left out (`--on_bad skip`).

    Raises:
        LsrError: with the exit code of what went wrong.
    """
    device = choose_device(options.device, options.precision)
    if options.threads:
        torch.set_num_threads(options.threads)
    model = _open_model(Path(options.model))
    own, space = _spaces(options, model)
    relabel = _relabel(own, space)
    supervised = read_result(Path(options.supervised), space) if options.supervised else None
    protocol = _protocol(options, model, device)
    frames = _open_data(options, protocol, space)
    _check_outputs(options)
    network = model.network.to(device)
    shown = {
        **asdict(protocol),
        "scales": list(protocol.scales),
        "batch_norm": options.batch_norm,
        "text": protocol.text,
    }
    frames_left_out = 0
    if options.batch_norm == "target":
        phrase, frames_left_out = _reestimate(options, network, protocol)
        shown["text"] += f"; {phrase}"
    about = _about_data(options, frames)
    if supervised is not None:
        _warn_where_different(supervised, about, shown)
    logger.info("%s on %s: %s; %s", model.about["text"], device, about["text"], shown["text"])
    try:
        evaluation = evaluate(
            NetworkPredictor(network, protocol),
            tqdm(frames, unit="frame", disable=None),
            space.num_classes,
            resized=(protocol.height, protocol.width) if protocol.kind == "resized" else None,
            relabel=relabel,
            worst=options.overlays,
        )
    except ValueError as error:
        raise InputError(f"{options.data or options.layout}: {error}.") from error
    document = result_document(
        evaluation, space, model=model.about, data=about, protocol=shown, supervised=supervised,
        worst=max(options.overlays, 10),
    )  # fmt: skip
    if options.out:
        write_json(Path(options.out), document)
        logger.info("result written to %s", options.out)
    text = json.dumps(document, allow_nan=False) + "\n" if options.json else terminal(result_table(document))
    print(text, end="")  # noqa: T201 - the result
    if options.overlays:
        written = write_worst(Path(options.overlay_dir), evaluation.worst, space)
        logger.info("%d pictures of the worst frames in %s", len(written), options.overlay_dir)
    return 6 if frames.left_out or frames_left_out else 0
