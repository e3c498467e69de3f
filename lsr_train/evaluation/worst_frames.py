"""Pictures of the frames a network did worst on: the frame, its labels and the prediction side by side."""

import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.atomic import write_bytes
from lsr_infer.io.paths import place_error
from lsr_infer.labelspace import LabelSpace
from lsr_infer.render.overlay import overlay, side_by_side
from lsr_train.evaluation.scores import ScoredFrame

__all__ = ["check_folder", "comparison", "write_worst"]

_JPEG_QUALITY = 92


def check_folder(folder: Path, *, overwrite: bool, flag: str = "--overlay_dir") -> None:
    """Raise unless pictures may be written to `folder`.

    Args:
        folder: need not be there.
        overwrite: whether it may hold something.
        flag: that names it.

    Raises:
        UsageError: it is there, not empty, and `overwrite` is false.
        InputError: it is a file, or cannot be looked into.
    """
    try:
        if folder.exists() and any(folder.iterdir()) and not overwrite:
            raise UsageError(f"{folder} is not empty. Choose another {flag}, or pass --overwrite.")
    except OSError as error:
        raise InputError(f"{folder}: cannot be used as a folder ({error.strerror}).") from error


def comparison(scored: ScoredFrame, space: LabelSpace, alpha: float = 0.55) -> NDArray[np.uint8]:
    """Draw the frame, its labels over it and the prediction over it, from left to right.

    Args:
        scored: frame, labels and prediction.
        space: names and colours.
        alpha: share of the colours.

    Returns:
        uint8 [H, 3 * W + gaps, 3], BGR.
    """
    drawn = [overlay(scored.frame, classes, space, alpha) for classes in (scored.labels, scored.classes)]
    return side_by_side(scored.frame, *drawn)


def write_worst(folder: Path, worst: Sequence[ScoredFrame], space: LabelSpace) -> list[Path]:
    """Write one JPEG a frame, named by rank and score, in the place of what an earlier call wrote there.

    Args:
        folder: is made where it is missing.
        worst: frames, the worst first.
        space: names and colours.

    Returns:
        The files, in the order of `worst`.

    Raises:
        InputError: the place cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise place_error(folder, error) from error
    for old in folder.glob("[0-9][0-9]_miou-*.jpg"):  # of an earlier call: two sets of worst frames must not mix
        old.unlink(missing_ok=True)
    written = []
    for rank, scored in enumerate(worst, start=1):
        name = re.sub(r"[^\w.-]+", "_", Path(scored.file).stem)[:80]
        path = folder / f"{rank:02d}_miou-{100 * scored.miou:.1f}_{name}.jpg"
        done, data = cv2.imencode(".jpg", comparison(scored, space), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        if not done:
            raise InputError(f"{path}: this picture cannot be written as JPEG.")
        write_bytes(path, data.tobytes())
        written.append(path)
    return written
