"""Opens videos with libav, describes them, and places their packets on one clock.

Some formats are lists of other places: playlists, scripts, session descriptions, names with a number in them. A file of
such a format is refused before libav acts on it; behind an http address playlists are read, but may lead only to http.
"""

import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.error import FFmpegError
from av.format import Flags
from numpy.typing import NDArray

from lsr_infer.errors import InputError
from lsr_infer.io.addresses import is_address, label, protocols
from lsr_infer.io.colors import UNSPECIFIED
from lsr_infer.io.download import refuse_other_scheme
from lsr_infer.io.files import file_status
from lsr_infer.io.image_headers import is_still

__all__ = [
    "BARE", "BT709", "LEAP_SECONDS", "TIMEOUT_SECONDS", "ColorTags", "Timeline", "VideoFrame", "VideoInfo",
    "error_text", "formats", "open_container", "packets", "seeks_well", "silence_text",
]  # fmt: skip

TIMEOUT_SECONDS = 20.0
"""How long an address may send nothing, unless told otherwise."""
_SEEKABLE = frozenset({"mp4", "matroska"})
"""Formats whose seeks land at or before the wanted frame."""

_CHECKED = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,apng,yuv4mpegpipe"
"""libav's names of the formats that hold all their pictures themselves, and say where one is missing."""
BARE = frozenset({"h264", "hevc", "vvc", "mpegvideo", "m4v", "obu", "mjpeg"})
"""Streams without a container, of which nothing tells whether pictures are missing."""
_HELD = ",".join([_CHECKED, *sorted(BARE)])
_SENT = f"{_HELD},mpjpeg,live_flv,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,hls,dash"
_FORMATS = {"http": _SENT, "https": _SENT, "rtsp": "rtsp", "rtsps": "rtsp"}


def open_container(place: Path | str, timeout_seconds: float = TIMEOUT_SECONDS) -> "av.container.InputContainer":
    """Open a video by its file or address; opening an address, and each later read of it, end after the timeout.

    Raises:
        InputError: there is no such file, or it is of a format that is not read.
        av.FFmpegError: it cannot be opened.
    """
    timeout: tuple[float, float] | None = None
    if isinstance(place, str) and is_address(place):
        scheme, allowed = protocols(place)
        name = scheme + place[len(scheme) :]  # libav knows schemes in lower case
        options = {"protocol_whitelist": allowed, "format_whitelist": _FORMATS[scheme]}
        if scheme.startswith("rtsp"):
            options["rtsp_flags"] = "prefer_tcp"  # UDP loses packets silently and is stopped by most firewalls
        timeout = (timeout_seconds, timeout_seconds)
    else:
        name = f"file:{place}"
        options = {"protocol_whitelist": "file", "format_whitelist": _HELD}
        if file_status(Path(place)) is None:
            raise InputError(f"{place}: does not exist.")
        if not Path(place).is_file():
            raise InputError(f"{place}: is no file, so no video.")
        if is_still(Path(place)):
            raise InputError(f"{place}: is a still picture, no video. Give it the ending of its format, such as .heic.")
    try:
        # Errors in the user data (titles, cover texts) of a file that plays are no errors of the video.
        return av.open(name, options=options, timeout=timeout, metadata_errors="ignore")
    except av.ArgumentError as error:  # the error of libav for a format or a protocol that is not on the list
        if name.startswith("http"):
            refuse_other_scheme(name, timeout_seconds)
        raise InputError(
            f"{label(place)}: cannot be read as video: it is damaged, of a format that does not say whether it is "
            "whole, or only leads to other places, as a playlist, a script or a numbered name does. Name the video "
            f"itself; one of another format is repacked by: ffmpeg -i {shlex.quote(label(place))} -c copy OUT.mkv."
        ) from error


def formats(container: "av.container.InputContainer") -> frozenset[str]:
    """Return libav's names of a container's format."""
    return frozenset(container.format.name.split(","))


def seeks_well(container: "av.container.InputContainer") -> bool:
    """Whether a seek lands at or before the wanted frame; elsewhere it goes by decoding time and may land behind."""
    return bool(_SEEKABLE & formats(container))


def packets(container: "av.container.InputContainer") -> Iterator[Any]:
    """Yield the packets of all streams.

    In fragments libav hides what begins no later than the packet before it. One that begins with it follows one of no
    length, as its own muxer writes them beside sound, and is kept.
    """
    last: dict[int, int | None] = {}
    with suppress(IndexError):  # PyAV fails at the end where a stream began in the middle
        for packet in container.demux():
            kept: Any = packet
            if packet.is_discard and packet.dts is not None and packet.dts == last.get(packet.stream.index):
                kept = av.Packet(bytes(packet))
                kept.stream, kept.time_base, kept.is_keyframe = packet.stream, packet.time_base, packet.is_keyframe
                kept.pts, kept.dts, kept.duration = packet.pts, packet.dts, packet.duration
            last[packet.stream.index] = packet.dts
            yield kept


@dataclass(frozen=True, kw_only=True)
class ColorTags:
    """The colour tags of a video, as the numbers of ITU-T H.273 that libav uses.

    Matrix 1 is BT.709, 2 unspecified, 5 and 6 are BT.601, 9 is BT.2020; in full range luma uses 0..255, not 16..235.
    """

    matrix: int = UNSPECIFIED
    full_range: bool = False
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


BT709 = ColorTags(matrix=1, primaries=1, transfer=1)


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """The description of a video.

    Args:
        width: columns of a frame as shown, rotation applied.
        height: rows of it.
        fps: mean frame rate; 25 where the file states none. Frames are timed by their stamps, not by it.
        frames: number of frames the file claims, None where it claims none.
        duration: length in seconds, None where unknown.
        time_base: unit of the time stamps, in seconds.
        color: colour tags.
        pixel_aspect: width of a pixel over its height, as shown.
        origin: time of the beginning on the file's clock, in seconds.
        finite: it has an end, as a file or a recording does and a live stream does not.
    """

    width: int
    height: int
    fps: Fraction
    frames: int | None = None
    duration: float | None = None
    time_base: Fraction
    color: ColorTags = ColorTags()
    pixel_aspect: Fraction = Fraction(1)
    origin: float = 0.0
    finite: bool = True


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """A frame [H,W,3] uint8 BGR, rotated for display, its time in seconds on the file's clock, and its number.

    `stored` is the decoded picture that it was converted from, where that is in yuv420p and shown whole and upright.
    """

    frame: NDArray[np.uint8]
    time: float
    index: int
    stored: av.VideoFrame | None = None


def error_text(error: FFmpegError) -> str:
    """Return libav's message without its numbers."""
    return str(error.strerror or error).lower()


def silence_text(error: FFmpegError, timeout_seconds: float) -> str | None:
    """Say for how long a source sent nothing, where that is the error."""
    silent = isinstance(error, av.error.ExitError | TimeoutError)
    return f"sent nothing for {timeout_seconds:g} s" if silent else None


LEAP_SECONDS = 10.0
"""A clock that leaps further than this has started again."""
_BACK_SECONDS = 0.5
"""Reordering by a decoder goes less far back than this."""
_BROADCAST: Any = Flags.ts_discont.value


@dataclass
class _StreamClock:
    """The place of a stream on the clocks of the file."""

    number: int  # of the file's clock that it follows
    shift: float  # seconds from that clock to ours
    last: float | None = None  # stamp on that clock
    end: float = 0.0  # of the last packet, on ours


class Timeline:
    """Moves the packets of a container, in place, from the file's clocks to the first of them.

    Files that are concatenated (`cat a.ts b.ts`) and the recordings of dashcams start their clock again in the middle.
    Where a stream's stamps run back, or in the formats meant for broadcasting leap ahead, its next packet follows the
    last one of the file without a gap. The other streams take the same step when their own stamps do, since packets
    from before the step may still come. Pictures and sound are read separately; both place every packet of the file in
    its order, so they are moved alike.

    Attributes:
        clocks: how often the file's clock has started again.
    """

    def __init__(self, container: Any) -> None:
        self.clocks = 0
        self._leaps = bool(int(container.format.flags) & _BROADCAST)
        self._clocks: dict[int, _StreamClock] = {}
        self._shift = 0.0
        self._end = float("-inf")

    def place(self, packet: Any) -> None:
        """Move a packet of pictures or sound; others, and those without stamps, stay as they are."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None or packet.size == 0 or packet.stream.type not in ("video", "audio"):
            return
        at = float(stamp * packet.time_base)
        clock = self._clocks.setdefault(packet.stream.index, _StreamClock(self.clocks, self._shift))
        # A leap must be beyond the end of all streams.
        leaps = self._leaps and at + clock.shift > self._end + LEAP_SECONDS
        if clock.last is not None and (leaps or at < clock.last - _BACK_SECONDS):
            self._follow(clock, at)
        step = at - clock.last if clock.last is not None else 0.0
        length = float(packet.duration * packet.time_base) if packet.duration else max(0.0, min(step, _BACK_SECONDS))
        clock.last, clock.end = at, at + clock.shift + length
        self._end = max(self._end, clock.end)
        ticks = round(clock.shift / packet.time_base)
        if ticks:
            packet.pts, packet.dts = _moved(packet.pts, ticks), _moved(packet.dts, ticks)

    def _follow(self, clock: _StreamClock, at: float) -> None:
        """Let a stream follow the newest clock, which it starts if no other stream did before."""
        if clock.number == self.clocks:
            self.clocks += 1
            self._shift = self._end - at
        clock.number = self.clocks
        clock.shift = max(self._shift, clock.end - at)
        clock.last = None


def _moved(stamp: int | None, ticks: int) -> int | None:
    """Return a later stamp, None where damage made it one that libav cannot count."""
    return None if stamp is None or abs(stamp + ticks) >= 1 << 63 else stamp + ticks
