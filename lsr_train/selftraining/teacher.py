"""Runs teachers: the moving average of the network that trains, or a finished network."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from lsr_train.network import DeepLabV2, SegOutput


def average_decay(step: int, decay: float) -> float:
    """Return alpha after so many optimiser steps, at least 1: it rises to `decay`, a young teacher follows closely."""
    return min(1 - 1 / (step + 1), decay)


class EmaTeacher(nn.Module):
    """An average of the network's weights over its steps (mean teacher, Tarvainen and Valpola 2017).

    Its copy never trains and stays in evaluation mode. The copy is part of the state, so a checkpoint that holds it
    resumes with the very same teacher.

    Args:
        network: copied as it is.
        decay: alpha, the share of the old average; see `average_decay` for the first steps.

    Raises:
        ValueError: the decay is out of range.
    """

    def __init__(self, network: nn.Module, decay: float = 0.999) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; allowed: [0, 1)")
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.network.eval()

    def train(self, mode: bool = True) -> "EmaTeacher":
        """Stay in evaluation mode in any case."""
        super().train(mode)
        self.network.eval()
        return self

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Run the averaged network, without a graph; returns what the network returns."""
        output: tuple[Tensor, ...] = self.network(image)
        return output

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the network, after `step` of its optimiser's steps.

        Floating buffers (batch-norm's statistics) are averaged like weights, counters are copied.
        """
        own, new = (dict(model.named_parameters()) | dict(model.named_buffers()) for model in (self.network, network))
        floating = [name for name, tensor in own.items() if tensor.is_floating_point()]
        weight = 1 - average_decay(step, self.decay)
        torch._foreach_lerp_([own[name] for name in floating], [new[name] for name in floating], weight)
        for name in own.keys() - set(floating):
            own[name].copy_(new[name])


class FrozenTeacher:
    """A network that never trains. It is no `nn.Module`, so that no checkpoint of a method takes it in.

    Args:
        network: put in evaluation mode.
        scale: factors of height and width that frames are resized by before it sees them.
    """

    def __init__(self, network: DeepLabV2, scale: tuple[float, float] = (1.0, 1.0)) -> None:
        self.network = network.requires_grad_(False).eval()
        self.scale = scale

    @torch.no_grad()
    def logits(self, levels: Tensor) -> Tensor:
        """Run it on BGR levels 0..255 [B,H,W,3], which it normalises as it was trained.

        Returns:
            [B,C,h,w] in float32, at the size of its own features. An autocast around the call applies.
        """
        if self.scale != (1.0, 1.0):
            H, W = (round(side * factor) for side, factor in zip(levels.shape[1:3], self.scale, strict=True))
            planes = levels.permute(0, 3, 1, 2)
            planes = functional.interpolate(planes, size=(H, W), mode="bilinear", antialias=min(self.scale) < 1)
            levels = planes.permute(0, 2, 3, 1)
        output: SegOutput = self.network(self.network.normalize(levels))
        return output.logits.float()
