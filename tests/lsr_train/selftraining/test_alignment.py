"""Distribution alignment of both kinds: against what is written out, over batches, modes and empty ones."""

import math
from typing import Any

import pytest
import torch

from lsr_train.selftraining import DistributionAlignment, LabelAlignment
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


def pixels(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels, _ = batch(seed)
    return labels, 2 * torch.randn(2, C, 6, 7, generator=generator)


def label_shares(logits: torch.Tensor, mask: torch.Tensor | None) -> list[float]:
    places = [(b, y, x) for b in range(2) for y in range(6) for x in range(7) if mask is None or mask[b, y, x]]
    found = [max(range(C), key=lambda c: logits[b, c, y, x].item()) for b, y, x in places]
    return [found.count(c) / len(found) for c in range(C)]


@pytest.mark.parametrize("strength", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("masked", [False, True])
def test_the_offset_follows_what_the_labels_lack(strength: float, masked: bool) -> None:
    alignment = LabelAlignment(C, strength=strength, decay=0.97)
    mask = torch.zeros(2, 6, 7, dtype=torch.bool) if masked else None
    if mask is not None:
        mask[1, 2:] = True
    offset, prior, own, aligned = [0.0] * C, [0.0] * C, [0.0] * C, [0.0] * C
    for seed in range(40):  # beyond the tenth the rate is the least one, beyond the 20th and 34th the decays are
        labels, logits = pixels(seed)
        found = alignment(labels, logits, mask)
        known = [int(c) for c in labels.flatten() if c != 255]
        shares_now = {
            "prior": [known.count(c) / len(known) for c in range(C)],
            "own": label_shares(logits, mask),
            "aligned": label_shares(logits + torch.tensor(offset).view(1, C, 1, 1), mask),
        }
        slow, fast = min(0.97, 1 - 1 / (seed + 1)), min(0.95, 1 - 1 / (seed + 1))
        prior = [slow * a + (1 - slow) * b for a, b in zip(prior, shares_now["prior"], strict=True)]
        own = [slow * a + (1 - slow) * b for a, b in zip(own, shares_now["own"], strict=True)]
        aligned = [fast * a + (1 - fast) * b for a, b in zip(aligned, shares_now["aligned"], strict=True)]
        wanted = [max(p, 1e-4) ** strength * max(q, 1e-4) ** (1 - strength) for p, q in zip(prior, own, strict=True)]
        wanted = [share / math.fsum(wanted) for share in wanted]
        for c in range(C):
            lacks = min(1 if prior[c] else 0, max(-1, math.log(wanted[c] / max(aligned[c], 1e-4))))
            offset[c] = 0.995 * offset[c] + max(0.05, 0.5 / (seed + 1)) * lacks
        middle = math.fsum(w * o for w, o in zip(wanted, offset, strict=True))
        offset = [min(3.0, max(-3.0, o - middle)) for o in offset]
        torch.testing.assert_close(found, torch.tensor(offset).view(1, C, 1, 1), rtol=1e-4, atol=1e-4)


def scores_of(labels: torch.Tensor, certainty: torch.Tensor, noise: float, generator: torch.Generator) -> torch.Tensor:
    """Return logits [B,C,H,W] of a teacher that sees each class with its own certainty [C]."""
    truth = torch.nn.functional.one_hot(labels, C).permute(0, 3, 1, 2) * certainty.view(1, C, 1, 1)
    return truth + noise * torch.randn(truth.shape, generator=generator)


def run_long(
    steps: int, presence: tuple[float, ...], seen: tuple[float, ...]
) -> tuple[list[float], list[float], float]:
    """Align a teacher's labels of a world whose classes come in bursts.

    Args:
        steps: batches of one image of each domain.
        presence: [C] probability that an image has a class at all; class 0 fills the rest.
        seen: [C] the teacher's certainty.

    Returns:
        True and found shares [C] over the last half.
    """
    generator = torch.Generator().manual_seed(0)
    alignment = LabelAlignment(C, decay=0.99)
    certainty = torch.tensor(seen)

    def image() -> torch.Tensor:
        labels = torch.zeros(1, 20, 20, dtype=torch.int64)
        for c in range(1, C):
            if torch.rand((), generator=generator) < presence[c]:
                x, y = torch.randint(0, 14, (2,), generator=generator).tolist()
                labels[0, y : y + 6, x : x + 6] = c
        return labels

    true, found = torch.zeros(C), torch.zeros(C)
    for step in range(steps):
        target = image()
        logits = scores_of(target, certainty, 0.5, generator)
        aligned = (logits + alignment(image(), logits)).argmax(dim=1)
        if step >= steps // 2:
            true += target.flatten().bincount(minlength=C)
            found += aligned.flatten().bincount(minlength=C)
    return (true / true.sum()).tolist(), (found / found.sum()).tolist()


def test_a_class_in_bursts_gets_its_share_from_a_teacher_that_is_right() -> None:
    true, found = run_long(2000, (1.0, 0.1, 0.5, 0.9), (4.0, 4.0, 4.0, 4.0))
    assert found == pytest.approx(true, rel=0.15)


def test_a_class_that_the_teacher_hardly_sees_keeps_its_share_for_long() -> None:
    presence, weak = (1.0, 0.3, 0.5, 0.9), (3.0, 0.8, 3.0, 3.0)
    generator = torch.Generator().manual_seed(1)
    labels = torch.ones(1, 20, 20, dtype=torch.int64)
    unaided = scores_of(labels, torch.tensor(weak), 0.5, generator).argmax(dim=1)
    assert (unaided == 1).float().mean() < 0.75
    for steps in (1000, 4000):
        true, found = run_long(steps, presence, weak)
        assert found[1] == pytest.approx(true[1], rel=0.2), steps
        assert found[2] == pytest.approx(true[2], rel=0.2), steps


STREETS = torch.tensor([0.36, 0.05, 0.27, 0.09, 0.14, 0.09])
HIGHWAY = torch.tensor([0.45, 0.01, 0.01, 0.15, 0.36, 0.02])


def accuracy_on(shares: torch.Tensor, **options: Any) -> tuple[float, float]:
    """Return the accuracy of a good teacher's labels on a road, without and with alignment to STREETS."""
    generator, classes = torch.Generator().manual_seed(0), len(shares)
    alignment = LabelAlignment(classes, **options)

    def draw(of: torch.Tensor) -> torch.Tensor:
        return torch.multinomial(of, 2 * 24 * 32, replacement=True, generator=generator).view(2, 24, 32)

    right = torch.zeros(2)
    for step in range(600):
        truth = draw(shares)
        logits = 4.5 * torch.nn.functional.one_hot(truth, classes).permute(0, 3, 1, 2).float()
        logits = logits + torch.randn(logits.shape, generator=generator)
        offset = alignment(draw(STREETS), logits)
        if step >= 500:
            right += torch.stack([(x.argmax(dim=1) == truth).float().mean() for x in (logits, logits + offset)])
    return tuple((right / 100).tolist())


def test_a_guarded_alignment_does_no_harm_where_a_road_is_not_the_simulators() -> None:
    plain, forced = accuracy_on(HIGHWAY)
    assert plain > 0.98
    assert plain - forced > 0.15
    plain, guarded = accuracy_on(HIGHWAY, guarded=True)
    assert plain - guarded < 0.01
    plain, same = accuracy_on(STREETS, guarded=True)
    assert plain - same < 0.01


def test_the_guards_strength_falls_with_the_difference_and_its_own_shares_are_the_first() -> None:
    alignment = LabelAlignment(3, strength=0.8, guarded=True)
    labels, first, later = (
        torch.arange(3).repeat_interleave(torch.tensor(counts)).view(1, 4, 5)
        for counts in ([10, 6, 4], [7, 9, 4], [0, 0, 20])
    )
    for step in range(150):
        found = first if step < alignment.BEGINNING else later
        alignment(labels, 9 * torch.nn.functional.one_hot(found, 3).permute(0, 3, 1, 2).float())
    torch.testing.assert_close(alignment.own, torch.tensor([0.35, 0.45, 0.2]))
    distance = 0.15  # |0.5 - 0.35| + |0.3 - 0.45| over 2
    assert alignment.effective_strength.item() == pytest.approx(0.8 * (0.2 - distance) / 0.08, rel=1e-4)


def test_what_the_source_never_shows_is_not_called_up() -> None:
    labels, logits = pixels(0)  # the last class has no source label
    logits[:, C - 1] -= 1
    alignment = LabelAlignment(C)
    before = label_shares(logits, None)[C - 1]
    for _ in range(200):
        offset = alignment(labels, logits)
    assert before > 0
    assert label_shares(logits + offset, None)[C - 1] <= before


def test_labels_reach_the_priors_shares() -> None:
    labels, logits = pixels(0)
    logits[:, 1] += 3  # the teacher sees class 1 nearly everywhere
    alignment = LabelAlignment(C)
    for _ in range(300):
        offset = alignment(labels, logits)
    wanted = torch.tensor(shares(labels, logits, None)[0])[: C - 1]
    before, after = (torch.tensor(label_shares(x, None))[: C - 1] for x in (logits, logits + offset))
    assert (before - wanted).abs().max() > 0.3
    assert (after - wanted).abs().max() < 0.08  # what the leak leaves, and of 84 pixels a few at the border


def test_without_labels_or_pixels_the_labels_alignment_stays() -> None:
    alignment = LabelAlignment(C)
    labels, logits = pixels(0)
    assert (alignment(torch.full_like(labels, 255), logits) == 0).all()
    assert alignment.batches == 0
    alignment(labels, logits)
    state = {name: tensor.clone() for name, tensor in alignment.state_dict().items()}
    assert state["offset"].any()
    alignment.eval()
    alignment(*pixels(1))
    alignment.train()
    alignment(labels, logits, torch.zeros(2, 6, 7, dtype=torch.bool))
    for name, tensor in alignment.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_the_labels_alignment_never_waits() -> None:
    alignment = LabelAlignment(C)
    labels, logits = pixels(0)
    with NoWaiting():
        alignment(labels, logits)


@pytest.mark.parametrize("options", [{"strength": -0.1}, {"decay": 1.0}])
def test_the_labels_alignment_refuses(options: dict) -> None:
    with pytest.raises(ValueError, match="strength"):
        LabelAlignment(C, **options)
