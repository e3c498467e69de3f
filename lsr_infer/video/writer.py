"""Writes H.264 videos with the source's sound, and FFV1 videos that hold masks exactly.

Files appear whole or not at all. They keep time stamps; H.264 also the source's colour tags, pixel shape and sound.
"""

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.stream import VideoStream
from numpy.typing import NDArray

from lsr_infer.errors import InputError
from lsr_infer.io.addresses import label
from lsr_infer.io.files import AtomicOutputs, output_path_error, refuse_existing
from lsr_infer.video import containers
from lsr_infer.video.containers import BT709, TIMEOUT_SECONDS, VideoInfo, error_text
from lsr_infer.video.planes import PlaneConverter

__all__ = ["AudioCopy", "AudioSource", "MaskVideoWriter", "VideoOptions", "VideoWriter", "overlay_time_base"]

logger = logging.getLogger(__name__)

_FINEST_TIME_BASE = Fraction(1, 90_000)
_FRAGMENTED = "+frag_keyframe+delay_moov+default_base_moof"
"""The header waits for the first piece (`delay_moov`), and so knows of a delay of the encoder; one written before it
(`empty_moov`) does not, and the video would begin late by it."""
_AVX_512 = 256  # OpenCV's CV_CPU_AVX512_SKX
_X264 = "bframes=0:mbtree=1:rc-lookahead=10" + (":asm=AVX2" if cv2.checkHardwareSupport(_AVX_512) else "")
"""Overlays flicker where classes meet, which B-frames predict badly. With `superfast` and crf 21, measured on overlays
of three road clips by tests/benchmarks/overlay_encoding.py: 0.43 to 0.51 of the processor time of `veryfast` with crf
20, 0.98 to 1.12 of its size, and an SSIM that is lower by 0.001 to 0.004. With AVX-512, x264 (core 165) now and then
encodes the same frames otherwise by some bits: one of 69 times at a width of 160, with AVX2 none of 1,080."""
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
    """Copies the audio streams of a video into an open container, to which nothing is written yet, packet by packet.

    `source.start` counts from `origin`, the time of the video's first picture on its own clock.
    """

    def __init__(self, source: AudioSource, output: Any, origin: float) -> None:
        self._source = source
        self._zero = origin + source.start  # on the file's clock
        self._streams: dict[int, Any] = {}
        self._name = Path(label(source.place)).name
        self._input: Any = None
        try:
            self._input = containers.open_container(source.place, source.timeout_seconds)
            self._add_streams(output)
        except (FFmpegError, InputError) as error:  # an InputError: it has vanished since its pictures were opened
            why = str(error).rstrip(".") if isinstance(error, InputError) else self._reason(error)
            logger.warning("%s: its sound cannot be fetched and is left out (%s)", self._name, why)
        self._packets = self._wanted()
        self._pending: Any = next(self._packets, None)

    def close(self) -> None:
        """Close the file that is read."""
        if self._input is not None:
            self._input.close()

    def _add_streams(self, output: Any) -> None:
        """Seek to where the sound begins, and add what MP4 can hold of it to the output."""
        if self._source.start and self._input.streams.audio and containers.seeks_well(self._input):
            self._input.seek(int(self._zero * av.time_base), backward=True)
        for stream in self._input.streams.audio:
            name = stream.codec_context.name if stream.codec_context is not None else "unknown"
            if name in _MP4_CODECS:
                self._streams[stream.index] = output.add_stream_from_template(stream)
            else:
                logger.warning("%s: its sound (%s) does not fit into MP4 and is left out", self._name, name)

    def _wanted(self) -> Iterator[Any]:
        """Yield the packets that are copied, to where the stretch or the file ends."""
        if not self._streams:
            return
        first = self._zero if self._source.start else float("-inf")
        last = self._zero + (float("inf") if self._source.duration is None else self._source.duration)
        stamps: dict[int, int] = {}
        try:
            # All packets, since the pictures' clock counts on the sound's, and the sound's on the pictures'.
            timeline = containers.Timeline(self._input)
            for packet in containers.packets(self._input):
                timeline.place(packet)
                index = packet.stream.index
                if index not in self._streams or packet.dts is None or packet.size == 0 or packet.is_corrupt:
                    continue
                begins = float(packet.dts * packet.time_base)
                if begins < first - 1e-6 or packet.dts <= stamps.get(index, packet.dts - 1):
                    continue  # a time that runs backwards is refused by the container
                if begins >= last - 1e-6:
                    return
                stamps[index] = packet.dts
                yield packet
        except FFmpegError as error:
            logger.warning("%s: its sound breaks off (%s)", self._name, self._reason(error))

    def _reason(self, error: FFmpegError) -> str:
        return containers.silence_text(error, self._source.timeout_seconds) or error_text(error)

    def until(self, time: float) -> Iterator[Any]:
        """Yield the packets that begin before `time` (in seconds of the copy), on its clock and ready to be muxed."""
        while (packet := self._pending) is not None and float(packet.dts * packet.time_base) - self._zero < time:
            self._pending = next(self._packets, None)
            ticks = round(self._zero / packet.time_base)
            packet.stream = self._streams[packet.stream.index]
            packet.dts -= ticks
            if packet.pts is not None:
                packet.pts -= ticks
            yield packet

    def rest(self, end: float) -> Iterator[Any]:
        """Yield the remaining packets once the last frame, which is shown until `end`, has been written."""
        return self.until(end if self._source.cut.is_set() else float("inf"))


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """How a video is written; all but `outputs` and `begin` is for H.264 alone.

    Args:
        like: a source whose time base, colour tags and pixel shape are kept.
        crf: quality of x264, 0 (lossless) to 51.
        preset: effort of x264.
        threads: encoder threads; 0 lets x264 choose.
        audio: the file whose sound is copied; None leaves the video silent.
        fragmented: write the index in fragments of a second, so that an unfinished file can be played. Otherwise it is
            kept until the end, and memory grows by 72 bytes a frame, which a stream of unknown length should not.
        outputs: what the file appears together with; None for nothing.
        begin: seconds, the time that is written as 0; no frame lies before it.
    """

    like: VideoInfo | None = None
    crf: int = 21
    preset: str = "superfast"
    threads: int = 0
    audio: AudioSource | None = None
    fragmented: bool = False
    outputs: AtomicOutputs | None = None
    begin: float = 0.0


def overlay_time_base(like: VideoInfo) -> Fraction:
    """Return the unit, in seconds, in which an H.264 video like a source counts its time."""
    return max(like.time_base, _FINEST_TIME_BASE)


class _VideoFile:
    """What the writers share: the temporary name, time stamps, and errors of libav as errors of the path or encoder."""

    _suffix: str
    time_base = Fraction(1, 1000)
    """Unit of the time stamps, in seconds; a millisecond is Matroska's."""

    def __init__(
        self,
        path: str | Path,
        *,
        width: int,
        height: int,
        fps: Fraction,
        overwrite: bool = False,
        options: VideoOptions = VideoOptions(),
    ) -> None:
        self.path = path = Path(path)
        if path.suffix.lower() != self._suffix:
            raise InputError(f"{path}: these videos are written as {self._suffix}. Give the file that ending.")
        refuse_existing(path, overwrite=overwrite)
        self.frames = 0
        self._size = (height, width)
        self._overwrite = overwrite
        self._options = options
        self._like = options.like or VideoInfo(width=width, height=height, fps=fps, time_base=1 / fps, color=BT709)
        self._fps = fps
        self._rate = fps if 1 <= fps <= 1000 else Fraction(25)
        self._last_stamp: int | None = None
        self._stack = ExitStack()
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> Self:
        outputs = self._options.outputs or self._stack.enter_context(AtomicOutputs())
        try:
            self._open(outputs.file(self.path, overwrite=self._overwrite))
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)  # the file must not appear
            if isinstance(error, FFmpegError):
                raise self._failure(error) from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(FFmpegError):
                self._container.close()
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._finish()

    def _open(self, temporary: Path) -> None:
        """Set `_container` and `_stream`."""
        raise NotImplementedError

    def _last_packets(self) -> Iterable[Any]:
        """Return what follows the last frame."""
        return ()

    def _finish(self) -> None:
        try:
            if self.frames == 0:
                raise InputError(f"{self.path}: no frame was written, so there is no video.")
            self._mux(self._stream.encode(None))
            self._mux(self._last_packets())
            self._container.close()
        except FFmpegError as error:
            raise self._failure(error) from error
        finally:
            with suppress(FFmpegError):
                self._container.close()

    def _mux(self, packets: Iterable[Any]) -> None:
        try:
            for packet in packets:
                self._container.mux(packet)
        except FFmpegError as error:
            raise self._failure(error) from error

    def _encode(self, picture: av.VideoFrame, stamp: int) -> None:
        picture.pts, picture.time_base = stamp, self.time_base
        try:
            self._container.mux(self._stream.encode(picture))
        except FFmpegError as error:
            raise self._failure(error) from error
        self._last_stamp = stamp
        self.frames += 1

    def _stamp(self, time: float | None) -> int:
        """Return the frame's time in units of the time base, always after the last one."""
        if time is not None:
            stamp = self._ticks(time) - self._ticks(self._options.begin)
        elif self._last_stamp is None:
            stamp = 0
        else:
            stamp = self._last_stamp + max(1, round(1 / self._fps / self.time_base))
        return stamp if self._last_stamp is None else max(stamp, self._last_stamp + 1)

    def _ticks(self, time: float) -> int:
        return round(Fraction(time) / self.time_base)

    def _check(self, frame: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
        if frame.shape != shape or frame.dtype != np.uint8:
            raise InputError(
                f"{self.path}: frame {self.frames} is {frame.dtype} {list(frame.shape)}, the video is "
                f"uint8 {list(shape)}. The source changes its size; split it there."
            )

    def _failure(self, error: FFmpegError) -> InputError:
        """Turn an error of libav into one about the path or about the encoder."""
        if isinstance(error, OSError):
            return output_path_error(self.path, error)
        return InputError(f"{self.path}: cannot be encoded after {self.frames} frames: {error_text(error)}.")


class VideoWriter(_VideoFile):
    """Write H.264 yuv420p in MP4, as browsers play it; the file appears when the `with` block ends well.

    Args:
        path: the file to write; its name ends in .mp4.
        width: width of the frames; an odd one is padded by repeating the last column.
        height: height of the frames; an odd one is padded likewise.
        fps: nominal rate; also gives the time stamps where `write` is given none.
        overwrite: replace an existing file.
        options: everything else.

    Raises:
        UsageError: the file exists and `overwrite` is false, at the beginning or when it is to appear.
        InputError: the place cannot be written, a frame does not fit, or no frame was written.
    """

    _suffix = ".mp4"
    _audio: AudioCopy | None = None

    def write(self, frame: NDArray[np.uint8], time: float | None = None) -> None:
        """Append a frame, [H,W,3] uint8 BGR of the writer's size, that is shown from `time` on, in seconds.

        Without a time it comes one frame after the last; a time that is not after the last one is moved to the next
        tick of the time base. `InputError` where the size differs, or the encoder or the disk refuses it.
        """
        self._check(frame, (*self._size, 3))
        self._append(self._to_planes(_even(frame)), time)

    def write_planes(self, planes: NDArray[np.uint8], time: float | None = None) -> None:
        """Append a frame that has the writer's matrix and range already, in yuv420p; both sides are even.

        `planes` [H*3/2,W] uint8 holds H rows of luma, then both chromas [H/2,W/2], row by row; see `write` for `time`
        and errors.
        """
        height, width = self._size
        self._check(planes, (height * 3 // 2, width))
        self._append(av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(planes), format="yuv420p"), time)

    def _append(self, picture: av.VideoFrame, time: float | None) -> None:
        """Encode a picture in yuv420p, with the sound before it."""
        stamp = self._stamp(time)
        if self._audio is not None:
            self._mux(self._audio.until(float(stamp * self.time_base)))
        self._encode(picture, stamp)

    def _open(self, temporary: Path) -> None:
        options, color = self._options, self._like.color
        self._to_planes = PlaneConverter(color)
        self.time_base = overlay_time_base(self._like)
        flags = _FRAGMENTED if options.fragmented else "+faststart"
        self._container = av.open(f"file:{temporary}", "w", format="mp4", options={"movflags": flags})
        encoder = {"crf": str(options.crf), "preset": options.preset, "x264-params": _X264}
        stream: VideoStream = self._container.add_stream("libx264", rate=self._rate, options=encoder)
        self._stream = stream
        stream.height, stream.width = (side + side % 2 for side in self._size)
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = self.time_base
        context.thread_count = options.threads
        if options.fragmented:  # a fragment ends before a key frame; x264 would make one in ten seconds
            context.gop_size = max(1, round(self._rate))
        context.sample_aspect_ratio = self._like.pixel_aspect
        # A matrix of 0 means RGB, which yuv420p cannot be: such a source comes out as tagged BT.601.
        context.colorspace = color.matrix or 6
        context.color_range = 2 if color.full_range else 1
        context.color_primaries = color.primaries
        context.color_trc = color.transfer
        if options.audio is not None:
            self._audio = AudioCopy(options.audio, self._container, self._like.origin)
            self._stack.callback(self._audio.close)

    def _last_packets(self) -> Iterable[Any]:
        if self._audio is None or self._last_stamp is None:
            return ()
        return self._audio.rest(float(self._last_stamp * self.time_base + 1 / self._fps))


class MaskVideoWriter(_VideoFile):
    """Write class maps as one FFV1 video in Matroska, named .mkv; every number reads back exactly.

    The pixel format is gray8, tagged as full range, so that decoders hand the numbers out unscaled. Times are kept to a
    millisecond, as Matroska does. Arguments and errors are those of `VideoWriter`.
    """

    _suffix = ".mkv"

    def write(self, labels: NDArray[np.uint8], time: float | None = None) -> None:
        """Append a map, [H,W] uint8 of the writer's size; see `VideoWriter.write` for `time` and errors."""
        self._check(labels, self._size)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(labels), format="gray")
        self._encode(picture, self._stamp(time))

    def _open(self, temporary: Path) -> None:
        height, width = self._size
        self._container = av.open(f"file:{temporary}", "w", format="matroska")
        self._stream = self._container.add_stream("ffv1", rate=self._rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "gray"
        context = self._stream.codec_context
        context.time_base = self.time_base
        context.color_range = 2
        context.thread_count = 1


def _even(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pad to even sides, which yuv420p needs, by repeating the last row and column."""
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        padded = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        return np.asarray(padded, dtype=np.uint8)
    return np.ascontiguousarray(frame)
