"""Times each step from a video to its overlay: every frame by itself, then all as `lsr-infer` overlaps them.

The second time is that of `lsr_infer.pipeline.task` itself. Nothing is kept: encoded files go to a temporary folder.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, count, cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.sources import Source
from lsr_infer.pipeline.frame_inference import Inference
from lsr_infer.pipeline.options import Selection, WorkingSize
from lsr_infer.pipeline.outputs import plan_outputs, write_overlay
from lsr_infer.pipeline.task import Task, of_one_size, segment_video
from lsr_infer.render.draw import Drawer, DrawingOptions, DrawnFrame, MaskIds, SegmentedFrame
from lsr_infer.render.segmentation import Segmentation
from lsr_infer.segmenter import Segmenter
from lsr_infer.system.progress import Progress, with_progress
from lsr_infer.video.containers import VideoFrame
from lsr_infer.video.reader import probe, read_frames
from lsr_infer.video.writer import VideoOptions, VideoWriter

__all__ = ["STEPS", "Timing", "shipped_clip", "time_steps"]

STEPS = ("decode", "preprocess", "infer", "mask", "draw", "encode")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """(height, width) of the frames and at which they enter the network, and how long it all took.

    `first_ms` is the first run at this size, warm-up included. `steps` holds milliseconds of each frame; `seconds` is
    the wall-clock time of all, and `overlapped` that in which `lsr-infer` makes overlay videos of as many.
    """

    frame: tuple[int, int]
    network: tuple[int, int]
    first_ms: float
    steps: dict[str, list[float]]
    seconds: float
    overlapped: float

    @property
    def frames(self) -> int:
        """Number of frames that were timed."""
        return len(self.steps["infer"])

    def latency(self) -> dict[str, dict[str, float]]:
        """Return p50, p90, p99 and mean in milliseconds, by step and of all steps together."""
        total = [sum(values) for values in zip(*self.steps.values(), strict=True)]
        summary = {}
        for name, values in (*self.steps.items(), ("total", total)):
            found = dict(zip(("p50", "p90", "p99"), np.percentile(values, (50, 90, 99)).tolist(), strict=True))
            summary[name] = {key: round(value, 3) for key, value in (found | {"mean": float(np.mean(values))}).items()}
        return summary

    def throughput(self) -> dict[str, float]:
        """Return frames a second: the network alone, all steps one after another, and overlapped."""
        alone = sum(self.steps["infer"]) / 1e3
        times = {"infer_alone": alone, "one_after_another": self.seconds, "overlapped": self.overlapped}
        return {name: round(self.frames / seconds, 3) for name, seconds in times.items()}


def time_steps(segmenter: Segmenter, clip: Path, *, frames: int, size: tuple[int, int] | None = None) -> Timing:
    """Segment the frames of a clip twice, with a clock beside it; a short clip starts again.

    `size` is (height, width) at which frames enter the network.
    """
    if frames < 1:
        raise UsageError(f"--frames is {frames}; at least 1 is needed, or nothing is timed.")
    info = probe(clip)
    started = time.perf_counter()
    with Progress("the first run", unit=""):
        segmenter(np.zeros((info.height, info.width, 3), np.uint8), size=size)
    first_ms = 1e3 * (time.perf_counter() - started)
    steps: dict[str, list[float]] = {name: [] for name in STEPS}
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        place = Path(folder) / "steps.mp4"
        options = VideoOptions(like=info)
        with VideoWriter(place, width=info.width, height=info.height, fps=info.fps, options=options) as writer:
            drawer = Drawer(_drawing(segmenter), segmenter.label_space, video=True, color=info.color)
            repeated = chain.from_iterable(read_frames(clip) for _ in count())
            source = of_one_size(repeated, (info.height, info.width), str(clip))
            for number in with_progress(range(frames), "one step after another", frames):
                _one(segmenter, source, float(number / info.fps), (drawer, writer), size, steps)
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        _overlapped(segmenter, clip, Path(folder), frames, size)
        overlapped = time.perf_counter() - started
    return Timing(
        frame=(info.height, info.width), network=segmenter.working_size(info.height, info.width, size),
        first_ms=first_ms, steps=steps, seconds=seconds, overlapped=overlapped,
    )  # fmt: skip


def _one(
    segmenter: Segmenter,
    source: Iterator[VideoFrame],
    begin: float,
    sinks: tuple[Drawer, VideoWriter],
    size: tuple[int, int] | None,
    steps: dict[str, list[float]],
) -> None:
    """Take one frame through all steps, each timed; in the video it begins at `begin` seconds."""

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        steps[name].append(1e3 * (time.perf_counter() - started))
        return result

    drawer, writer = sinks
    item: VideoFrame = timed("decode", lambda: next(source))
    images = timed("preprocess", lambda: segmenter.prepare([item.frame], size=size))
    output = timed("infer", lambda: segmenter.run(images))[0]
    found: Segmentation = segmenter.interpret(output, *item.frame.shape[:2])
    timed("mask", lambda: found.classes)
    drawn: DrawnFrame = timed("draw", lambda: drawer(SegmentedFrame(item, 0, begin, found, None)))
    timed("encode", lambda: write_overlay(writer, drawn))


def _drawing(segmenter: Segmenter) -> DrawingOptions:
    return DrawingOptions(ids=MaskIds.of("train", segmenter.label_space))


def _overlapped(segmenter: Segmenter, clip: Path, folder: Path, frames: int, size: tuple[int, int] | None) -> None:
    """Make overlay videos of so many frames as `lsr-infer` does."""
    drawing = _drawing(segmenter)
    inference = Inference(segmenter, working=WorkingSize(size=size))
    done = 0
    with Progress("all steps overlapping", frames) as progress:
        while done < frames:
            task = Task(inference=inference, drawing=drawing, selection=Selection(max_frames=frames - done))
            source = Source(clip, "video", Path(f"after_{done}"))
            outcome = segment_video(source, plan_outputs(source, folder, drawing), task, on_frame=progress.step)
            if outcome.broken is not None:
                raise InputError(outcome.broken)
            done += outcome.frames


def shipped_clip(folder: Path, frames: int) -> Path:
    """Write the shipped Toytown frames as a clip of so many frames, each twice in a row, and return its place."""
    from lsr_infer.parity.frame_set import shipped_frames

    shipped = shipped_frames(12).frames
    height, width = shipped[0].shape[:2]
    place = folder / "toytown.mp4"
    with VideoWriter(place, width=width, height=height, fps=Fraction(25)) as writer:
        for frame in islice(cycle(frame for frame in shipped for _ in range(2)), max(frames, 1)):
            writer.write(frame)
    return place
