"""Distribution alignment: against the ratio written out, over batches, modes and empty ones."""

import pytest
import torch

from lsr_train.selftraining import DistributionAlignment
from tests.lsr_train.latent.refused import NoWaiting

C = 4


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, C - 1, (2, 5, 6), generator=generator)  # the last class never occurs
    labels[0, 0] = 255
    return labels, 2 * torch.randn(2, C, 3, 4, generator=generator)


def shares(labels: torch.Tensor, logits: torch.Tensor, mask: torch.Tensor | None) -> tuple[list[float], list[float]]:
    known = [int(c) for c in labels.flatten() if c != 255]
    prior = [known.count(c) / len(known) for c in range(C)]
    probabilities = logits.double().softmax(dim=1)
    cells = [(b, y, x) for b in range(2) for y in range(3) for x in range(4) if mask is None or mask[b, y, x]]
    return prior, [sum(probabilities[b, c, y, x].item() for b, y, x in cells) / len(cells) for c in range(C)]


@pytest.mark.parametrize("strength", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_running_ratio(strength: float, masked: bool) -> None:
    alignment = DistributionAlignment(C, strength=strength, decay=0.8)
    mask = torch.zeros(2, 3, 4, dtype=torch.bool) if masked else None
    if mask is not None:
        mask[1, 1:] = True
    prior, marginal = [], []
    for seed in range(8):  # beyond the fifth the decay is what it was set to
        labels, logits = batch(seed)
        found = alignment(labels, logits, mask)
        own = shares(labels, logits, mask)
        eta = min(0.8, 1 - 1 / (seed + 1))
        prior = [eta * a + (1 - eta) * b for a, b in zip(prior or own[0], own[0], strict=True)]
        marginal = [eta * a + (1 - eta) * b for a, b in zip(marginal or own[1], own[1], strict=True)]
        least = DistributionAlignment.LEAST
        ratio = torch.tensor([max(p, least) / max(q, least) for p, q in zip(prior, marginal, strict=True)])
        torch.testing.assert_close(found, strength * ratio.log().view(1, C, 1, 1), rtol=1e-4, atol=1e-5)


def test_aligned_probabilities_move_towards_the_prior() -> None:
    labels, logits = batch(0)
    logits[:, 1] += 3  # the teacher sees class 1 everywhere
    alignment = DistributionAlignment(C, decay=0.0)
    wanted = torch.tensor(shares(labels, logits, None)[0])
    before = logits.softmax(dim=1).mean(dim=(0, 2, 3))
    after = (logits + alignment(labels, logits)).softmax(dim=1).mean(dim=(0, 2, 3))
    assert (after - wanted).abs().sum() < 0.5 * (before - wanted).abs().sum()


def test_eval_moves_nothing_and_an_empty_batch_neither() -> None:
    alignment = DistributionAlignment(C)
    labels, logits = batch(0)
    assert (alignment(torch.full_like(labels, 255), logits) == 0).all()
    assert alignment.batches == 0
    alignment(labels, logits)
    state = {name: tensor.clone() for name, tensor in alignment.state_dict().items()}
    alignment.eval()
    alignment(*batch(1))
    alignment.train()
    alignment(labels, logits, torch.zeros(2, 3, 4, dtype=torch.bool))
    for name, tensor in alignment.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_never_waits() -> None:
    alignment = DistributionAlignment(C)
    labels, logits = batch(0)
    with NoWaiting():
        alignment(labels, logits)


@pytest.mark.parametrize("options", [{"strength": 1.1}, {"decay": 1.0}])
def test_refuses(options: dict) -> None:
    with pytest.raises(ValueError, match="strength"):
        DistributionAlignment(C, **options)


def test_a_first_batch_without_a_rare_class_is_soon_forgotten() -> None:
    alignment = DistributionAlignment(C, decay=0.99)
    labels, logits = batch(0)
    alignment(torch.zeros_like(labels), logits)
    for _ in range(20):
        alignment(labels, logits)
    wanted = torch.tensor(shares(labels, logits, None)[0])
    torch.testing.assert_close(alignment.prior[1:3], 20 / 21 * wanted[1:3], rtol=1e-4, atol=1e-6)
