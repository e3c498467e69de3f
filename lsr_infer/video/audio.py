"""Copy the sound of a video into the video that is made of it, packet by packet and undecoded.

Knows containers and time, nothing of pictures. What MP4 cannot hold, is broken or cannot be fetched is left out with a
word.
"""

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
from av.error import FFmpegError

from lsr_infer.errors import InputError
from lsr_infer.io.addresses import label
from lsr_infer.video.containers import TIMEOUT_SECONDS, open_container, seeks_well
from lsr_infer.video.info import reason, silence
from lsr_infer.video.timeline import Timeline

__all__ = ["AudioCopy", "AudioSource"]

logger = logging.getLogger(__name__)

_MP4_CODECS = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "opus", "libopus", "flac", "alac"})


@dataclass(frozen=True, kw_only=True)
class AudioSource:
    """The stretch of a video whose sound is copied.

    Args:
        place: the file, or its address.
        start: seconds from its beginning at which the sound begins; these become the time 0 of the copy.
        duration: seconds that are copied; None copies to the end.
        timeout_seconds: an address that sends nothing for so long is lost.
        cut: set where the video ends before the file does; the copy then ends with the last frame.
    """

    place: Path | str
    start: float = 0.0
    duration: float | None = None
    timeout_seconds: float = TIMEOUT_SECONDS
    cut: threading.Event = field(default_factory=threading.Event, compare=False)


class AudioCopy:
    """The audio streams of a video on their way into an open container.

    Args:
        source: what is copied.
        output: the container; the streams are added here, before anything is written to it.
        origin: time of the video's first picture on its own clock, from which `source.start` counts.
    """

    def __init__(self, source: AudioSource, output: Any, origin: float) -> None:
        self._source = source
        self._zero = origin + source.start  # on the file's clock
        self._first = self._zero if source.start else None
        self._last = None if source.duration is None else origin + source.start + source.duration
        self._streams: dict[int, Any] = {}
        self._stamps: dict[int, int] = {}
        self._packets: Iterator[Any] = iter(())
        self._pending: Any = None
        self._name = Path(label(source.place)).name
        self._input: Any = None
        try:
            self._input = open_container(source.place, source.timeout_seconds)
            self._add_streams(output)
        except (FFmpegError, InputError) as error:  # an InputError: it has vanished since its pictures were opened
            why = str(error).rstrip(".") if isinstance(error, InputError) else self._reason(error)
            logger.warning("%s: its sound cannot be fetched and is left out (%s)", self._name, why)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._input is not None:
            self._input.close()

    def _add_streams(self, output: Any) -> None:
        """Go to where the sound begins, and add what MP4 can hold of it to the output."""
        if self._first is not None and self._input.streams.audio and seeks_well(self._input):
            self._input.seek(int(self._first * av.time_base), backward=True)
        for stream in self._input.streams.audio:
            name = stream.codec_context.name if stream.codec_context is not None else "unknown"
            if name in _MP4_CODECS:
                self._streams[stream.index] = output.add_stream_from_template(stream)
            else:
                logger.warning("%s: its sound (%s) does not fit into MP4 and is left out", self._name, name)
        if self._streams:
            # All of them, since the pictures' clock counts on the sound's, and the sound's on the pictures'.
            self._packets = Timeline(self._input).placed(self._input.demux())
            self._advance()

    def until(self, time: float) -> Iterator[Any]:
        """Yield the packets that begin before `time` (in seconds of the copy), ready to be muxed."""
        while self._pending is not None and self._begins(self._pending) - self._zero < time:
            packet = self._pending
            self._advance()
            yield self._prepared(packet)

    def rest(self, end: float) -> Iterator[Any]:
        """Yield what is left once the last frame, which is shown until `end`, has been written."""
        return self.until(end if self._source.cut.is_set() else float("inf"))

    def _begins(self, packet: Any) -> float:
        return float(packet.dts * packet.time_base)

    def _advance(self) -> None:
        """Fetch the next packet that is copied; none where the stretch or the file ends."""
        self._pending = None
        try:
            for packet in self._packets:
                index = packet.stream.index
                if index not in self._streams or packet.dts is None or packet.size == 0 or packet.is_corrupt:
                    continue
                begins = self._begins(packet)
                if self._first is not None and begins < self._first - 1e-6:
                    continue
                if packet.dts <= self._stamps.get(index, packet.dts - 1):
                    continue  # a time that runs backwards is refused by the container
                if self._last is not None and begins >= self._last - 1e-6:
                    return
                self._stamps[index] = packet.dts
                self._pending = packet
                return
        except FFmpegError as error:
            logger.warning("%s: its sound breaks off (%s)", self._name, self._reason(error))

    def _reason(self, error: FFmpegError) -> str:
        return silence(error, self._source.timeout_seconds) or reason(error)

    def _prepared(self, packet: Any) -> Any:
        """Move a packet to its stream and to the copy's clock."""
        ticks = round(self._zero / packet.time_base)
        packet.stream = self._streams[packet.stream.index]
        packet.dts -= ticks
        if packet.pts is not None:
            packet.pts -= ticks
        return packet
