"""The battery of the losses on pixels."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lsr_train.losses import cross_entropy, distillation_loss, entropy_loss, max_square_loss, upsample
from tests.lsr_train.latent import oracles
from tests.lsr_train.latent.refused import NoWaiting
from tests.lsr_train.latent.tolerances import GRADIENT, RELATIVE, close

SHAPES = [(2, 3, 4, 5), (3, 5, 1, 7), (1, 2, 3, 3), (2, 4, 1, 1)]
PATTERNS = ["mixed", "absent", "one image void", "all void"]


@dataclass(frozen=True)
class Loss:
    """A loss as a function of logits, labels and a mask, with its oracle."""

    name: str
    call: Callable[[Tensor, Tensor], Tensor]
    oracle: Callable[[Tensor, Tensor], Tensor]

    def __str__(self) -> str:
        return self.name


def weights_of(labels: Tensor) -> Tensor:
    """Return a weight for each pixel, some of them 0."""
    places = torch.arange(labels.numel(), device=labels.device).view(labels.shape)
    return (places % 4) / 3


def teacher_of(logits: Tensor) -> Tensor:
    """Return a teacher's logits for a student's: others, but as large."""
    places = torch.arange(logits.numel(), device=logits.device).view(logits.shape)
    return 3 * (places * 2.3).sin()


LOSSES = [
    Loss("cross-entropy", cross_entropy, oracles.cross_entropy_oracle),
    Loss("cross-entropy, weighted", lambda x, y: cross_entropy(x, y, weight=weights_of(y)),
         lambda x, y: oracles.weighted_cross_entropy_oracle(x, y, weights_of(y))),
    Loss("distillation", lambda x, y: distillation_loss(x, teacher_of(x)),
         lambda x, y: oracles.distillation_oracle(x, teacher_of(x), 1.0)),
    Loss("distillation, softened", lambda x, y: distillation_loss(x, teacher_of(x), 3.0, mask=y < 255),
         lambda x, y: oracles.distillation_oracle(x, teacher_of(x), 3.0, y < 255)),
    Loss("max-square", lambda x, y: max_square_loss(x), lambda x, y: oracles.max_square_oracle(x, 0.2)),
    Loss("max-square, even", lambda x, y: max_square_loss(x, 0), lambda x, y: oracles.max_square_oracle(x, 0)),
    Loss("max-square, by class", lambda x, y: max_square_loss(x, 1.0), lambda x, y: oracles.max_square_oracle(x, 1.0)),
    Loss("max-square, masked", lambda x, y: max_square_loss(x, 0.5, mask=y < 255),
         lambda x, y: oracles.max_square_oracle(x, 0.5, y < 255)),
    Loss("entropy", lambda x, y: entropy_loss(x), lambda x, y: oracles.entropy_oracle(x)),
    Loss("entropy, masked", lambda x, y: entropy_loss(x, mask=y < 255),
         lambda x, y: oracles.entropy_oracle(x, y < 255)),
]  # fmt: skip
all_losses = pytest.mark.parametrize("loss", LOSSES, ids=str)


def inputs_of(
    shape: tuple[int, int, int, int], pattern: str = "mixed", dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    if pattern == "absent":
        labels[labels == 0] = 255
    elif pattern == "one image void":
        labels[0] = 255
    elif pattern == "all void":
        labels[:] = 255
    return logits.to(dtype).requires_grad_(), labels


def value_and_gradient(call: Callable, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    value = call(logits, labels)
    if not value.requires_grad:
        return value, torch.zeros_like(logits)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@all_losses
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("dtype", RELATIVE, ids=str)
def test_equals_oracle(loss: Loss, shape: tuple, pattern: str, dtype: torch.dtype) -> None:
    logits, labels = inputs_of(shape, pattern, dtype)
    value, gradient = value_and_gradient(loss.call, logits, labels)
    expected, exact = value_and_gradient(loss.oracle, logits.detach().double().requires_grad_(), labels)
    assert value.dtype == torch.promote_types(dtype, torch.float32)
    assert value.shape == ()
    close(value, expected, RELATIVE[dtype])
    close(gradient, exact, GRADIENT[dtype])


@all_losses
def test_all_void_is_zero_and_part_of_the_graph(loss: Loss) -> None:
    logits, labels = inputs_of((2, 3, 4, 5), "all void")
    value = loss.call(logits, labels)
    value.backward()
    assert logits.grad is not None
    if loss.name in ("cross-entropy", "cross-entropy, weighted", "max-square, masked", "entropy, masked",
                     "distillation, softened"):  # fmt: skip
        assert value.item() == 0
        assert (logits.grad == 0).all()


@all_losses
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_gradcheck(loss: Loss, layout: torch.memory_format) -> None:
    logits, labels = inputs_of((2, 3, 2, 3), dtype=torch.float64)
    logits = logits.detach().contiguous(memory_format=layout).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss.call(x, labels), (logits,))


@all_losses
def test_layouts(loss: Loss) -> None:
    logits, labels = inputs_of((2, 3, 4, 5))
    expected = value_and_gradient(loss.call, logits, labels)
    wide = torch.zeros(2, 3, 8, 6)
    wide[:, :, ::2, 1:] = logits.detach()
    for other in (logits.detach().contiguous(memory_format=torch.channels_last), wide[:, :, ::2, 1:]):
        value, gradient = value_and_gradient(loss.call, other.requires_grad_(), labels)
        close(value, expected[0], 1e-6)
        close(gradient, expected[1], 1e-6)


@all_losses
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_changes_nothing(loss: Loss, dtype: torch.dtype) -> None:
    logits, labels = inputs_of((2, 3, 4, 5), dtype=dtype)
    expected = loss.call(logits, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss.call(logits, labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)


@all_losses
def test_compiles_whole(loss: Loss) -> None:
    torch._dynamo.reset()
    logits, labels = inputs_of((2, 3, 4, 5))
    compiled = torch.compile(loss.call, fullgraph=True, backend="aot_eager")
    expected = value_and_gradient(loss.call, logits, labels)
    value, gradient = value_and_gradient(compiled, logits, labels)
    close(value, expected[0], 1e-6)
    close(gradient, expected[1], 1e-6)


@all_losses
def test_never_waits(loss: Loss) -> None:
    logits, labels = inputs_of((2, 3, 4, 5))
    with NoWaiting():
        loss.call(logits, labels).backward()


def test_large_logits_stay_finite() -> None:
    logits = torch.tensor([[[[1000.0, -1000.0]], [[-1000.0, 1000.0]]]], requires_grad=True)
    for value in (
        cross_entropy(logits, torch.tensor([[[0, 0]]])),
        distillation_loss(logits, -logits.detach()),
        max_square_loss(logits),
        entropy_loss(logits),
    ):
        value.backward()
        assert value.isfinite()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


def test_cross_entropy_agrees_with_torch() -> None:
    logits, labels = inputs_of((3, 5, 6, 7))
    close(cross_entropy(logits, labels), F.cross_entropy(logits, labels, ignore_index=255), 1e-6)


def test_distillation_agrees_with_torch_and_ends_at_the_teacher() -> None:
    logits, labels = inputs_of((3, 5, 6, 7))
    teacher = teacher_of(logits)
    expected = F.kl_div(logits.log_softmax(1), teacher.log_softmax(1), reduction="none", log_target=True).sum(1).mean()
    close(distillation_loss(logits, teacher), expected, 1e-6)
    teacher.requires_grad_()
    value, gradient = value_and_gradient(lambda x, y: distillation_loss(x, teacher + 3.0), teacher, labels)
    assert value.abs() < 1e-6
    assert gradient.abs().max() < 1e-6
    assert torch.autograd.grad(distillation_loss(logits, teacher), teacher, allow_unused=True) == (None,)


def test_loss_of_a_batch_and_of_its_images() -> None:
    logits, _ = inputs_of((2, 3, 4, 5))
    parts = [max_square_loss(logits[b : b + 1]) for b in range(2)]
    close(max_square_loss(logits), torch.stack(parts).mean(), 1e-6)


@pytest.mark.parametrize("size", [(9, 13), (1, 1), (5, 4), (17, 3)])
@pytest.mark.parametrize("cells", [(3, 4), (1, 5), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_upsample_equals_torch(size: tuple[int, int], cells: tuple[int, int], dtype: torch.dtype) -> None:
    logits = torch.randn(2, 3, *cells, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    exact_type = torch.promote_types(dtype, torch.float32)
    weights = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)).to(exact_type)
    expected = F.interpolate(logits.to(exact_type), size=size, mode="bilinear", align_corners=True)
    found = upsample(logits, torch.Size(size))
    assert found.dtype == exact_type
    assert found.is_contiguous()
    assert torch.equal(found, expected)
    (one,) = torch.autograd.grad((found * weights).sum(), logits)
    (two,) = torch.autograd.grad((expected * weights).sum(), logits)
    close(one, two, GRADIENT[dtype])


def test_upsample_battery() -> None:
    logits = torch.randn(2, 3, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: upsample(x, (5, 7)), (logits,))
    assert torch.autograd.gradgradcheck(lambda x: upsample(x, (5, 7)), (logits,))
    single = logits.detach().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(upsample(single.bfloat16(), (5, 7)), upsample(single.bfloat16().float(), (5, 7)))
    last = single.contiguous(memory_format=torch.channels_last)
    assert torch.equal(upsample(last, (5, 7)), upsample(single, (5, 7)))
    torch._dynamo.reset()
    compiled = torch.compile(upsample, fullgraph=True, backend="aot_eager")
    close(compiled(single, (5, 7)), upsample(single, (5, 7)), 1e-6)
    with NoWaiting():
        upsample(single.requires_grad_(), (5, 7)).sum().backward()


def test_wrong_arguments() -> None:
    logits, labels = inputs_of((2, 3, 4, 5))
    with pytest.raises(ValueError, match="int64"):
        cross_entropy(logits, labels.int())
    with pytest.raises(ValueError, match="int64"):
        cross_entropy(logits, labels[:, 1:])
    for call in (max_square_loss, entropy_loss):
        with pytest.raises(ValueError, match="mask"):
            call(logits, mask=labels)
        with pytest.raises(ValueError, match="mask"):
            call(logits, mask=labels[:1] < 255)
        with pytest.raises(ValueError, match="floating"):
            call(logits[0])
    with pytest.raises(ValueError, match="teacher"):
        distillation_loss(logits, logits[:, :2])
    with pytest.raises(ValueError, match="floating"):
        distillation_loss(logits, labels)
    with pytest.raises(ValueError, match="mask"):
        distillation_loss(logits, logits, mask=labels)
    with pytest.raises(ValueError, match="temperature"):
        distillation_loss(logits, logits, 0.0)
    with pytest.raises(ValueError, match="floating"):
        upsample(logits[0], (3, 3))
