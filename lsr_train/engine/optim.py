"""Builds the optimiser and sets its learning rate: groups with multipliers, warm-up and polynomial decay."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from lsr_train.config.training import OptimConfig

__all__ = ["build_optimizer", "learning_rate", "set_decayed_rate", "set_learning_rate"]


def build_optimizer(groups: Mapping[str, Sequence[nn.Parameter]], config: OptimConfig) -> Optimizer:
    """Build SGD or AdamW over named parameter groups, each of which carries `name` and `multiplier`.

    A group that `lr_multipliers` does not name has multiplier 1.
    """
    param_groups = [
        {
            "params": [parameter for parameter in parameters if parameter.requires_grad],
            "name": name,
            "multiplier": float(getattr(config.lr_multipliers, name, 1.0)),
        }
        for name, parameters in groups.items()
        if any(parameter.requires_grad for parameter in parameters)
    ]
    if config.name == "sgd":
        return torch.optim.SGD(
            param_groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, foreach=True
        )
    return torch.optim.AdamW(param_groups, lr=config.lr, weight_decay=config.weight_decay, foreach=True)


def learning_rate(step: float, config: OptimConfig, steps: int) -> float:
    """Return the base learning rate of the step after `step` finished ones (paper, Sec. 5: power 0.9), never negative.

    lr * min(1, (step + 1) / (warmup + 1)) * (1 - step / length) ** power, where the length is `poly_steps`, or the
    run's `steps` where that is 0.
    """
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    return float(config.lr * warmup * _decay(step, config, steps))


def _decay(step: float, config: OptimConfig, steps: int) -> float:
    """Return the share of a base rate that is left after `step` steps: (1 - step / length) ** power, never negative."""
    return float(max(0.0, 1 - step / (config.poly_steps or steps)) ** config.poly_power)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give every group its multiple of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiplier"]


def set_decayed_rate(optimizer: Optimizer, step: float, config: OptimConfig, steps: int) -> None:
    """Decay an optimiser of a method's own as the network's, from the rates it was built with, without warm-up."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * _decay(step, config, steps)
