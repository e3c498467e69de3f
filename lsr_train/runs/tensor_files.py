"""Writing safetensors so that a full disk is what it is: an unusable place, not a type of the library's own."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from lsr_infer.errors import InputError

__all__ = ["save_tensors"]


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write contiguous CPU tensors to `path`; call it on a temporary name and rename.

    Raises:
        InputError: the disk is full or the place not writable.
    """
    try:
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        reason = "the disk is full" if "os error 28" in str(error) else str(error)
        raise InputError(
            f"{path.parent}: cannot be written, {reason}. Free space or choose another place; nothing there changed."
        ) from error
