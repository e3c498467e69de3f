"""Cameras of this machine as live sources, opened by OpenCV.

OpenCV has no time limit: a camera that hangs never returns. So a thread of its own waits for it, and is left behind
where it waits too long.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError
from lsr_infer.io.images import silence_opencv
from lsr_infer.video.info import ColorTags, VideoInfo
from lsr_infer.video.live import LivePicture

__all__ = ["camera_pictures"]

_POLL_SECONDS = 0.1
_RELEASE_SECONDS = 2.0


def camera_pictures(
    index: int, timeout_seconds: float, open_capture: Callable[[int], Any] = cv2.VideoCapture
) -> Generator[LivePicture, None, None]:
    """Open a camera and yield what it sees.

    Args:
        index: number of the camera, as the system counts.
        timeout_seconds: a camera that neither opens nor gives a picture for so long is lost.
        open_capture: what opens it.

    Raises:
        InputError: there is no such camera, it stopped, or it hangs.
    """
    watch = _Watch(index, open_capture)
    watch.start()
    try:
        while True:
            try:
                given = watch.given.get(timeout=timeout_seconds)
            except queue.Empty:
                raise InputError(f"camera:{index}: gave nothing for {timeout_seconds:g} s. Check its cable.") from None
            if isinstance(given, BaseException):
                raise given
            yield given
    finally:
        watch.leave()


class _Watch(threading.Thread):
    """Reads a camera and hands over one picture after the other, or what ended it."""

    def __init__(self, index: int, open_capture: Callable[[int], Any]) -> None:
        super().__init__(name=f"camera {index}", daemon=True)
        self.given: queue.Queue[LivePicture | BaseException] = queue.Queue(maxsize=1)
        self._index = index
        self._open = open_capture
        self._left = threading.Event()

    def leave(self) -> None:
        """Give the camera back; one that hangs is given back once it returns."""
        self._left.set()
        self.join(_RELEASE_SECONDS)

    def run(self) -> None:
        try:
            self._read()
        except BaseException as error:  # noqa: BLE001 - it is raised again where the pictures are fetched
            self._hand(error)

    def _read(self) -> None:
        silence_opencv()
        capture = self._open(self._index)
        try:
            if not capture.isOpened():
                raise InputError(f"camera:{self._index}: there is no such camera, or another program has it.")
            rate = capture.get(cv2.CAP_PROP_FPS)
            while not self._left.is_set():
                there, frame = capture.read()
                if not there:
                    raise InputError(f"camera:{self._index}: gives no picture any more. Check its cable.")
                self._hand(LivePicture(frame, None, _describe(frame, rate)))
        finally:
            capture.release()

    def _hand(self, given: LivePicture | BaseException) -> None:
        """Put it where it is fetched, unless nobody will fetch it any more."""
        while not self._left.is_set():
            with contextlib.suppress(queue.Full):
                self.given.put(given, timeout=_POLL_SECONDS)
                return


def _describe(frame: NDArray[np.uint8], rate: float) -> VideoInfo:
    """Describe what a camera sends; its pictures are full-range BGR and are encoded as BT.709."""
    return VideoInfo(
        width=frame.shape[1],
        height=frame.shape[0],
        fps=Fraction(rate).limit_denominator(1001) if 1 <= rate <= 1000 else Fraction(25),
        frames=None,
        duration=None,
        rotation=0,
        time_base=Fraction(1, 90_000),
        color=ColorTags(matrix=1, primaries=1, transfer=1),
        finite=False,
    )
