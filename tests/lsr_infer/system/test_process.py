"""Processes that end with their parent, give memory back, and count the cores they may use."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lsr_infer.system.process import Trimmer, usable_cores


def test_a_child_ends_with_its_parent(repository: Path) -> None:
    """The parent is killed by SIGKILL, so nothing but the pipe's end tells the child."""
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time\\n"
        "from lsr_infer.system.process import watch_parent\\n"
        "watch_parent()\\n"
        "time.sleep(120)'], stdin=subprocess.PIPE)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(120)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=repository)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{child}/cmdline").is_file() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)


glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no malloc_trim in this C library"
)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


@glibc
def test_holes_in_the_heap_are_given_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    blocks = [libc.malloc(60_000) for _ in range(1000)]  # below the size that is mapped on its own
    for block in blocks:
        ctypes.memset(block, 1, 60_000)
    for block in blocks[:-1]:  # the last one keeps the top of the heap where it is
        libc.free(block)
    before = resident()
    assert Trimmer(seconds=0.0)()
    assert before - resident() > 40_000_000
    libc.free(blocks[-1])


@glibc
def test_it_is_not_done_all_the_time() -> None:
    trimmer = Trimmer(seconds=1000)
    assert not trimmer()


def machine(root: Path, cores: list[tuple[int, int]], files: dict[str, str]) -> Path:
    """A system of files as Linux shows processors and control groups."""
    for number, (package, core) in enumerate(cores):
        folder = root / f"sys/devices/system/cpu/cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{package}\n", encoding="utf-8")
        (folder / "core_id").write_text(f"{core}\n", encoding="utf-8")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


FOUR = [(0, 0), (0, 1), (1, 0), (1, 1)]


GROUP = {"proc/self/cgroup": "0::/box/inner\n"}


@pytest.mark.parametrize(
    ("cores", "files", "expected"),
    [
        (FOUR, {}, 4),
        ([(0, 0), (0, 1), (0, 0), (0, 1)], {}, 2),  # hyper-threads
        ([], {}, 4),
        (FOUR, {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 4),
        (FOUR, {"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2),
        (FOUR, {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (FOUR, GROUP | {"sys/fs/cgroup/box/cpu.max": "300000 100000", "sys/fs/cgroup/box/inner/cpu.max": "max 1"}, 3),
        (FOUR, {"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        (FOUR, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 4),
        (FOUR, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 3),
        (FOUR, {"sys/fs/cgroup/cpu.max": "nonsense"}, 4),
    ],
)
def test_cores_that_may_be_used(
    tmp_path: Path, cores: list[tuple[int, int]], files: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.Process.cpu_affinity", lambda process: [0, 1, 2, 3], raising=False)
    assert usable_cores(machine(tmp_path, cores, files)) == expected


def test_an_affinity_limits_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.Process.cpu_affinity", lambda process: [1, 3], raising=False)
    assert usable_cores(machine(tmp_path, FOUR, {})) == 2
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
