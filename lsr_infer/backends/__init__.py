"""Defines what every backend provides: options to open a model with, and the protocol of an open one.

A backend opens a file, reports what it holds and which device it truly runs on, and maps frames to the graph's output.
It checks nothing about frames and knows no labels: that is the `Segmenter`'s. No inference library is loaded before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from lsr_infer.backends.model_file import TensorPort

__all__ = ["Backend", "BackendOptions", "TensorPort"]


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """How a model is to be opened; the fields are those of `Segmenter`."""

    device: str = "auto"
    threads: int = 0
    precision: str | None = None
    allow_unverified: bool = False


class Backend(Protocol):
    """A loaded model.

    Attributes:
        name: a key of `lsr_infer.segmenter.BACKENDS`.
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
