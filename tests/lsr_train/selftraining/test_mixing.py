"""ClassMix and hidden blocks: against loops, and what must never happen."""

import pytest
import torch

from lsr_train.selftraining import class_mix_mask, paste, visible_blocks
from tests.lsr_train.latent.refused import NoWaiting

C = 6


def labels_of(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, C, (5, 4, 7), generator=generator)
    labels[0][labels[0] > 2] = 255  # three classes and void
    labels[1] = 4  # one class
    labels[2] = 255  # none
    return labels


def draws_of(seed: int = 1) -> torch.Tensor:
    return torch.rand(5, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_lowest_half_of_the_classes_there_are_is_chosen() -> None:
    labels, draws = labels_of(), draws_of()
    mask = class_mix_mask(labels, draws)
    for b in range(5):
        there = sorted({int(c) for c in labels[b].unique() if c != 255}, key=lambda c: draws[b, c].item())
        chosen = there[: (len(there) + 1) // 2]
        expected = torch.tensor([[int(c) in chosen for c in row] for row in labels[b]])
        assert torch.equal(mask[b], expected)
    assert mask[1].all()  # one class: it is the half, rounded up
    assert not mask[2].any()


def test_every_class_is_chosen_in_half_of_the_cases() -> None:
    labels = torch.arange(4).view(1, 1, 4).expand(4000, 1, 4)
    draws = torch.rand(4000, C, generator=torch.Generator().manual_seed(3))
    share = class_mix_mask(labels, draws).float().mean(dim=(0, 1))
    assert ((share - 0.5).abs() < 0.04).all(), share  # five standard deviations


def test_pixels_come_from_one_image_or_the_other() -> None:
    mask = class_mix_mask(labels_of(), draws_of())
    above, below = torch.rand(5, 3, 4, 7), torch.rand(5, 3, 4, 7)
    mixed = paste(mask, above, below)
    for b, y, x in [(b, y, x) for b in range(5) for y in range(4) for x in range(7)]:
        assert torch.equal(mixed[b, :, y, x], (above if mask[b, y, x] else below)[b, :, y, x])
    assert torch.equal(paste(mask, above[:, 0], below[:, 0]), mixed[:, 0])


def test_blocks_are_square_and_hidden_by_their_draw() -> None:
    draws = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(4))
    visible = visible_blocks((10, 7), 4, 0.6, draws)
    assert visible.shape == (2, 10, 7)
    for b in range(2):
        for y in range(10):
            for x in range(7):
                assert visible[b, y, x] == (draws[b, y // 4, x // 4] >= 0.6)


def test_the_extremes_of_the_ratio() -> None:
    draws = torch.rand(2, 3, 2)
    assert visible_blocks((10, 7), 4, 0.0, draws).all()
    assert not visible_blocks((10, 7), 4, 1.0, draws).any()


def test_refuses() -> None:
    with pytest.raises(ValueError, match="draws are"):
        visible_blocks((10, 7), 4, 0.5, torch.rand(2, 2, 2))
    with pytest.raises(ValueError, match="block is"):
        visible_blocks((10, 7), 0, 0.5, torch.rand(2, 2, 2))


def test_never_waits() -> None:
    labels, draws = labels_of(), draws_of()
    with NoWaiting():
        paste(class_mix_mask(labels, draws), labels, labels)
        visible_blocks((10, 7), 4, 0.5, torch.rand(2, 3, 2))
