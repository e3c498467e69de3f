"""Computes the loss of a critic of domains, and trains features against it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lsr_train.distributed import all_reduce_sum, world_size
from lsr_train.latent.cells import compute_dtype

SOURCE, TARGET = 0, 1


def domain_loss(scores: Tensor, domain: int) -> Tensor:
    """Return the binary cross-entropy of a critic's scores, above 0 for the target, which are all of one domain.

    Returns:
        Scalar >= 0 in float32 (float64 for float64 input): the mean over the scores of all ranks, with equally many.
    """
    if domain not in (SOURCE, TARGET):
        raise ValueError(f"domain is {domain}; allowed: {SOURCE} (source) and {TARGET} (target)")
    exact = scores.to(compute_dtype(scores.dtype))
    return all_reduce_sum(F.softplus(exact if domain == SOURCE else -exact).mean()) / world_size()


def frozen(critic: nn.Module, *inputs: Tensor) -> Tensor:
    """Run a critic whose parameters get no gradient; its inputs do."""
    parameters = {name: parameter.detach() for name, parameter in critic.named_parameters()}
    result: Tensor = functional_call(critic, parameters, inputs)
    return result


class _Reversed(torch.autograd.Function):
    """The identity; its gradient has the opposite sign."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


def reverse_gradient(values: Tensor) -> Tensor:
    """Return the values as they are; gradients pass with their sign turned (Ganin and Lempitsky 2015)."""
    reversed_values: Tensor = _Reversed.apply(values)  # type: ignore[no-untyped-call]  # torch's
    return reversed_values
