"""Parity figures against counting by hand, and a gate that is seen to close."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsr_infer.errors import InputError, QualityGateError
from lsr_infer.parity import BARS, Bar, Parity, ParityMeter
from tests.lsr_infer.onnxfile import SPACE


def measured(seed: int, noise: float, *, frames: int = 3, labels: bool = True) -> tuple[Parity, list[tuple[Any, ...]]]:
    rng = np.random.default_rng(seed)
    meter = ParityMeter(SPACE, margin=0.5)
    data = []
    for _ in range(frames):
        one = rng.normal(size=(3, 5, 6)).astype(np.float32)
        other = one + rng.normal(scale=noise, size=one.shape).astype(np.float32)
        truth = rng.choice([0, 1, 2, 255], size=(5, 6)).astype(np.uint8)
        classes = one.argmax(0).astype(np.uint8), other.argmax(0).astype(np.uint8)
        meter.update(one, other, *classes, truth if labels else None)
        data.append((one, other, *classes, truth))
    return meter.result(reference="checkpoint", frames_from="made up"), data


def miou_oracle(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    truth = np.concatenate([t[t != 255] for t, _ in pairs])
    found = np.concatenate([p[t != 255] for t, p in pairs])
    ious = []
    for c in range(3):
        union = ((truth == c) | (found == c)).sum()
        if union:
            ious.append(((truth == c) & (found == c)).sum() / union)
    return float(np.mean(ious))


def test_figures_are_what_counting_gives() -> None:
    parity, data = measured(3, 0.6)
    one, other = np.stack([d[0] for d in data]), np.stack([d[1] for d in data])
    classes, others = np.stack([d[2] for d in data]), np.stack([d[3] for d in data])
    assert parity.frames == 3
    assert parity.pixels == classes.size
    assert parity.agreement == pytest.approx((classes == others).mean())
    assert parity.max_logit_difference == pytest.approx(np.abs(one - other).max(), rel=1e-6)
    assert parity.mean_logit_difference == pytest.approx(np.abs(one - other).mean(), rel=1e-5)
    top = np.sort(one, axis=1)
    clear = top[:, -1] - top[:, -2] >= 0.5
    assert parity.clear_agreement == pytest.approx((classes == others)[clear].mean())
    for c, name in enumerate(SPACE.names):
        assert parity.class_agreement[name] == pytest.approx((others == c)[classes == c].mean())
    assert parity.worst_class().startswith(min(parity.class_agreement, key=lambda key: parity.class_agreement[key]))
    assert parity.miou_reference == pytest.approx(miou_oracle([(d[4], d[2]) for d in data]))
    assert parity.miou == pytest.approx(miou_oracle([(d[4], d[3]) for d in data]))


def test_a_gate_that_compared_nothing_is_closed() -> None:
    parity = ParityMeter(SPACE).result(reference="checkpoint", frames_from="nothing")
    for bar in (*BARS.values(), Bar(agreement=None)):
        with pytest.raises(QualityGateError, match="nothing is proved"):
            parity.check(bar)


def test_equal_passes_and_drift_does_not() -> None:
    measured(1, 0.0)[0].check(BARS["fp32"])
    with pytest.raises(QualityGateError, match="% of the pixels") as caught:
        measured(1, 0.5)[0].check(BARS["fp32"])
    assert "drifts most" in str(caught.value)
    with pytest.raises(QualityGateError, match="clear pixels"):
        measured(1, 3.0)[0].check(BARS["int8"])
    parity, _ = measured(1, 3.0)
    assert parity.miou is not None
    assert parity.miou_reference is not None
    worse = 100 * (parity.miou_reference - parity.miou)
    parity.check(Bar(agreement=None, miou_loss=worse + 0.01))
    with pytest.raises(QualityGateError, match="mean IoU falls"):
        parity.check(Bar(agreement=None, miou_loss=worse - 0.01))


def test_what_is_not_finite_does_not_pass() -> None:
    logits = np.zeros((3, 2, 2), np.float32)
    broken = logits.copy()
    broken[1, 0, 1] = np.nan
    classes = np.zeros((2, 2), np.uint8)
    meter = ParityMeter(SPACE)
    meter.update(logits, broken, classes, classes)
    meter.update(logits, logits, classes, classes)
    parity = meter.result(reference="checkpoint", frames_from="made up")
    assert np.isnan(parity.max_logit_difference)
    with pytest.raises(QualityGateError, match="not finite"):
        parity.check(BARS["fp32"])


@settings(deadline=None)
@given(st.integers(0, 50), st.booleans())
def test_round_trip(seed: int, labels: bool) -> None:
    parity, _ = measured(seed, 0.3, labels=labels)
    assert Parity.from_dict(parity.to_dict()) == parity
    assert (parity.miou is None) is not labels


def test_damaged_figures_and_shapes() -> None:
    for wrong in ({}, {"reference": 1}, measured(0, 0.1)[0].to_dict() | {"frames": "x"}):
        with pytest.raises(InputError):
            Parity.from_dict(wrong)
    meter = ParityMeter(SPACE)
    logits, classes = np.zeros((3, 2, 2), np.float32), np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match="logits"):
        meter.update(logits, logits[:2], classes, classes)
    with pytest.raises(ValueError, match="differ in size"):
        meter.update(logits, logits, classes, classes[:2])
    with pytest.raises(ValueError, match="not among"):
        meter.update(logits, logits, classes, classes + 7)
