"""What a video is: its size, rate, colour tags and time stamps, as plain data; and libav's errors in one line.

Shared by reading and writing; knows neither.
"""

from dataclasses import dataclass
from fractions import Fraction

import av.error
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

__all__ = ["ColorTags", "VideoFrame", "VideoInfo", "reason", "silence"]

_UNSPECIFIED = 2


@dataclass(frozen=True, kw_only=True)
class ColorTags:
    """How a video's samples mean colour, as the numbers of ITU-T H.273 that libav uses.

    Args:
        matrix: YUV matrix (1 is BT.709, 2 unspecified, 5 and 6 BT.601, 9 BT.2020).
        full_range: luma uses 0..255 and not 16..235.
        primaries: colour primaries, 2 where unspecified.
        transfer: transfer characteristic, 2 where unspecified.
    """

    matrix: int = _UNSPECIFIED
    full_range: bool = False
    primaries: int = _UNSPECIFIED
    transfer: int = _UNSPECIFIED


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video file says about itself.

    Args:
        width: width of a frame as shown, rotation applied, in pixels.
        height: height of a frame as shown.
        fps: mean frame rate; 25 where the file states none (time stamps rule, this does not).
        frames: number of frames the file claims, None where it claims none.
        duration: length in seconds, None where unknown.
        rotation: degrees counter-clockwise by which the stored picture is turned for display.
        time_base: unit of the time stamps, in seconds.
        color: colour tags.
        pixel_aspect: width of a pixel over its height, as shown.
        origin: time of the beginning on the file's own clock, in seconds.
        finite: it has an end: a file or a recording, and no stream that goes on.
    """

    width: int
    height: int
    fps: Fraction
    frames: int | None
    duration: float | None
    rotation: int
    time_base: Fraction
    color: ColorTags = ColorTags()
    pixel_aspect: Fraction = Fraction(1)
    origin: float = 0.0
    finite: bool = True


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One frame of a video.

    Args:
        frame: [H,W,3] uint8 BGR, rotation applied; the caller's to keep.
        time: presentation time in seconds on the file's clock.
        index: number of the frame among those this reading yields, from 0.
    """

    frame: NDArray[np.uint8]
    time: float
    index: int


def reason(error: FFmpegError) -> str:
    """Return libav's own words without its numbers."""
    return str(error.strerror or error).lower()


def silence(error: FFmpegError, timeout_seconds: float) -> str | None:
    """Say for how long a source sent nothing, where that is the error."""
    silent = isinstance(error, av.error.ExitError | TimeoutError)
    return f"sent nothing for {timeout_seconds:g} s" if silent else None
