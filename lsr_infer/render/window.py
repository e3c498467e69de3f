"""A window that shows what is being segmented, where a display is there.

Windows belong to the main thread: others hand their newest picture over, and `refresh` shows it.
"""

import subprocess
import sys
import threading
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import DeviceError

__all__ = ["Display"]

_TRY = "import cv2; cv2.namedWindow('lsr-infer'); cv2.waitKey(1)"
_TRY_SECONDS = 20.0
_QUIT_KEYS = (ord("q"), 27)


class Display:
    """One window a source.

    Raises:
        DeviceError: from entering it, where no window can be opened.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, NDArray[np.uint8]] = {}

    def __enter__(self) -> Self:
        # Tried in a process of its own: without a display, some window systems end the whole process.
        try:
            tried = subprocess.run(
                [sys.executable, "-c", _TRY], check=False, capture_output=True, timeout=_TRY_SECONDS
            ).returncode
        except subprocess.TimeoutExpired:
            tried = 1
        if tried != 0:
            raise DeviceError("--show: no window can be opened here. Start it on a display, or leave --show out.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cv2.destroyAllWindows()

    def show(self, name: str, picture: NDArray[np.uint8]) -> None:
        """Hand over a source's newest picture, from any thread."""
        with self._lock:
            self._newest[name] = picture

    def refresh(self) -> bool:
        """Show what is new; to be called on the main thread, often. Return whether the user pressed q or Escape."""
        with self._lock:
            newest, self._newest = self._newest, {}
        for name, picture in newest.items():
            cv2.imshow(name, picture)
        return cv2.waitKey(1) & 0xFF in _QUIT_KEYS
