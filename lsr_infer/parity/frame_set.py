"""Reads frames to compare models on, or to calibrate them with: the user's own, or the shipped Toytown ones.

Frames may come with labels. A set names its origin without a path.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError, UnusableFilesError, UsageError
from lsr_infer.io.files import is_folder
from lsr_infer.io.images import IMAGE_SUFFIXES, common_bits, read_image, read_label, resize_frame
from lsr_infer.io.label_images import labels_left_out, without_labels
from lsr_infer.io.sources import image_files
from lsr_infer.labelspace import IGNORE_INDEX, LabelSpace
from lsr_infer.manifest import Manifest
from lsr_infer.render.draw import CITYSCAPES_NAMES

__all__ = [
    "FrameSet", "check_labels", "evenly", "read_frame_set", "shipped_frames", "shipped_frames_for", "working_image",
]  # fmt: skip

logger = logging.getLogger(__name__)

_Read = tuple[str, NDArray[np.uint8], NDArray[np.uint8] | None]
"""A frame's name, the frame and its labels."""

_SHIPPED = Path(__file__).parents[1] / "models" / "toytown"


def evenly(total: int, count: int) -> list[int]:
    """Return `count` indices spread evenly over `total`, the middles of equal parts; all of them where it is 0."""
    if count <= 0 or count >= total:
        return list(range(total))
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]


@dataclass(frozen=True, kw_only=True)
class FrameSet:
    """Frames uint8 [H,W,3] BGR of any sizes, each with labels uint8 [H,W] or None.

    `origin` says where they are from, without a path; `names` what each is called in messages.
    """

    frames: Sequence[NDArray[np.uint8]]
    labels: Sequence[NDArray[np.uint8] | None]
    origin: str
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.frames) != len(self.labels) or len(self.names) not in (0, len(self.frames)):
            raise ValueError(f"{len(self.frames)} frames, {len(self.labels)} labels and {len(self.names)} names")

    def __len__(self) -> int:
        return len(self.frames)

    def part(self, indices: Sequence[int]) -> "FrameSet":
        """Return some of the frames."""
        return FrameSet(
            frames=[self.frames[n] for n in indices],
            labels=[self.labels[n] for n in indices],
            origin=f"{len(indices)} of {self.origin}",
            names=[self.names[n] for n in indices] if self.names else (),
        )

    def pairs(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8] | None]]:
        """Yield each frame with its labels."""
        return zip(self.frames, self.labels, strict=True)


def read_frame_set(
    place: Path, count: int, *, labels: Path | None = None, split: str = "val", labelled: bool = True
) -> FrameSet:
    """Read up to `count` evenly spread frames of a folder of images, a video or an image.

    Of a data set's folder the images of `split` are taken, where it has splits (`SPLIT/images` or `images/SPLIT`), else
    its `images`. `labels` is a folder of label images with the frames' stems, class indices or 255; for a video, in the
    order of their names. None takes the `labels` that stand beside `images`, if any, where `labelled` is set.

    Raises:
        InputError: something is missing or broken; `UnusableFilesError` lists all such files of a folder, since without
            them others are chosen.
    """
    if count < 1:
        raise UsageError(f"the number of frames is {count}; at least 1 is needed, or nothing is compared.")
    if labels is not None and not is_folder(labels):
        raise InputError(f"{labels}: there is no such folder of labels.")
    if is_folder(place):
        read = _from_folder(place, count, labels, split, labelled)
    elif place.suffix.lower() in IMAGE_SUFFIXES:
        read = [(place.name, *_pair(place, place.parent, labels))]
    else:
        read = _from_video(place, count, labels)
    return FrameSet(
        frames=[frame for _, frame, _ in read],
        labels=[label for _, _, label in read],
        origin=f"{len(read)} frames of the user's ({place.name})",
        names=[name for name, _, _ in read],
    )


def _from_folder(place: Path, count: int, labels: Path | None, split: str, labelled: bool) -> list[_Read]:
    layouts = ("{split}/{kind}", "{kind}/{split}", "{kind}")
    pairs = [[place / layout.format(kind=kind, split=split) for kind in ("images", "labels")] for layout in layouts]
    images, beside = next(((one, other) for one, other in pairs if one.is_dir()), (place, None))
    truth = labels or (beside if labelled and beside is not None and beside.is_dir() else None)
    files, left_out = without_labels(image_files(images), images)
    if left_out:
        logger.warning("%s", labels_left_out(left_out))
    if not files:
        raise InputError(f"{place}: holds no image. Name a folder of images, a video or an image.")
    chosen = [files[n] for n in evenly(len(files), count)]
    of_set = [path for path in image_files(place) if "images" in path.relative_to(place).parts[:2]]
    bits = common_bits(files if images == place else of_set)
    try:
        return [(str(path.relative_to(images)), *_pair(path, images, truth, bits)) for path in chosen]
    except InputError as error:
        raise _unusable(place, files, images, truth, bits) from error


def _from_video(place: Path, count: int, labels: Path | None) -> list[_Read]:
    from lsr_infer.video.reader import read_frames

    wanted = set(evenly(sum(1 for _ in read_frames(place)), count))  # decoding finds out how many there really are
    numbered = [(item.index, item.frame) for item in read_frames(place) if item.index in wanted]
    files = [] if labels is None else sorted(labels.glob("*.png"))
    if labels is not None and numbered and numbered[-1][0] >= len(files):
        raise InputError(f"{labels}: holds {len(files)} labels, the video has more frames.")
    return [
        (f"frame {index}", frame, None if labels is None else _label_of(files[index], frame))
        for index, frame in numbered
    ]


def shipped_frames(count: int = 8) -> FrameSet:
    """Return the Toytown frames that come with the package: rendered, labelled, half of each domain.

    Their labels are the 19 Cityscapes classes; see `shipped_frames_for`.
    """
    if not _SHIPPED.is_dir():
        raise InputError("this installation has lost its Toytown frames. Install it again, or name frames of your own.")
    read = read_frame_set(_SHIPPED, count)
    return FrameSet(frames=read.frames, labels=read.labels, origin=f"{len(read)} shipped Toytown frames")


def shipped_frames_for(space: LabelSpace, count: int = 8) -> FrameSet:
    """Return shipped frames for a model, with their labels only where its classes are theirs, by name and order."""
    read = shipped_frames(count)
    if space.names == CITYSCAPES_NAMES:
        return read
    origin = f"{read.origin}, without their labels: they are Cityscapes' 19 classes, the model has others"
    return FrameSet(frames=read.frames, labels=[None] * len(read), origin=origin)


def working_image(frame: NDArray[np.uint8], manifest: Manifest) -> NDArray[np.uint8]:
    """Bring a frame to the size at which it enters a graph, as a batch of one, uint8 [1,H,W,3]."""
    return np.ascontiguousarray(resize_frame(frame, *manifest.working_size(*frame.shape[:2]))[None])


def _pair(
    path: Path, images: Path, labels: Path | None, bits: int | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Read an image below `images`, of a set that uses `bits`, and, where there is such a folder, its labels."""
    frame = read_image(path, bits)
    if labels is None:
        return frame, None
    return frame, _label_of((labels / path.relative_to(images)).with_suffix(".png"), frame)


def _label_of(path: Path, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    label = read_label(path)
    if label.ndim != 2 or label.dtype != np.uint8:
        raise InputError(f"{path}: is {label.dtype} {list(label.shape)}; labels are 8-bit class indices.")
    if label.shape != frame.shape[:2]:
        raise InputError(f"{path}: is {list(label.shape)}, its frame is {list(frame.shape[:2])}.")
    return np.asarray(label, dtype=np.uint8)


def _unusable(place: Path, files: Sequence[Path], images: Path, labels: Path | None, bits: int) -> UnusableFilesError:
    """Read every file of a folder, and list those that cannot be used."""
    logger.info("%s: a file cannot be used; checking all %d", place, len(files))
    problems = []
    for path in files:
        try:
            _pair(path, images, labels, bits)
        except InputError as error:
            problems.append(f"\n  {error}")
    what = f"{len(problems)} of {len(files)} frames cannot be used. Repair or remove them:"
    return UnusableFilesError(f"{place}: {what}{''.join(problems)}")


def check_labels(frames: FrameSet, num_classes: int) -> None:
    """Raise `InputError` where labels hold what is none of a model's classes, or nothing but void."""
    found = np.zeros(256, dtype=np.int64)
    for n, label in enumerate(frames.labels):
        if label is None:
            continue
        found += np.bincount(label.ravel(), minlength=256)
        unknown = np.flatnonzero(found[num_classes:IGNORE_INDEX]) + num_classes
        if unknown.size:
            raise InputError(
                f"the labels of {frames.names[n] if frames.names else f'frame {n}'} ({frames.origin}) hold "
                f"{', '.join(map(str, unknown[:8].tolist()))}; allowed are the model's classes 0 to {num_classes - 1}, "
                f"and {IGNORE_INDEX} for void. Give labels in the model's own classes."
            )
    if found.any() and not found[:num_classes].any():
        raise InputError(
            f"the labels of {frames.origin} are void everywhere, so they prove nothing. Name others, or leave them out."
        )
