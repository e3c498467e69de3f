"""What a teacher's logits become: against loops over pixels."""

import math
from itertools import product

import pytest
import torch

from lsr_train.losses.pixel import upsample
from lsr_train.selftraining import teacher_labels
from tests.lsr_train.latent.refused import NoWaiting

SIZE = (9, 13)


def logits_of(seed: int = 0, scale: float = 4.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(3, 4, 3, 4, generator=generator)


def peaks(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    probability, labels = upsample(logits.double(), SIZE).softmax(dim=1).max(dim=1)
    return probability, labels


@pytest.mark.parametrize("weighting", ["fraction", "confident", "all"])
@pytest.mark.parametrize("masked", [False, True])
def test_weights_written_out(weighting: str, masked: bool) -> None:
    logits = logits_of()
    mask = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(1)) < 0.7
    counts = mask if masked else torch.ones(3, *SIZE, dtype=torch.bool)
    found = teacher_labels(logits, SIZE, 0.9, weighting=weighting, mask=counts)
    assert torch.equal(found.counts, counts)
    probability, labels = peaks(logits)
    places = list(product(range(3), range(SIZE[0]), range(SIZE[1])))
    counted = [place for place in places if not masked or mask[place]]
    sure = [place for place in counted if probability[place] > 0.9]
    assert 0 < len(sure) < len(counted)
    for place in places:
        if place not in counted:
            assert (found.labels[place], found.weight[place], found.probability[place]) == (255, 0, 0)
            continue
        expected = {"fraction": len(sure) / len(counted), "confident": place in sure, "all": 1.0}[weighting]
        assert found.weight[place].item() == pytest.approx(float(expected), abs=1e-6)
        assert found.labels[place] == labels[place]
        assert found.probability[place].item() == pytest.approx(probability[place].item(), abs=1e-5)


def test_nothing_counts_where_the_mask_is_empty() -> None:
    found = teacher_labels(logits_of(), SIZE, mask=torch.zeros(3, *SIZE, dtype=torch.bool))
    assert (found.labels == 255).all()
    assert (found.weight == 0).all()


def test_the_threshold_is_strict() -> None:
    even = torch.zeros(1, 4, 3, 4)
    assert (teacher_labels(even, SIZE, 0.25).weight == 0).all()
    assert (teacher_labels(even, SIZE, 0.25 - 1e-6).weight == 1).all()
    assert math.isclose(teacher_labels(even, SIZE, 0.9, weighting="all").weight.mean().item(), 1.0)


def test_never_waits_and_has_no_graph() -> None:
    logits = logits_of().requires_grad_()
    with NoWaiting():
        found = teacher_labels(logits, SIZE, mask=torch.ones(3, *SIZE, dtype=torch.bool))
    assert not found.weight.requires_grad


def test_refuses_an_unknown_weighting() -> None:
    with pytest.raises(ValueError, match="weighting"):
        teacher_labels(logits_of(), SIZE, weighting="none")  # type: ignore[arg-type]  # what is to be refused
