"""Reads live streams and cameras, of which the newest frame counts.

A thread decodes as fast as the source sends and keeps one frame; what is not fetched in time is dropped and counted. A
source that falls silent, breaks or ends is connected to again, after pauses that grow.
"""

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Any, Self

import av
import cv2
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from lsr_infer.errors import InputError
from lsr_infer.io.addresses import without_secrets
from lsr_infer.io.image_headers import silence_decoders
from lsr_infer.system.threads import prefetch
from lsr_infer.video import containers
from lsr_infer.video.containers import BT709, VideoFrame, VideoInfo
from lsr_infer.video.display import DisplayConverter
from lsr_infer.video.reader import describe, picture_stream, warn_of_several

__all__ = ["Connect", "LiveOptions", "LivePicture", "LiveReader", "camera_pictures", "stream_pictures"]

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 10.0
_BAD_PACKETS = 300
"""So many undecodable packets in a row are a broken stream; fewer are a start in the middle, or a disturbed line."""
_JOIN_SECONDS = 2.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """How long a reader waits for a source, and how often it connects again.

    Args:
        timeout_seconds: a source that sends nothing for so long is lost; each connection is made with it.
        reconnects: so many attempts in a row to get it back before it is given up.
        pause_seconds: wait before the first attempt; doubled with each further one, up to ten seconds.
    """

    timeout_seconds: float = 10.0
    reconnects: int = 5
    pause_seconds: float = 0.5


@dataclass(frozen=True)
class LivePicture:
    """A decoded picture, of libav or uint8 [H,W,3] BGR, that is converted only if it is used."""

    picture: av.VideoFrame | NDArray[np.uint8]
    time: float | None
    info: VideoInfo


Connect = Callable[[float], Generator[LivePicture, None, None]]
"""Connects to a source and yields its pictures; ends where it ends, raises `InputError` where it is lost, which it also
is if it sends nothing for the seconds given."""


def stream_pictures(address: str, timeout_seconds: float) -> Generator[LivePicture, None, None]:
    """Connect to a stream and yield what it sends; see `Connect`."""
    name = without_secrets(address)
    try:
        with containers.open_container(address, timeout_seconds) as container:
            stream = picture_stream(container, name)
            warn_of_several(container, stream, name)
            stream.thread_type = "SLICE"  # threads by frame would hold as many frames back
            info: VideoInfo | None = None
            bad = 0
            for packet in container.demux(stream):
                try:
                    pictures = packet.decode()
                except FFmpegError as error:
                    bad += 1
                    if bad > _BAD_PACKETS:
                        raise InputError(f"{name}: {bad} packets in a row cannot be decoded.") from error
                    continue
                for picture in pictures:
                    bad = 0
                    info = info or describe(container, stream, picture)
                    yield LivePicture(picture, picture.time, info)
    except FFmpegError as error:
        why = containers.silence_text(error, timeout_seconds) or f"cannot be read, {containers.error_text(error)}"
        raise InputError(f"{name}: {why}. Check the address and the source.") from error


class LiveReader:
    """Yields the newest frame of a live source, again and again.

    Args:
        name: what the source is called in messages.
        connect: connects to it; called again when it is lost.
        options: how long to wait and how often to connect again.
        keep: called with the time of each frame, in order; frames for which it is false are not counted as dropped.
        halt: ends reading when it is set, for several readers at once.

    Attributes:
        received: frames that arrived and were to be taken.
        dropped: those of them that a newer one replaced before they were fetched.
        reconnects: how often the source came back.
    """

    def __init__(
        self,
        name: str,
        connect: Connect,
        options: LiveOptions = LiveOptions(),
        keep: Callable[[float], bool] | None = None,
        halt: threading.Event | None = None,
    ) -> None:
        self.received = self.dropped = self.reconnects = 0
        self._name = name
        self._connect = connect
        self._options = options
        self._keep = keep
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._halt = halt or threading.Event()
        self._newest: tuple[LivePicture, float] | None = None
        self._info: VideoInfo | None = None
        self._error: BaseException | None = None
        self._ended = False
        self._arrived = 0
        self._clock = _Clock()
        self._thread = threading.Thread(target=self._run, name=f"live {name}", daemon=True)

    @property
    def info(self) -> VideoInfo:
        """The description of the source; known once the reader is entered."""
        assert self._info is not None
        return self._info

    def connect(self) -> None:
        """Start to connect, without waiting; entering then only waits. So several readers connect at once."""
        if not self._thread.ident:
            self._thread.start()

    def __enter__(self) -> Self:
        """Connect and wait for the first picture; `InputError` where there is none."""
        self.connect()
        try:
            with self._changed:
                while self._info is None and not self._ended and not self._over():
                    self._changed.wait(_POLL_SECONDS)
            if self._info is None and not self._over():
                raise self._error or InputError(f"{self._name}: ended without a frame.")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.join(_JOIN_SECONDS)  # a hanging read ends by its own time limit; it is not waited for

    def stop(self) -> None:
        """Let `frames` end."""
        with self._changed:
            self._stopped.set()
            self._changed.notify_all()

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the newest frame each time one is asked for; times count from the first of them.

        `InputError` where the source is lost for good.
        """
        convert = DisplayConverter(self._name)
        index, start = 0, None
        while True:
            with self._changed:
                while self._newest is None and not self._ended and not self._over():
                    self._changed.wait(_POLL_SECONDS)
                if self._newest is None and self._error is not None and not self._over():
                    raise self._error
                if self._newest is None or self._over():
                    return
                newest, at = self._newest
                self._newest = None
            picture = newest.picture
            frame = convert(picture) if isinstance(picture, av.VideoFrame) else picture
            start = at if start is None else start
            yield VideoFrame(frame, at - start, index)
            index += 1

    def _over(self) -> bool:
        return self._stopped.is_set() or self._halt.is_set()

    def _run(self) -> None:
        """Connect, read, and connect again, until stopped or out of attempts."""
        attempts = 0
        try:
            while not self._over():
                before = self._arrived
                ended = self._read(attempts > 0)
                if self._over():
                    return
                if self._arrived > before:
                    attempts = 0
                if self._info is None or (ended is None and (self._info.finite or not self._options.reconnects)):
                    self._error = ended
                    return
                why = str(ended or f"{self._name}: the stream ended").rstrip(".")
                if attempts >= self._options.reconnects:
                    self._error = InputError(f"{why}; {attempts} attempts to connect again failed.")
                    return
                pause = min(self._options.pause_seconds * 2**attempts, _LONGEST_PAUSE_SECONDS)
                attempts += 1
                logger.warning("%s; attempt %d in %.1f s", why, attempts, pause)
                end = time.monotonic() + pause
                while not self._over() and (left := end - time.monotonic()) > 0:
                    self._stopped.wait(min(left, _POLL_SECONDS))
        except BaseException as error:  # noqa: BLE001 - it is raised again where the frames are fetched
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _read(self, again: bool) -> InputError | None:
        """Read one connection to its end; return the error that ended it, or None."""
        self._clock.restart()
        try:
            with closing(self._connect(self._options.timeout_seconds)) as pictures:
                for picture in pictures:
                    if again:
                        self.reconnects += 1
                        again = False
                        logger.info("%s: is back", self._name)
                    self._offer(picture)
                    if self._over():
                        break
        except InputError as error:
            return error
        return None

    def _offer(self, picture: LivePicture) -> None:
        self._arrived += 1
        at = self._clock.place(picture.time)
        kept = self._keep is None or self._keep(at)
        with self._changed:
            self._info = self._info or picture.info
            if kept:
                self.received += 1
                self.dropped += self._newest is not None
                self._newest = (picture, at)
            self._changed.notify_all()


class _Clock:
    """Turns stamps that may start anywhere, run backwards or stop into seconds since the first frame.

    The stamps give the distances, also of frames that arrive in a burst; where they leap further than the wait for them
    was, our clock continues.
    """

    def __init__(self) -> None:
        self._start: float | None = None
        self._shift = self._stamp = self._arrived = self._last = 0.0
        self._known = False

    def restart(self) -> None:
        """Forget the source's clock: a new connection may have another."""
        self._known = False

    def place(self, stamp: float | None) -> float:
        """Return the time of a frame that has just arrived."""
        now = time.monotonic()
        if self._start is None:
            self._start = now
        waited, self._arrived = now - self._start - self._arrived, now - self._start
        if stamp is None:
            self._last = max(self._arrived, self._last)
            return self._last
        if not self._known or not 0 < stamp - self._stamp <= waited + containers.LEAP_SECONDS:
            self._shift = max(self._arrived, self._last) - stamp
        self._known, self._stamp = True, stamp
        self._last = max(stamp + self._shift, self._last)
        return self._last


def camera_pictures(
    index: int, timeout_seconds: float, open_capture: Callable[[int], Any] = cv2.VideoCapture
) -> Generator[LivePicture, None, None]:
    """Open a camera and yield what it sees; see `Connect`."""
    try:  # OpenCV has no time limit: a camera that hangs never returns, and its thread is left behind
        yield from prefetch(_read_camera(index, open_capture), depth=1, timeout_seconds=timeout_seconds)
    except TimeoutError as error:
        raise InputError(f"camera:{index}: gave nothing for {timeout_seconds:g} s. Check its cable.") from error


def _read_camera(index: int, open_capture: Callable[[int], Any]) -> Generator[LivePicture, None, None]:
    silence_decoders()
    capture = open_capture(index)
    try:
        if not capture.isOpened():
            raise InputError(f"camera:{index}: there is no such camera, or another program has it.")
        rate = capture.get(cv2.CAP_PROP_FPS)
        fps = Fraction(rate).limit_denominator(1001) if 1 <= rate <= 1000 else Fraction(25)
        while True:
            is_there, frame = capture.read()
            if not is_there:
                raise InputError(f"camera:{index}: gives no picture any more. Check its cable.")
            height, width = frame.shape[:2]
            # Its pictures are full-range BGR and are encoded as BT.709.
            info = VideoInfo(
                width=width, height=height, fps=fps, time_base=Fraction(1, 90_000), color=BT709, finite=False
            )
            yield LivePicture(frame, None, info)
    finally:
        capture.release()
