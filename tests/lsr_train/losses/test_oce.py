"""OCE's constraints against loops over features and classes."""

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor

from lsr_train.latent.prototypes import class_means
from lsr_train.losses.oce import centroid_clustering_loss, centroid_distance, orthogonality_loss, sparsity_loss

C, K = 4, 5


def case(seed: int) -> tuple[Tensor, Tensor]:
    """Return features >= 0 and labels in which class 2 is absent and some cells are void."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(2, K, 3, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 3, 255])[torch.randint(0, 4, (2, 3, 4), generator=generator)]
    return features, labels


def members(features: Tensor, labels: Tensor) -> dict[int, list[Tensor]]:
    """Return the features of each class that is present."""
    found: dict[int, list[Tensor]] = {}
    for b, y, x in torch.cartesian_prod(*(torch.arange(side) for side in labels.shape)).tolist():
        if labels[b, y, x] != 255:
            found.setdefault(int(labels[b, y, x]), []).append(features[b, :, y, x])
    return found


@pytest.mark.parametrize("seed", range(3))
def test_centroids_and_distances_equal_loops(seed: int) -> None:
    features, labels = case(seed)
    groups = members(features, labels)
    centroids, present = class_means(features, labels, C)
    assert present.tolist() == [c in groups for c in range(C)]
    means = {c: torch.stack(group).mean(dim=0) for c, group in groups.items()}
    for c, mean in means.items():
        torch.testing.assert_close(centroids[c], mean)
    pull = [torch.stack([(f - means[c]).abs().mean() for f in group]).mean() for c, group in groups.items()]
    push = [(means[a] - means[b]).abs().mean() for a, b in combinations(means, 2)]
    torch.testing.assert_close(centroid_clustering_loss(features, labels, centroids), torch.stack(pull).mean())
    torch.testing.assert_close(centroid_distance(centroids, present), torch.stack(push).mean())


@pytest.mark.parametrize("seed", range(3))
def test_orthogonality_and_sparsity_equal_loops(seed: int) -> None:
    features, labels = case(seed)
    centroids, present = class_means(features, labels, C)
    known = [c for c in range(C) if present[c]]
    total = 0.0
    for feature in features.movedim(1, -1).reshape(-1, K):
        products = [math.exp(float(feature @ centroids[c])) for c in known]
        shares = [product / sum(products) for product in products]
        total -= sum(share * math.log(share) for share in shares) / len(known)
    assert orthogonality_loss(features, centroids, present).item() == pytest.approx(total / 24, rel=1e-9)
    squares = [((centroids[c] / centroids[c].max() - 0.5) ** 2).mean() for c in known]
    torch.testing.assert_close(sparsity_loss(centroids, present), -torch.stack(squares).mean())


def all_four(features: Tensor, labels: Tensor) -> Tensor:
    """Return every loss of one domain that is both."""
    centroids, present = class_means(features, labels, C)
    pull, push = centroid_clustering_loss(features, labels, centroids), centroid_distance(centroids, present)
    further = orthogonality_loss(features, centroids, present), sparsity_loss(centroids, present)
    return torch.stack([pull, push, *further])


def test_all_are_differentiable_through_the_centroids() -> None:
    features, labels = case(0)
    assert torch.autograd.gradcheck(lambda values: all_four(values, labels), features.requires_grad_())


def test_nothing_labelled_is_nought_with_finite_gradients() -> None:
    features, labels = case(0)
    values = all_four(features.requires_grad_(), torch.full_like(labels, 255))
    assert values.tolist() == [0, 0, 0, 0]
    values.sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_orthogonal_features_have_no_entropy() -> None:
    centroids, everyone = 100 * torch.eye(3, dtype=torch.float64), torch.ones(3, dtype=torch.bool)
    features = centroids.T.reshape(1, 3, 1, 3)
    assert orthogonality_loss(features, centroids, everyone).item() == pytest.approx(0, abs=1e-12)
    alike = torch.ones(1, 3, 1, 3, dtype=torch.float64)
    assert orthogonality_loss(alike, centroids, everyone).item() == pytest.approx(math.log(3) / 3)
