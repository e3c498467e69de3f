"""The engines a model can run on, one small class each behind one protocol.

A backend opens a file, reports what it holds and which device it truly runs on, and maps frames to the graph's output.
It checks nothing about frames and knows no labels: that is the `Segmenter`'s. Importing this package loads no engine.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from lsr_infer.backends.model_file import check_is_file
from lsr_infer.backends.onnx_file import TensorPort
from lsr_infer.errors import InputError, UsageError

__all__ = ["BACKENDS", "Backend", "BackendOptions", "TensorPort", "open_backend"]


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """How a model is to be opened.

    Args:
        device: `auto`, `cpu` or `cuda:N`.
        threads: CPU threads; 0 takes one a physical core the process may use.
        precision: arithmetic, where a backend lets one choose (`bf16` on OpenVINO, `tf32` on CUDA); None keeps the
            file's own.
        allow_unverified: open an engine whose parity is still pending.
    """

    device: str = "auto"
    threads: int = 0
    precision: str | None = None
    allow_unverified: bool = False


class Backend(Protocol):
    """A loaded model.

    Attributes:
        name: which backend this is, a key of `BACKENDS`.
        device: what it truly runs on, asked from the engine itself: `cpu`, `cuda:0`.
        precision: the arithmetic where it is another than the file's, asked from the engine where it can tell; None for
            the file's own.
        metadata: text by key, as the file carries it (for an engine: as the file beside it does).
        inputs: the graph's inputs.
        outputs: the graph's outputs.
    """

    name: str
    device: str
    precision: str | None
    metadata: Mapping[str, str]
    inputs: tuple[TensorPort, ...]
    outputs: tuple[TensorPort, ...]

    def run(self, frames: NDArray[Any]) -> NDArray[Any]:
        """Map frames uint8 [N,H,W,3] to the graph's only output; the array is the caller's to keep.

        Several threads may call this at once; a backend that cannot compute for both lets one wait.
        """
        ...

    def close(self) -> None:
        """Free what the model holds; `run` raises `UsageError` afterwards."""
        ...


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


def open_backend(path: Path, options: BackendOptions = BackendOptions(), *, name: str | None = None) -> Backend:
    """Open a model file.

    Args:
        path: the model.
        options: device, threads and the like.
        name: a key of `BACKENDS`; None chooses by the file's ending.

    Raises:
        UsageError: there is no such backend, or it has not what the options ask for.
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
    return BACKENDS[chosen](path, options)
