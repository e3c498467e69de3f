"""Numbers drawn on the CPU, brought to where the images are without making the host wait."""

import torch
from torch import Tensor

__all__ = ["sent"]


def sent(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy a CPU tensor to a device, in order with what runs there, while the host goes on.

    Args:
        tensor: on the CPU; on another device it is taken as it is. CUDA gets it from pinned memory.
        device: where to.
        dtype: of the result; None keeps it.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.to(dtype or tensor.dtype).pin_memory()
    return tensor.to(device, dtype or tensor.dtype, non_blocking=True)
