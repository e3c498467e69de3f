"""ONNX Runtime on the CPU or a CUDA device; the session itself is asked which of the two it became.

The engine is imported when a model is opened, not with this module.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.backends import BackendOptions, TensorPort
from lsr_infer.errors import DeviceError, InputError, UsageError

__all__ = ["OnnxRuntimeBackend"]

_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}
_ERRORS_ONLY = 3


class OnnxRuntimeBackend:
    """An ONNX model in ONNX Runtime; see `Backend`.

    Args:
        path: the .onnx file.
        options: of the devices `auto` and `cpu` take the CPU; `cuda:N` takes that device or nothing.

    Raises:
        UsageError: the device is no device's name, or a precision is asked for.
        DeviceError: the device is not there, or the session fell back to another.
        InputError: the file is no model that ONNX Runtime runs.
    """

    def __init__(self, path: Path, options: BackendOptions) -> None:
        import onnxruntime

        if options.precision is not None:
            raise UsageError(
                f"ONNX Runtime computes in the file's own precision; {options.precision} is not to be had."
            )
        self.name = "onnxruntime"
        device = options.device
        providers = _providers(device)
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = _ERRORS_ONLY + 1 if providers[0] == "CPUExecutionProvider" else _ERRORS_ONLY
        settings.intra_op_num_threads = options.threads or usable_cores()
        settings.inter_op_num_threads = 1
        # Waiting threads that spin take the cores from decoding and encoding.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), settings, providers=providers)
        except Exception as error:  # its exceptions share no base but Exception
            raise InputError(f"{path}: ONNX Runtime cannot load it: {_first_line(error)}") from error
        self.device = _running_on(self._session.get_providers(), device)
        self.metadata: Mapping[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.inputs = tuple(_port(node) for node in self._session.get_inputs())
        self.outputs = tuple(_port(node) for node in self._session.get_outputs())
        self._path = path

    def run(self, frames: NDArray[Any]) -> NDArray[Any]:
        """Map frames uint8 [N,H,W,3] to the graph's first output."""
        try:
            (result,) = self._session.run([self.outputs[0].name], {self.inputs[0].name: frames})
        except Exception as error:
            raise InputError(
                f"{self._path}: ONNX Runtime failed on frames {list(frames.shape)}: {_first_line(error)}"
            ) from error
        return np.asarray(result)

    def close(self) -> None:
        """Free the session."""
        del self._session


def usable_cores() -> int:
    """Return how many cores this process may use, which a container may limit below what the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _providers(device: str) -> list[Any]:
    """Turn a device's name into ONNX Runtime's providers."""
    if device in ("auto", "cpu"):
        return ["CPUExecutionProvider"]
    match = re.fullmatch(r"cuda(?::(\d{1,3}))?", device)
    if match is None:
        raise UsageError(f"there is no device {device}; allowed: auto, cpu, cuda:N.")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise DeviceError(f"{device}: this ONNX Runtime was built without CUDA. Install lsr-road[cuda], or use cpu.")
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    return [("CUDAExecutionProvider", {"device_id": int(match[1] or 0)})]


def _running_on(providers: list[str], device: str) -> str:
    """Read the device off the session's own providers."""
    if "CUDAExecutionProvider" in providers:
        return device if ":" in device else "cuda:0"
    if device not in ("auto", "cpu"):
        raise DeviceError(
            f"{device}: ONNX Runtime could not use it and would have run on the CPU. Check the driver and "
            "lsr-road[cuda], or pass --device cpu."
        )
    return "cpu"


def _port(node: Any) -> TensorPort:
    shape = tuple(axis if isinstance(axis, int) else None for axis in node.shape)
    return TensorPort(name=str(node.name), type=_TYPES.get(node.type, str(node.type)), shape=shape)


def _first_line(error: Exception) -> str:
    """Return ONNX Runtime's message without its code and further lines."""
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ", r"\1: ", text)[:300].rstrip(".") + "."
