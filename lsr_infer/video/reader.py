"""Reads videos frame by frame as BGR arrays and checks that they are complete.

Reading applies the display rotation and the colour matrix and range the file states; nothing is dropped or repeated,
and a file that breaks off or yields less than it claims raises. The module knows nothing of models.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from lsr_infer.errors import InputError, LostPacketsError
from lsr_infer.io.addresses import is_address, label
from lsr_infer.io.image_headers import UNCROPPED, Crop
from lsr_infer.video import containers
from lsr_infer.video.containers import TIMEOUT_SECONDS, VideoFrame, VideoInfo, open_container
from lsr_infer.video.display import DisplayConverter, is_transposed, shown_colors, shown_size
from lsr_infer.video.structure import find_crops, walk_file

__all__ = ["describe", "picture_stream", "probe", "read_frames", "warn_of_several"]

logger = logging.getLogger(__name__)

_PLAYLISTS = frozenset({"hls", "dash"})
"""Formats whose own size says nothing about the video."""
_BY_STREAM = frozenset({"mov", "avi"})  # state the length of each stream
_BY_FILE = frozenset({"matroska", "flv"})
"""Formats that state the length of the file with its sound, counted from 0. All others state none, or one that whole
files miss (ASF); libav then measures it at the end of what there is, or guesses."""
_PLAYLIST_ROUNDING_SECONDS = 0.5
_ONE_TO_ONE = frozenset({"h264", "hevc", "av1", "vp9", "mjpeg", "mpeg4", "mpeg1video", "mpeg2video", "wmv2", "ffv1"})
"""Codecs of which every packet gives one picture at its own time, unless it is one of two fields or empty."""
_EMPTY_BYTES = {"mpeg4": 19}
"""At most, of a packet that repeats the last picture; libav takes those of its `MAX_NVOP_SIZE` for such."""
_FIXED_RATE = frozenset({"mpeg1video", "mpeg2video"})
_LONGEST_STEP, _STEPS_BESIDE = 1.75, 8
"""Pictures of a fixed rate from one to the next; a field that is shown twice makes it 1.5."""
_MOST_REORDERED = 16
"""Pictures that a decoder may show before one that it decoded earlier."""
_ROUNDING_SECONDS = 0.1
_ROUNDING_FRAMES = 2


class _CompletenessCheck:
    """Compares what was read of a container with what it claims: libav ends a file that is cut off without an error.

    Pictures before the stamp `first` are not asked for.
    """

    def __init__(self, container: Any, stream: VideoStream, path: Path | str, first: int | None) -> None:
        self._container = container
        self._stream = stream
        self._path = path
        self._first = first
        self._seeked = first is not None and containers.seeks_well(container)
        self._formats = containers.formats(container)
        self._packets = 0
        self._length = 0
        self._end = self._file_end = float("-inf")
        self._delay: int | None = None
        self._codec = stream.codec_context.codec.canonical_name
        self._is_one_to_one = self._codec in _ONE_TO_ONE
        self._expected: set[int] = set()
        self._stamps: list[int] = []
        self._begin: int | None = None
        self._last: int = -(1 << 63)
        self.is_in_order = True  # AVI and ASF number pictures as they are decoded
        self._sent = self._shown = self._unshown = self._unasked = self._undecodable = 0

    def add(self, packet: Any) -> None:
        """Count a packet of any stream, in the order of the file."""
        if packet.size == 0:
            return
        end = float((packet.pts + (packet.duration or 0)) * packet.time_base) if packet.pts is not None else self._end
        self._file_end = max(self._file_end, end)
        if packet.stream.index == self._stream.index:
            self._packets += not packet.is_discard
            self._length += packet.duration or 0
            self._end = max(self._end, end)
            if packet.dts is not None:
                self._stamps.append(packet.dts)
            if packet.pts is not None and packet.dts is not None:
                if self._delay is None:
                    self._delay = packet.pts - packet.dts
                # Headers count in the order of decoding; the delay moves its end to the clock of showing.
                decoded = (packet.dts + self._delay + (packet.duration or 0)) * packet.time_base
                self._end = max(self._end, float(decoded))

    def expect(self, packet: Any) -> None:
        """Note the time of a picture that a packet must give, on our clock."""
        if not self._is_one_to_one or packet.size <= _EMPTY_BYTES.get(self._codec, 0) or packet.is_discard:
            return
        self._sent += 1
        if packet.pts is None:
            self._is_one_to_one = False
        elif self._begin is None and packet.is_keyframe:
            self._begin = packet.pts if self._first is None else max(packet.pts, self._first)
        if self._begin is not None and packet.pts is not None and packet.pts >= self._begin:
            self._expected.add(packet.pts)  # earlier ones may need others, from before the file begins

    def fail(self) -> None:
        """Count a packet that cannot be decoded."""
        self._undecodable += 1

    def show(self, picture: Any) -> None:
        """Note a picture; those that should have come before it are lost, which decoders do silently."""
        self._shown += 1
        if picture.interlaced_frame or picture.pts is None:
            self._is_one_to_one = False
        elif self._is_one_to_one:
            self.is_in_order &= picture.pts >= self._last
            self._last = picture.pts
            passed = {stamp for stamp in self._expected if stamp <= picture.pts}
            self._expected -= passed
            self._unshown += len(passed - {picture.pts})
            self._unasked += picture.pts not in passed and self._begin is not None and picture.pts >= self._begin

    def lost(self, until: float | None = None) -> int:
        """Return how many packets gave no picture; where reading ends early, of those shown before the stamp `until`.

        The decoder still holds pictures then, and may already have failed at later ones.
        """
        if not self._is_one_to_one:
            return self._undecodable
        if not self.is_in_order:
            return max(self._undecodable, self._sent - self._shown) if until is None else self._undecodable
        if until is not None:
            return max(0, self._unshown + sum(stamp < until for stamp in self._expected) - self._unasked)
        return max(self._undecodable, min(self._unshown + len(self._expected), self._sent - self._shown))

    def missing(self) -> str | None:
        """Return what is missing of a container that was read to its end; None where it seems complete."""
        if self._formats & _PLAYLISTS:
            return self._missing_of_playlist()
        if self._formats & containers.BARE:
            logger.warning("%s: does not say how many pictures it has; missing ones are not noticed", label(self._path))
        stated = self._stream.frames if self._formats & _BY_STREAM else 0  # elsewhere libav counted what there is
        structure = walk_file(self._path, self._formats)
        if stated and not self._seeked and self._packets >= stated and not structure.fragmented:
            return None  # some headers round the duration, and some files end in bytes that are no part of them
        if structure.damage:
            return f"{stated} claimed" if stated else structure.damage
        if "mpeg" in self._formats and self._codec in _FIXED_RATE and self._has_gap():
            return "pictures between others are missing"
        is_transport = "mpegts" in self._formats
        number = self._stream.id if is_transport else self._container.streams.video.index(self._stream)
        stored = structure.packets_of(number)
        if self._packets < stored and not self._seeked and (self._is_one_to_one or not is_transport):
            return f"{stored} claimed"
        if 0 < stored < stated and "mov" in self._formats:
            hidden = stated - stored
            logger.warning("%s: its edit list hides %d of its %d pictures", label(self._path), hidden, stated)
        claimed, reached = self._claimed(), self._file_end
        if self._formats & _BY_STREAM:
            reached = self._end - float((self._stream.start_time or 0) * self._time_base)
        rate = float(self._stream.average_rate or 25)
        if claimed is None or reached >= claimed - max(_ROUNDING_FRAMES / rate, _ROUNDING_SECONDS):
            return None
        return f"{self._stream.frames or f'{claimed:.1f} s'} claimed"

    def _has_gap(self) -> bool:
        """Whether pictures of a fixed rate are missing between others; the packs of program streams have no numbers.

        libav may give a picture the time of the next one: the steps beside it make up for a gap that is none.
        """
        steps = [after - before for before, after in pairwise(self._stamps)]
        usual = max(1, sorted(steps)[len(steps) // 2]) if steps else 1
        leap = containers.LEAP_SECONDS / self._time_base  # to another clock
        for at, step in enumerate(steps):
            near = steps[max(0, at - _STEPS_BESIDE) : at + _STEPS_BESIDE]
            if _LONGEST_STEP * usual < step < leap and sum(near) > (len(near) + 0.5) * usual:
                return True
        return False

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

    def _missing_of_playlist(self) -> str | None:
        """Say by how much a playlist fell short; libav skips segments that it cannot fetch, silently."""
        if self._container.duration is None or not self._length:
            return None
        short = self._container.duration / 1_000_000 - self._length * self._time_base
        complete = short <= _PLAYLIST_ROUNDING_SECONDS
        return None if complete else f"{short:.1f} s of what its playlist promises did not come"


def probe(path: str | Path, *, timeout_seconds: float = TIMEOUT_SECONDS) -> VideoInfo:
    """Describe a video, a file or the address of one, after decoding its first frame.

    Raises:
        InputError: the file is missing, is no video, or its first frame cannot be decoded.
    """
    name = label(path)
    try:
        with open_container(path, timeout_seconds) as container:
            stream = picture_stream(container, name)
            crop = _crop(path, container, stream)
            for picture in _pictures(container, stream, name):
                return describe(container, stream, picture, crop)
            raise _no_frame(name, stream)
    except FFmpegError as error:
        raise _broken(name, 0, error, timeout_seconds) from error


def read_frames(
    path: str | Path,
    *,
    start: float | None = None,
    duration: float | None = None,
    threads: int = 0,
    keep: Callable[[float], bool] | None = None,
    most: int | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Iterator[VideoFrame]:
    """Decode a video frame by frame.

    Args:
        path: a local file, or the address of one.
        start: seconds from the video's beginning; frames shown earlier are left out.
        duration: seconds from `start` after which reading ends.
        threads: decoder threads; 0 lets libav choose.
        keep: called with each frame's time, in order; only frames for which it is true are yielded.
        most: how many frames are yielded at most.
        timeout_seconds: an address that sends nothing for so long is lost.

    Yields:
        The frames, in presentation order. Where the file's clock starts again, the times continue.

    Raises:
        InputError: the file is missing, is no video, yields no frame, breaks in the middle or ends before what it
            claims. The good frames before the place have been yielded by then; the message counts them.
        LostPacketsError: packets of what was asked for cannot be decoded; all other frames have been yielded.
    """
    name = label(path)
    index = seen = decoded = beyond = 0
    until: float | None = None
    try:
        with open_container(path, timeout_seconds) as container:
            stream = picture_stream(container, name)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            origin = _origin(stream)
            first = origin + start if start else None
            last = None if duration is None else origin + (start or 0.0) + duration
            stamp = int(first / stream.time_base) if first is not None and stream.time_base else None
            if stamp is not None and containers.seeks_well(container):
                _seek(container, stream, stamp)
            check = _CompletenessCheck(container, stream, path, stamp)
            convert = DisplayConverter(name, _crop(path, container, stream))
            warn_of_several(container, stream, name)
            for picture in _pictures(container, stream, name, check):
                nominal = decoded / float(stream.average_rate or 25)  # where it has no stamp
                time = nominal if picture.time is None else float(picture.time)
                decoded += 1
                if last is not None and time >= last - 1e-6:
                    beyond += 1
                    if check.is_in_order or beyond > _MOST_REORDERED:
                        until = last / (stream.time_base or 1) - 1e-6
                        break
                    check.show(picture)
                    continue
                check.show(picture)
                if first is not None and time < first - 1e-6:
                    continue
                seen += 1
                if keep is None or keep(time):
                    yield VideoFrame(convert(picture), time, index, convert.stored(picture))
                    index += 1
                if index == most:
                    until = float("-inf")  # what stands before the last one has been missed by now
                    break
            else:
                if seen == 0 and first is not None:
                    raise InputError(f"{name}: no frame lies at or after {start} s. Choose an earlier start.")
                if seen == 0:
                    raise _no_frame(name, stream)
                if missing := check.missing():
                    raise InputError(f"{name}: ends after {seen} frames ({missing}); the file is cut off or damaged.")
            if lost := check.lost(until):
                packets = f"{lost} packet{'s' if lost > 1 else ''}"
                raise LostPacketsError(f"{name}: {packets} could not be decoded; the other {seen} frames are kept.")
    except FFmpegError as error:
        raise _broken(name, seen, error, timeout_seconds) from error


def _seek(container: "av.container.InputContainer", stream: VideoStream, stamp: int) -> None:
    """Go to where decoding must begin to show what stands at a time.

    A stream whose pictures are refreshed bit by bit shows nothing for a while behind each place to which libav seeks.
    """
    target, back = stamp, round(1 / (stream.time_base or 1))
    while True:
        container.seek(target, stream=stream, backward=True)
        shown = _first_shown(container, stream)
        if target < (stream.start_time or 0) or (shown is not None and shown <= stamp):
            break
        target, back = stamp - back, 2 * back
    container.seek(target, stream=stream, backward=True)


def _first_shown(container: "av.container.InputContainer", stream: VideoStream) -> int | None:
    """Return the stamp of the next picture that a stream shows."""
    for packet in container.demux(stream):
        with suppress(FFmpegError):
            for picture in packet.decode():
                return picture.pts
    return None


def _crop(path: Path | str, container: "av.container.InputContainer", stream: VideoStream) -> Crop:
    """Return the edges of a local file's stream that players hide."""
    crops, number = find_crops(path, containers.formats(container)), container.streams.video.index(stream)
    return crops[number] if number < len(crops) else UNCROPPED


def _pictures(
    container: "av.container.InputContainer", stream: VideoStream, name: str, check: _CompletenessCheck | None = None
) -> Iterator[Any]:
    """Decode a stream, past packets that cannot be decoded, which `check` counts.

    What the decoder holds back, more with more threads, is not lost where the file breaks off.
    """
    timeline, packets = containers.Timeline(container), containers.packets(container)
    warned = False
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:
            yield from _held_back(stream)
            raise
        if packet is None:
            return
        if check is not None:
            check.add(packet)
        timeline.place(packet)
        if timeline.clocks and not warned:
            warned = True
            logger.warning("%s: its clock starts again in the middle; the times of its frames continue", name)
        if packet.stream.index != stream.index:
            continue
        if check is not None:
            check.expect(packet)
        try:
            yield from packet.decode()
        except FFmpegError:
            if check is not None:
                check.fail()


def _held_back(stream: VideoStream) -> Iterator[Any]:
    """Yield the pictures that the decoder has not handed out yet."""
    packet: Any = av.Packet()
    packet.stream, packet.time_base = stream, stream.time_base
    with suppress(FFmpegError):
        yield from packet.decode()


def picture_stream(container: "av.container.InputContainer", name: str) -> VideoStream:
    """Return the video stream that players take: the first default one, or the first; covers of music are none."""
    streams = _streams(container)
    if not streams:
        raise InputError(f"{name}: holds no video stream.")
    stream = next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])
    if stream.codec_context is None:  # an unknown codec, or a header that is cut off before it is named
        why = "its video cannot be decoded, its codec is unknown"
        raise InputError(f"{name}: {why}. Encode it again, or leave it out.")
    return stream


def warn_of_several(container: "av.container.InputContainer", stream: VideoStream, name: str) -> None:
    """Say which one is read where a container holds several video streams."""
    streams = _streams(container)
    if len(streams) > 1:
        sizes = ", ".join(f"{each.width}x{each.height}" if each.codec_context else "unknown" for each in streams)
        number = streams.index(stream) + 1
        logger.warning("%s: holds %d video streams (%s); number %d is read", name, len(streams), sizes, number)


def _streams(container: "av.container.InputContainer") -> list[VideoStream]:
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    return [stream for stream in container.streams.video if not stream.disposition & covers]


def describe(
    container: "av.container.InputContainer", stream: VideoStream, frame: av.VideoFrame, crop: Crop = UNCROPPED
) -> VideoInfo:
    """Describe an open stream after its first frame."""
    height, width = shown_size(frame, crop)
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    duration = None
    if stream.duration is not None and stream.time_base is not None:
        duration = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration = container.duration / 1_000_000
    sized = container.size > 0 and not _PLAYLISTS & containers.formats(container)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return VideoInfo(
        width=width,
        height=height,
        fps=Fraction(rate) if rate else Fraction(25),
        frames=stream.frames or None,
        duration=duration,
        time_base=Fraction(stream.time_base or Fraction(1, 90_000)),
        color=shown_colors(frame),
        pixel_aspect=1 / aspect if is_transposed(frame) else aspect,
        origin=_origin(stream),
        finite=sized or (duration or 0) > 0,
    )


def _origin(stream: VideoStream) -> float:
    """Return the time of a stream's beginning on its own clock, in seconds."""
    return float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0


def _no_frame(name: str, stream: VideoStream) -> InputError:
    claim = f"{stream.frames or 'none'} claimed"
    return InputError(f"{name}: holds no readable frame ({claim}). Encode it again, or leave it out.")


def _broken(name: str, index: int, error: FFmpegError, timeout_seconds: float) -> InputError:
    """Describe a video that cannot be read, or not further."""
    after = f"broken after {index} frames"
    if silent := containers.silence_text(error, timeout_seconds):
        return InputError(f"{name}: {f'{after}, it ' if index else ''}{silent}. Check the address and the source.")
    if index == 0:
        advice = "Check the address and the source" if is_address(name) else "Encode it again, or leave it out"
        why = containers.error_text(error)
        if isinstance(error, av.InvalidDataError):
            why = "it is none, or damaged at its beginning"
        return InputError(f"{name}: cannot be read as video, {why}. {advice}.")
    return InputError(f"{name}: {after}, {containers.error_text(error)}.")
