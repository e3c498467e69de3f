"""Reports what a data set holds: the folders it came from, the share of each class, and what is unusual about them."""

import logging
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lsr_infer.io.label_images import labels_left_out
from lsr_infer.labelspace import LabelSpace
from lsr_infer.text import folders_of
from lsr_train.config.data import SourceConfig
from lsr_train.data.pairing import Pair
from lsr_train.data.scan import cut

__all__ = ["report_frames", "report_labels", "report_mix", "reported_once", "warn"]

logger = logging.getLogger(__name__)

_MOST_VOID = 0.5
_reported: ContextVar[set[str] | None] = ContextVar("_reported", default=None)


@contextmanager
def reported_once() -> Iterator[None]:
    """Within the block, or one around it, a line is logged once, however often a data set is opened."""
    outer = _reported.get()
    token = _reported.set(set() if outer is None else outer)
    try:
        yield
    finally:
        _reported.reset(token)


def _tell(level: int, line: str) -> None:
    reported = _reported.get()
    if reported is None or line not in reported:
        logger.log(level, "%s", line)
    if reported is not None:
        reported.add(line)


def warn(line: str) -> None:
    """Log a warning as `reported_once` says."""
    _tell(logging.WARNING, line)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def report_labels(
    root: str,
    pairs: Sequence[Pair],
    space: LabelSpace,
    counts: NDArray[np.int64],
    void: NDArray[np.int64],
    left_out: Sequence[Path] = (),
    *,
    alone: bool = True,
) -> None:
    """Log what labelled images hold, and warn of what is unusual.

    Args:
        root: what the data set is called.
        pairs: its images and labels.
        space: its classes.
        counts: pixels of each class in each image [N,C], at least one of them labelled.
        void: void pixels of each image [N].
        left_out: files beside them that were not needed.
        alone: whether no other data set is trained on beside it, which may have the classes that it lacks.
    """
    of_class, all_void = counts.sum(axis=0), int(void.sum())
    labelled = int(of_class.sum())
    images, labels = folders_of(pair.image for pair in pairs), folders_of(pair.labels for pair in pairs)
    _tell(logging.INFO, f"{root}: {len(pairs)} images from {images}; labels from {labels}")
    if left_out:
        kind = f"such as {left_out[0].name}"
        _tell(
            logging.INFO, f"{root}: {len(left_out)} files beside these, {kind}, belong to none by name and are left out"
        )
    present = [index for index in range(space.num_classes) if of_class[index]]
    shares = ", ".join(cut([f"{space.names[index]} {_percent(of_class[index] / labelled)}" for index in present]))
    share_void = all_void / (labelled + all_void)
    _tell(logging.INFO, f"{root}: {_percent(share_void)} of all pixels are void (255); of the others {shares}")
    remedy = "Check --data.source.ids, and ids in classes.yaml"
    if len(present) == 1 < space.num_classes:
        only = f"every labelled pixel is {space.names[present[0]]}, one of {space.num_classes} classes of {space.name}"
        _tell(logging.WARNING, f"{root}: {only}. {remedy}: the label files may hold other numbers.")
    elif alone and len(present) < space.num_classes:
        absent = ", ".join(cut([name for index, name in enumerate(space.names) if index not in present]))
        _tell(logging.WARNING, f"{root}: no pixel is {absent}. {remedy}, or set --label_space to one without.")
    if share_void > _MOST_VOID:
        most = f"{_percent(share_void)} of all pixels are void, and nothing is learned there"
        _tell(logging.WARNING, f"{root}: {most}. {remedy}, and what is listed under `ignore`.")


def report_mix(sources: Sequence[SourceConfig], counts: Sequence[NDArray[np.int64]], space: LabelSpace) -> None:
    """Log how data sets are mixed, and which classes each leaves to the others; warn of those that none has.

    Args:
        sources: the data sets.
        counts: pixels of each class in each of them [C].
        space: the classes.
    """
    total = sum(source.weight for source in sources)
    shares = ", ".join(f"{source.name} {_percent(source.weight / total)}" for source in sources)
    _tell(logging.INFO, f"images of a batch by weight: {shares}; classes: the {space.num_classes} of {space.name}")
    found = np.stack(counts) > 0  # [N,C]
    for source, present in zip(sources, found, strict=True):
        if lacking := [space.names[index] for index in np.flatnonzero(found.any(axis=0) & ~present)]:
            _tell(logging.INFO, f"{source.name}: no pixel is {', '.join(cut(lacking))}; other sources have them")
    if nowhere := [space.names[index] for index in np.flatnonzero(~found.any(axis=0))]:
        remedy = "Check ids, or set --label_space to one without"
        _tell(logging.WARNING, f"no pixel of any source is {', '.join(cut(nowhere))}. {remedy}.")


def report_frames(root: str, frames: Sequence[Path], labels: Sequence[Path], flat: Set[Path]) -> None:
    """Log where target frames come from, and warn where some look like label images.

    Args:
        root: what the target is called.
        frames: the files that frames are taken from.
        labels: files beside them that are labels, and left out.
        flat: frames that have so few colours as label images have.
    """
    _tell(logging.INFO, f"{root}: {len(frames)} files with frames from {folders_of(frames)}")
    if labels:
        _tell(logging.INFO, f"{root}: {labels_left_out(labels)}")
    if flat:
        line = f"{root}: {len(flat)} of {len(frames)} frames have as few colours as label images, in {folders_of(flat)}"
        _tell(logging.WARNING, f"{line}. If they are labels, name the folder of the images alone (--target).")
