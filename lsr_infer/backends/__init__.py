"""Opens a model file with the backend that runs it; importing this package loads no inference library."""

from collections.abc import Callable, Mapping
from pathlib import Path

from lsr_infer.backends.backend import Backend, BackendOptions
from lsr_infer.backends.model_file import TensorPort, check_is_file
from lsr_infer.errors import InputError, UsageError

__all__ = ["BACKENDS", "Backend", "BackendOptions", "TensorPort", "open_backend"]


def _onnxruntime(path: Path, options: BackendOptions) -> Backend:
    from lsr_infer.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, options)


def _openvino(path: Path, options: BackendOptions) -> Backend:
    from lsr_infer.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(path, options)


def _tensorrt(path: Path, options: BackendOptions) -> Backend:
    from lsr_infer.backends.tensorrt import TensorRtBackend

    return TensorRtBackend(path, options, "tensorrt")


def _tensorrt_rtx(path: Path, options: BackendOptions) -> Backend:
    from lsr_infer.backends.tensorrt import TensorRtBackend

    return TensorRtBackend(path, options, "rtx")


BACKENDS: Mapping[str, Callable[[Path, BackendOptions], Backend]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "tensorrt": _tensorrt,
    "tensorrt-rtx": _tensorrt_rtx,
}
"""How to open a model, by backend. The engine is imported only then."""

_SUFFIXES = {".onnx": "onnxruntime", ".engine": "tensorrt"}


def open_backend(path: Path, options: BackendOptions | None = None, *, name: str | None = None) -> Backend:
    """Open a model file with the backend of this name, or the one for the file's ending.

    Raises:
        UsageError: there is no such backend, or it lacks what the options ask for.
        DeviceError: the device is not there.
        InputError: the file is missing, damaged, or of a kind no backend opens.
    """
    check_is_file(path)
    chosen = name or _SUFFIXES.get(path.suffix.lower())
    if chosen is None:
        raise InputError(f"{path}: no backend opens {path.suffix or 'such'} files; known: {', '.join(_SUFFIXES)}.")
    if name is None and chosen == "tensorrt":
        from lsr_infer.backends.tensorrt import backend_of_engine

        chosen = backend_of_engine(path)  # the two flavours share the ending
    if chosen not in BACKENDS:
        raise UsageError(f"there is no backend {chosen}; known: {', '.join(BACKENDS)}.")
    return BACKENDS[chosen](path, options or BackendOptions())
