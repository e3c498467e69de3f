import copy
import io
import pickle

import pytest
import torch

from lsr_train.latent import Prototypes
from tests.lsr_train.latent import oracles
from tests.lsr_train.latent.cases import CASES, Case
from tests.lsr_train.latent.refused import NoWaiting
from tests.lsr_train.latent.tolerances import RELATIVE, close


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("init", ["first", "zero"])
@pytest.mark.parametrize("dtype", RELATIVE, ids=str)
def test_equals_oracle_over_steps(case: Case, init: str, dtype: torch.dtype) -> None:
    prototypes = Prototypes(case.num_classes, case.shape[1], init=init)
    if dtype == torch.float64:
        prototypes.double()
    mean, seen = torch.zeros(case.num_classes, case.shape[1], dtype=torch.float64), [False] * case.num_classes
    for step in range(3):
        features, labels = case.features(step, dtype), case.labels(step)
        if step == 1 and case.num_classes > 1:
            labels[labels == 1] = 255  # a class that was there is absent: it keeps its estimate
        batch_mean, present = prototypes.update(features, labels)
        expected, there = oracles.batch_mean_oracle(features.double(), labels, case.num_classes)
        mean, seen = oracles.smoothing_oracle(mean, seen, expected, there, 0.8, init)
        close(batch_mean, expected, RELATIVE[dtype])
        assert present.tolist() == there
        close(prototypes.mean, mean, RELATIVE[dtype])
        assert prototypes.seen.tolist() == seen


def test_eval_moves_nothing() -> None:
    case = CASES[0]
    prototypes = Prototypes(4, 5)
    prototypes.update(case.features(), case.labels())
    before = copy.deepcopy(prototypes.state_dict())
    prototypes.eval()
    mean, present = prototypes.update(case.features(9), case.labels(8))
    assert all(torch.equal(before[name], value) for name, value in prototypes.state_dict().items())
    close(mean, oracles.batch_mean_oracle(case.features(9).double(), case.labels(8), 4)[0], 1e-5)
    assert present.any()


def test_gradient_is_that_of_the_mean() -> None:
    case = Case("small", (2, 3, 2, 3), 3)
    labels = case.labels()
    features = case.features(dtype=torch.float64).requires_grad_()
    prototypes = Prototypes(3, 3)
    assert torch.autograd.gradcheck(lambda f: prototypes.update(f, labels)[0], (features,))


def test_no_graph_and_no_caller_memory_is_kept() -> None:
    case = CASES[0]
    prototypes = Prototypes(4, 5)
    features = case.features().requires_grad_()
    mean, _ = prototypes.update(features, case.labels())
    assert mean.requires_grad
    assert not prototypes.mean.requires_grad
    kept = prototypes.mean.clone()
    with torch.no_grad():
        features.zero_()
        mean.zero_()
    assert torch.equal(prototypes.mean, kept)


def test_two_forwards_before_a_backward() -> None:
    case = CASES[0]
    prototypes = Prototypes(4, 5)
    first = case.features().requires_grad_()
    one, _ = prototypes.update(first, case.labels())
    two, _ = prototypes.update(case.features(5), case.labels(3))
    (one.sum() + two.sum()).backward()
    assert first.grad is not None


def test_state_travels() -> None:
    case = CASES[0]
    prototypes = Prototypes(4, 5)
    prototypes.update(case.features(), case.labels())
    buffer = io.BytesIO()
    torch.save(prototypes.state_dict(), buffer)
    buffer.seek(0)
    other = Prototypes(4, 5)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    for twin in (other, copy.deepcopy(prototypes), pickle.loads(pickle.dumps(prototypes))):
        twin.update(case.features(4), case.labels(4))
    prototypes.update(case.features(4), case.labels(4))
    assert torch.equal(other.mean, prototypes.mean)
    assert set(prototypes.state_dict()) == {"mean", "seen"}


def test_never_waits() -> None:
    case = CASES[0]
    prototypes, features, labels = Prototypes(4, 5), case.features().requires_grad_(), case.labels()
    with NoWaiting():
        prototypes.update(features, labels)[0].sum().backward()


def test_compiles_whole() -> None:
    torch._dynamo.reset()
    case = Case("to compile", (2, 5, 3, 7), 4)
    one, two = Prototypes(4, 5), Prototypes(4, 5)
    compiled = torch.compile(two.update, fullgraph=True, backend="aot_eager")
    for step in range(2):
        expected = one.update(case.features(step), case.labels(step))
        found = compiled(case.features(step), case.labels(step))
        close(found[0], expected[0], 1e-5)
        close(two.mean, one.mean, 1e-5)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="decay"):
        Prototypes(3, 4, decay=1.0)
    with pytest.raises(ValueError, match="init"):
        Prototypes(3, 4, init="last")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        Prototypes(0, 4)
    with pytest.raises(ValueError, match="channels"):
        Prototypes(4, 6).update(CASES[0].features(), CASES[0].labels())
    with pytest.raises(ValueError, match="int64"):
        Prototypes(4, 5).update(CASES[0].features(), CASES[0].labels().int())
