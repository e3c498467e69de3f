"""Runs an exported road-scene segmentation network; needs no torch.

    from lsr_infer import Segmenter

    segmenter = Segmenter("model.onnx")
    picture = segmenter(frame).overlay(frame)  # frame: uint8 [H,W,3] BGR

A name is imported from its module when it is first asked for, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsr_infer.errors import DeviceError, InputError, LsrError, UsageError
    from lsr_infer.labelspace import LabelSpace
    from lsr_infer.manifest import Manifest
    from lsr_infer.segmenter import Segmentation, Segmenter

__all__ = ["DeviceError", "InputError", "LabelSpace", "LsrError", "Manifest", "Segmentation", "Segmenter", "UsageError"]

_HOMES = {"LabelSpace": "labelspace", "Manifest": "manifest", "Segmentation": "segmenter", "Segmenter": "segmenter"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
