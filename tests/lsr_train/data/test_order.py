"""Which image a sample is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsr_train.data.loading import EpochOrder, RareClassOrder, class_probabilities
from lsr_train.randomness import Stream, generator


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 50), st.integers(0, 2**31))
def test_an_epoch_shows_every_image_once(count: int, seed: int) -> None:
    order = EpochOrder(seed, Stream.SOURCE_ORDER, count)
    for epoch in range(3):
        assert sorted(order(epoch * count + place) for place in range(count)) == list(range(count))


def test_order_needs_no_history() -> None:
    numbers = np.random.default_rng(0).permutation(200)
    jumping, walking = (EpochOrder(7, Stream.TARGET_ORDER, 23) for _ in range(2))
    assert {int(n): jumping(int(n)) for n in numbers} == {n: walking(n) for n in range(200)}
    assert [walking(n) for n in range(23)] != [walking(n) for n in range(23, 46)]
    assert [walking(n) for n in range(23)] != [EpochOrder(8, Stream.TARGET_ORDER, 23)(n) for n in range(23)]
    assert [walking(n) for n in range(23)] != [EpochOrder(7, Stream.SOURCE_ORDER, 23)(n) for n in range(23)]


def test_no_two_streams_share_draws() -> None:
    draws = {generator(seed, stream, n).random() for seed in (0, 1, 2**31) for stream in Stream for n in (0, 1, 2**40)}
    assert len(draws) == 3 * len(Stream) * 3


def test_probabilities_are_the_softmax_of_rarity() -> None:
    counts = np.array([900, 90, 10, 0])
    frequency = counts / 1000
    expected = np.exp((1 - frequency[:3]) / 0.05)
    expected /= expected.sum()
    probabilities = class_probabilities(counts, 0.05)
    assert np.allclose(probabilities[:3], expected, rtol=1e-12)
    assert probabilities[3] == 0
    assert np.isfinite(class_probabilities(counts, 1e-6)).all(), "no overflow at small temperatures"


def test_rare_classes_are_drawn_as_often_as_they_shall_be() -> None:
    rng = np.random.default_rng(5)
    counts = np.zeros((40, 5), dtype=np.int64)
    counts[:, 0] = 10_000
    counts[:, 1] = rng.integers(0, 3000, 40)
    counts[3, 2] = 500
    counts[4, 2] = 5  # below a thousandth of its pixels
    counts[9, 4] = 1  # a class that is nowhere more than one pixel
    order = RareClassOrder(1, Stream.SOURCE_ORDER, counts, 0.3)
    drawn = np.bincount([order(n) for n in range(6000)], minlength=40)
    expected = np.zeros(40)
    probabilities = class_probabilities(counts.sum(axis=0), 0.3)
    images = {0: range(40), 1: np.flatnonzero(counts[:, 1] >= (counts.sum(axis=1) / 1000)), 2: [3], 4: [9]}
    for label, shown in images.items():
        expected[list(shown)] += probabilities[label] / len(shown)
    assert drawn.sum() == 6000
    assert np.abs(drawn / 6000 - expected).max() < 4 * np.sqrt(expected.max() / 6000)
    assert drawn[3] > 10 * drawn[4]
    assert [order(n) for n in (17, 3, 17)] == [
        RareClassOrder(1, Stream.SOURCE_ORDER, counts, 0.3)(n) for n in (17, 3, 17)
    ]


def test_one_image_is_always_that_image() -> None:
    assert {RareClassOrder(0, Stream.SOURCE_ORDER, np.array([[5, 0]]), 0.01)(n) for n in range(50)} == {0}


@pytest.mark.parametrize("temperature", [0.01, 1.0, 100.0])
def test_only_classes_that_are_there_are_drawn(temperature: float) -> None:
    counts = np.array([[0, 0, 7], [0, 3, 0]])
    order = RareClassOrder(0, Stream.SOURCE_ORDER, counts, temperature)
    drawn = {order(n) for n in range(200)}
    assert drawn == ({0, 1} if temperature >= 1 else {1}), "at .01 the commoner class is 40 e-folds rarer"
