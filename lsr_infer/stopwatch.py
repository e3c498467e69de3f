"""How long each step from a video to its overlay takes: every frame by itself, then all steps overlapping.

The steps are those of `lsr-infer` on a video. Nothing is kept: the encoded file goes to a temporary folder.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import UsageError
from lsr_infer.overlay import overlay
from lsr_infer.pipeline import Behind, ahead
from lsr_infer.video import VideoFrame, VideoInfo, VideoWriter, probe, read_frames

if TYPE_CHECKING:
    from lsr_infer.segmenter import Segmentation, Segmenter

__all__ = ["STEPS", "Timing", "shipped_clip", "time_steps"]

STEPS = ("decode", "preprocess", "infer", "mask", "draw", "encode")
_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What was measured.

    Args:
        frame: (height, width) of the frames.
        network: (height, width) at which they enter the network.
        first_ms: the first run, warm-up included.
        steps: milliseconds of each frame, by step.
        seconds: wall-clock time of all frames, one step after another.
        overlapped: wall-clock time of as many frames with reading ahead and encoding behind, as `lsr-infer` does.
    """

    frame: tuple[int, int]
    network: tuple[int, int]
    first_ms: float
    steps: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    overlapped: float = 0.0

    @property
    def frames(self) -> int:
        """Number of frames that were timed."""
        return len(self.steps["infer"])

    def latency(self) -> dict[str, dict[str, float]]:
        """Return p50, p90, p99 and mean in milliseconds, by step and of all steps together."""
        total = [sum(values) for values in zip(*self.steps.values(), strict=True)]
        return {name: _summary(values) for name, values in (*self.steps.items(), ("total", total))}

    def throughput(self) -> dict[str, float]:
        """Return frames a second: the network alone, all steps one after another, and overlapped."""
        alone = sum(self.steps["infer"]) / 1e3
        times = {"infer_alone": alone, "one_after_another": self.seconds, "overlapped": self.overlapped}
        return {name: round(self.frames / seconds, 3) for name, seconds in times.items()}


def _summary(values: list[float]) -> dict[str, float]:
    found = {f"p{share}": float(np.percentile(values, share)) for share in _PERCENTILES}
    return {name: round(value, 3) for name, value in (found | {"mean": float(np.mean(values))}).items()}


def time_steps(
    segmenter: "Segmenter", clip: Path, *, frames: int, size: tuple[int, int] | None = None, alpha: float = 0.5
) -> Timing:
    """Segment the frames of a clip twice, with a clock beside it.

    Args:
        segmenter: the model.
        clip: a video; it starts again where it is shorter than `frames`.
        frames: how many are timed.
        size: (height, width) at which they enter the network; None leaves it to the model.
        alpha: share of the colour in the overlay.

    Raises:
        UsageError: `frames` is below 1, or the graph does not take the size or one frame at a time.
        InputError: the clip cannot be read, or the model fails.
    """
    if frames < 1:
        raise UsageError(f"--frames is {frames}; at least 1 is needed, or nothing is timed.")
    info = probe(clip)
    begun = time.perf_counter()
    segmenter(np.zeros((info.height, info.width, 3), np.uint8), size=size)
    first_ms = 1e3 * (time.perf_counter() - begun)
    steps: dict[str, list[float]] = {name: [] for name in STEPS}
    with TemporaryDirectory() as folder:
        begun = time.perf_counter()
        with _writer(Path(folder) / "steps.mp4", info) as writer:
            source = _repeated(clip)
            for _ in range(frames):
                _one(segmenter, source, writer, size, alpha, steps)
        seconds = time.perf_counter() - begun
        begun = time.perf_counter()
        _overlapped(segmenter, clip, Path(folder) / "overlapped.mp4", info, frames, size, alpha)
        overlapped = time.perf_counter() - begun
    network = segmenter.working_size(info.height, info.width, size)
    return Timing(
        frame=(info.height, info.width), network=network, first_ms=first_ms, steps=steps, seconds=seconds,
        overlapped=overlapped,
    )  # fmt: skip


def _one(
    segmenter: "Segmenter",
    source: Iterator[VideoFrame],
    writer: VideoWriter,
    size: tuple[int, int] | None,
    alpha: float,
    steps: dict[str, list[float]],
) -> None:
    """Take one frame through all steps, each timed."""

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        result = work()
        steps[name].append(1e3 * (time.perf_counter() - begun))
        return result

    frame: NDArray[np.uint8] = timed("decode", lambda: next(source).frame)
    images = timed("preprocess", lambda: segmenter.prepare([frame], size=size))
    output = timed("infer", lambda: segmenter.run(images))[0]
    found: Segmentation = segmenter.interpret(output, *frame.shape[:2])
    classes = timed("mask", lambda: found.classes)
    picture = timed("draw", lambda: overlay(frame, classes, segmenter.label_space, alpha))
    timed("encode", lambda: writer.write(picture))


def _overlapped(
    segmenter: "Segmenter",
    clip: Path,
    place: Path,
    info: VideoInfo,
    frames: int,
    size: tuple[int, int] | None,
    alpha: float,
) -> None:
    """Take frames through all steps with reading ahead and mask, drawing and encoding behind."""
    with _writer(place, info) as writer:

        def draw(item: "tuple[NDArray[np.uint8], Segmentation]") -> None:
            frame, found = item
            writer.write(overlay(frame, found.classes, segmenter.label_space, alpha))

        reader = ahead(_repeated(clip))
        try:
            with Behind(draw) as behind:
                for _ in range(frames):
                    frame = next(reader).frame
                    behind.put((frame, segmenter(frame, size=size)))
        finally:
            reader.close()


def _writer(place: Path, info: VideoInfo) -> VideoWriter:
    return VideoWriter(place, width=info.width, height=info.height, fps=info.fps)


def _repeated(clip: Path) -> Iterator[VideoFrame]:
    """Yield the frames of a clip for ever."""
    while True:
        yield from read_frames(clip)


def shipped_clip(folder: Path) -> Path:
    """Write the shipped Toytown frames as a clip and return its place; each stands in it twice."""
    from lsr_infer.frames import shipped_frames

    shipped = shipped_frames(12).frames
    height, width = shipped[0].shape[:2]
    place = folder / "toytown.mp4"
    with VideoWriter(place, width=width, height=height, fps=Fraction(25)) as writer:
        for frame in shipped:
            writer.write(frame)
            writer.write(frame)
    return place
