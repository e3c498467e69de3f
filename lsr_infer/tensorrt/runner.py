"""Runs an opened engine on a GPU: device memory, page-locked host memory, one stream, a CUDA graph for each shape.

Nothing here decides whether an engine may be opened; see `admission`. Opening one runs the code in it.
"""

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import DeviceError, InputError, extra
from lsr_infer.system.cuda import CudaDevice
from lsr_infer.tensorrt.flavour import Library, make_logger

__all__ = ["EngineRunner", "use_device"]

_OUT_OF_MEMORY = 2
_SHAPES_KEPT = 4
"""Shapes whose memory and CUDA graph are kept; with more, the one used longest ago goes."""


def _cudart() -> Any:
    """Import NVIDIA's Python bindings of the CUDA runtime."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise DeviceError(f"cuda-python cannot be loaded ({error}). {extra('trt', 'trt-rtx')}") from error
    return runtime


def _checked(result: tuple[Any, ...]) -> Any:
    """Return the value of a call of cuda-python, which answers (error, value, …)."""
    code, *values = result
    if int(code) != 0:
        _, words = _cudart().cudaGetErrorString(code)
        text = words.decode("ascii", errors="replace") if isinstance(words, bytes) else str(code)
        hint = " Free memory on the GPU, or choose smaller --shapes." if int(code) == _OUT_OF_MEMORY else ""
        raise DeviceError(f"CUDA: {text} (error {int(code)}).{hint}")
    return values[0] if len(values) == 1 else None


def use_device(gpu: CudaDevice) -> None:
    """Make a GPU the one that this thread works on."""
    _checked(_cudart().cudaSetDevice(gpu.index))


class _Buffer:
    """The memory of one tensor at one shape, on the device and, page-locked, on the host."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        runtime = _cudart()
        self.name = name
        self.bytes = max(1, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        self.device = int(_checked(runtime.cudaMalloc(self.bytes)))
        try:
            self.host = int(_checked(runtime.cudaHostAlloc(self.bytes, runtime.cudaHostAllocDefault)))
        except DeviceError:
            runtime.cudaFree(self.device)
            raise
        raw = np.ctypeslib.as_array((ctypes.c_uint8 * self.bytes).from_address(self.host))
        self.array: NDArray[Any] = raw.view(dtype).reshape(shape)

    def free(self) -> None:
        runtime = _cudart()
        runtime.cudaFree(self.device)
        runtime.cudaFreeHost(self.host)


@dataclass(eq=False)
class _Binding:
    """All that one shape of the input needs: a context, the tensors' memory and, once recorded, a CUDA graph.

    A context from which a graph was recorded may not change any more, so that each graph has a context of its own.
    """

    context: Any
    inputs: Sequence[_Buffer]
    outputs: Sequence[_Buffer]
    graph: Any = None

    def point(self) -> None:
        """Tell the context where the tensors are."""
        for buffer in self.inputs:
            self.context.set_input_shape(buffer.name, buffer.array.shape)
        for buffer in (*self.inputs, *self.outputs):
            self.context.set_tensor_address(buffer.name, buffer.device)

    def free(self) -> None:
        if self.graph is not None:
            _cudart().cudaGraphExecDestroy(self.graph)
        self.context = None
        for buffer in (*self.inputs, *self.outputs):
            buffer.free()


class EngineRunner:
    """An engine, opened on a GPU from bytes of a trusted place.

    `host_code` allows what a version-compatible engine needs, running the library inside it; `graphs` records a CUDA
    graph for each shape, so that its kernels start at once.
    """

    def __init__(
        self, library: Library, plan: bytes, gpu: CudaDevice, *, host_code: bool = False, graphs: bool = True
    ) -> None:
        trt = library.module
        self._library, self._gpu, self._lock = library, gpu, threading.Lock()
        self._runtime = _cudart()
        use_device(gpu)
        self._log = make_logger(trt)
        self._trt_runtime = trt.Runtime(self._log)
        if host_code:
            self._trt_runtime.engine_host_code_allowed = True
        self.engine = self._trt_runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise InputError(f"{library.title} does not open it: {self._log.last_error or 'it gives no reason'}.")
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        modes = {name: self.engine.get_tensor_mode(name) for name in names}
        self.inputs = tuple(name for name in names if modes[name] == trt.TensorIOMode.INPUT)
        self.outputs = tuple(name for name in names if modes[name] == trt.TensorIOMode.OUTPUT)
        self._own_graphs = graphs and library.flavour != "rtx"
        self._shared = None if self._own_graphs else self._new_context(graphs=graphs)
        self._stream = _checked(self._runtime.cudaStreamCreateWithFlags(self._runtime.cudaStreamNonBlocking))
        self._bindings: OrderedDict[tuple[tuple[int, ...], ...], _Binding] = OrderedDict()

    def _new_context(self, *, graphs: bool = False) -> Any:
        """Make an execution context; TensorRT for RTX records graphs by itself where told to.

        Its kernels for a shape are made at once, not behind the first runs as by default: what was compared has to be
        what runs later.
        """
        trt = self._library.module
        if self._library.flavour == "rtx" and hasattr(trt, "CudaGraphStrategy"):
            config = self.engine.create_runtime_config()
            if graphs:
                config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
                eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
                config.dynamic_shapes_kernel_specialization_strategy = eager
            context = self.engine.create_execution_context(config)
        else:
            context = self.engine.create_execution_context()
        if context is None:
            raise DeviceError(f"{self._library.title} cannot run the engine: {self._log.last_error or 'no memory'}.")
        return context

    def type_of(self, name: str) -> np.dtype[Any]:
        """Return the element type of an input or output."""
        kind: np.dtype[Any] = np.dtype(self._library.module.nptype(self.engine.get_tensor_dtype(name)))
        return kind

    def shape_of(self, name: str) -> tuple[int | None, ...]:
        """Return the shape of an input or output, None for a free axis."""
        return tuple(None if axis < 0 else int(axis) for axis in self.engine.get_tensor_shape(name))

    def run(self, values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute all outputs from all inputs; the arrays are the caller's to keep."""
        with self._lock:
            use_device(self._gpu)  # each thread has a device of its own
            binding = self._binding(tuple(tuple(values[name].shape) for name in self.inputs))
            for buffer in binding.inputs:
                buffer.array[...] = values[buffer.name]
            if binding.graph is not None:
                _checked(self._runtime.cudaGraphLaunch(binding.graph, self._stream))
            else:
                self._enqueue(binding)
            _checked(self._runtime.cudaStreamSynchronize(self._stream))
            return {buffer.name: buffer.array.copy() for buffer in binding.outputs}

    def _binding(self, shapes: tuple[tuple[int, ...], ...]) -> _Binding:
        """Return what a shape needs, made when it is first met."""
        known = self._bindings.get(shapes)
        if known is not None:
            self._bindings.move_to_end(shapes)
            if not self._own_graphs:
                known.point()
            return known
        while len(self._bindings) >= _SHAPES_KEPT:
            self._bindings.popitem(last=False)[1].free()
        binding = self._new_binding(shapes)
        if self._own_graphs:
            for buffer in binding.inputs:
                buffer.array[...] = 0
            try:
                binding.graph = self._record(binding)
            except BaseException:
                binding.free()
                raise
        self._bindings[shapes] = binding
        return binding

    def _new_binding(self, shapes: tuple[tuple[int, ...], ...]) -> _Binding:
        context: Any = self._new_context() if self._own_graphs else self._shared
        for name, shape in zip(self.inputs, shapes, strict=True):
            if not context.set_input_shape(name, shape):
                raise InputError(f"the engine takes no {name} {list(shape)}: {self._log.last_error or 'no reason'}.")
        made: list[_Buffer] = []
        try:
            for name in (*self.inputs, *self.outputs):
                buffer = _Buffer(name, tuple(context.get_tensor_shape(name)), self.type_of(name))
                made.append(buffer)
        except BaseException:
            for buffer in made:
                buffer.free()
            raise
        binding = _Binding(context, made[: len(self.inputs)], made[len(self.inputs) :])
        binding.point()
        return binding

    def _enqueue(self, binding: _Binding) -> None:
        """Copy in, compute, copy out, all on the stream."""
        runtime, kinds = self._runtime, self._runtime.cudaMemcpyKind
        to_device, to_host = kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToHost
        for buffer in binding.inputs:
            _checked(runtime.cudaMemcpyAsync(buffer.device, buffer.host, buffer.bytes, to_device, self._stream))
        if not binding.context.execute_async_v3(int(self._stream)):
            raise DeviceError(f"{self._library.title} failed: {self._log.last_error or 'it gives no reason'}.")
        for buffer in binding.outputs:
            _checked(runtime.cudaMemcpyAsync(buffer.host, buffer.device, buffer.bytes, to_host, self._stream))

    def _record(self, binding: _Binding) -> Any:
        """Record a run as a CUDA graph; None where the engine does something that cannot be recorded."""
        runtime = self._runtime
        self._enqueue(binding)  # the first run of a shape sets up what may not be recorded
        _checked(runtime.cudaStreamSynchronize(self._stream))
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _checked(runtime.cudaStreamBeginCapture(self._stream, mode))
        try:
            self._enqueue(binding)
        except DeviceError:
            runtime.cudaStreamEndCapture(self._stream)
            runtime.cudaGetLastError()  # takes the error away, which later calls would else find
            return None
        code, graph = runtime.cudaStreamEndCapture(self._stream)
        if int(code) != 0:
            runtime.cudaGetLastError()
            return None
        try:
            return _checked(runtime.cudaGraphInstantiate(graph, 0))
        finally:
            runtime.cudaGraphDestroy(graph)

    def close(self) -> None:
        """Free the engine and its memory."""
        with self._lock:
            use_device(self._gpu)
            while self._bindings:
                self._bindings.popitem()[1].free()
            self._runtime.cudaStreamDestroy(self._stream)
            del self._shared, self.engine, self._trt_runtime
