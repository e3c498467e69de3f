"""The one place where ONNX Runtime is imported: its own builds report to Microsoft unless they are told not to.

Seen with 1.31: a device id and queued events, names of models among them, below `~/.cache/Microsoft`, `.ses` in the
folder for temporary files, and look-ups of the host they are sent to. The variable is read when the library is loaded.
"""

import os
from typing import Any

__all__ = ["import_onnxruntime"]

_OFF = "ORT_DISABLE_TELEMETRY"


def import_onnxruntime() -> Any:
    """Return the module, with its reports switched off unless the user has set the variable.

    Raises:
        ImportError: it is not installed.
    """
    os.environ.setdefault(_OFF, "1")
    import onnxruntime

    return onnxruntime
