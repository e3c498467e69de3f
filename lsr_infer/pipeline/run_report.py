"""Reports a run from several threads: windows, the result of each source, and one JSON document."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import DeviceError, InputError, LsrError, PartialResultError
from lsr_infer.io.sources import Source
from lsr_infer.pipeline.task import SourceResult
from lsr_infer.segmenter import Segmenter

__all__ = ["Display", "RunReport"]

logger = logging.getLogger(__name__)

_TRY = "import cv2; cv2.namedWindow('lsr-infer'); cv2.waitKey(1)"
_TRY_SECONDS = 20.0
_QUIT_KEYS = (ord("q"), 27)


class Display:
    """One window for each source; entering it raises `DeviceError` where none can be opened."""

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

    def __exit__(self, *ended: object) -> None:
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


_FEW = 12
"""Up to so many sources, each has a line of its own."""


@dataclass
class RunReport:
    """The results of the sources, and how many files and folders besides them were left out."""

    sources: Sequence[Source]
    left_out: int = 0
    passed_over: int = 0
    unsearched: int = 0
    frames: int = 0
    interrupted: bool = False
    _reports: dict[int, dict[str, Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _kind: type[LsrError] = InputError
    _started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._numbers = {source: n for n, source in enumerate(self.sources)}

    def done(self, source: Source, outputs: Mapping[str, Path | str], outcome: SourceResult) -> None:
        """Note what a source gave, and where it is."""
        written = [str(path) for path in outputs.values()]
        broken = outcome.broken and source.by_label(outcome.broken)
        error = broken or ("interrupted" if outcome.interrupted else None)
        status = "partial" if error else "done"
        report = {"status": status, "frames": outcome.frames, "outputs": written, "error": error}
        if source.live:
            report |= {"dropped": outcome.dropped, "reconnects": outcome.reconnects}
        if outcome.extra:
            report["pictures_left_out"] = outcome.extra
        self._note(source, report)
        if broken:
            logger.error("partial: %s", broken)
        live = f", {outcome.dropped} dropped, {outcome.reconnects} reconnects" if source.live else ""
        level = logging.INFO if len(self.sources) <= _FEW or source.kind != "image" else logging.DEBUG
        logger.log(level, "%s: %d frames%s -> %s", source.label, outcome.frames, live, ", ".join(written) or "shown")

    def failed(self, source: Source, error: str, kind: type[LsrError] = InputError) -> None:
        """Note that a source gave nothing; the kind of error matters where it is the only source."""
        self._kind, error = kind, source.by_label(error)
        self._note(source, {"status": "failed", "frames": 0, "outputs": [], "error": error})
        if len(self.sources) > 1:  # a single source's error is the command's own
            logger.error("failed: %s", error)

    def count(self, status: str) -> int:
        """Return how many sources ended so."""
        return sum(report["status"] == status for report in self._reports.values())

    def document(self, segmenter: Segmenter) -> dict[str, Any]:
        """Return what `--json` puts on stdout."""
        seconds, not_started = time.monotonic() - self._started, len(self.sources) - len(self._reports)
        return {
            "model": segmenter.path.name,
            "backend": segmenter.backend,
            "device": segmenter.device,
            "precision": segmenter.precision,
            "classes": list(segmenter.label_space.names),
            "sources": [self._reports[key] for key in sorted(self._reports)],
            "found": len(self.sources),
            "done": self.count("done"),
            "partial": self.count("partial"),
            "failed": self.count("failed"),
            "not_started": not_started,
            "not_begun": not_started,  # the key of 0.1.0
            "left_out": self.left_out,
            "passed_over": self.passed_over,
            "unsearched": self.unsearched,
            "frames": self.frames,
            "seconds": round(seconds, 3),
            "frames_per_second": round(self.frames / seconds, 3) if seconds > 0 else None,
        }

    def conclude(self, place: str, broken_place: InputError | None) -> None:
        """Log a summary and raise what the exit code is made of; `broken_place` ended the run early."""
        done, partial, failed = self.count("done"), self.count("partial"), self.count("failed")
        found = len(self.sources)
        summary = f"{done} of {found} sources done, {partial} partly, {failed} failed"
        if found > done + partial + failed:
            summary += f", {found - done - partial - failed} not started"
        if self.left_out:
            summary += f", {self.left_out} other files left out"
        if self.unsearched:
            summary += f", {self.unsearched} folders not searched"
        if broken_place is not None:
            if done + partial == 0:
                raise broken_place
            raise PartialResultError(f"{broken_place} {summary}.")
        if self.interrupted:
            logger.info("%s; what was finished is %s", summary, place)
            raise KeyboardInterrupt
        if failed == found:
            (first, *_) = self._reports.values()
            if found == 1:
                raise self._kind(first["error"])
            raise InputError(f"{summary}. Nothing was written.")
        if done < found or self.unsearched:
            raise PartialResultError(f"{summary}; {self.frames} frames are {place}.")
        seconds = time.monotonic() - self._started
        rate = self.frames / seconds if seconds > 0 else 0.0
        logger.info("%s, %d frames in %.1f s (%.1f frames/s), %s", summary, self.frames, seconds, rate, place)

    def _note(self, source: Source, report: dict[str, Any]) -> None:
        with self._lock:
            self._reports[self._numbers[source]] = {"source": source.label, "kind": source.kind, **report}
            self.frames += report["frames"]
