"""A handful of frames to compare models on, or to calibrate them with: the user's own, or the shipped Toytown ones.

Frames may come with labels. The set says where it is from in words, never with a path.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError, UsageError
from lsr_infer.images import IMAGE_SUFFIXES, read_image, read_label

__all__ = ["FrameSet", "read_frame_set", "shipped_frames"]

_SHIPPED = Path(__file__).parent / "models" / "toytown"


@dataclass(frozen=True, kw_only=True)
class FrameSet:
    """Frames, with labels where there are some.

    Args:
        frames: uint8 [H,W,3] BGR each, of any sizes.
        labels: for each frame its labels uint8 [H,W], class indices or 255, or None; as many as there are frames.
        origin: where they are from, in words and without a path.
    """

    frames: Sequence[NDArray[np.uint8]]
    labels: Sequence[NDArray[np.uint8] | None]
    origin: str

    def __post_init__(self) -> None:
        if len(self.frames) != len(self.labels):
            raise ValueError(f"{len(self.frames)} frames and {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.frames)

    def pairs(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8] | None]]:
        """Yield each frame with its labels."""
        return zip(self.frames, self.labels, strict=True)


def read_frame_set(place: Path, count: int, *, labels: Path | None = None, skip: int = 0) -> FrameSet:
    """Read up to `count` evenly spread frames of a folder of images, a video or an image.

    Args:
        place: a folder (its `images/` where it has one), a video or an image.
        count: most frames to read.
        labels: folder of label images with the frames' stems, class indices or 255; for a video, in the order of their
            names. None takes `labels/` beside `images/` where both are there, else no labels.
        skip: with 1, frames that `skip=0` does not give, so that the two sets share none.

    Raises:
        UsageError: `count` is below 1.
        InputError: the place is missing, holds no image or none that is left, or one of its files is broken or has no
            label.
    """
    if count < 1:
        raise UsageError(f"the number of frames is {count}; at least 1 is needed, or nothing is compared.")
    if place.is_dir():
        images = place / "images" if (place / "images").is_dir() else place
        beside = place / "labels"
        truth = labels or (beside if images != place and beside.is_dir() else None)
        files = sorted(path for path in images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise InputError(f"{place}: holds no image. Name a folder of images, a video or an image.")
        chosen = [files[n] for n in _spread(len(files), count, skip)]
        found = [None if truth is None else _label_of(path.relative_to(images), truth) for path in chosen]
        frames = [read_image(path) for path in chosen]
    elif place.suffix.lower() in IMAGE_SUFFIXES:
        frames = [read_image(place)]
        found = [None if labels is None else _label_of(Path(place.name), labels)]
    else:
        numbered = list(_video_frames(place, count, skip))
        frames = [frame for _, frame in numbered]
        names = [] if labels is None else sorted(labels.glob("*.png"))
        if labels is not None and numbered and numbered[-1][0] >= len(names):
            raise InputError(f"{labels}: holds {len(names)} labels, the video has more frames.")
        found = [None if labels is None else read_label(names[index]) for index, _ in numbered]
    for frame, label in zip(frames, found, strict=True):
        if label is not None and label.shape != frame.shape[:2]:
            raise InputError(f"{place}: a frame is {list(frame.shape[:2])} and its labels are {list(label.shape)}.")
    return FrameSet(frames=frames, labels=found, origin=f"{len(frames)} frames of the user's ({place.name})")


def shipped_frames(count: int = 8, *, skip: int = 0) -> FrameSet:
    """Return the Toytown frames that come with the package: rendered, labelled, half of each domain.

    Their labels are the 19 Cityscapes classes; a model of other classes has to leave them out.

    Raises:
        InputError: this installation has lost them.
    """
    if not _SHIPPED.is_dir():
        raise InputError("this installation has lost its Toytown frames. Install it again, or name frames of your own.")
    read = read_frame_set(_SHIPPED, count, skip=skip)
    return FrameSet(frames=read.frames, labels=read.labels, origin=f"{len(read)} shipped Toytown frames")


def _label_of(name: Path, folder: Path) -> NDArray[np.uint8]:
    path = (folder / name).with_suffix(".png")
    label = read_label(path)
    if label.ndim != 2 or label.dtype != np.uint8:
        raise InputError(f"{path}: is {label.dtype} {list(label.shape)}; labels are 8-bit class indices.")
    return np.asarray(label, dtype=np.uint8)


def _video_frames(path: Path, count: int, skip: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield frames spread evenly over a video; decoding it all once finds out how many it really has."""
    from lsr_infer.video import read_frames

    total = sum(1 for _ in read_frames(path))
    wanted = set(_spread(total, count, skip))
    for item in read_frames(path):
        if item.index in wanted:
            yield item.index, item.frame


def _spread(total: int, count: int, skip: int) -> list[int]:
    """Return at most `count` indices, evenly spread over `total`; `skip` 1 leaves out those of `skip` 0."""
    places = list(range(total))
    for _ in range(skip + 1):
        taken = sorted({round(n) for n in np.linspace(0, len(places) - 1, min(count, len(places))).tolist()})
        chosen = [places[n] for n in taken]
        places = sorted(set(places) - set(chosen))
    if not chosen:
        raise InputError(f"{count} of {total} frames are taken, none is left to compare on. Name more frames.")
    return chosen
