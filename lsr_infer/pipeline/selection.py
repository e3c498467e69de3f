"""Which frames of a video or stream are taken: a stretch of it, every so manieth, so many a second, so many in all.

Works on times alone, so that the same rules hold for files and for live sources.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from lsr_infer.errors import UsageError

if TYPE_CHECKING:
    from lsr_infer.video.info import VideoInfo

__all__ = ["Selection"]

_SLACK_SECONDS = 0.002
"""Time stamps are often rounded to milliseconds; a frame this much early still counts as due."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is taken.

    Args:
        start: seconds from the beginning; what is shown earlier is left out.
        duration: seconds from `start` after which reading ends.
        every: take one of so many frames, the first of them.
        fps: take at most so many frames a second, by their times; never more than there are.
        max_frames: stop after so many.
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

    def rate(self, fps: Fraction) -> Fraction:
        """Return about how many frames a second are taken of a source that has so many."""
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
