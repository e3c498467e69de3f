"""The two domains as a critic's labels, and who gets which gradient."""

import math

import pytest
import torch
from torch import nn

from lsr_train.adversarial.critics import SOURCE, TARGET, domain_loss, frozen, reverse_gradient


def test_the_loss_is_the_binary_cross_entropy_of_the_sigmoid() -> None:
    scores = torch.tensor([[-2.0, 0.5], [3.0, 0.0]], dtype=torch.float64)
    sure = [1 / (1 + math.exp(-score)) for score in scores.flatten().tolist()]
    assert domain_loss(scores, TARGET).item() == pytest.approx(-sum(map(math.log, sure)) / 4, rel=1e-12)
    assert domain_loss(scores, SOURCE).item() == pytest.approx(-sum(math.log(1 - p) for p in sure) / 4, rel=1e-12)


def test_the_loss_of_low_precision_is_computed_in_float32_and_stays_finite_far_out() -> None:
    scores = torch.tensor([200.0, -200.0], dtype=torch.bfloat16)
    loss = domain_loss(scores, SOURCE)
    assert loss.dtype == torch.float32
    assert loss.item() == 100.0


def test_another_domain_is_an_error() -> None:
    with pytest.raises(ValueError, match="domain is 2"):
        domain_loss(torch.zeros(1), 2)


def test_a_frozen_critic_passes_gradient_to_its_input_alone() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    frozen_input, plain_input = (torch.ones(2, 3, requires_grad=True) for _ in range(2))
    frozen(critic, frozen_input).sum().backward()
    assert all(parameter.grad is None for parameter in critic.parameters())
    critic(plain_input).sum().backward()
    torch.testing.assert_close(frozen_input.grad, plain_input.grad, rtol=0, atol=0)


def test_the_gradient_is_turned_round() -> None:
    values = torch.tensor([1.0, -2.0], requires_grad=True)
    result = reverse_gradient(values)
    assert result.tolist() == [1.0, -2.0]
    (result * torch.tensor([3.0, 5.0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [-3.0, -5.0]
