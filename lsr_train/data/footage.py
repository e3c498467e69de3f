"""Reads unlabelled frames of the target camera by index, from image files, videos or Toytown.

No label is read here. Frames of a video are taken by time, standing ones skipped, and decoded once; they are then
kept at training size, as PNG files in the cache folder or in memory where there is none.
"""

import glob
import hashlib
import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from lsr_infer.errors import InputError, LostPacketsError, UsageError
from lsr_infer.io.files import write_json
from lsr_infer.io.images import IMAGE_SUFFIXES, fit_mask, image_size, read_image, resize_frame
from lsr_infer.io.label_images import without_labels
from lsr_infer.io.sources import VIDEO_SUFFIXES, image_files
from lsr_infer.io.store_cache import local_path
from lsr_infer.io.temporary import sweep
from lsr_infer.parity.frame_set import evenly
from lsr_infer.system.progress import Progress, with_progress
from lsr_train.config.data import TargetConfig
from lsr_train.data.augmentation import lab_statistics
from lsr_train.data.labelled import ToytownImages, toytown_seeds
from lsr_train.data.layouts import find_images
from lsr_train.data.samples import UnlabelledBatch, UnlabelledSample
from lsr_train.data.scan import cut, scan_depth, scan_images, settle
from lsr_train.data.shares import report_frames, warn

__all__ = ["Footage", "FrameOrigin", "TargetFrames", "footage_files", "frame_size", "open_footage"]

logger = logging.getLogger(__name__)

_Timed = tuple[float, NDArray[np.uint8]]
"""A frame of a video, with its time in seconds before it."""

_VERSION = 2
_FRAME_LIST = "frames.json"
_THINNING_WIDTH = 160


class FrameOrigin(NamedTuple):
    """The file that a frame is from, and its time in seconds where that is a video."""

    file: Path
    seconds: float | None = None

    def __str__(self) -> str:
        return str(self.file) if self.seconds is None else f"{self.file}@{self.seconds:.3f}s"


class Footage(ABC):
    """Frames of the target camera by index.

    Attributes:
        left_out: one line for each unusable file that is not among them.
    """

    left_out: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> UnlabelledSample:
        """Return frame `index` at its own size, without a mask."""

    @abstractmethod
    def lab(self) -> NDArray[np.float64]:
        """Return `lab_statistics` of every frame at training size [N,2,3]."""

    @abstractmethod
    def origin(self, index: int) -> FrameOrigin:
        """Return where frame `index` is from."""

    def whole(self, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield some frames with their indices, in any order, as the camera took them: uint8 [H,W,3], BGR.

        Raises:
            InputError: a file has become unusable since the scan.
        """
        return ((index, self[index].frame) for index in indices)


@dataclass(frozen=True)
class _FileFootage(Footage):
    """Frames that are files or arrays, where each is from, `lab_statistics` of each [N,2,3], and `scan_depth`."""

    _frames: list[Path | NDArray[np.uint8]]
    _origins: list[FrameOrigin]
    _lab: NDArray[np.float64]
    _bits: int
    left_out: tuple[str, ...]

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> UnlabelledSample:
        frame = self._frames[index]
        if isinstance(frame, Path):
            frame = read_image(frame, self._bits)
        return UnlabelledSample(frame=frame, file=str(self._origins[index]))

    def lab(self) -> NDArray[np.float64]:
        return self._lab

    def origin(self, index: int) -> FrameOrigin:
        return self._origins[index]

    def whole(self, indices: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Decode each video once more, up to the last frame that is wanted of it."""
        from lsr_infer.video.reader import read_frames

        of_videos: dict[Path, dict[float, int]] = {}
        for index in indices:
            file, seconds = self._origins[index]
            if seconds is None:
                yield index, read_image(file, self._bits)
            else:
                of_videos.setdefault(file, {})[seconds] = index
        for file, wanted in of_videos.items():
            for item in read_frames(file, keep=wanted.__contains__):
                yield wanted.pop(item.time), item.frame
                if not wanted:
                    break
            if wanted:
                raise InputError(f"{file}: has changed since the scan.")


@dataclass(frozen=True)
class _ToytownFootage(Footage):
    """Rendered frames without their labels."""

    _images: ToytownImages

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> UnlabelledSample:
        scene = self._images[index]
        return UnlabelledSample(frame=scene.frame, file=scene.file)

    def lab(self) -> NDArray[np.float64]:
        scenes = with_progress(self._images, "rendering the target", len(self))
        return np.stack([lab_statistics(scene.frame) for scene in scenes])

    def origin(self, index: int) -> FrameOrigin:
        return FrameOrigin(Path(self._images[index].file))


@dataclass(frozen=True, kw_only=True)
class VideoSampling:
    """Which frames of a video are taken, and the size they are kept at.

    Args:
        seconds: spacing in seconds; 0 takes every frame.
        static: least mean absolute grey difference from the last kept frame, of 255 levels; 0 keeps all.
    """

    seconds: float
    static: float
    height: int
    width: int


def _spaced(frames: Iterable[_Timed], seconds: float) -> Iterator[_Timed]:
    """Take the first frame at or after each multiple of `seconds`, counted from the first frame."""
    due: float | None = None
    for moment, frame in frames:
        due = moment if due is None else due
        if moment + 1e-6 < due:
            continue
        yield moment, frame
        while seconds and due <= moment + 1e-6:
            due += seconds


def thinned(frames: Iterable[_Timed], sampling: VideoSampling) -> Iterator[_Timed]:
    """Take frames by time, skip standing ones, and resize the rest."""
    last: NDArray[np.float32] | None = None
    for moment, frame in _spaced(frames, sampling.seconds):
        rows = max(1, round(_THINNING_WIDTH * frame.shape[0] / frame.shape[1]))
        grey = cv2.cvtColor(resize_frame(frame, rows, _THINNING_WIDTH), cv2.COLOR_BGR2GRAY).astype(np.float32)
        if last is not None and float(np.abs(grey - last).mean()) < sampling.static:
            continue
        last = grey
        yield moment, np.ascontiguousarray(resize_frame(frame, sampling.height, sampling.width))


@dataclass(kw_only=True)
class _Sampled:
    """Frames taken from one video, and one line where it is unusable or broken from some time on.

    One on packets that cannot be decoded is no problem: `lost`.
    """

    frames: list[Path | NDArray[np.uint8]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    lab: list[list[list[float]]] = field(default_factory=list)
    problem: str | None = None
    lost: str | None = None


def _cached_video(folder: Path) -> _Sampled | None:
    """Return what a cache folder holds of a video, None where it is not complete."""
    try:
        document = json.loads((folder / _FRAME_LIST).read_text(encoding="utf-8"))
        times, lab, problem, lost = (document[name] for name in ("times", "lab", "problem", "lost"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    files = [folder / f"{index:06d}.png" for index in range(len(times))]
    if not all(file.is_file() for file in files):
        return None
    return _Sampled(frames=list(files), times=times, lab=lab, problem=problem, lost=lost)


def _sample(path: Path, sampling: VideoSampling, folder: Path | None) -> _Sampled:
    """Decode a video once; frames go to files in `folder`, or stay in memory where there is none."""
    from lsr_infer.pipeline.options import Selection
    from lsr_infer.video.reader import probe, read_frames

    sampled = _Sampled()
    logger.info("%s: taking frames %s", path, f"every {sampling.seconds:g} s" if sampling.seconds else "one by one")
    try:
        decoded = with_progress(read_frames(path), f"reading {path.name}", Selection().expected(probe(path)))
        for moment, frame in thinned(((item.time, item.frame) for item in decoded), sampling):
            sampled.lab.append(lab_statistics(frame).tolist())
            if folder is None:
                sampled.frames.append(frame)
            else:
                file = folder / f"{len(sampled.times):06d}.png"
                if not cv2.imwrite(str(file), frame, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
                    raise OSError(f"{file} cannot be written")
                sampled.frames.append(file)
            sampled.times.append(moment)
    except LostPacketsError as error:
        sampled.lost = str(error)
    except InputError as error:
        sampled.problem = str(error)
    return sampled


def sample_video(path: Path, sampling: VideoSampling, cache: Path | None) -> _Sampled:
    """Take frames of a video, from the cache folder where they are already; of a broken one what is before the break.

    The folder `cache` keeps all frames of a video or none; None keeps them in memory.
    """
    if cache is None:
        return _sample(path, sampling, None)
    try:
        stat = path.stat()
    except OSError as error:
        return _Sampled(problem=f"{path}: cannot be read ({error.strerror})")
    identity = [_VERSION, str(path.absolute()), stat.st_size, stat.st_mtime_ns, *vars(sampling).values()]
    folder = cache / "video" / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):  # another process may want the same frames
            if (cached := _cached_video(folder)) is not None:
                return cached
            list_file = folder / _FRAME_LIST
            list_file.unlink(missing_ok=True)
            sweep(folder)
            sampled = _sample(path, sampling, folder)
            if sampled.frames:
                document = vars(sampled) | {"frames": len(sampled.frames)}
                write_json(list_file, document)  # last: without it the folder counts as incomplete
            return sampled
    except (OSError, InputError) as error:
        logger.warning("%s: frames stay in memory, the cache cannot be written (%s)", path, error)
        return _sample(path, sampling, None)


def _frame_files(root: str) -> tuple[list[Path], Path]:
    """Return images and videos of a folder (searched below), a glob or a file, in name order, and their folder."""
    path, suffixes = local_path(root), (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    if path.is_dir():
        files = image_files(path, suffixes)
    elif path.exists():
        files = [path]
    elif glob.has_magic(root):
        files = sorted(Path(name) for name in glob.glob(root, recursive=True) if Path(name).is_file())
    else:
        raise InputError(
            f"{root}: does not exist. Set --data.target.root (or --target) to a folder, a glob or a video."
        )
    if not files:
        raise InputError(f"{root}: holds no image and no video. Set --data.target.root (or --target).")
    unknown = [file for file in files if file.suffix.lower() not in suffixes]
    if unknown:
        raise InputError(f"{unknown[0]}: is neither image nor video by its name; known are {' '.join(suffixes)}.")
    return files, path if path.is_dir() else Path(os.path.commonpath([file.parent for file in files]))


def footage_files(target: TargetConfig) -> list[Path]:
    """Find the files that a target's frames come from, in name order; Toytown has none.

    Raises:
        UsageError: no target is named.
        InputError: there is nothing, or nothing that can be read.
    """
    return _target_files(target)[0]


def _target_files(target: TargetConfig) -> tuple[list[Path], list[Path]]:
    """Find files with frames, and label images beside them; raises as `footage_files`."""
    if target.layout.startswith("toytown-"):
        return [], []
    if not target.root:
        raise UsageError("there are no target frames. Set --data.target.root (or --target).")
    if target.layout == "frames":
        return without_labels(*_frame_files(target.root))
    return list(find_images(target.layout, target.root, target.split)), []


def frame_size(target: TargetConfig) -> tuple[int, int] | None:
    """Return rows and columns of the first file's frames; None for Toytown. Raises as `footage_files`."""
    files = footage_files(target)
    if not files:
        return None
    if files[0].suffix.lower() not in VIDEO_SUFFIXES:
        return image_size(files[0])
    from lsr_infer.video.reader import probe

    info = probe(files[0])
    return info.height, info.width


def open_footage(target: TargetConfig, *, on_bad: str = "stop", cache: Path | None = None) -> Footage:
    """Find, sample and scan the unlabelled frames of the target camera.

    The folder `cache` keeps what the scan found and the frames of videos; None keeps nothing.

    Raises:
        UsageError: no target is named, or Toytown has no such split.
        InputError: files are missing or unusable; all of them are listed.
    """
    if target.layout.startswith("toytown-"):
        domain = target.layout.removeprefix("toytown-")
        seeds = toytown_seeds(domain, target.split, target.limit)
        return _ToytownFootage(ToytownImages(domain, seeds, target.height, target.width))
    files, labels = _target_files(target)
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    images = [file for file in files if file not in set(videos)]
    of_set = images if target.layout == "frames" else find_images(target.layout, target.root, "")  # of all splits
    bits = scan_depth(of_set, warn, cache=cache)
    if not videos:
        images = [images[index] for index in evenly(len(images), target.limit)]  # only these are scanned
    scan = scan_images(images, target.height, target.width, bits=bits, cache=cache)
    problems = [line for _, line in scan.problems]
    bad = {index for index, _ in scan.problems}
    flat = {path for path, is_flat in zip(images, scan.flat, strict=True) if is_flat}
    good = [index for index in range(len(images)) if index not in bad]
    report_frames(target.root, files, labels, flat)
    frames: list[Path | NDArray[np.uint8]] = [images[index] for index in good]
    origins = [FrameOrigin(images[index]) for index in good]
    lab = [scan.lab[good]]
    sampling = VideoSampling(seconds=target.seconds, static=target.static, height=target.height, width=target.width)
    partial, lost = 0, []
    for video in videos:
        sampled = sample_video(video, sampling, cache)
        frames += sampled.frames
        origins += [FrameOrigin(video, moment) for moment in sampled.times]
        lab.append(np.array(sampled.lab).reshape(-1, 2, 3))
        problems += [sampled.problem] if sampled.problem else []
        partial += bool(sampled.problem and sampled.frames)
        lost += [sampled.lost] if sampled.lost else []
        if not sampled.frames and not sampled.problem:
            problems.append(f"{video}: holds no frames")
    for line in cut(lost):
        logger.warning("%s", line)
    settle(problems, len(images) + len(videos), on_bad, f"files of {target.root}", partial=partial)
    chosen = evenly(len(frames), target.limit)
    statistics = np.concatenate(lab)[chosen]
    return _FileFootage(
        [frames[index] for index in chosen], [origins[index] for index in chosen], statistics, bits, tuple(problems)
    )


class TargetFrames:
    """Evenly spread target frames at one size, without augmentation.

    A `count` of 0, or more than there are, means all. Where `ignored` (bool [H,W]) is true, a pixel never counts.
    """

    def __init__(
        self, footage: Footage, count: int, height: int, width: int, ignored: NDArray[np.bool_] | None = None
    ) -> None:
        self._footage, self._indices = footage, evenly(len(footage), count)
        self.height, self.width = height, width
        fitted = fit_mask(ignored, height, width)
        self.mask: NDArray[np.bool_] | None = None if fitted is None else ~fitted
        """bool [height,width], true where a pixel counts; None means everywhere."""

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> UnlabelledSample:
        """Return frame `index`, resized, 0 <= index < len."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        sample = self._footage[self._indices[index]]
        frame = resize_frame(sample.frame, self.height, self.width)
        return UnlabelledSample(frame=frame, mask=self.mask, file=sample.file)

    def __iter__(self) -> Iterator[UnlabelledSample]:
        return (self[index] for index in range(len(self)))

    def batches(self, size: int, *, whole: bool = False, what: str = "target frames") -> Iterator[UnlabelledBatch]:
        """Yield the frames in order, on the CPU, in batches of `size`, of which the last may be smaller.

        How far they are is shown under the name `what`. With `whole` a smaller batch is left out where there are whole
        ones, for statistics that count every batch alike.
        """
        end = len(self) - len(self) % size if whole and len(self) >= size else len(self)
        with Progress(what, end) as progress:
            for start in range(0, end, size):
                batch = UnlabelledBatch.collate([self[index] for index in range(start, min(start + size, end))])
                yield batch
                progress.step(len(batch.image))
