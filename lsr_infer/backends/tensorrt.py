"""Runs engines of TensorRT and TensorRT for RTX, and refuses those that cannot run here before they are opened.

An engine is executable code: open only those from a source you trust.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.backends import BackendOptions
from lsr_infer.backends.model_file import TensorPort
from lsr_infer.errors import DeviceError, InputError, UsageError
from lsr_infer.manifest import METADATA_KEY
from lsr_infer.system.cuda import choose_cuda_device, probe_cuda
from lsr_infer.tensorrt import admission
from lsr_infer.tensorrt.admission import rebuild_command
from lsr_infer.tensorrt.flavour import BACKEND_NAMES, load_library, platform_name

__all__ = ["TensorRtBackend"]


class TensorRtBackend:
    """An engine on a GPU; see `Backend`.

    Args:
        path: the .engine file, with its Manifest `NAME.engine.json` beside it.
        options: `auto` takes the first GPU, `cuda:N` that one.
        flavour: `tensorrt` or `rtx`.

    Raises:
        UsageError: the device is no device's name, or a precision is asked for.
        DeviceError: the GPU or the library is not there, or the engine is for another flavour, version or GPU.
        InputError: the engine or its Manifest is missing or damaged, they do not belong together, or the engine has not
            been compared with its ONNX file yet.
    """

    def __init__(self, path: Path, options: BackendOptions, flavour: str) -> None:
        if options.precision is not None:
            asked = f"{options.precision} is not available"
            raise UsageError(f"an engine computes in the precision it was built with; {asked}.")
        self.name = BACKEND_NAMES[flavour]
        if path.suffix.lower() != ".engine":
            raise UsageError(f"{path}: {self.name} opens .engine files. Build one from it with export/to_trt.py.")
        self.precision: str | None = None
        self._path = path
        text, manifest, self._facts = admission.engine_manifest(path)
        facts = self._facts
        try:
            plan = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error
        admission.check_bytes(path, facts, admission.sha256_of(plan))
        admission.check_flavour(path, facts, flavour)
        gpu = choose_cuda_device(options.device, probe_cuda(), f"{path.name}, a TensorRT engine,")
        library = load_library(flavour)
        host = admission.Host(flavour=flavour, version=library.version, platform=platform_name(), gpu=gpu)
        admission.check_host(path, facts, host)
        admission.check_parity(path, manifest, gpu, allow_unverified=options.allow_unverified)
        from lsr_infer.tensorrt.runner import EngineRunner

        try:
            self._runner = EngineRunner(library, plan, gpu, host_code=facts.version_compatible)
        except InputError as error:
            raise InputError(f"{path}: {error} {rebuild_command(path, facts).capitalize()}.") from error
        self._closed = False
        self.device = f"cuda:{gpu.index}"
        self.metadata: Mapping[str, str] = {METADATA_KEY: text}
        self.inputs = tuple(self._port(name) for name in self._runner.inputs)
        self.outputs = tuple(self._port(name) for name in self._runner.outputs)

    def _port(self, name: str) -> TensorPort:
        return TensorPort(name=name, type=str(self._runner.type_of(name)), shape=self._runner.shape_of(name))

    def run(self, frames: NDArray[Any]) -> NDArray[Any]:
        """Map frames uint8 [N,H,W,3] to the graph's output; of several threads one computes, the others wait."""
        if self._closed:
            raise UsageError(f"{self._path}: is closed. Open it again.")
        least, _, most = self._facts.shapes
        shape = frames.shape[:3]
        if not all(low <= side <= high for low, side, high in zip(least, shape, most, strict=True)):
            raise InputError(
                f"{self._path}: takes {_size(least)} to {_size(most)} (frames x width x height), not {_size(shape)}. "
                f"With other --shapes, {rebuild_command(self._path, self._facts)}."
            )
        try:
            return np.asarray(self._runner.run({self.inputs[0].name: frames})[self.outputs[0].name])
        except DeviceError as error:
            raise DeviceError(f"{self._path}: {error}") from error

    def close(self) -> None:
        """Free the engine and its memory on the GPU; a second time does nothing."""
        if self._closed:
            return
        self._closed = True
        self._runner.close()


def _size(shape: tuple[int, ...]) -> str:
    batch, height, width = shape
    return f"{batch}x{width}x{height}"
