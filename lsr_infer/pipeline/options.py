"""Describes a task of `lsr-infer`: sources, results, frames that are taken, the size the network works at.

Nothing heavy is imported here, because a command line is checked against it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lsr_infer.errors import InputError, UsageError

if TYPE_CHECKING:
    from fractions import Fraction

    from lsr_infer.manifest import Manifest
    from lsr_infer.video.containers import VideoInfo

__all__ = ["KINDS", "SegmentOptions", "Selection", "Tiling", "WorkingSize"]

KINDS = ("overlay", "mask", "confidence", "json")
"""What can be saved."""

MASK_IDS = ("train", "cityscapes")
"""Which numbers a mask can hold: class indices with 255 for void, or Cityscapes' label ids with 0 for void."""

_SLACK_SECONDS = 0.002
"""Time stamps are often rounded to milliseconds; a frame this much early still counts as due."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which frames are taken; `lsr-infer --help frames` says what each option means.

    Works on times alone, so that the same rules hold for files and for live sources.
    """

    start: float | None = None
    duration: float | None = None
    every: int = 1
    fps: float | None = None
    max_frames: int | None = None

    def __post_init__(self) -> None:
        for name in ("every", "max_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} is {value}; allowed: 1 or more.")
        if self.start is not None and not 0 <= self.start < float("inf"):
            raise UsageError(f"--start is {self.start}; allowed: seconds, 0 or more.")
        for name in ("duration", "fps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"--{name} is {value}; allowed: a finite number above 0.")

    def picker(self) -> Callable[[float], bool]:
        """Return a function that is asked with each frame's time, in order, whether the frame is taken."""
        seen = 0
        due: float | None = None
        every, interval = self.every, 1 / self.fps if self.fps is not None else None

        def take(time: float) -> bool:
            nonlocal seen, due
            seen += 1
            if (seen - 1) % every:
                return False
            if interval is None:
                return True
            if due is not None and time < due - _SLACK_SECONDS:
                return False
            due = time + interval if due is None or time - due >= interval else due + interval
            return True

        return take

    def rate(self, fps: "Fraction") -> "Fraction":
        """Return about how many frames a second are taken of a source that has so many."""
        from fractions import Fraction

        taken = fps / self.every
        return taken if self.fps is None else min(taken, Fraction(self.fps).limit_denominator(1001))

    @property
    def thins(self) -> bool:
        """Whether frames in between are left out."""
        return self.every > 1 or self.fps is not None

    def expected(self, info: "VideoInfo") -> int | None:
        """Return about how many frames of a file are taken, None where the file does not say how many it has."""
        frames: float | None = info.frames
        seconds = info.duration
        if frames is None and seconds is not None:
            frames = seconds * float(info.fps)
        if frames is None:
            return self.max_frames if seconds is None else None
        if seconds:
            shown = max(0.0, min(seconds - (self.start or 0.0), self.duration or seconds))
            frames *= shown / seconds
        count = -(-int(frames + 0.5) // self.every)
        if self.fps is not None and seconds:
            count = min(count, int(min(seconds, self.duration or seconds) * self.fps) + 1)
        return count if self.max_frames is None else min(count, self.max_frames)


@dataclass(frozen=True)
class Tiling:
    """How an image is cut; `overlap` is the least share of a side that the next tile repeats, 0 to less than 1."""

    height: int
    width: int
    overlap: float = 0.25


@dataclass(frozen=True, kw_only=True)
class WorkingSize:
    """At which (height, width) frames enter the network; nothing set means what its Manifest says."""

    size: tuple[int, int] | None = None
    stride: int | None = None
    tile: tuple[int, int] | Literal["auto"] | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.size, self.stride, self.tile)) > 1:
            raise UsageError("--size, --stride and --tile each set the working size; take one of them.")
        if self.stride is not None and self.stride < 1:
            raise UsageError(f"--stride is {self.stride}; allowed: 1 or more.")

    def check(self, manifest: "Manifest") -> None:
        """Raise `UsageError` unless a model can work at this size."""
        if self.stride is not None and manifest.fixed_size:
            raise UsageError(
                f"--stride: the model takes {manifest.width}x{manifest.height} alone. Export a graph of free size."
            )
        for name, wanted in (("--size", self.size), ("--tile", self.tile)):
            if wanted is None or wanted == "auto":
                continue
            try:
                manifest.check_size(*wanted)
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from error

    def of(self, manifest: "Manifest", height: int, width: int) -> tuple[int, int] | None:
        """Return (rows, columns) for a frame, None for the Manifest's own rule."""
        if self.stride is None:
            return self.size
        size = manifest.rounded_size(height / self.stride, width / self.stride)
        try:
            manifest.check_size(*size)
        except UsageError as error:
            raise InputError(
                f"a frame of {width}x{height} at --stride {self.stride}: {error} Take another --stride, or --size."
            ) from error
        return size

    def tiling(self, manifest: "Manifest") -> Tiling | None:
        """Return how frames are cut, None where they are not."""
        if self.tile is None:
            return None
        height, width = (manifest.height, manifest.width) if self.tile == "auto" else self.tile
        return Tiling(height, width)


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """A command line of `lsr-infer`, checked; `lsr-infer --help all` says what each option means."""

    sources: tuple[str, ...]
    output: Path | str | None = None
    model: Path | str | None = None
    compare: bool = False
    other: Path | str | None = None
    save: frozenset[str] = frozenset({"overlay"})
    lossless: bool = False
    mask_ids: str = "train"
    alpha: float = 0.5
    legend: Literal["auto", "on", "off"] = "auto"
    ignore_mask: Path | str | None = None
    selection: Selection = field(default_factory=Selection)
    working: WorkingSize = field(default_factory=WorkingSize)
    device: str = "auto"
    backend: str | None = None
    threads: int = 0
    precision: str | None = None
    allow_unverified: bool = False
    timeout: float = 10.0
    reconnects: int = 5
    overwrite: bool = False
    show: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        wrong = sorted(self.save - set(KINDS))
        if wrong or not self.save:
            raise UsageError(f"--save is {', '.join(wrong) or 'empty'}; allowed: {', '.join(KINDS)}, with commas.")
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"--alpha is {self.alpha}; allowed: 0 to 1.")
        if not 0 < self.timeout < float("inf"):
            raise UsageError(f"--timeout is {self.timeout}; allowed: seconds, more than 0.")
        for name in ("threads", "reconnects"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name} is {getattr(self, name)}; allowed: 0 or more.")
        if self.compare and "overlay" not in self.save and not self.show:
            raise UsageError("--side-by-side shows overlays; put overlay into --save, or leave it out.")
        for flag, given in (("--lossless", self.lossless), ("--mask-ids", self.mask_ids != "train")):
            if given and "mask" not in self.save:
                raise UsageError(f"{flag} is about masks; put mask into --save, or leave it out.")
        if self.mask_ids not in MASK_IDS:
            raise UsageError(f"--mask-ids is {self.mask_ids}; allowed: {', '.join(MASK_IDS)}.")
        if self.output is None and not self.show:
            raise UsageError("name the folder of the results with --output DIR. See lsr-infer --help.")
