"""Runs models with ONNX Runtime on the CPU or a CUDA device, and asks the session which of the two it became."""

import contextlib
import logging
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.backends import BackendOptions
from lsr_infer.backends.model_file import TensorPort, read_onnx
from lsr_infer.errors import DeviceError, InputError, UsageError, extra
from lsr_infer.system.cuda import device_index, probe_cuda
from lsr_infer.system.process import import_onnxruntime, usable_cores

__all__ = ["DeviceRunner", "OnnxRuntimeBackend"]

logger = logging.getLogger(__name__)

_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}
_CUDA, _CPU = "CUDAExecutionProvider", ["CPUExecutionProvider"]
_FATAL_ONLY = 4
_SETTINGS_KEY = "ort_config"
"""Metadata from which ONNX Runtime, where its environment says so, takes options such as files to write."""
_BUFFERED_SHAPES = 4
"""Frame sizes whose device buffers are kept; a clip has one, a folder of photographs may have many."""
_CAPTURED_BATCHES = 8
"""CUDA graphs are captured for batches up to this size; each holds its buffers for good."""


class OnnxRuntimeBackend:
    """An ONNX model in ONNX Runtime; see `Backend`.

    Args:
        path: the .onnx file.
        options: `auto` takes the first CUDA device if it works, else the CPU; `cuda:N` takes that device or nothing.
            The precision `tf32` lets a CUDA device round float32 factors to 10 bits; without it they are kept whole.

    Raises:
        UsageError: the device is no device's name, or a precision is asked for that is not available.
        DeviceError: the device is not there, or the session fell back to another.
        InputError: the file is no model that ONNX Runtime runs.
    """

    def __init__(self, path: Path, options: BackendOptions) -> None:
        if options.precision not in (None, "tf32"):
            why = f"ONNX Runtime computes in the file's own precision; {options.precision} is not available"
            raise UsageError(f"{why}. Export the model in it.")
        self.name = "onnxruntime"
        self._path = path
        self.metadata: Mapping[str, str] = read_onnx(path).metadata
        if _SETTINGS_KEY in self.metadata:
            raise InputError(f"{path}: carries settings for ONNX Runtime, which are not allowed. Export it again.")
        index = device_index(options.device)
        session, reason, graphs = None, "", False
        if options.device != "cpu":
            session, reason, graphs = _cuda_session(path, options, index)
            if session is None and options.device != "auto":
                advice = f"Check the driver, or pass --device cpu. {extra('cuda')}"
                raise DeviceError(f"{options.device}: {reason}. {advice}")
        if session is None:
            if options.precision is not None:
                raise UsageError(f"{options.precision} is an arithmetic of CUDA devices only.")
            if reason:
                logger.info("device auto: cpu (%s)", reason)
            session = _session(path, options, _CPU)
        on_cuda = _CUDA in session.get_providers()
        self.device = f"cuda:{index}" if on_cuda else "cpu"
        self.precision = options.precision
        if on_cuda and options.device == "auto":
            logger.info("device auto: %s", self.device)
        try:
            self.inputs = tuple(_port(node) for node in session.get_inputs())
            self.outputs = tuple(_port(node) for node in session.get_outputs())
        except UnicodeDecodeError as error:  # names of axes that are damaged
            raise InputError(f"{path}: the names of its inputs or outputs are damaged. Export it again.") from error
        self._session: Any = session
        self._runner = DeviceRunner(session, "cuda", index, graphs=graphs) if on_cuda else None

    def run(self, frames: NDArray[Any]) -> NDArray[Any]:
        """Map frames uint8 [N,H,W,3] to the graph's first output; threads may call this at once."""
        session, runner = self._session, self._runner
        if session is None:
            raise UsageError(f"{self._path}: is closed. Open it again.")
        try:
            if runner is not None:
                return runner.run(frames)
            (result,) = session.run([self.outputs[0].name], {self.inputs[0].name: frames})
        except Exception as error:  # its exceptions share no base but Exception
            failed = f"ONNX Runtime failed on frames {list(frames.shape)}"
            raise InputError(f"{self._path}: {failed}: {_first_line(error)}") from error
        return np.asarray(result)

    def close(self) -> None:
        """Free the session, once the last thread that uses it has its result."""
        self._session = self._runner = None


class DeviceRunner:
    """Runs a session with buffers on the device that are prepared once for each shape.

    Input and output lie in device memory that is kept: a run copies the frames in, computes, and copies the result
    out, with nothing allocated and, where the graph's shape is fixed, all kernels launched as one CUDA graph. ONNX
    Runtime's Python offers no page-locked memory for its CUDA provider (1.31), so the copies start in pageable memory.
    """

    def __init__(self, session: Any, kind: str, index: int, *, graphs: bool = False) -> None:
        self._session = session
        self._place = (kind, index)
        self._graphs = graphs
        self._input, self._output = session.get_inputs()[0].name, session.get_outputs()[0].name
        self._buffers: OrderedDict[tuple[int, ...], tuple[Any, Any, Any]] = OrderedDict()
        self._lock = threading.Lock()  # the buffers are one thread's at a time

    @property
    def kept(self) -> int:
        """Number of shapes whose buffers are held now."""
        return len(self._buffers)

    def run(self, frames: NDArray[Any]) -> NDArray[Any]:
        """Map frames to the graph's output; see `Backend.run`."""
        captured = self._graphs and len(frames) <= _CAPTURED_BATCHES
        with self._lock:
            given, binding, taken = self._buffers.get(frames.shape) or self._prepare(frames)
            self._buffers.move_to_end(frames.shape)
            given.update_inplace(frames)
            self._session.run_with_iobinding(binding, self._run_options(len(frames) if captured else -1))
            result: NDArray[Any] = taken.numpy()
            return result.copy() if self._place[0] == "cpu" else result  # on the CPU it is the buffer itself

    def _prepare(self, frames: NDArray[Any]) -> tuple[Any, Any, Any]:
        """Make the buffers of a shape; a first run tells the output's shape."""
        from onnxruntime import OrtValue

        captured = _CAPTURED_BATCHES if self._graphs else 0  # a captured graph never loses its buffers
        free = [shape for shape in self._buffers if shape[0] > captured]
        if len(free) >= _BUFFERED_SHAPES:
            del self._buffers[free[0]]
        given = OrtValue.ortvalue_from_shape_and_type(frames.shape, frames.dtype, *self._place)
        given.update_inplace(frames)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._input, given)
        binding.bind_output(self._output, *self._place)
        self._session.run_with_iobinding(binding, self._run_options(-1))
        found = binding.get_outputs()[0]
        element = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}.get(found.data_type())
        if element is None:
            raise TypeError(f"the output is {found.data_type()}")
        taken = OrtValue.ortvalue_from_shape_and_type(found.shape(), element, *self._place)
        binding.clear_binding_outputs()
        binding.bind_ortvalue_output(self._output, taken)
        self._buffers[frames.shape] = given, binding, taken
        return self._buffers[frames.shape]

    def _run_options(self, graph: int) -> Any:
        """Name the CUDA graph to capture or replay, -1 for none."""
        if not self._graphs:
            return None
        from onnxruntime import RunOptions

        options = RunOptions()
        options.add_run_config_entry("gpu_graph_annotation_id", str(graph))
        return options


def _cuda_session(path: Path, options: BackendOptions, index: int) -> tuple[Any, str, bool]:
    """Open a session that truly runs on a CUDA device; None with the reason; and whether CUDA graphs are on."""
    onnxruntime = import_onnxruntime()
    if _CUDA not in onnxruntime.get_available_providers():
        return None, "this ONNX Runtime was built without CUDA", False
    probe = probe_cuda()
    if index >= len(probe.devices):
        return None, ", ".join(map(str, probe.devices)) or probe.reason, False
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(sys.stderr):  # it prints what it does not find
            onnxruntime.preload_dlls()
    settings = {"device_id": str(index), "use_tf32": "1" if options.precision == "tf32" else "0"}
    reason = "ONNX Runtime could not use the CUDA device and would have run on the CPU"
    fixed = all(None not in port.shape[1:] for port in read_onnx(path).inputs)  # but the batch; kernels can be recorded
    for graphs in (True, False) if fixed else (False,):
        try:
            session = _session(path, options, [(_CUDA, settings | {"enable_cuda_graph": "1" if graphs else "0"})])
        except InputError as error:
            _session(path, options, _CPU)  # raises where the model is at fault
            reason = f"ONNX Runtime could not use the CUDA device ({str(error).rstrip('.')})"
            if graphs:  # a node that CUDA lacks
                logger.info("%s: without CUDA graphs (%s)", path.name, error)
            continue
        if _CUDA in session.get_providers():
            return session, "", graphs
    if options.device == "auto":
        logger.warning("device auto: %s. Check the driver. %s", reason, extra("cuda"))
    return None, reason, False


def _session(path: Path, options: BackendOptions, providers: list[Any]) -> Any:
    onnxruntime = import_onnxruntime()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _FATAL_ONLY  # its errors come as exceptions, and in one line
    settings.intra_op_num_threads = options.threads or usable_cores()
    settings.inter_op_num_threads = 1
    # Waiting threads that spin take the cores from decoding and encoding.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        # Without its fallback, which prints on stdout and takes the CPU.
        return onnxruntime.InferenceSession(str(path), settings, providers=providers, enable_fallback=0)
    except Exception as error:  # its exceptions share no base but Exception
        raise InputError(f"{path}: ONNX Runtime cannot load it: {_first_line(error)}") from error


def _port(node: Any) -> TensorPort:
    shape = tuple(axis if isinstance(axis, int) else None for axis in node.shape)
    return TensorPort(name=str(node.name), type=_TYPES.get(node.type, str(node.type)), shape=shape)


def _first_line(error: Exception) -> str:
    """Return ONNX Runtime's message without its code and further lines."""
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ", r"\1: ", text)[:300].rstrip(".") + "."
