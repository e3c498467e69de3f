"""Fits this process to the machine: cores it may use, freed memory, its parent's end, ONNX Runtime's reports.

Hyper-threads of one core share its arithmetic units, so cores are counted; a container's share of time counts too.
"""

import ctypes
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["STDIN", "Trimmer", "end_with_parent", "import_onnxruntime", "usable_cores"]

_SYSTEM = Path("/")


def usable_cores(system: Path = _SYSTEM) -> int:
    """Return the number of physical cores this process may use, at least 1.

    Args:
        system: the root of the file system that is asked for topology and quota.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = _physical(allowed, system)
    quota = _quota(system)
    return max(1, cores if quota is None else min(cores, math.floor(quota)))


def _physical(allowed: Iterable[int], system: Path) -> int:
    """Count the cores behind these processors; where a processor says nothing it counts as one."""
    cores = set()
    for number in allowed:
        topology = system / f"sys/devices/system/cpu/cpu{number}/topology"
        package, core = _read(topology / "physical_package_id"), _read(topology / "core_id")
        cores.add((package, core) if package and core else number)
    return len(cores)


def _quota(system: Path) -> float | None:
    """Return how many processors' time the control group grants; None where it sets no limit."""
    grants = []
    for folder in _groups(system / "sys/fs/cgroup", system):
        limit, _, period = _read(folder / "cpu.max").partition(" ")
        grants.append((limit, period))
    version_1 = system / "sys/fs/cgroup/cpu"
    grants.append((_read(version_1 / "cpu.cfs_quota_us"), _read(version_1 / "cpu.cfs_period_us")))
    shares = [int(limit) / int(period) for limit, period in grants if limit.isdigit() and period.isdigit()]
    return min((share for share in shares if share > 0), default=None)


def _groups(top: Path, system: Path) -> list[Path]:
    """Return the folder of this process' control group (version 2) and those above it."""
    own = next((line[3:] for line in _read(system / "proc/self/cgroup").splitlines() if line.startswith("0::")), "/")
    folder = top / own.lstrip("/")
    if not folder.is_relative_to(top) or ".." in folder.parts:
        return [top]
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]


def _read(path: Path) -> str:
    """Return a small file's text, empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


class Trimmer:
    """Trims the heaps when asked, but no more often than every so many seconds.

    Args:
        seconds: the time between two trims.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._last = time.monotonic()
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None

    def __call__(self) -> bool:
        """Trim if it is time; return whether it was."""
        now = time.monotonic()
        if self._trim is None or now - self._last < self._seconds:
            return False
        self._last = now
        self._trim(0)
        return True


STDIN = 0
"""Read without Python's buffer, whose lock a thread that waits for more would hold when the process ends."""


def end_with_parent() -> None:
    """Start to watch stdin on a thread; at its end this process ends at once.

    What holds Python's lock at that time, as few libraries do while they work, is waited for.
    """
    threading.Thread(target=_wait_and_end, name="lifeline", daemon=True).start()


def _wait_and_end() -> None:
    while os.read(STDIN, 4096):
        pass
    os._exit(128 + signal.SIGHUP)


_OFF = "ORT_DISABLE_TELEMETRY"


def import_onnxruntime() -> Any:
    """Return the module, with its reports switched off unless the user has set the variable.

    Raises:
        ImportError: it is not installed.
    """
    os.environ.setdefault(_OFF, "1")
    import onnxruntime

    return onnxruntime
