"""Frames an export looks at: those it is compared on, and those INT8 is calibrated with.

Frames are the user's, the checkpoint's own training frames, or the Toytown frames that come with the package. Never is
anything calibrated on noise, nor compared on frames that chose its ranges.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError, LsrError, UsageError
from lsr_infer.labelspace import LabelSpace
from lsr_infer.parity.frame_set import FrameSet, read_frame_set

__all__ = ["LABEL_IDS", "Calibration", "at_most", "read_labelled", "training_frames", "without"]

LABEL_IDS = ("classes", "cityscapes-id", "cityscapes-trainid")
"""What label files may hold: class indices of the model, or ids that are grouped into its classes."""

_FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Frames of one origin in three parts that share none.

    Args:
        ranges: INT8 ranges are gathered on these.
        choice: the ways to choose a range are compared on these.
        proof: kept back for the gate.
    """

    ranges: FrameSet
    choice: FrameSet
    proof: FrameSet

    @classmethod
    def split(cls, frames: FrameSet, held_out: int) -> "Calibration":
        """Deal frames out, each part spread over all of them; two parts of up to `held_out` frames are kept back.

        Raises:
            UsageError: there are too few.
        """
        total = len(frames)
        if total < _FEWEST:
            raise UsageError(
                f"{frames.origin}: too few, at least {_FEWEST} are needed to calibrate, choose and compare on "
                "different ones. Name more with --calibrate."
            )
        kept_back = 2 * max(1, min(held_out, total // 3))
        places = [(2 * part + 1) * total // (2 * kept_back) for part in range(kept_back)]
        rest = sorted(set(range(total)) - set(places))
        return cls(ranges=_part(frames, rest), choice=_part(frames, places[0::2]), proof=_part(frames, places[1::2]))


def at_most(frames: FrameSet, count: int) -> FrameSet:
    """Return `count` frames of a set, evenly spread, or all where it has no more."""
    return frames if len(frames) <= count else _part(frames, _spread(len(frames), count))


def _part(frames: FrameSet, places: Sequence[int]) -> FrameSet:
    """Take some frames of a set."""
    return FrameSet(
        frames=[frames.frames[n] for n in places],
        labels=[frames.labels[n] for n in places],
        origin=f"{len(places)} of {frames.origin}",
        names=[frames.names[n] for n in places] if frames.names else (),
    )


def read_labelled(
    place: Path, count: int, space: LabelSpace, *, labels: Path | None = None, label_ids: str = "classes"
) -> FrameSet:
    """Read frames of the user's, with labels in a model's classes where there are some.

    Args:
        place: a folder, a video or an image; see `lsr_infer.parity.frame_set.read_frame_set`.
        count: most frames to read.
        space: the model's classes.
        labels: folder of label images.
        label_ids: what they hold, one of `LABEL_IDS`.

    Raises:
        UsageError: the count is below 1, or the ids are unknown.
        InputError: the place cannot be read, or a label is outside what is allowed.
    """
    from lsr_train.data.labels import encoding_map

    if label_ids not in LABEL_IDS:
        raise UsageError(f"--label-ids is {label_ids!r}; allowed: {', '.join(LABEL_IDS)}.")
    read = read_frame_set(place, count, labels=labels)
    id_map = encoding_map(label_ids, space)
    found = []
    for name, label in zip(read.names, read.labels, strict=True):
        try:
            found.append(None if label is None else id_map.apply(label))
        except InputError as error:
            what = str(error).split(". Set ")[0]
            raise InputError(f"{place}: labels of {name}: {what}. Say what they hold with --label-ids.") from error
    return replace(read, labels=found)


def without(frames: FrameSet, taken: Sequence[FrameSet]) -> FrameSet:
    """Leave out the frames that other sets hold, pixel for pixel.

    Raises:
        UsageError: none is left.
    """
    known = {_content(frame) for part in taken for frame in part.frames}
    places = [n for n, frame in enumerate(frames.frames) if _content(frame) not in known]
    if len(places) == len(frames):
        return frames
    if not places:
        raise UsageError(
            f"all of {frames.origin} also calibrate, so they prove nothing. Name other frames with --frames."
        )
    return _part(frames, places)


def _content(frame: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(repr(frame.shape).encode() + frame.tobytes()).digest()


def training_frames(model: Path, count: int) -> tuple[FrameSet, bool]:
    """Read frames that a checkpoint was trained on: unlabelled target frames where its run has some, else the source's.

    Args:
        model: the network's file in a run folder, `RUN/checkpoints/step-N/model.safetensors`.
        count: most frames to read, evenly spread.

    Returns:
        The frames, without labels, and whether they are Toytown's.

    Raises:
        UsageError: there is no run around it, its frames are gone, or what reads a run is not installed; the message
            names --calibrate.
    """
    advice = "Name frames like those of your camera with --calibrate FOLDER|VIDEO."
    run = model.absolute().parents[2] if len(model.absolute().parents) > 2 else model.parent
    file = run / "config.yaml"
    if not file.is_file():
        raise UsageError(f"{model}: lies in no run folder, so its training frames are unknown. {advice}")
    try:
        from lsr_train.config.command_line import config_from_text
        from lsr_train.config.run import TargetConfig
        from lsr_train.data.footage import open_footage
    except ImportError as error:
        raise UsageError(
            f"{run.name}: its configuration cannot be read ({error.name} is not installed: lsr-road[train]). {advice}"
        ) from error
    try:
        data = config_from_text(file.read_text(encoding="utf-8"), str(file)).data
        chosen = data.target
        if not chosen.given:
            source = data.source
            chosen = TargetConfig(
                layout=source.layout,
                root=source.root,
                split=source.split,
                height=source.height,
                width=source.width,
            )
        toytown = chosen.layout.startswith("toytown")
        footage = open_footage(replace(chosen, limit=chosen.limit if toytown else count), on_bad="skip")
        frames = [footage[n].frame for n in _spread(len(footage), count)]
    except LsrError as error:
        raise UsageError(f"the training frames of {run.name} are not to be had: {error} {advice}") from error
    name = chosen.layout if toytown else Path(chosen.root).name
    origin = f"{len(frames)} frames that the checkpoint was trained on ({name})"
    return FrameSet(frames=frames, labels=[None] * len(frames), origin=origin), toytown


def _spread(total: int, count: int) -> list[int]:
    """Return at most `count` indices, evenly spread over `total`."""
    kept = min(count, total)
    return [(2 * part + 1) * total // (2 * kept) for part in range(kept)]
