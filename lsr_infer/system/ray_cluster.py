"""Starts Ray on this machine, or joins a cluster of it."""

import logging
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from lsr_infer.errors import DeviceError, extra
from lsr_infer.system.progress import Progress

__all__ = ["join_cluster"]

_STORE_BYTES = 200 << 20
"""Memory for objects that tasks hand on, where this starts Ray; what they hand on is small."""
_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would report to its makers
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its own notes go past the log; what is lost comes back
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # it warns where nobody has chosen
}
_LEVEL_NOTE = re.compile(rb"\[[^\n]*\] logging\.cc:[^\n]*\n")
"""What Ray writes to the terminal when a level is set, whatever the level."""


def join_cluster(address: str, why: str, *parts: str) -> Any:
    """Return the module of Ray, joined to a cluster or started on this machine.

    Args:
        address: of a cluster, as `ray.init` takes it; empty starts Ray here.
        why: Ray is needed, for the message, such as "archives are done by Ray".
        parts: of Ray that are needed too, such as `ray.data`.

    Raises:
        DeviceError: Ray is not installed, or there is no cluster at the address.
    """
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    try:
        ray: Any = import_module("ray")
        for part in parts:
            import_module(part)
    except ModuleNotFoundError as error:
        raise DeviceError(f"{why}, and {error.name} is not there. {extra('ray')}") from error
    own = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    place, options = (address, {}) if address else ("local", own)
    ends = signal.getsignal(signal.SIGTERM)
    try:
        with Progress("connecting to Ray" if address else "starting Ray", unit=""), _without_note():
            ray.init(address=place, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DeviceError(f"Ray cannot be reached at {place}: {reason} Check --address, and `ray status`.") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ends)  # Ray puts its own in its place, which ends with another code
    return ray


@contextmanager
def _without_note() -> Iterator[None]:
    """Leave out what Ray says of its level, which comes from no Python code; all else reaches stderr as it is."""
    before = os.dup(2)
    read, write = os.pipe()
    os.dup2(write, 2)
    os.close(write)

    def copy() -> None:
        with open(read, "rb", buffering=0) as said:
            while some := said.read(65536):
                os.write(before, _LEVEL_NOTE.sub(b"", some))
        os.close(before)

    copying = threading.Thread(target=copy, daemon=True)
    copying.start()
    try:
        yield
    finally:
        os.dup2(before, 2)
        copying.join(0.2)  # no longer: processes that Ray has started may hold the pipe for as long as they live
