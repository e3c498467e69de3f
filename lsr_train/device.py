"""Chooses the device and the precision, and refuses what is not there."""

import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Literal

import torch
from torch.nn import functional

from lsr_infer.errors import DeviceError, UsageError

__all__ = ["Precision", "autocast", "choose_device", "choose_precision", "convolution_seconds"]

Precision = Literal["fp32", "bf16", "fp16"]
"""What a network computes in; sums, losses and everything after the logits stay in float32."""


def choose_device(device: str, precision: str, *, prefix: str = "") -> torch.device:
    """Return the device that was asked for.

    Args:
        device: `auto` (CUDA where there is one, else the CPU), `cpu`, `cuda` or `cuda:N`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        prefix: of the options' names in messages, such as `train.`.

    Raises:
        UsageError: `device` is none of these.
        DeviceError: the device is not there, or lacks the precision.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        chosen = torch.device("cuda" if count else "cpu")
    else:
        name, _, number = device.partition(":")
        if name not in ("cpu", "cuda") or (":" in device and not (name == "cuda" and number.isdecimal())):
            raise UsageError(f"{prefix}device is {device!r}; allowed: auto, cpu, cuda, cuda:N. Set --{prefix}device.")
        if name == "cuda" and int(number or 0) >= count:
            raise DeviceError(
                f"{prefix}device is {device}, but torch sees {count} CUDA devices. Set --{prefix}device cpu or auto."
            )
        chosen = torch.device(device)
    if precision == "fp16" and chosen.type != "cuda":
        raise DeviceError(f"{prefix}precision fp16 needs a CUDA device. Set --{prefix}precision bf16 or fp32.")
    if precision == "bf16" and chosen.type == "cuda" and not torch.cuda.is_bf16_supported():
        name = torch.cuda.get_device_name(chosen)
        raise DeviceError(f"{name} has no bf16. Set --{prefix}precision fp16 or fp32.")
    return chosen


def choose_precision(device: torch.device, precision: Literal["auto"] | Precision) -> Precision:
    """Return the precision that was asked for; for `auto`, bf16 where `device` is faster with it, else fp32.

    A CPU without instructions for bf16 converts every operand, and one with AVX-512's alone may still be slower than
    in fp32: of two servers that have them one took 0.5 times as long for a step, the other 1.4. So it is measured.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    able = torch.cpu.get_capabilities()
    has_instructions = able.get("amx_bf16") or able.get("avx512_bf16")
    return "bf16" if has_instructions and convolution_seconds("bf16") < convolution_seconds("fp32") else "fp32"


@cache
def convolution_seconds(precision: Precision) -> float:
    """Return what a convolution takes on this CPU, forward and backward: the least of several tries."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    last = torch.channels_last
    image = torch.ones(1, 64, 60, 80, dtype=dtype).contiguous(memory_format=last).requires_grad_()
    weight = torch.ones(64, 64, 3, 3, dtype=dtype).contiguous(memory_format=last).requires_grad_()
    tries = []
    for _ in range(5):
        begin = time.perf_counter()
        result = functional.conv2d(image, weight, padding=1)
        torch.autograd.grad(result, (image, weight), torch.ones_like(result))
        tries.append(time.perf_counter() - begin)
    return min(tries)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the block in which a network computes in `precision`."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)
