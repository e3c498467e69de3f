import copy
import pickle
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lsr_train import latent
from lsr_train.latent import TERMS, LatentRegularizer
from tests.lsr_train.latent.oracles import RegularizerOracle
from tests.lsr_train.latent.refused import NoWaiting
from tests.lsr_train.latent.tolerances import close

WEIGHTS = {
    "cluster_source": 0.7,
    "cluster_target": 1.3,
    "perpendicularity": 2.0,
    "norm_source": 0.9,
    "norm_target": 1.1,
}
C, K = 4, 6


def batch(step: int, dtype: torch.dtype = torch.float32, *, pattern: str = "mixed") -> list[Tensor]:
    """Return source features, source labels, target features, target logits of one step; sizes are odd and differ."""
    generator = torch.Generator().manual_seed(step)
    source = torch.rand(2, K, 4, 7, generator=generator, dtype=torch.float64).to(dtype)
    target = 0.8 * torch.rand(2, K, 5, 3, generator=generator, dtype=torch.float64).to(dtype)
    coarse = torch.randint(0, C, (2, 5, 7), generator=generator)
    coarse[torch.rand(2, 5, 7, generator=generator) < 0.15] = 255
    if step % 2:
        coarse[coarse == 1] = 255
    labels = coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, :13, :19].contiguous()
    logits = 3 * torch.randn(2, C, 4, 3, generator=generator)
    logits = logits.repeat_interleave(4, 2).repeat_interleave(4, 3)[:, :, :15, :11].contiguous()
    if pattern == "source void":
        labels[:] = 255
    elif pattern == "one image void":
        labels[0] = 255
    elif pattern == "target unsure":
        logits *= 0
    return [source.requires_grad_(), labels, target.requires_grad_(), logits]


def total(terms: dict[str, Tensor]) -> Tensor:
    return sum((WEIGHTS[name] * value for name, value in terms.items()), torch.zeros((), dtype=torch.float64))


def gradients(terms: dict[str, Tensor], inputs: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(total(terms), [inputs[0], inputs[2]], allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, (inputs[0], inputs[2]), strict=True)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("pattern", ["mixed", "source void", "one image void", "target unsure"])
@pytest.mark.parametrize("init", ["first", "zero"])
@pytest.mark.parametrize("numbers", [100, 2**18, None])
def test_equals_the_equations_over_three_steps(
    dtype: torch.dtype,
    layout: torch.memory_format,
    pattern: str,
    init: str,
    numbers: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the fused path with small and large chunks, and (None) on the plain one."""
    if numbers is not None:
        monkeypatch.setattr("lsr_train.latent.fused.CPU_NUMBERS", numbers)
    regularizer = LatentRegularizer(C, K, init=init, fused=numbers is not None)
    if dtype == torch.float64:
        regularizer.double()
    oracle = RegularizerOracle(C, K, init=init)
    for step in range(3):
        inputs = batch(step, dtype, pattern=pattern)
        for i in (0, 2):
            inputs[i] = inputs[i].detach().contiguous(memory_format=layout).requires_grad_()
        exact = [x.detach().double().requires_grad_() if x.requires_grad else x for x in inputs]
        found, expected = regularizer(*inputs), oracle.step(*exact)
        assert list(found) == list(TERMS)
        for name in TERMS:
            assert found[name].dtype == torch.promote_types(dtype, torch.float32)
            assert found[name].shape == ()
            close(found[name], expected[name], 1e-9 if dtype == torch.float64 else 3e-5)
        bound = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 1e-2}[dtype]
        for one, two in zip(gradients(found, inputs), gradients(expected, exact), strict=True):
            close(one, two, bound)
    close(regularizer.prototypes.mean, oracle.mean, 1e-6)
    assert regularizer.prototypes.seen.tolist() == oracle.seen
    assert regularizer.norm_reference.item() == pytest.approx(oracle.reference, rel=1e-6)


@pytest.mark.parametrize("terms", [TERMS, TERMS[:2], TERMS[2:]], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_the_fused_path_equals_the_plain_equations(terms: tuple[str, ...], masked: bool) -> None:
    plain, fused = (LatentRegularizer(C, K, terms=frozenset(terms), fused=on).double() for on in (False, True))
    for step in range(3):
        inputs = batch(step, torch.float64)
        if masked:
            inputs.append(torch.rand(2, 15, 11, generator=torch.Generator().manual_seed(step)) < 0.8)
        expected, found = plain(*inputs), fused(*inputs)
        for name in terms:
            close(found[name], expected[name], 1e-12)
        for one, two in zip(gradients(found, inputs), gradients(expected, inputs), strict=True):
            close(one, two, 1e-12)
        for name, value in plain.diagnostics().items():
            close(fused.diagnostics()[name], value, 1e-12)
    for name, value in plain.state_dict().items():
        close(fused.state_dict()[name].double(), value.double(), 1e-12)


def test_mask_equals_the_equations() -> None:
    inputs = batch(0, torch.float64)
    mask = torch.rand(2, 15, 11, generator=torch.Generator().manual_seed(3)) < 0.7
    mask[0, :6] = False
    found = LatentRegularizer(C, K).double()(*inputs, mask)
    expected = RegularizerOracle(C, K).step(*inputs, mask)
    for name in TERMS:
        close(found[name], expected[name], 1e-9)
    for one, two in zip(gradients(found, inputs), gradients(expected, inputs), strict=True):
        close(one, two, 1e-9)


def test_numbers_are_used() -> None:
    options = {"decay": 0.3, "threshold": 0.9, "confidence": 0.2, "delta": 0.3}
    regularizer, oracle = LatentRegularizer(C, K, **options).double(), RegularizerOracle(C, K, **options)
    for step in range(2):
        inputs = batch(step, torch.float64)
        found, expected = regularizer(*inputs), oracle.step(*inputs)
        for name in TERMS:
            close(found[name], expected[name], 1e-9)


@pytest.mark.parametrize(
    "left_out", [*TERMS, "all but cluster_target", "all but norm_target", "all but perpendicularity"]
)
def test_terms_left_out_change_nothing_else(left_out: str) -> None:
    kept = {left_out[8:]} if left_out.startswith("all but ") else set(TERMS) - {left_out}
    whole, part = LatentRegularizer(C, K), LatentRegularizer(C, K, terms=frozenset(kept))
    for step in range(2):
        inputs = batch(step)
        every, some = whole(*inputs), part(*inputs)
        assert list(some) == [name for name in TERMS if name in kept]
        for name in kept:
            close(some[name], every[name], 1e-6)
        expected = gradients({name: every[name] for name in kept}, inputs)
        for one, two in zip(gradients(some, inputs), expected, strict=True):
            close(one, two, 1e-5)


def test_what_only_others_need_is_not_computed() -> None:
    inputs = batch(0)
    counts = {}
    for terms in ({"norm_source"}, {"cluster_source"}, set(TERMS)):
        with NoWaiting() as mode:
            LatentRegularizer(C, K, terms=frozenset(terms))(*inputs)
        counts[len(terms), *sorted(terms)[:1]] = mode.count
    ordered = list(counts.values())
    assert ordered == sorted(ordered)
    regularizer = LatentRegularizer(C, K, terms=frozenset())
    assert regularizer(*inputs) == {}
    assert not regularizer.prototypes.seen.any()


def test_diagnostics() -> None:
    inputs = batch(0)
    regularizer = LatentRegularizer(C, K)
    assert regularizer.diagnostics() == {}
    regularizer(*inputs)
    found = regularizer.diagnostics()
    assert set(found) == {"source_norm", "target_norm", "prototype_cosine", "target_labelled"}
    assert not any(value.requires_grad for value in found.values())
    assert found["source_norm"].item() == pytest.approx(inputs[0].norm(dim=1).mean().item())
    assert found["target_norm"].item() == pytest.approx(inputs[2].norm(dim=1).mean().item())
    units = torch.nn.functional.normalize(regularizer.prototypes.mean[regularizer.prototypes.seen], dim=1)
    off = (units @ units.T)[~torch.eye(len(units), dtype=torch.bool)]
    assert found["prototype_cosine"].item() == pytest.approx(off.mean().item())
    assert 0 < found["target_labelled"].item() < 1


@pytest.mark.parametrize("terms", [None, frozenset({"norm_source", "norm_target"})])
def test_diagnostics_of_the_target_are_of_the_cells_that_count(terms: frozenset[str] | None) -> None:
    source, labels, target, logits = batch(0)
    mask = torch.ones(logits.shape[0], *logits.shape[2:], dtype=torch.bool)
    mask[0] = False  # the whole first image
    regularizer = LatentRegularizer(C, K, confidence=0.0, terms=terms)
    regularizer(source, labels, target, logits, mask)
    found = regularizer.diagnostics()
    assert found["target_norm"].item() == pytest.approx(target[1:].norm(dim=1).mean().item())
    if terms is None:
        alone = LatentRegularizer(C, K, confidence=0.0)
        alone(source, labels, target[1:], logits[1:])
        assert found["target_labelled"].item() == pytest.approx(alone.diagnostics()["target_labelled"].item())


def test_eval_moves_nothing() -> None:
    regularizer = LatentRegularizer(C, K)
    regularizer(*batch(0))
    before = copy.deepcopy(regularizer.state_dict())
    regularizer.eval()
    regularizer(*batch(1))
    assert all(torch.equal(before[name], value) for name, value in regularizer.state_dict().items())
    assert {name for name, _ in regularizer.named_buffers()} == {
        "prototypes.mean", "prototypes.seen", "norm_reference", "norm_known",
    }  # fmt: skip
    assert list(regularizer.parameters()) == []


def test_first_step_in_eval_uses_its_own_norm() -> None:
    regularizer = LatentRegularizer(C, K).eval()
    terms = regularizer(*batch(0))
    assert terms["cluster_source"].item() == 0  # no prototype has been seen
    assert terms["norm_source"].item() > 0
    assert not regularizer.norm_known


def test_state_travels() -> None:
    regularizer = LatentRegularizer(C, K)
    regularizer(*batch(0))
    twins = [LatentRegularizer(C, K), copy.deepcopy(regularizer), pickle.loads(pickle.dumps(regularizer))]
    twins[0].load_state_dict(regularizer.state_dict())
    expected = regularizer(*batch(1))
    for twin in twins:
        found = twin(*batch(1))
        assert all(torch.equal(found[name], expected[name]) for name in TERMS)


def test_without_fused_the_equations_themselves_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("clustering_loss", "perpendicularity_loss", "norm_alignment_loss"):

        def called(*args: object, name: str = name, equation: Callable[..., Tensor], **more: object) -> Tensor:
            calls.append(name)
            return equation(*args, **more)

        place = f"lsr_train.latent.regularizer.{name}"
        monkeypatch.setattr(place, partial(called, equation=getattr(latent, name)))
    LatentRegularizer(C, K, fused=False)(*batch(0))
    assert sorted(calls) == ["clustering_loss"] * 2 + ["norm_alignment_loss"] * 2 + ["perpendicularity_loss"]


def test_two_steps_before_a_backward() -> None:
    """Gradient accumulation may hold several graphs: what a graph refers to must not move."""
    one, two = batch(0), batch(1)
    regularizer = LatentRegularizer(C, K)
    first, second = regularizer(*one), regularizer(*two)
    held = gradients(second, two), gradients(first, one)
    again = LatentRegularizer(C, K)
    first = again(*one)
    for found, expected in zip(held[1], gradients(first, one), strict=True):
        assert torch.equal(found, expected)


def test_nothing_of_the_caller_is_changed() -> None:
    inputs = batch(0)
    before = [x.detach().clone() for x in inputs]
    total(LatentRegularizer(C, K)(*inputs)).backward()
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    inputs = batch(0, dtype)
    expected = LatentRegularizer(C, K)(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = LatentRegularizer(C, K)(*inputs)
    for name in TERMS:
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], expected[name])
    for one, two in zip(gradients(found, inputs), gradients(expected, inputs), strict=True):
        assert torch.equal(one, two)


def test_never_waits() -> None:
    inputs, mask = batch(0), torch.ones(2, 15, 11, dtype=torch.bool)
    regularizer = LatentRegularizer(C, K)
    with NoWaiting():
        for _ in range(2):
            total(regularizer(*inputs, mask)).backward()
            regularizer.diagnostics()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_no_second_copy_of_the_features(layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing as large as the features is made but the two gradients."""
    monkeypatch.setattr("lsr_train.latent.fused.CPU_NUMBERS", 2000)
    source, target = (torch.rand(2, 256, 8, 9).contiguous(memory_format=layout).requires_grad_() for _ in range(2))
    labels, logits = torch.randint(0, C, (2, 32, 36)), torch.randn(2, C, 32, 36)
    with NoWaiting(largest=source.numel() // 4) as mode:
        total(LatentRegularizer(C, 256)(source, labels, target, logits)).backward()
    assert mode.large == ["aten::empty_like", "aten::empty_like"]


@pytest.mark.parametrize("option", [{}, {"fused": False, "labels": "nearest"}], ids=str)
def test_operators_do_not_grow_with_classes(option: dict[str, Any]) -> None:
    counts = set()
    for classes in (2, 19, 60):
        inputs = batch(0)
        inputs[3] = torch.randn(2, classes, 15, 11)
        with NoWaiting() as mode:
            total(LatentRegularizer(classes, K, **option)(*inputs)).backward()
        counts.add(mode.count)
    assert len(counts) == 1


@pytest.mark.parametrize("option", [{}, {"fused": False, "labels": "nearest"}], ids=str)
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_whole(option: dict[str, Any], backend: str) -> None:
    if backend == "inductor" and not shutil.which("g++"):
        pytest.skip("inductor needs a C++ compiler")
    torch._dynamo.reset()
    one, two = (LatentRegularizer(C, K, **option) for _ in range(2))
    compiled = torch.compile(two, fullgraph=True, backend=backend)
    for step in range(2):
        inputs = batch(step)
        expected, found = one(*inputs), compiled(*inputs)
        for name in TERMS:
            close(found[name], expected[name], 1e-5)
        for x, y in zip(gradients(found, inputs), gradients(expected, inputs), strict=True):
            close(x, y, 1e-5)
    close(two.prototypes.mean, one.prototypes.mean, 1e-5)


def test_wrong_arguments() -> None:
    for name, value in (("labels", "best"), ("terms", frozenset({"cluster"}))):
        with pytest.raises(ValueError, match=name):
            LatentRegularizer(C, K, **{name: value})
    with pytest.raises(ValueError, match="threshold"):
        LatentRegularizer(C, K, threshold=0)
    with pytest.raises(ValueError, match="confidence"):
        LatentRegularizer(C, K, confidence=1.5)
    source, labels, target, logits = batch(0)
    regularizer = LatentRegularizer(C, K)
    with pytest.raises(ValueError, match="channels"):
        regularizer(source[:, 1:], labels, target, logits)
    with pytest.raises(ValueError, match="source_labels"):
        regularizer(source, labels[:1], target, logits)
    with pytest.raises(ValueError, match="target_logits"):
        regularizer(source, labels, target, logits[:, 1:])
    with pytest.raises(ValueError, match="devices"):
        regularizer(source, labels.to("meta"), target, logits)
    with pytest.raises(ValueError, match="mask"):
        regularizer(source, labels, target, logits, torch.ones(2, 3, 3, dtype=torch.bool))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("spread", [1e-3, 1e-4])
@pytest.mark.parametrize("fused", [False, True])
def test_tight_clusters_do_not_cancel(layout: torch.memory_format, spread: float, fused: bool) -> None:
    """Spread over norm of a thousandth and less, in float32: the expanded square would have no digit left."""
    regularizer, oracle = LatentRegularizer(3, 256, fused=fused), RegularizerOracle(3, 256)
    generator = torch.Generator().manual_seed(4)
    centres = torch.rand(3, 256, generator=generator) + 0.5
    for _ in range(2):
        labels = torch.randint(0, 3, (2, 5, 7), generator=generator)
        features = centres[labels].movedim(-1, 1) + spread * torch.randn(2, 256, 5, 7, generator=generator)
        features = features.contiguous(memory_format=layout).requires_grad_()
        exact = features.detach().double().requires_grad_()
        logits = 9 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
        found, expected = regularizer(features, labels, features, logits), oracle.step(exact, labels, exact, logits)
        for name in ("cluster_source", "cluster_target"):
            # the target is compared with prototypes that were rounded to float32 when they were kept
            close(found[name], expected[name], 1e-4)
        (one,) = torch.autograd.grad(found["cluster_source"], features, retain_graph=True)
        (two,) = torch.autograd.grad(expected["cluster_source"], exact, retain_graph=True)
        close(one, two, 3e-7 / spread)
