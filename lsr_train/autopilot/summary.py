"""Writes the summary of an adaptation: pictures before and after, signals that need no label, what to do next."""

import logging
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lsr_infer.errors import InputError
from lsr_infer.io.files import whole_folder, write_text, writing
from lsr_infer.labelspace import LabelSpace
from lsr_infer.render.overlay import explained, overlay
from lsr_infer.system.progress import with_progress
from lsr_train.autopilot.budget import USEFUL_STEPS, format_duration
from lsr_train.config.data import DataConfig
from lsr_train.config.run import Config
from lsr_train.data.footage import TargetFrames
from lsr_train.data.loading import build_target
from lsr_train.data.scan import user_cache_folder
from lsr_train.device import Precision, choose_device
from lsr_train.engine.setup import collapse_advice
from lsr_train.evaluation.scores import classes_of, in_eval_mode, logits_of
from lsr_train.evaluation.signals import SIGNAL_BATCH, CollapseWatch, Signals, label_free_signals, nothing_selected
from lsr_train.network import DeepLabV2
from lsr_train.runs.checkpoint import load_model
from lsr_train.runs.folder import RunFolder, resolve_model

__all__ = ["PICTURES", "SUMMARY_FILE", "TELLING", "verdict", "write_summary"]

logger = logging.getLogger(__name__)

SUMMARY_FILE = "summary.txt"
PICTURES = "before_after"
_PICTURE = re.compile(r"\d+\.png")
_PICTURES = 6  # ours: what fits on a screen
TELLING = 0.01
"""Change of both agreements that is more than what another seed changes. Ours."""


def write_summary(out: Path, config: Config, seconds: Mapping[str, float]) -> None:
    """Compare the network of a finished adaptation with its source network, and log and write the result.

    `seconds` has what each stage took in this call, by name.
    """
    device = choose_device(config.train.device, config.train.precision, prefix="train.")
    files = [resolve_model(Path(config.init)), resolve_model(out)]
    (before, info), (after, adapted) = (load_model(file, device) for file in files)
    assert info.label_space is not None  # this program wrote both
    assert config.train.precision != "auto"
    precision, space = config.train.precision, info.label_space
    target = build_target(config, cache=user_cache_folder())
    pictures = _pictures(out / PICTURES, target.evenly(_PICTURES), (before, after), space, precision)
    frames = target.evenly(config.selection.frames)
    first, second = (
        label_free_signals(network, frames.batches(SIGNAL_BATCH, what=f"signals {word}"), precision=precision)
        for word, network in (("before", before), ("after", after))
    )
    steps = min(RunFolder(run).status()["step"] for run in (Path(config.init), out))
    times = ", ".join(f"{format_duration(math.ceil(value))} for the {name}" for name, value in seconds.items())
    lines = [
        verdict(first, second, steps, space),
        f"before is {files[0]}, after is {files[1]}",
        *_labelled_lines(adapted.labelled, config),
        *_selection_lines(out, space),
        f"before (left) and after (right): {', '.join(str(path) for path in pictures)}",
        *_signal_lines(first, second, len(frames), space),
        *_collapse_lines(first, second, space, config),
        f"time in this call: {times}",
        *_next_lines(out, config),
    ]
    for line in lines:
        logger.info("%s", line)
    write_text(out / SUMMARY_FILE, "".join(f"{line}\n" for line in lines))


def _labelled_lines(labelled: int, config: Config) -> Iterator[str]:
    """Yield a line where frames of the target had labels."""
    if labelled:
        yield f"trained with {labelled} labelled frames of the target: {config.data.labelled.name}"


def _selection_lines(out: Path, space: LabelSpace) -> Iterator[str]:
    """Yield a line where nothing was selected because classes had collapsed."""
    selection = RunFolder(out).status()["selection"]
    if selection["best_step"] is None and selection["watch"] is not None:
        watch = CollapseWatch(space.names)
        watch.load_state(selection["watch"])
        if watch.low:
            yield nothing_selected(watch.low)


def _pictures(
    folder: Path, frames: TargetFrames, networks: tuple[DeepLabV2, DeepLabV2], space: LabelSpace, precision: Precision
) -> list[Path]:
    """Write one picture a frame: the first network's classes on the left, the second's on the right."""
    with whole_folder(folder, overwrite=True, own=_PICTURE) as temporary:
        for index, sample in enumerate(with_progress(frames, "pictures before and after", len(frames))):
            classes = [_classes(network, sample.frame, precision) for network in networks]
            drawn = [overlay(sample.frame, found, space) for found in classes]
            both = explained(drawn, ("source network", "adapted"), space, np.stack(classes))
            done, data = cv2.imencode(".png", both)
            if not done:
                raise InputError(f"{sample.file}: its picture cannot be encoded.")
            with writing(folder):
                (temporary / f"{index + 1:02d}.png").write_bytes(data.tobytes())
    return sorted(folder.glob("*.png"))


def _classes(network: DeepLabV2, frame: NDArray[np.uint8], precision: Precision) -> NDArray[np.uint8]:
    """Return the class of every pixel [H,W]."""
    device = next(network.parameters()).device
    image = network.normalize(torch.from_numpy(frame)[None].to(device))  # [1,3,H,W]
    with in_eval_mode(network):
        classes = classes_of(logits_of(network, image, precision), (frame.shape[0], frame.shape[1]))
    return np.asarray(classes[0].byte().cpu().numpy())


def verdict(before: Signals, after: Signals, steps: int, space: LabelSpace) -> str:
    """Return in one line what an adaptation is worth, as far as signals without labels tell.

    Args:
        before: of the source network, on the target frames.
        after: of the adapted one.
        steps: of the stage that had fewer.
        space: what the classes are called.
    """
    gains = (after.flip - before.flip, after.scale - before.scale)
    shown = f"agreement with the mirrored frame {gains[0]:+.3f}, over scales {gains[1]:+.3f}"
    if steps < USEFUL_STEPS:
        return f"verdict: too short to tell, a stage had {steps} steps; {shown}"
    if lost := _collapsed(before, after, space):
        return f"verdict: worse, it gave up {', '.join(lost)}; {shown}"
    if min(gains) >= TELLING:
        return f"verdict: better by what can be told without labels; {shown}"
    if max(gains) <= -TELLING:
        return f"verdict: worse by what can be told without labels; {shown}"
    return f"verdict: no better by what can be told without labels; {shown}"


def _collapsed(before: Signals, after: Signals, space: LabelSpace) -> tuple[str, ...]:
    watch = CollapseWatch(space.names, patience=1)
    watch.start(before.classes.share.tolist())
    return watch.observe(after.classes.share.tolist())


def _signal_lines(before: Signals, after: Signals, frames: int, space: LabelSpace) -> Iterator[str]:
    """Yield the signals of both, and the classes that neither the one nor the other predicts."""
    yield (
        f"without labels, on {frames} target frames, before -> after: agreement with the mirrored frame "
        f"{before.flip:.3f} -> {after.flip:.3f}, over scales {before.scale:.3f} -> {after.scale:.3f} (more is better), "
        f"entropy {before.entropy:.3f} -> {after.entropy:.3f}"
    )
    for word, signals in (("before", before), ("after", after)):
        names = [name for name, share in zip(space.names, signals.classes.share.tolist(), strict=True) if not share]
        listed = f": {', '.join(names)}" if names else ""
        yield f"never predicted {word}: {len(names)} of {space.num_classes} classes{listed}"


def _collapse_lines(before: Signals, after: Signals, space: LabelSpace, config: Config) -> Iterator[str]:
    """Yield the classes that have collapsed, and what may help."""
    collapsed = _collapsed(before, after, space)
    if collapsed:
        yield (
            f"collapsed, given less than a tenth of the pixels it had before: {', '.join(collapsed)}. See the "
            f"pictures. {collapse_advice(config)}"
        )
    else:
        yield "no class has collapsed"


def _next_lines(out: Path, config: Config) -> Iterator[str]:
    """Yield what to do next, as commands that can be pasted."""
    before, after = (out.with_name(f"{out.name}{ending}.onnx") for ending in ("_source", ""))
    footage = config.data.target.root or "CLIP.mp4"
    frames = ["--frames", footage] if Path(footage).exists() else []  # a glob is none of a folder and a video
    export, ignored = "  python export/to_onnx.py", []
    if config.data.ignore_mask:
        ignored = ["--ignore-mask", config.data.ignore_mask]
    yield "next, ONNX files that are compared with their checkpoints, and the footage through both, side by side:"
    yield f"{export} {shlex.join([config.init, '-o', str(before), *frames])}"
    yield f"{export} {shlex.join([str(out), '-o', str(after), *frames])}"
    beside = ["--side-by-side", str(before), "--output", str(out.with_name(f"{out.name}_segmented"))]
    yield f"  lsr-infer {shlex.join([footage, '--model', str(after), *beside, *ignored])}"
    yield "a smaller, faster one for CPUs:"
    int8 = ["--precision", "int8", "-o", str(out.with_name(f"{out.name}_int8.onnx"))]
    yield f"{export} {shlex.join([str(out), *int8, *frames])}"
    yield "the frames most worth labelling by hand, with labels to correct:"
    yield f"  {shlex.join(_suggestion(out, config.data))}"


def _suggestion(out: Path, data: DataConfig) -> list[str]:
    """Return the command that suggests frames of a run's footage for labelling."""
    target = data.target
    words = ["python", "-m", "lsr_train", "suggest", str(out)]
    given = {
        "target": target.root,
        "target_layout": target.layout if target.layout != "frames" else "",
        "target_split": target.split,
        "target_ignore_top": target.ignore_top,
        "target_ignore_bottom": target.ignore_bottom,
        "ignore_mask": data.ignore_mask,
    }
    for name, value in given.items():
        words += [f"--{name}", str(value)] if value else []
    return [*words, "-n", "20", "--out", str(out.with_name(f"{out.name}_to_label"))]
