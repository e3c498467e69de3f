"""Fits this process to the machine: cores and memory it may use, its parent's end, reports of ONNX Runtime."""

import math
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil

__all__ = ["STDIN", "Trimmer", "import_onnxruntime", "usable_bytes", "usable_cores", "watch_parent"]

_SYSTEM = Path("/")
_GROUPS = "sys/fs/cgroup"

STDIN = 0
"""Read without Python's buffer, whose lock a thread that waits for more would hold when the process ends."""


def usable_cores(system: Path = _SYSTEM) -> int:
    """Return the number of physical cores this process may use, at least 1.

    Hyper-threads of one core share its arithmetic units, so cores are counted; a container's share of time counts too.
    psutil knows neither which cores are behind an affinity nor the quota of a control group: `system`, the root of the
    file system, is asked.
    """
    process = psutil.Process()
    allowed = process.cpu_affinity() if hasattr(process, "cpu_affinity") else range(psutil.cpu_count() or 1)
    cores = set()
    for number in allowed:
        topology = system / f"sys/devices/system/cpu/cpu{number}/topology"
        package, core = _read(topology / "physical_package_id"), _read(topology / "core_id")
        cores.add((package, core) if package and core else number)  # one that says nothing counts as a core
    return max(1, math.floor(min(len(cores), _quota(system))))


def _quota(system: Path) -> float:
    """Return how many processors' time the control group grants; infinite where it sets no limit."""
    grants = [_read(group / "cpu.max").split() for group in _control_groups(system)]
    version_1 = system / _GROUPS / "cpu"
    grants.append([_read(version_1 / f"cpu.cfs_{name}_us") for name in ("quota", "period")])
    shares = [int(grant[0]) / int(grant[1]) for grant in grants if len(grant) == 2 and all(map(str.isdigit, grant))]
    return min((share for share in shares if share > 0), default=math.inf)


def usable_bytes(system: Path = _SYSTEM) -> int:
    """Return how much memory the machine and this process's control groups leave; for `system` see `usable_cores`."""
    files = [[group / f"memory.{name}" for name in ("max", "current", "stat")] for group in _control_groups(system)]
    version_1 = system / _GROUPS / "memory"
    files.append([version_1 / f"memory.{name}" for name in ("limit_in_bytes", "usage_in_bytes", "stat")])
    left = [_left(*map(_read, three)) for three in files]
    return min([int(psutil.virtual_memory().available), *(number for number in left if number is not None)])


def _left(limit: str, used: str, stat: str) -> int | None:
    """Return what a limit leaves; pages that only cache files are given back when they are wanted."""
    if not (limit.isdigit() and used.isdigit()):
        return None
    cached = next((line.split()[1] for line in stat.splitlines() if line.startswith("inactive_file ")), "0")
    return max(0, int(limit) - int(used) + int(cached))


def _control_groups(system: Path) -> list[Path]:
    """Return the folders of this process's control group and of those above it (version 2)."""
    top = system / _GROUPS
    own = next((line[3:] for line in _read(system / "proc/self/cgroup").splitlines() if line.startswith("0::")), "/")
    folder = top / own.lstrip("/")
    if not folder.is_relative_to(top) or ".." in folder.parts:
        return [top]
    return [group for group in (folder, *folder.parents) if group.is_relative_to(top)]


def _read(path: Path) -> str:
    """Return a small file's text, empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


class Trimmer:
    """Gives freed memory back to the system when asked, but no more often than every so many seconds.

    Frames are allocated on one thread and freed on another, which leaves glibc's heaps with ever more holes: measured
    with four streams, 1.2 MiB a minute that is lost.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._last = time.monotonic()
        self._trim = getattr(psutil, "heap_trim", None)  # not on every system

    def __call__(self) -> bool:
        """Trim if it is time; return whether it was."""
        now = time.monotonic()
        if self._trim is None or now - self._last < self._seconds:
            return False
        self._last = now
        self._trim()
        return True


def watch_parent() -> None:
    """End this process at once when the one that started it ends, however that one ends.

    The parent starts it with a pipe as stdin and keeps the other end open as long as it lives; a thread waits for the
    pipe's end. What holds Python's lock at that time, as few libraries do while they work, is waited for.
    """

    def wait() -> None:
        while os.read(STDIN, 4096):
            pass
        os._exit(128 + signal.SIGHUP)

    threading.Thread(target=wait, name="parent watch", daemon=True).start()


def import_onnxruntime() -> Any:
    """Return the module of ONNX Runtime, with its reports switched off unless the user has set the variable.

    The one place where it is imported: its own builds report to Microsoft unless that is switched off. Seen with 1.31:
    a device id and queued events, names of models among them, below `~/.cache/Microsoft`, `.ses` in the folder for
    temporary files, and look-ups of the host they are sent to. The variable is read when the library is loaded.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime
