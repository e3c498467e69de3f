"""Parity figures against counting by hand, and a gate that is seen to close."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsr_infer.errors import InputError, QualityGateError, UsageError
from lsr_infer.manifest.records import Parity
from lsr_infer.parity.meter import BARS, Bar, ParityMeter, bar_for, check_bar
from lsr_infer.render.masks import interpolate
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


def iou_oracle(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[int, float]:
    truth = np.concatenate([t[t != 255] for t, _ in pairs])
    found = np.concatenate([p[t != 255] for t, p in pairs])
    ious = {}
    for c in range(3):
        union = ((truth == c) | (found == c)).sum()
        if union:
            ious[c] = float(((truth == c) & (found == c)).sum() / union)
    return ious


def miou_oracle(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    return float(np.mean(list(iou_oracle(pairs).values())))


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
    before, after = (iou_oracle([(d[4], d[n]) for d in data]) for n in (2, 3))
    assert parity.class_iou_difference == pytest.approx({SPACE.names[c]: after[c] - before[c] for c in before})
    assert "points" in parity.worst_class()
    assert "mean IoU" in parity.describe()


def test_a_candidate_of_classes_alone_has_clear_pixels_too() -> None:
    """Judged where it decides: at the pixels of the interpolated reference logits."""
    rng = np.random.default_rng(5)
    logits = rng.normal(scale=2, size=(3, 4, 5)).astype(np.float32)
    full = interpolate(logits, 20, 30)
    expected = full.argmax(0).astype(np.uint8)
    found = np.where(rng.random(expected.shape) < 0.2, (expected + 1) % 3, expected).astype(np.uint8)
    meter = ParityMeter(SPACE, margin=0.5)
    meter.update(logits, None, expected, found)
    parity = meter.result(reference="checkpoint", frames_from="made up")
    top = np.sort(full, axis=0)
    clear = top[-1] - top[-2] >= 0.5
    assert 0 < clear.mean() < 1
    assert parity.clear_agreement == pytest.approx((expected == found)[clear].mean())
    assert parity.max_logit_difference is None
    check_bar(parity, Bar(agreement=0.7, clear_agreement=0.7))
    with pytest.raises(QualityGateError, match="clear places"):
        check_bar(parity, Bar(agreement=None, clear_agreement=0.95))


def test_two_that_give_classes_alone_can_be_compared() -> None:
    classes = np.array([[0, 1], [2, 2]], np.uint8)
    meter = ParityMeter(SPACE)
    meter.update(None, None, classes, classes[::-1])
    parity = meter.result(reference="ONNX file", frames_from="made up")
    assert (parity.agreement, parity.clear_agreement, parity.max_logit_difference) == (0.0, None, None)
    with pytest.raises(ValueError, match="need those of the reference"):
        ParityMeter(SPACE).update(None, np.zeros((3, 2, 2), np.float32), classes, classes)


def test_a_gate_that_compared_nothing_is_closed() -> None:
    parity = ParityMeter(SPACE).result(reference="checkpoint", frames_from="nothing")
    for bar in (*BARS.values(), Bar(agreement=None)):
        with pytest.raises(QualityGateError, match="nothing is proved"):
            check_bar(parity, bar)


def test_equal_passes_and_drift_does_not() -> None:
    check_bar(measured(1, 0.0)[0], BARS["fp32"])
    with pytest.raises(QualityGateError, match="% of the pixels") as caught:
        check_bar(measured(1, 0.5)[0], BARS["fp32"])
    assert "drifts most" in str(caught.value)
    with pytest.raises(QualityGateError, match="clear places"):
        check_bar(measured(1, 3.0)[0], BARS["int8"])
    parity, _ = measured(1, 3.0)
    assert parity.miou is not None
    assert parity.miou_reference is not None
    worse = 100 * (parity.miou_reference - parity.miou)
    check_bar(parity, Bar(agreement=None, miou_loss=worse + 0.01))
    with pytest.raises(QualityGateError, match="mean IoU falls"):
        check_bar(parity, Bar(agreement=None, miou_loss=worse - 0.01))


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
        check_bar(parity, BARS["fp32"])


@settings(deadline=None)
@given(st.integers(0, 50), st.booleans())
def test_round_trip(seed: int, labels: bool) -> None:
    parity, _ = measured(seed, 0.3, labels=labels)
    assert Parity.from_dict(parity.to_dict()) == parity
    assert (parity.miou is None) is not labels
    assert bool(parity.class_iou_difference) is labels


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


def test_a_gate_does_not_judge_by_next_to_nothing() -> None:
    meter = ParityMeter(SPACE)
    reference = np.zeros((3, 20, 20), np.float32)
    reference[0] = 0.1
    reference[0, 0, 0] = 9.0
    candidate = -reference
    candidate[:, 0, 0] = reference[:, 0, 0]
    meter.update(reference, candidate, reference.argmax(0).astype(np.uint8), candidate.argmax(0).astype(np.uint8))
    parity = meter.result(reference="checkpoint", frames_from="noise")
    assert parity.clear_agreement == 1.0
    assert parity.clear_share == 1 / 400
    with pytest.raises(QualityGateError, match=r"0\.25 % of the places are clear"):
        check_bar(parity, BARS["int8"])


def test_labels_without_a_labelled_pixel_prove_nothing() -> None:
    meter = ParityMeter(SPACE)
    logits = np.eye(3, dtype=np.float32)[:, :, None].repeat(3, axis=2)
    classes = logits.argmax(0).astype(np.uint8)
    meter.update(logits, logits, classes, classes, np.full((3, 3), 255, np.uint8))
    with pytest.raises(QualityGateError, match="not a pixel of the labels"):
        meter.result(reference="checkpoint", frames_from="void")


@pytest.mark.parametrize("precision", list(BARS))
def test_a_bar_is_the_precisions_own_where_nothing_is_asked(precision: str) -> None:
    assert bar_for(precision, agreement=None, clear_agreement=None, margin=None, miou_loss=None) == BARS[precision]


def test_a_bar_takes_what_is_asked_within_its_limits() -> None:
    changed = bar_for("int8", agreement=0.5, clear_agreement=0.95, margin=0.0, miou_loss=2.5)
    assert changed == Bar(agreement=0.5, clear_agreement=0.95, clear_share=0.05, margin=0.0, miou_loss=2.5)
    for name, values in {
        "agreement": (0.0, 1.1, float("nan")),
        "clear_agreement": (-0.1, 2.0),
        "margin": (-1.0, float("inf"), float("nan")),
        "miou_loss": (-1.0, 101.0),
    }.items():
        for value in values:
            with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} is {value}; allowed"):
                bar_for("fp32", **{name: value})
