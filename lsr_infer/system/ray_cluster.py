"""Starts Ray on this machine, or joins a cluster of it."""

import logging
import os
import signal
import threading
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
        with Progress("connecting to Ray" if address else "starting Ray", unit=""):
            ray.init(address=place, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DeviceError(f"Ray cannot be reached at {place}: {reason} Check --address, and `ray status`.") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ends)  # Ray puts its own in its place, which ends with another code
    return ray
