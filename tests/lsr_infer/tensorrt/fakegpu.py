"""A stand-in for the GPU that is not there: CUDA's memory, streams and graphs on the host, engines in ONNX Runtime.

All around it is real: engines are built by the real library. What the real CUDA forbids, this refuses.
"""

# ruff: noqa: N802, N815 - CUDA chose these names

import ctypes
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

from lsr_infer.system.cuda import CudaDevice

GPU = CudaDevice(index=0, name="NVIDIA RTX 4090", compute_capability=(8, 9))
_TYPES = {"tensor(uint8)": "UINT8", "tensor(float)": "FLOAT", "tensor(float16)": "HALF"}


def convolution(kind: str) -> dict[str, Any]:
    """What an inspector of TensorRT 10 shows of a convolution."""
    port = [{"Name": "x", "Format/Datatype": kind}]
    return {"Name": "conv", "LayerType": "CaskConvolution", "Inputs": port, "Outputs": port}


class FakeCuda:
    """What is used of `cuda.bindings.runtime`; calls return (error, value, …)."""

    cudaHostAllocDefault = 0
    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, *, memory: int = 1 << 28) -> None:
        self.device: dict[int, Any] = {}
        self.host: dict[int, Any] = {}
        self.left = memory
        self.recording: list[Callable[[], None]] | None = None
        self.may_record = True
        self.graphs_alive = self.launches = self.streams = 0

    def _allocate(self, kept: dict[int, Any], size: int) -> tuple[int, int | None]:
        if size > self.left:
            return 2, None
        memory = ctypes.create_string_buffer(size)
        address = ctypes.addressof(memory)
        kept[address] = memory
        self.left -= size
        return 0, address

    def _free(self, kept: dict[int, Any], address: int) -> tuple[int]:
        self.left += len(kept.pop(address))
        return (0,)

    def cudaSetDevice(self, index: int) -> tuple[int]:
        return (0 if index == 0 else 101,)

    def cudaGetLastError(self) -> tuple[int]:
        return (0,)

    def cudaGetErrorString(self, code: int) -> tuple[int, bytes]:
        return 0, {2: b"out of memory", 101: b"invalid device ordinal", 700: b"an illegal memory access"}[code]

    def cudaMalloc(self, size: int) -> tuple[int, int | None]:
        return self._allocate(self.device, size)

    def cudaFree(self, address: int) -> tuple[int]:
        return self._free(self.device, address)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[int, int | None]:
        return self._allocate(self.host, size)

    def cudaFreeHost(self, address: int) -> tuple[int]:
        return self._free(self.host, address)

    def do(self, action: Callable[[], None]) -> None:
        """Do what was put on the stream, or record it."""
        if self.recording is not None:
            self.recording.append(action)
        else:
            action()

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:
        assert (source if kind == 1 else to) in self.host
        assert (to if kind == 1 else source) in self.device
        self.do(lambda: ctypes.memmove(to, source, size) and None)
        return (0,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[int, int]:
        self.streams += 1
        return 0, 77

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        self.streams -= 1
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        assert self.recording is None, "a stream that is being recorded cannot be waited for"
        return (0,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:
        self.recording = []
        return (0,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, list[Callable[[], None]] | None]:
        graph, self.recording = self.recording, None
        return (0, graph) if self.may_record else (901, None)

    def cudaGraphInstantiate(self, graph: list[Callable[[], None]], flags: int) -> tuple[int, Any]:
        self.graphs_alive += 1
        return 0, list(graph)

    def cudaGraphDestroy(self, graph: Any) -> tuple[int]:
        graph.clear()
        return (0,)

    def cudaGraphExecDestroy(self, graph: Any) -> tuple[int]:
        self.graphs_alive -= 1
        return (0,)

    def cudaGraphLaunch(self, graph: list[Callable[[], None]], stream: int) -> tuple[int]:
        self.launches += 1
        for action in graph:
            action()
        return (0,)


class FakeContext:
    """An execution context; it may not change once a graph was recorded from it."""

    def __init__(self, engine: "FakeEngine") -> None:
        self.engine, self.cuda = engine, engine.cuda
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.recorded = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert not self.recorded
        self.shapes = {name: tuple(shape)}
        outputs = self.engine.compute(np.zeros(shape, np.uint8))
        self.shapes |= {key: value.shape for key, value in outputs.items()}
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert not self.recorded
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 77
        self.recorded = self.recorded or self.cuda.recording is not None
        shapes, addresses = dict(self.shapes), dict(self.addresses)

        def compute() -> None:
            image = np.frombuffer(self.cuda.device[addresses["image"]], np.uint8).reshape(shapes["image"])
            for name, value in self.engine.compute(image).items():
                data = np.ascontiguousarray(value).tobytes()
                ctypes.memmove(addresses[name], data, len(data))

        self.cuda.do(compute)
        return True


class FakeEngine:
    """An engine that is an ONNX Runtime session of the graph it was built from."""

    def __init__(self, trt: Any, cuda: FakeCuda, model: bytes, inspected: str) -> None:
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        self._nodes = {node.name: node for node in (*self._session.get_inputs(), *self._session.get_outputs())}
        self._outputs = [node.name for node in self._session.get_outputs()]
        self._trt, self.cuda, self._inspected = trt, cuda, inspected
        self.num_io_tensors = len(self._nodes)

    def compute(self, image: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._outputs, self._session.run(self._outputs, {"image": image}), strict=True))

    def get_tensor_name(self, index: int) -> str:
        return list(self._nodes)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return self._trt.TensorIOMode.OUTPUT if name in self._outputs else self._trt.TensorIOMode.INPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self._trt.DataType, _TYPES[self._nodes[name].type])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(axis if isinstance(axis, int) else -1 for axis in self._nodes[name].shape)

    def create_runtime_config(self) -> SimpleNamespace:
        return SimpleNamespace(cuda_graph_strategy=None)

    def create_execution_context(self, config: Any = None) -> FakeContext:
        return FakeContext(self)

    def create_engine_inspector(self) -> SimpleNamespace:
        return SimpleNamespace(get_engine_information=lambda layout: self._inspected)


class FakeModule:
    """The real library, but for the part that opens engines.

    Args:
        real: the library's module.
        cuda: the GPU's memory.
        damage: changes the graphs that engines compute, as a faulty kernel would.
        inspected: types of the convolutions that the engine's inspector shows.
    """

    def __init__(
        self,
        real: Any,
        cuda: FakeCuda,
        *,
        damage: Callable[[bytes], bytes] = lambda model: model,
        inspected: tuple[str, ...] = (),
    ) -> None:
        self._real, self._model = real, b""
        self.opened = 0
        layers = [convolution(kind) for kind in inspected]
        owner = self

        class OnnxParser:
            def __init__(self, network: Any, log: Any) -> None:
                self._parser = real.OnnxParser(network, log)

            def parse(self, model: bytes) -> bool:
                owner._model = model
                return bool(self._parser.parse(model))

            def __getattr__(self, name: str) -> Any:
                return getattr(self._parser, name)

        class Runtime:
            def __init__(self, log: Any) -> None:
                self.engine_host_code_allowed = False

            def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
                owner.opened += 1
                if plan[:4] == b"junk":
                    return None
                return FakeEngine(owner, cuda, damage(owner._model), json.dumps({"Layers": layers}))

        self.OnnxParser, self.Runtime = OnnxParser, Runtime

    def parsed(self, model: bytes) -> None:
        """Say which graph an engine holds that was built in another process."""
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
