"""A helper process that does not outlive the one which started it, however that one ends.

The parent starts it with a pipe as stdin and keeps the other end open as long as it lives.
"""

import os
import signal
import threading

__all__ = ["STDIN", "end_with_parent"]

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
