"""The battery every latent loss goes through: oracle, gradients, types, layouts, compilation, no waiting."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from lsr_train.latent import (
    clustering_loss,
    cosine_clustering_loss,
    cosine_perpendicularity_loss,
    norm_alignment_loss,
    perpendicularity_loss,
    prototype_cross_entropy,
)
from lsr_train.latent.directional import mean_directions
from lsr_train.latent.fused import Moments, class_moments, one_member
from lsr_train.latent.norm_alignment import align_norms
from lsr_train.latent.prototypes import Prototypes
from tests.lsr_train.latent import oracles
from tests.lsr_train.latent.cases import CASES, Case
from tests.lsr_train.latent.refused import NoWaiting
from tests.lsr_train.latent.tolerances import GRADIENT, RELATIVE, close

REFERENCE = 1.1
SMALL = Case("small", (2, 3, 2, 3), 3)
TO_COMPILE = Case("to compile", (2, 5, 3, 7), 4)


@dataclass(frozen=True)
class Loss:
    """A loss as a function of features in a case, with its oracle."""

    name: str
    call: Callable[[Tensor, Case], Tensor]
    oracle: Callable[[Tensor, Case], Tensor]
    scale: float = 1e-3  # of a result whose oracle is 0; a difference of two numbers near 1 cannot be as exact

    def __str__(self) -> str:
        return self.name


def constants(case: Case, features: Tensor) -> Tensor:
    """Return prototypes in the type the loss computes in."""
    return case.prototypes().to(torch.promote_types(features.dtype, torch.float32))


def seen_of(case: Case) -> Tensor:
    seen = torch.ones(case.num_classes, dtype=torch.bool)
    seen[case.num_classes // 2] = case.num_classes == 1
    return seen


PROTOTYPES = {shape: Prototypes(*shape) for shape in {(c.num_classes, c.shape[1]) for c in [*CASES, SMALL, TO_COMPILE]}}


def batch_loss(features: Tensor, case: Case) -> Tensor:
    prototypes = PROTOTYPES[case.num_classes, case.shape[1]]  # its state has no part in this batch's means
    return perpendicularity_loss(*prototypes.update(features, case.labels()))


def batch_oracle(features: Tensor, case: Case) -> Tensor:
    return oracles.perpendicularity_oracle(*oracles.batch_mean_oracle(features, case.labels(), case.num_classes))


def fused(features: Tensor, case: Case, prototypes: Tensor | None = None) -> Moments:
    """Read the features once, about the prototypes (then without their sums) or about a member of each class."""
    labels = case.labels()
    shift = one_member(features, labels, case.num_classes) if prototypes is None else prototypes
    return class_moments(features, labels, shift, with_sums=prototypes is None)


COSINE = 1e-2

LOSSES = [
    Loss("clustering", lambda f, c: clustering_loss(f, c.labels(), constants(c, f)),
         lambda f, c: oracles.clustering_oracle(f, c.labels(), c.prototypes())),
    Loss("clustering, one class unseen",
         lambda f, c: clustering_loss(f, c.labels(), constants(c, f), seen_of(c)),
         lambda f, c: oracles.clustering_oracle(f, c.labels(), c.prototypes(), seen_of(c).tolist())),
    Loss("clustering, fused about the prototypes", lambda f, c: fused(f, c, constants(c, f)).clustering_loss(
             constants(c, f)),
         lambda f, c: oracles.clustering_oracle(f, c.labels(), c.prototypes())),
    Loss("clustering, fused, one class unseen", lambda f, c: fused(f, c).clustering_loss(constants(c, f), seen_of(c)),
         lambda f, c: oracles.clustering_oracle(f, c.labels(), c.prototypes(), seen_of(c).tolist())),
    Loss("perpendicularity", batch_loss, batch_oracle),
    Loss("perpendicularity, fused", lambda f, c: perpendicularity_loss(*fused(f, c).class_means()), batch_oracle),
    Loss("norm, source", lambda f, c: norm_alignment_loss(f, torch.tensor(REFERENCE, dtype=torch.float64)),
         lambda f, c: oracles.norm_oracle(f, REFERENCE, 0.002, "source")),
    Loss("norm, target", lambda f, c: norm_alignment_loss(f, REFERENCE, 0.05, "target"),
         lambda f, c: oracles.norm_oracle(f, REFERENCE, 0.05, "target")),
    Loss("norm, target, masked", lambda f, c: norm_alignment_loss(f, REFERENCE, 0.05, "target", mask=c.labels() < 255),
         lambda f, c: oracles.norm_oracle(f, REFERENCE, 0.05, "target", c.labels() < 255)),
    Loss("norm, fused", lambda f, c: align_norms(fused(f, c).norms, REFERENCE, 0.002, "source"),
         lambda f, c: oracles.norm_oracle(f, REFERENCE, 0.002, "source")),
    Loss("cosine clustering", lambda f, c: cosine_clustering_loss(f, c.labels(), constants(c, f)),
         lambda f, c: oracles.cosine_clustering_oracle(f, c.labels(), c.prototypes()), COSINE),
    Loss("cosine clustering, one class unseen",
         lambda f, c: cosine_clustering_loss(f, c.labels(), constants(c, f), seen_of(c)),
         lambda f, c: oracles.cosine_clustering_oracle(f, c.labels(), c.prototypes(), seen_of(c).tolist()), COSINE),
    Loss("cosine perpendicularity",
         lambda f, c: cosine_perpendicularity_loss(*mean_directions(f, c.labels(), c.num_classes)),
         lambda f, c: oracles.cosine_perpendicularity_oracle(
             *oracles.mean_direction_oracle(f, c.labels(), c.num_classes)), COSINE),
    Loss("prototype cross-entropy",
         lambda f, c: prototype_cross_entropy(f, c.labels(), constants(c, f), temperature=0.3),
         lambda f, c: oracles.prototype_cross_entropy_oracle(f, c.labels(), c.prototypes(), None, 0.3), COSINE),
    Loss("prototype cross-entropy, one class unseen",
         lambda f, c: prototype_cross_entropy(f, c.labels(), constants(c, f), seen_of(c)),
         lambda f, c: oracles.prototype_cross_entropy_oracle(
             f, c.labels(), c.prototypes(), seen_of(c).tolist(), 0.1), COSINE),
]  # fmt: skip
all_losses = pytest.mark.parametrize("loss", LOSSES, ids=str)
all_cases = pytest.mark.parametrize("case", CASES, ids=str)
MIXED = CASES[0]


def value_and_gradient(
    function: Callable[[Tensor, Case], Tensor], features: Tensor, case: Case
) -> tuple[Tensor, Tensor]:
    features = features.detach().requires_grad_()
    value = function(features, case)
    gradient = torch.autograd.grad(value, features, allow_unused=True)[0] if value.requires_grad else None
    return value.detach(), torch.zeros_like(features) if gradient is None else gradient


@all_losses
@all_cases
@pytest.mark.parametrize("dtype", RELATIVE, ids=str)
def test_equals_oracle(loss: Loss, case: Case, dtype: torch.dtype) -> None:
    features = case.features(dtype=dtype)
    value, gradient = value_and_gradient(loss.call, features, case)
    expected, expected_gradient = value_and_gradient(loss.oracle, features.double(), case)
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    assert value.shape == ()
    assert gradient.dtype == dtype
    close(value, expected, RELATIVE[dtype], loss.scale)
    close(gradient, expected_gradient, GRADIENT[dtype], loss.scale)


@all_losses
@all_cases
def test_always_part_of_the_graph(loss: Loss, case: Case) -> None:
    features = case.features().requires_grad_()
    value = loss.call(features, case)
    value.backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    if case.name == "all void" and "norm" not in loss.name:
        assert value.item() == 0
        assert (features.grad == 0).all()


@all_losses
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradcheck(loss: Loss, channels_last: bool) -> None:
    case = SMALL
    layout = torch.channels_last if channels_last else torch.contiguous_format
    features = case.features(7, torch.float64).contiguous(memory_format=layout).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: loss.call(f, case), (features,))


@all_losses
@all_cases
@pytest.mark.parametrize("numbers", [1, 60, 2**18])
def test_layouts_and_chunks_agree(loss: Loss, case: Case, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features = case.features()
    expected = value_and_gradient(loss.call, features, case)
    monkeypatch.setattr("lsr_train.latent.fused.CPU_NUMBERS", numbers)
    wide = torch.zeros(*case.shape[:2], case.shape[2] * 2, case.shape[3] + 1)
    wide[:, :, ::2, 1:] = features
    turned = features.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    for other in (features.contiguous(memory_format=torch.channels_last), wide[:, :, ::2, 1:], turned):
        value, gradient = value_and_gradient(loss.call, other, case)
        close(value, expected[0], 1e-5)
        close(gradient, expected[1], 1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@all_losses
def test_autocast_changes_nothing(loss: Loss, dtype: torch.dtype) -> None:
    features = MIXED.features(dtype=dtype)
    expected = value_and_gradient(loss.call, features, MIXED)

    def under_autocast(features: Tensor, case: Case) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss.call(features, case)

    value, gradient = value_and_gradient(under_autocast, features, MIXED)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected[0])
    assert torch.equal(gradient, expected[1])


@all_losses
def test_compiles_whole(loss: Loss) -> None:
    torch._dynamo.reset()
    case = TO_COMPILE
    labels, prototypes = case.labels(), case.prototypes().float()
    constant = Fixed("fixed", case.shape, case.num_classes, fixed_labels=labels, fixed_prototypes=prototypes)
    compiled = torch.compile(lambda f: loss.call(f, constant), fullgraph=True, backend="aot_eager")
    expected = value_and_gradient(loss.call, case.features(), constant)
    value, gradient = value_and_gradient(lambda f, _: compiled(f), case.features(), constant)
    close(value, expected[0], 1e-5)
    close(gradient, expected[1], 1e-5)


@dataclass(frozen=True)
class Fixed(Case):
    """A case whose labels and prototypes are there already: a compiler shall see the loss, not the random numbers."""

    fixed_labels: Tensor | None = None
    fixed_prototypes: Tensor | None = None

    def labels(self, seed: int = 1) -> Tensor:
        assert self.fixed_labels is not None
        return self.fixed_labels

    def prototypes(self, seed: int = 2) -> Tensor:
        assert self.fixed_prototypes is not None
        return self.fixed_prototypes


@all_losses
def test_never_waits(loss: Loss) -> None:
    case = Fixed("fixed", MIXED.shape, MIXED.num_classes, fixed_labels=MIXED.labels(),
                 fixed_prototypes=MIXED.prototypes().float())  # fmt: skip
    features = MIXED.features().requires_grad_()
    with NoWaiting():
        loss.call(features, case).backward()


def test_the_mode_does_refuse() -> None:
    x = torch.ones(3)
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        x.sum().item()
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        x[x > 0]
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        bool(x.any())


# but those where a class is left unseen by its number
@pytest.mark.parametrize("loss", [x for x in LOSSES if "unseen" not in x.name], ids=str)
def test_renumbering_classes_changes_nothing(loss: Loss) -> None:
    order = torch.tensor([2, 0, 3, 1])
    labels = MIXED.labels()
    moved = torch.where(labels == 255, 255, order[labels.clamp(max=3)])
    prototypes = torch.empty_like(MIXED.prototypes())
    prototypes[order] = MIXED.prototypes()
    case = Fixed("moved", MIXED.shape, 4, fixed_labels=moved, fixed_prototypes=prototypes)
    expected = value_and_gradient(loss.call, MIXED.features(), MIXED)
    value, gradient = value_and_gradient(loss.call, MIXED.features(), case)
    close(value, expected[0], 1e-5)
    close(gradient, expected[1], 1e-5)


@pytest.mark.parametrize("loss", [x for x in LOSSES if x.name in ("norm, source", "norm, target")], ids=str)
def test_a_batch_of_two_is_the_mean_of_its_images(loss: Loss) -> None:
    features = MIXED.features()
    parts = [loss.call(features[b : b + 1], MIXED) for b in range(2)]
    close(loss.call(features, MIXED), torch.stack(parts).mean(), 1e-5)


@all_losses
@pytest.mark.parametrize("dead", ["some cells", "all cells"])
def test_gradient_at_norm_zero_is_zero(loss: Loss, dead: str) -> None:
    features = MIXED.features(dtype=torch.float64)
    features[:, :, 1 if dead == "some cells" else slice(None)] = 0
    value, gradient = value_and_gradient(loss.call, features, MIXED)
    assert value.isfinite()
    assert gradient.isfinite().all()
    if "norm" in loss.name:
        assert (gradient[:, :, 1] == 0).all()


@pytest.mark.parametrize("channels_last", [False, True])
def test_dead_cells_in_the_fused_norm(channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    features = MIXED.features()
    features[:, :, 1] = 0
    features = features.contiguous(memory_format=layout).requires_grad_()
    class_moments(features, MIXED.labels(), MIXED.prototypes().float()).norms.sum().backward()
    assert features.grad is not None
    assert (features.grad[:, :, 1] == 0).all()
    assert (features.grad[:, :, 0] != 0).all()


def tight(spread: float, channels: int = 256) -> tuple[Tensor, Tensor]:
    """Return float32 features of three classes whose members lie `spread` of their norm apart, and labels."""
    generator = torch.Generator().manual_seed(4)
    centres = torch.rand(3, channels, generator=generator) + 0.5
    labels = torch.randint(0, 3, (2, 9, 11), generator=generator)
    noise = torch.randn(2, channels, 9, 11, generator=generator)
    size = centres.norm(dim=1).mean() / channels**0.5
    return centres[labels].movedim(-1, 1).contiguous() + spread * size * noise, labels


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("spread", [1e-3, 1e-4])
@pytest.mark.parametrize(("decay", "start"), [(0.8, "first"), (0.8, "zero"), (0.0, "first"), (0.99, "far")])
def test_tight_clusters_do_not_cancel(channels_last: bool, spread: float, decay: float, start: str) -> None:
    features, labels = tight(spread)
    if channels_last:
        features = features.contiguous(memory_format=torch.channels_last)
    mean, _ = oracles.batch_mean_oracle(features.double(), labels, 3)
    previous = {"first": mean, "zero": mean * 0, "far": mean * 1.3}[start]
    prototypes = (decay * previous + (1 - decay) * mean).float()
    moments = class_moments(features, labels, one_member(features, labels, 3))
    found = moments.clustering_loss(prototypes)
    expected = oracles.clustering_oracle(features.double(), labels, prototypes.double())
    assert found.item() == pytest.approx(expected.item(), rel=2e-5)
    assert clustering_loss(features, labels, prototypes).item() == pytest.approx(expected.item(), rel=2e-5)


def test_gradient_on_tight_clusters() -> None:
    features, labels = tight(1e-3)
    mean, _ = oracles.batch_mean_oracle(features.double(), labels, 3)
    features.requires_grad_()
    (gradient,) = torch.autograd.grad(clustering_loss(features, labels, mean.float()), features)
    exact = features.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(oracles.clustering_oracle(exact, labels, mean.float().double()), exact)
    close(gradient, expected, 1e-3)


def test_prototypes_are_constants() -> None:
    prototypes = MIXED.prototypes().requires_grad_()
    features = MIXED.features(dtype=torch.float64).requires_grad_()
    clustering_loss(features, MIXED.labels(), prototypes).backward()
    assert prototypes.grad is None
    reference = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    norm_alignment_loss(features, reference).backward()
    assert reference.grad is None


def test_wrong_arguments() -> None:
    features, labels, prototypes = MIXED.features(), MIXED.labels(), MIXED.prototypes()
    with pytest.raises(ValueError, match="int64"):
        clustering_loss(features, labels.int(), prototypes)
    with pytest.raises(ValueError, match="cell labels are"):
        clustering_loss(features, labels[:, 1:], prototypes)
    with pytest.raises(ValueError, match="channels"):
        clustering_loss(features, labels, prototypes[:, 1:])
    with pytest.raises(ValueError, match="prototypes are"):
        clustering_loss(features, labels, prototypes[0])
    with pytest.raises(ValueError, match="seen"):
        clustering_loss(features, labels, prototypes, torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="floating"):
        clustering_loss(labels, labels, prototypes)
    with pytest.raises(ValueError, match="on meta"):
        clustering_loss(features, labels.to("meta"), prototypes)
    with pytest.raises(ValueError, match="on meta"):
        clustering_loss(features, labels, prototypes.to("meta"))
    with pytest.raises(ValueError, match="domain"):
        norm_alignment_loss(features, 1.0, 0.1, "sauce")
    with pytest.raises(ValueError, match="floating"):
        norm_alignment_loss(features[0], 1.0)
    with pytest.raises(ValueError, match="mask"):
        norm_alignment_loss(features, 1.0, mask=labels)
    with pytest.raises(ValueError, match="batch_mean"):
        perpendicularity_loss(features, torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="present"):
        perpendicularity_loss(prototypes, torch.ones(4))
    with pytest.raises(ValueError, match="present is on"):
        perpendicularity_loss(prototypes, torch.ones(4, dtype=torch.bool, device="meta"))


@pytest.mark.parametrize(("present", "pairs"), [(0, 0), (1, 0), (2, 2), (4, 12)])
def test_perpendicularity_counts_pairs_of_present_classes(present: int, pairs: int) -> None:
    same = torch.ones(4, 7)
    mask = torch.arange(4) < present
    assert perpendicularity_loss(same, mask).item() == pytest.approx(pairs / 12)
    assert perpendicularity_loss(torch.eye(4, 7), mask).item() == 0


def test_perpendicularity_uses_both_sides_of_a_pair() -> None:
    mean = MIXED.prototypes().requires_grad_()  # float64
    present = torch.ones(4, dtype=torch.bool)
    (gradient,) = torch.autograd.grad(perpendicularity_loss(mean, present), mean)
    for c, k in itertools.product(range(4), range(5)):
        moved = mean.detach().clone()
        moved[c, k] += 1e-6
        slope = (perpendicularity_loss(moved, present) - perpendicularity_loss(mean.detach(), present)) / 1e-6
        assert gradient[c, k].item() == pytest.approx(slope.item(), abs=1e-5)
