"""Processes that end with the one that started them."""

import signal
import subprocess
import sys
import time
from pathlib import Path


def test_a_child_ends_with_its_parent(repository: Path) -> None:
    """The parent is killed by SIGKILL, so nothing but the pipe's end tells the child."""
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time\\n"
        "from lsr_infer.system.process import end_with_parent\\n"
        "end_with_parent()\\n"
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
