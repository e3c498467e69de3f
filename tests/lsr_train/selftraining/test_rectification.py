"""Prototype-rectified logits: against a product of softmaxes, and neutral where nothing is known."""

import pytest
import torch

from lsr_train.selftraining import Rectifier
from tests.lsr_train.latent.oracles import direction, mean_direction_oracle
from tests.lsr_train.latent.refused import NoWaiting

C, K = 4, 5


def features_of(seed: int) -> torch.Tensor:
    return torch.rand(2, K, 3, 4, generator=torch.Generator().manual_seed(seed)) + 0.1


def labels_of(seed: int, classes: int = C) -> torch.Tensor:
    labels = torch.randint(0, classes, (2, 3, 4), generator=torch.Generator().manual_seed(seed))
    labels[0, 0, 0] = 255
    return labels


def test_without_a_prototype_nothing_is_corrected() -> None:
    assert (Rectifier(C, K).correction(features_of(0)) == 0).all()


def test_equals_the_product_of_softmaxes() -> None:
    rectifier = Rectifier(C, K, temperature=0.2, decay=0.9)
    mean = None
    for seed in range(2):
        rectifier.update(features_of(seed), labels_of(seed))
        own, present = mean_direction_oracle(features_of(seed).double(), labels_of(seed), C)
        assert all(present)
        mean = own if mean is None else 0.9 * mean + 0.1 * own
    features, logits = features_of(7), torch.randn(2, C, 3, 4)
    rectified = (logits + rectifier.correction(features)).softmax(dim=1)
    for b, y, x in [(b, y, x) for b in range(2) for y in range(3) for x in range(4)]:
        feature = direction(features[b, :, y, x].double())
        near = torch.stack([feature @ direction(prototype) / 0.2 for prototype in mean]).softmax(dim=0)
        product = logits[b, :, y, x].double().softmax(dim=0) * near
        torch.testing.assert_close(rectified[b, :, y, x].double(), product / product.sum(), rtol=1e-4, atol=1e-6)


def test_a_class_without_a_prototype_is_neither_helped_nor_hindered() -> None:
    rectifier = Rectifier(C, K)
    rectifier.update(features_of(0), labels_of(0, classes=3))
    correction = rectifier.correction(features_of(1))
    seen = correction[:, :3].exp().mean(dim=1)
    torch.testing.assert_close(correction[:, 3].exp(), seen)  # the mean weight of the others
    torch.testing.assert_close(correction[:, :3].exp().sum(dim=1), torch.ones(2, 3, 4))


def test_state_stays_in_eval() -> None:
    rectifier = Rectifier(C, K).eval()
    rectifier.update(features_of(0), labels_of(0))
    assert not rectifier.prototypes.seen.any()


def test_never_waits() -> None:
    rectifier = Rectifier(C, K)
    with NoWaiting():
        rectifier.update(features_of(0), labels_of(0))
        rectifier.correction(features_of(0))


def test_refuses() -> None:
    with pytest.raises(ValueError, match="temperature"):
        Rectifier(C, K, temperature=0.0)
