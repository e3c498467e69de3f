"""What a video claims to hold, against what was read of it: libav ends a file that is cut off without an error.

Knows containers, nothing of pictures or of what is done with them.
"""

from pathlib import Path
from typing import Any

from av.video.stream import VideoStream

from lsr_infer.io.addresses import is_address
from lsr_infer.io.image_headers import walk_pictures
from lsr_infer.video.containers import formats

__all__ = ["PLAYLISTS", "Reading"]

PLAYLISTS = frozenset({"hls", "dash"})
"""Formats whose own size says nothing about the video."""
_WALKED = frozenset({"gif", "apng"})
"""Animations, of which libav says at most what it found."""
_BY_STREAM = frozenset({"mov", "avi"})
"""Formats that state the length of each stream."""
_BY_FILE = frozenset({"matroska", "flv"})
"""Formats that state the length of the file with its sound, counted from 0. All others state none, or one that whole
files miss (ASF); libav then measures it at the end of what there is, or guesses."""
_PLAYLIST_ROUNDING_SECONDS = 0.5
_ROUNDING_SECONDS = 0.1
_ROUNDING_FRAMES = 2
_HOLE_BYTES = 256
"""More than what stands between two packets of those formats (at most 24 bytes in files of libav)."""
_HOLE_FRAMES = 1.5


class Reading:
    """How much of a container was read.

    Args:
        container: it, open.
        stream: the pictures in it that are read.
        place: its file, or its address.
        sought: reading begins in the middle.
    """

    def __init__(self, container: Any, stream: VideoStream, place: Path | str, *, sought: bool) -> None:
        self._container = container
        self._stream = stream
        self._place = place
        self._sought = sought
        self._formats = formats(container)
        self._packets = 0
        self._length = 0
        self._end = self._file_end = float("-inf")
        self._delay: int | None = None
        self._read_to: int | None = None
        self._newest: int | None = None
        self._hole = 0
        self._damage: str | None = None

    def add(self, packet: Any) -> None:
        """Count a packet of any stream, as it stands in the file."""
        if packet.size == 0:
            return
        end = float((packet.pts + (packet.duration or 0)) * packet.time_base) if packet.pts is not None else self._end
        self._file_end = max(self._file_end, end)
        self._look_for_holes(packet)
        if packet.stream.index == self._stream.index:
            self._packets += 1
            self._length += packet.duration or 0
            self._end = max(self._end, end, self._decoded(packet))

    def _decoded(self, packet: Any) -> float:
        """Return where decoding ends with a packet, on the clock of showing: headers count in the order of decoding."""
        if packet.pts is None or packet.dts is None:
            return float("-inf")
        if self._delay is None:
            self._delay = packet.pts - packet.dts
        return float((packet.dts + self._delay + (packet.duration or 0)) * packet.time_base)

    def _look_for_holes(self, packet: Any) -> None:
        """Note bytes that the reader passed over, where the pictures' times leap as well: more stands in some files."""
        if packet.pos is not None and self._read_to is not None:
            self._hole = max(self._hole, packet.pos - self._read_to)
        self._read_to = None if packet.pos is None else packet.pos + packet.size
        if packet.stream.index != self._stream.index or packet.pts is None:
            return
        leaps = self._newest is not None and packet.pts - self._newest > _HOLE_FRAMES * (
            packet.duration or float("inf")
        )
        if leaps and self._hole > _HOLE_BYTES and self._damage is None:
            self._damage = f"{self._hole} bytes before {packet.pts * self._time_base:.1f} s cannot be read"
        self._hole = 0
        self._newest = packet.pts if self._newest is None else max(self._newest, packet.pts)

    def lack(self) -> str | None:
        """Say what is missing of a container that was read to its end; None where it is whole, as far as it tells."""
        if self._formats & PLAYLISTS:
            return self._lack_of_playlist()
        if self._formats & _WALKED:
            return self._lack_of_animation()
        if self._formats & _BY_FILE and self._damage:
            return self._damage  # their readers pass over damage to the next place that they know
        if self._stream.frames and not self._sought and self._packets >= self._stream.frames:
            return None  # some headers round the duration
        claimed, reached = self._claimed(), self._file_end
        if self._formats & _BY_STREAM:
            reached = self._end - float((self._stream.start_time or 0) * self._time_base)
        rate = float(self._stream.average_rate or 25)
        if claimed is None or reached >= claimed - max(_ROUNDING_FRAMES / rate, _ROUNDING_SECONDS):
            return None
        return f"{self._stream.frames or f'{claimed:.1f} s'} claimed"

    @property
    def _time_base(self) -> float:
        return float(self._stream.time_base or 0)

    def _claimed(self) -> float | None:
        """Return the seconds that the header states, None where libav's duration is a guess from what there is."""
        stream = self._stream
        if self._formats & _BY_FILE:  # a length of the stream, where libav has one, it guessed with that of the file
            known = stream.duration is None and self._container.duration is not None
            return self._container.duration / 1_000_000 if known else None
        if not self._formats & _BY_STREAM:
            return None
        seconds = None if stream.duration is None else stream.duration * self._time_base
        # Where a file is cut off, libav shortens what its header says; the number of frames stays.
        if "avi" in self._formats and stream.frames and stream.average_rate:
            seconds = max(seconds or 0.0, stream.frames / float(stream.average_rate))
        return seconds

    def _lack_of_animation(self) -> str | None:
        if isinstance(self._place, str) and is_address(self._place):
            return None
        try:
            found = walk_pictures(Path(self._place).read_bytes())
        except OSError as error:
            return f"its end cannot be looked at, {error.strerror or error}"
        if found.whole and self._packets >= found.count:
            return None
        return "its end is missing" if self._packets >= found.count else f"{found.count} claimed"

    def _lack_of_playlist(self) -> str | None:
        """Say by how much a playlist fell short; libav passes over pieces that it cannot fetch, and says nothing."""
        if self._container.duration is None or not self._length:
            return None
        short = self._container.duration / 1_000_000 - self._length * self._time_base
        return (
            f"{short:.1f} s of what its playlist promises did not come" if short > _PLAYLIST_ROUNDING_SECONDS else None
        )
