"""The schedule and the parameter groups."""

import pytest
import torch
from torch import nn

from lsr_train.config.training import LrMultipliers, OptimConfig
from lsr_train.engine.optim import build_optimizer, learning_rate, set_learning_rate


def test_the_paper_schedule() -> None:
    config = OptimConfig(lr=2.5e-4, poly_power=0.9, poly_steps=250_000)
    assert learning_rate(0, config, 27_450) == 2.5e-4
    assert learning_rate(27_450, config, 27_450) == pytest.approx(2.5e-4 * (1 - 27_450 / 250_000) ** 0.9)


def test_warm_up_rises_to_the_decay_curve() -> None:
    config = OptimConfig(lr=1.0, poly_power=1.0, warmup_steps=4)
    rates = [learning_rate(step, config, 100) for step in range(6)]
    assert rates == pytest.approx([0.2, 0.4 * 0.99, 0.6 * 0.98, 0.8 * 0.97, 0.96, 0.95])


def test_groups_have_their_multiples_and_each_parameter_once() -> None:
    stem, head = nn.Linear(2, 2), nn.Linear(2, 2)
    config = OptimConfig(name="adamw", lr=0.1, lr_multipliers=LrMultipliers(stem=1.0, head=3.0))
    groups = {"stem": list(stem.parameters()), "head": list(head.parameters()), "critic": [nn.Parameter(torch.ones(1))]}
    optimizer = build_optimizer(groups, config)
    set_learning_rate(optimizer, 0.5)
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {"stem": 0.5, "head": 1.5, "critic": 0.5}


def test_a_frozen_parameter_is_left_out() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    optimizer = build_optimizer({"head": list(layer.parameters())}, OptimConfig())
    assert [parameter is layer.weight for parameter in optimizer.param_groups[0]["params"]] == [True]
