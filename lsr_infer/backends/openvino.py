"""Runs models with OpenVINO on the CPU; needs the extra `openvino`.

By default OpenVINO computes float32 models in bfloat16 wherever the processor can, so the arithmetic is always named,
and the compiled model is asked for it.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.backends import BackendOptions
from lsr_infer.backends.model_file import TensorPort, read_onnx
from lsr_infer.errors import DeviceError, InputError, UsageError, extra
from lsr_infer.system.process import usable_cores

__all__ = ["INFERENCE_PRECISIONS", "OpenVinoBackend"]

INFERENCE_PRECISIONS: Mapping[str, str] = {"fp32": "f32", "bf16": "bf16"}
"""OpenVINO's name of each arithmetic that may be asked for. Layers between Q and DQ stay INT8 in both."""

_COMPUTES_IN = {"u8": "int8", "i8": "int8", "f32": "fp32", "bf16": "bf16", "f16": "fp16"}
_WITH_WEIGHTS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
"""OpenVINO's names of the layers in which a network's work is done, in its compiled graph."""

_TYPES = {"u8": "uint8", "f32": "float32", "f16": "float16"}


class OpenVinoBackend:
    """An ONNX model in OpenVINO; see `Backend`.

    Args:
        path: the .onnx file.
        options: the device is `auto` or `cpu`. The precision is that of the layers outside Q and DQ:
            `bf16` computes them in bfloat16; without one it is float32.

    Attributes:
        precision: the arithmetic in which most of the compiled model's layers with weights run, as it says itself:
            `int8` for a quantised file whatever was asked for, `fp32` for one of float16.

    Raises:
        UsageError: there is no such device or precision.
        DeviceError: OpenVINO is not installed, it has no such device, or the processor cannot compute in the precision.
        InputError: the file is no model that OpenVINO runs.
    """

    def __init__(self, path: Path, options: BackendOptions) -> None:
        if options.device not in ("auto", "cpu"):
            if not options.device.startswith("cuda"):
                raise UsageError(f"there is no device {options.device}; allowed: auto, cpu, cuda:N.")
            raise DeviceError(f"{options.device}: OpenVINO does not run on CUDA devices. Pass --backend onnxruntime.")
        asked = options.precision or "fp32"
        if asked not in INFERENCE_PRECISIONS:
            raise UsageError(f"OpenVINO computes in {' or '.join(INFERENCE_PRECISIONS)}; {asked} is not available.")
        self.metadata: Mapping[str, str] = read_onnx(path).metadata
        try:
            import openvino
        except ImportError as error:
            raise DeviceError(f"OpenVINO is not installed. {extra('openvino')}") from error
        self.name = "openvino"
        self._path = path
        settings = {
            "INFERENCE_PRECISION_HINT": INFERENCE_PRECISIONS[asked],
            "INFERENCE_NUM_THREADS": options.threads or usable_cores(),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # decoding and encoding share these cores
        }
        try:
            core = openvino.Core()
            compiled = core.compile_model(core.read_model(str(path)), "CPU", settings)
        except Exception as error:  # RuntimeError mostly, but whatever comes out of it concerns this file
            raise InputError(f"{path}: OpenVINO cannot load it: {_last_line(error)}") from error
        self.device = ",".join(compiled.get_property("EXECUTION_DEVICES")).lower()
        found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if found != INFERENCE_PRECISIONS[asked]:
            raise DeviceError(f"OpenVINO computes in {found} here, not in {asked}. Pass another --precision.")
        self.precision: str | None = _precision(compiled) or asked
        self.inputs = tuple(_port(port) for port in compiled.inputs)
        self.outputs = tuple(_port(port) for port in compiled.outputs)
        self._request: Any = compiled.create_infer_request()
        self._lock = threading.Lock()  # a request is one thread's at a time, and the CPU has one stream

    def run(self, frames: NDArray[Any]) -> NDArray[Any]:
        """Map frames uint8 [N,H,W,3] to the graph's first output; threads may call this at once."""
        with self._lock:
            if self._request is None:
                raise UsageError(f"{self._path}: is closed. Open it again.")
            try:
                result = self._request.infer([frames], share_inputs=True, share_outputs=False)
            except Exception as error:
                failed = f"OpenVINO failed on frames {list(frames.shape)}"
                raise InputError(f"{self._path}: {failed}: {_last_line(error)}") from error
            return np.asarray(result[0])

    def close(self) -> None:
        """Free the model, once the thread that uses it has its result."""
        with self._lock:
            self._request = None


def _precision(compiled: Any) -> str | None:
    """Return in what most layers with weights run; None where the compiled model has none."""
    layers = (node.get_rt_info() for node in compiled.get_runtime_model().get_ops())
    working = (layer for layer in layers if layer["layerType"].astype(str) in _WITH_WEIGHTS)
    found = Counter(str(layer["runtimePrecision"].astype(str)) for layer in working)
    element = max(found, key=found.__getitem__, default=None)
    return None if element is None else _COMPUTES_IN.get(element, element)


def _port(port: Any) -> TensorPort:
    shape = tuple(None if axis.is_dynamic else int(axis.get_length()) for axis in port.get_partial_shape())
    element = port.get_element_type().to_string()
    return TensorPort(name=str(port.get_any_name()), type=_TYPES.get(element, element), shape=shape)


def _last_line(error: Exception) -> str:
    """Return OpenVINO's own message, which follows lines about its source."""
    lines = [line.strip() for line in str(error).splitlines()]
    own = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return (own or lines or [type(error).__name__])[-1][:300].rstrip(".") + "."
