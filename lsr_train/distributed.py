"""Sums tensors over the ranks of a distributed run, differentiably; with one process it changes nothing.

What is shared is always a sum or a count, and ratios are taken last: that makes N ranks equal one rank with N times the
batch. Nothing here knows what is summed.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

__all__ = ["all_reduce_sum", "average_gradients", "world_size"]


def world_size() -> int:
    """Return the number of ranks; 1 where torch.distributed is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _AllReduceSum(torch.autograd.Function):
    """The sum over ranks; its gradient is scaled so that the mean over ranks is the gradient of the shared loss."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * world_size()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum a tensor over all ranks.

    The gradient is `world_size()` times that of the result, without communication: where every rank builds the same
    loss from the sum and DDP averages the ranks' gradients, each parameter gets the exact gradient of that loss.

    Args:
        tensor: any shape, the same on every rank; every rank must call with it. Differentiated.

    Returns:
        A tensor of the same shape, equal on every rank; `tensor` itself where there is one rank.
    """
    if world_size() == 1:
        return tensor
    total: Tensor = _AllReduceSum.apply(tensor)  # type: ignore[no-untyped-call]  # torch's
    return total


def average_gradients(module: nn.Module) -> None:
    """Average over the ranks the gradients of a module that DDP does not hold, for the same parameters on each."""
    if world_size() == 1:
        return
    for parameter in module.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world_size()
