"""The critics compute what their papers say."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from lsr_train.adversarial.critics import SOURCE, TARGET, FeatureCritic, PyramidCritic, domain_loss


def test_the_feature_critic_has_five_halvings() -> None:
    critic = FeatureCritic(7)
    convolutions = [layer for layer in critic.layers if isinstance(layer, nn.Conv2d)]
    shapes = [(c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding) for c in convolutions]
    widths = [7, 64, 128, 256, 512, 1]
    assert shapes == [(a, b, (4, 4), (2, 2), (1, 1)) for a, b in pairwise(widths)]
    assert [layer.negative_slope for layer in critic.layers if isinstance(layer, nn.LeakyReLU)] == [0.2] * 4


@pytest.mark.parametrize(
    ("size", "scores"), [((65, 129), (2, 4)), ((64, 96), (2, 3)), ((15, 20), (1, 1)), ((2, 70), (1, 2))]
)
def test_the_feature_critic_judges_maps_of_any_size(size: tuple[int, int], scores: tuple[int, int]) -> None:
    assert FeatureCritic(3)(torch.rand(2, 3, *size)).shape == (2, 1, *scores)


def pooled(values: Tensor, window: int) -> list[Tensor]:
    """Return the mean of every window [B,K], by loops."""
    rows, columns = (min(window, side) for side in values.shape[2:])
    return [
        values[:, :, y : y + rows, x : x + columns].mean(dim=(2, 3))
        for y in range(0, values.shape[2] - rows + 1, (rows + 1) // 2)
        for x in range(0, values.shape[3] - columns + 1, (columns + 1) // 2)
    ]


def test_the_pyramid_equals_its_description() -> None:
    torch.manual_seed(0)
    critic = PyramidCritic(6, 3, windows=(2, 3, 50)).double().eval()
    features, logits = torch.rand(2, 6, 5, 7, dtype=torch.float64), torch.randn(2, 3, 5, 7, dtype=torch.float64)
    embedded, prediction = critic.embed(features), logits.float().softmax(dim=1).double()
    levels = []
    for window, attention in zip(critic.windows, critic.places, strict=True):
        assert isinstance(attention, nn.Conv2d)
        weight, bias = attention.weight[0, :, 0, 0], attention.bias
        assert bias is not None
        cells, guides = pooled(embedded, window), pooled(prediction, window)
        scores = [torch.cat([cell, guide], dim=1) @ weight + bias for cell, guide in zip(cells, guides, strict=True)]
        shares = torch.stack(scores).softmax(dim=0)
        levels.append(sum(share[:, None] * cell for share, cell in zip(shares, cells, strict=True)))
    levels.append(embedded.mean(dim=(2, 3)))
    squeezed = critic.squeeze(sum(levels))
    shares = torch.stack([layer(squeezed) for layer in critic.levels]).softmax(dim=0)
    expected = critic.classify(sum(share * level for share, level in zip(shares, levels, strict=True)))
    torch.testing.assert_close(critic(features, logits), expected, rtol=1e-9, atol=1e-12)


def test_the_prediction_guides_the_pyramid_and_gets_no_gradient() -> None:
    torch.manual_seed(0)
    critic = PyramidCritic(4, 3).eval()
    features = torch.rand(1, 4, 8, 8, requires_grad=True)
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    scores = critic(features, logits)
    assert not torch.equal(scores, critic(features, 5 * logits))
    scores.sum().backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
    assert logits.grad is None


@pytest.mark.parametrize("name", ["feature", "pyramid"])
def test_a_critic_learns_to_tell_two_domains(name: str) -> None:
    torch.manual_seed(0)
    critic: nn.Module = FeatureCritic(4) if name == "feature" else PyramidCritic(4, 3)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
    offset = torch.tensor([0.5, 0, -0.5, 0])[:, None, None]
    losses = []
    for _ in range(60):
        domains = torch.cat([torch.rand(2, 4, 17, 17), torch.rand(2, 4, 17, 17) + offset])
        scores = critic(domains) if name == "feature" else critic(domains, torch.zeros(4, 3, 17, 17))
        loss = (domain_loss(scores[:2], SOURCE) + domain_loss(scores[2:], TARGET)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 < 0.6 < losses[0]
