"""Asks the CUDA driver which devices there are.

The driver's library is opened with ctypes, so nothing has to be installed to ask, and a machine without a GPU answers
too. TensorRT must not be asked instead: without a driver it crashes the process.
"""

import ctypes
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lsr_infer.errors import DeviceError, UsageError

__all__ = ["CudaDevice", "CudaProbe", "choose_cuda_device", "device_index", "probe_cuda"]

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_LONGEST_NAME = 256


@dataclass(frozen=True, kw_only=True)
class CudaDevice:
    """A GPU with the driver's number and name."""

    index: int
    name: str
    compute_capability: tuple[int, int]

    def __str__(self) -> str:
        major, minor = self.compute_capability
        return f"cuda:{self.index} ({self.name}, compute capability {major}.{minor})"


@dataclass(frozen=True, kw_only=True)
class CudaProbe:
    """The answer of the driver: usable GPUs, the CUDA version it supports, or the reason why there is no device."""

    devices: tuple[CudaDevice, ...] = ()
    driver: tuple[int, int] | None = None
    reason: str = ""


def probe_cuda(library: str = _DRIVER) -> CudaProbe:
    """Ask the CUDA driver, a library of this file name, for its devices; never raises."""
    try:
        driver: Any = ctypes.CDLL(library)
    except OSError:
        return CudaProbe(reason=f"there is no CUDA driver ({library} cannot be loaded)")
    try:
        return _ask(driver)
    except _DriverRefusedError as error:
        return CudaProbe(reason=str(error))
    except AttributeError as error:
        return CudaProbe(reason=f"{library} is no CUDA driver ({error})")


class _DriverRefusedError(Exception):
    pass


def _ask(driver: Any) -> CudaProbe:
    _call(driver, "cuInit", ctypes.c_uint(0))
    version, count = ctypes.c_int(), ctypes.c_int()
    _call(driver, "cuDriverGetVersion", ctypes.byref(version))
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    supported = (version.value // 1000, version.value % 1000 // 10)
    if count.value < 1:
        return CudaProbe(driver=supported, reason="the CUDA driver sees no device")
    return CudaProbe(devices=tuple(_device(driver, index) for index in range(count.value)), driver=supported)


def _device(driver: Any, index: int) -> CudaDevice:
    handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_LONGEST_NAME)
    _call(driver, "cuDeviceGet", ctypes.byref(handle), ctypes.c_int(index))
    _call(driver, "cuDeviceGetName", name, ctypes.c_int(_LONGEST_NAME), handle)
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(major), ctypes.c_int(_CAPABILITY_MAJOR), handle)
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(minor), ctypes.c_int(_CAPABILITY_MINOR), handle)
    return CudaDevice(
        index=index, name=name.value.decode("utf-8", errors="replace"), compute_capability=(major.value, minor.value)
    )


def _call(driver: Any, function: str, *arguments: Any) -> None:
    code = getattr(driver, function)(*arguments)
    if code != 0:
        text = ctypes.c_char_p()
        with suppress(AttributeError):
            driver.cuGetErrorName(ctypes.c_int(code), ctypes.byref(text))
        answer = text.value.decode("ascii", errors="replace") if text.value else f"error {code}"
        raise _DriverRefusedError(f"the CUDA driver answers {answer} to {function}")


def device_index(name: str) -> int:
    """Return the number of the GPU that a device's name means; 0 for `auto`, `cuda` and `cpu`."""
    match = re.fullmatch(r"(?:auto|cpu|cuda(?::(\d{1,3}))?)", name)
    if match is None:
        raise UsageError(f"there is no device {name}; allowed: auto, cpu, cuda:N.")
    return int(match[1] or 0)


def choose_cuda_device(name: str, probe: CudaProbe, what: str) -> CudaDevice:
    """Return the GPU that a device's name means, `auto` and `cuda` the first one; `DeviceError` says what needs it."""
    index = device_index(name)
    if name == "cpu":
        raise DeviceError(f"{what} runs only on an NVIDIA GPU, not on the CPU. Use the ONNX file there.")
    if index >= len(probe.devices):
        found = ", ".join(map(str, probe.devices)) or probe.reason
        raise DeviceError(f"{what} needs {'a CUDA device' if name == 'auto' else name}, and {found}.")
    return probe.devices[index]
