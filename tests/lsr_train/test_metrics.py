import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_confusion_matrix

from lsr_train.metrics import (
    ConfusionMatrix,
    agreement,
    iou,
    mean_adapted_to_supervised_ratio,
    mean_iou,
    standard_deviation,
)

# Table 1 of the paper, GTAV -> Cityscapes, IoU in per cent, classes in the order of Cityscapes' train ids
TARGET_ONLY = "96.5 73.8 88.4 42.2 43.7 40.7 46.1 58.6 88.5 54.9 91.9 68.7 46.2 90.7 68.8 69.9 48.8 47.6 64.5"
ASN_FEAT = "83.7 27.6 75.5 20.3 19.9 27.4 28.3 27.4 79.0 28.4 70.1 55.1 20.2 72.9 22.5 35.7 8.3 20.6 23.0"
MIN_ENT = "84.4 18.7 80.6 23.8 23.2 28.4 36.9 23.4 83.2 25.2 79.4 59.0 29.9 78.5 33.7 29.6 1.7 29.9 33.6"
SAPNET = "88.4 38.7 79.5 29.4 24.7 27.3 32.6 20.4 82.2 32.9 73.3 55.5 26.9 82.4 31.8 41.8 2.4 26.5 24.1"


def row(text: str) -> torch.Tensor:
    return torch.tensor([float(word) / 100 for word in text.split()], dtype=torch.float64)


def random_maps(seed: int, classes: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, shape, generator=generator)
    prediction = torch.randint(0, classes, shape, generator=generator)
    labels[torch.rand(shape, generator=generator) < 0.2] = 255
    return labels, prediction


def counted(labels: torch.Tensor, prediction: torch.Tensor, classes: int) -> ConfusionMatrix:
    confusion = ConfusionMatrix(classes)
    confusion.update(labels, prediction)
    return confusion


@pytest.mark.parametrize("shape", [(2, 7, 9), (1, 1, 1), (50,)])
@pytest.mark.parametrize("kind", [torch.uint8, torch.int64])
def test_confusion_matrix_equals_torchmetrics(shape: tuple[int, ...], kind: torch.dtype) -> None:
    labels, prediction = random_maps(3, 5, shape)
    expected = multiclass_confusion_matrix(prediction, labels, num_classes=5, ignore_index=255)
    confusion = counted(labels.to(kind), prediction.to(kind), 5)
    assert torch.equal(confusion.matrix, expected)
    assert confusion.void == int((labels == 255).sum())


def test_counts_add_up_over_updates_and_merges() -> None:
    labels, prediction = random_maps(4, 6, (4, 8, 8))
    whole = counted(labels, prediction, 6)
    halves = counted(labels[:2], prediction[:2], 6)
    halves.merge(counted(labels[2:], prediction[2:], 6))
    assert torch.equal(whole.matrix, halves.matrix)
    assert whole.void == halves.void


def test_strided_input_and_the_callers_arrays_stay() -> None:
    labels, prediction = random_maps(5, 4, (6, 10))
    before = labels.clone(), prediction.clone()
    assert torch.equal(counted(labels.T, prediction.T, 4).matrix, counted(labels, prediction, 4).matrix)
    assert torch.equal(labels, before[0])
    assert torch.equal(prediction, before[1])


def test_matrix_is_a_copy() -> None:
    confusion = counted(torch.tensor([0]), torch.tensor([0]), 2)
    confusion.matrix.zero_()
    assert confusion.matrix.sum() == 1


def test_values_outside_are_found() -> None:
    for labels, prediction in (([2], [0]), ([0], [2]), ([-1], [0]), ([254], [0]), ([0], [255])):
        with pytest.raises(ValueError, match="1 pixels had"):
            _ = counted(torch.tensor(labels), torch.tensor(prediction), 2).matrix


def test_prediction_under_void_does_not_matter() -> None:
    assert counted(torch.tensor([255, 0]), torch.tensor([99, 0]), 2).matrix.tolist() == [[1, 0], [0, 0]]


def test_wrong_input_raises() -> None:
    with pytest.raises(ValueError, match="shape"):
        ConfusionMatrix(2).update(torch.zeros(3, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="integer"):
        ConfusionMatrix(2).update(torch.zeros(3), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="num_classes"):
        ConfusionMatrix(0)
    with pytest.raises(ValueError, match="merge"):
        ConfusionMatrix(2).merge(ConfusionMatrix(3))
    with pytest.raises(ValueError, match="square"):
        iou(torch.zeros(2, 3))


def test_iou_by_hand() -> None:
    # truth 0: 3 right, 1 taken for 1; truth 1: 2 right; class 2 never occurs
    matrix = torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    values = iou(matrix)
    assert values[:2].tolist() == pytest.approx([3 / 4, 2 / 3])
    assert values[2].isnan()
    assert mean_iou(values) == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert mean_iou(values, (0, 2)) == pytest.approx(3 / 4)
    assert math.isnan(mean_iou(values, (2,)))
    assert standard_deviation(values) == pytest.approx((3 / 4 - 2 / 3) / 2)
    assert agreement(matrix) == pytest.approx((3 / 4 + 2 / 3) / 3)


def test_a_class_predicted_but_never_labelled_counts_as_zero() -> None:
    values = iou(torch.tensor([[3, 1], [0, 0]]))
    assert values.tolist() == [3 / 4, 0]


def test_agreement_of_constant_predictions_is_one_over_c() -> None:
    zeros = torch.zeros(4, 4, dtype=torch.int64)
    assert agreement(counted(zeros, zeros, 19).matrix) == pytest.approx(1 / 19)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), classes=st.integers(1, 8))
def test_renumbering_the_classes_changes_only_their_order(seed: int, classes: int) -> None:
    labels, prediction = random_maps(seed, classes, (5, 7))
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    table = torch.full((256,), 255)
    table[:classes] = order
    first = iou(counted(labels, prediction, classes).matrix)
    second = iou(counted(table[labels], table[prediction], classes).matrix)
    assert torch.allclose(first, second[order], equal_nan=True)


@pytest.mark.parametrize(("name", "masr"), [(ASN_FEAT, 56.9), (MIN_ENT, 61.9), (SAPNET, 63.1)])
def test_the_papers_printed_masr(name: str, masr: float) -> None:
    result = mean_adapted_to_supervised_ratio(row(name), row(TARGET_ONLY))
    assert round(100 * result.value, 1) == pytest.approx(masr, abs=0.1 + 1e-9)
    assert result.left_out == ()
    assert result.unstable == ()


@pytest.mark.parametrize(("name", "miou"), [(MIN_ENT, 42.3), (SAPNET, 43.2), (TARGET_ONLY, 64.8)])
def test_the_papers_printed_miou(name: str, miou: float) -> None:
    assert round(100 * mean_iou(row(name)), 1) == pytest.approx(miou, abs=0.1 + 1e-9)


def test_masr_leaves_out_and_names() -> None:
    nan = float("nan")
    adapted = torch.tensor([0.4, 0.1, 0.2, 0.03, nan])
    supervised = torch.tensor([0.8, 0.0, nan, 0.04, 0.5])
    plain = mean_adapted_to_supervised_ratio(adapted, supervised)
    assert plain.value == pytest.approx((0.5 + 0.75) / 2)
    assert plain.left_out == (1, 2, 4)
    assert plain.unstable == (3,)
    assert [None if value is None else round(value, 6) for value in plain.ratio] == [0.5, None, None, 0.75, None]
    floored = mean_adapted_to_supervised_ratio(adapted, supervised, 0.05)
    assert floored.value == pytest.approx(0.5)
    assert floored.left_out == (1, 2, 3, 4)
    assert floored.unstable == ()
    assert mean_adapted_to_supervised_ratio(adapted, supervised, subset=(3,)).value == pytest.approx(0.75)
    assert math.isnan(mean_adapted_to_supervised_ratio(adapted, supervised, subset=(1,)).value)


def test_masr_of_itself_is_one_and_wrong_input_raises() -> None:
    values = row(TARGET_ONLY)
    assert mean_adapted_to_supervised_ratio(values, values).value == pytest.approx(1)
    with pytest.raises(ValueError, match="cannot be compared"):
        mean_adapted_to_supervised_ratio(values, values[:3])
    with pytest.raises(ValueError, match="floor"):
        mean_adapted_to_supervised_ratio(values, values, -1.0)
