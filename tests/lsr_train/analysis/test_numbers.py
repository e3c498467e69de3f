"""The counts of a network, against sums written out by hand."""

import math

import numpy as np
import pytest
import torch

from lsr_infer.io.images import resize_frame, resize_labels
from lsr_infer.labelspace import LabelSpace
from lsr_train.analysis.numbers import band_iou, embed, inter_prototype_angles, polar, reliability, summary
from lsr_train.analysis.observation import BANDS, BINS, BalancedSample, Observation, border_distance, observe
from lsr_train.data.samples import LabelledSample
from lsr_train.evaluation.scores import in_eval_mode
from lsr_train.latent import histogram_downsample, nearest_downsample, pseudo_labels
from lsr_train.losses.pixel import upsample
from lsr_train.network import DeepLabV2, NetworkSpec

SPACE = LabelSpace(name="three", names=("a", "b", "c"), colors=((255, 0, 0), (0, 255, 0), (0, 0, 255)))
SIZE = (48, 64)
Frames = list[LabelledSample]


@pytest.fixture(scope="module")
def network() -> DeepLabV2:
    torch.manual_seed(0)
    spec = NetworkSpec(backbone="resnet18", width=0.125, num_classes=3, output_stride=16, dilations=(1, 2))
    return DeepLabV2(spec)


@pytest.fixture(scope="module")
def frames() -> Frames:
    rng = np.random.default_rng(0)
    found: Frames = []
    for index in range(3):
        labels = np.kron(rng.choice([0, 1, 2, 255], (6, 8), p=[0.5, 0.3, 0.15, 0.05]), np.ones((13, 11))).astype(
            np.uint8
        )
        frame = rng.integers(0, 256, (*labels.shape, 3), dtype=np.uint8)
        found.append(LabelledSample(frame=frame, labels=labels, file=f"{index}"))
    return found


@pytest.fixture(scope="module")
def seen(network: DeepLabV2, frames: Frames) -> Observation:
    return observe(network, frames, SPACE, SIZE, confidence=0.34, per_class=7, shown={1})


def test_pixels_are_counted_as_by_hand(network: DeepLabV2, frames: Frames, seen: Observation) -> None:
    matrix = np.zeros((len(BANDS) + 1, 3, 3), int)
    bins = np.zeros((3, BINS))
    with in_eval_mode(network):
        for frame, labels in ((sample.frame, sample.labels) for sample in frames):
            fed = torch.from_numpy(resize_frame(frame, *SIZE))[None]
            probability = upsample(network(network.normalize(fed)).logits, labels.shape).softmax(dim=1)[0].numpy()
            predicted, sure = probability.argmax(0), probability.max(0)
            distance = border_distance(labels)
            for y, x in np.ndindex(*labels.shape):
                if labels[y, x] == 255:
                    continue
                band = next((i for i, end in enumerate(BANDS) if distance[y, x] <= end), len(BANDS))
                matrix[band, labels[y, x], predicted[y, x]] += 1
                index = min(int(sure[y, x] * BINS), BINS - 1)
                bins[:, index] += (1, predicted[y, x] == labels[y, x], sure[y, x])
    assert seen.frames == 3
    assert seen.confusion.tolist() == matrix.tolist()
    assert seen.bin_right.sum() == bins[1].sum()
    assert np.abs(seen.bin_count.numpy() - bins[0]).sum() <= 2  # a confidence on the edge of two bins may round
    error = np.abs(bins[1] - bins[2]).sum() / bins[0].sum()
    assert seen.expected_calibration_error == pytest.approx(error, abs=1e-4)
    confidence, accuracy = reliability(seen)
    filled = seen.bin_count > 0
    assert torch.isnan(confidence).tolist() == (~filled).tolist()
    assert ((accuracy[filled] >= 0) & (accuracy[filled] <= 1)).all()
    edges = torch.arange(BINS) / BINS
    assert ((confidence >= edges - 1e-6) & (confidence <= edges + 1 / BINS + 1e-6))[filled].all()


def test_cells_are_counted_as_by_hand(network: DeepLabV2, frames: Frames, seen: Observation) -> None:
    nearest, voted, kept, right, covered = (torch.zeros(3, dtype=torch.int64) for _ in range(5))
    sums = torch.zeros(3, network.feature_channels, dtype=torch.float64)
    with in_eval_mode(network):
        for frame, labels in ((sample.frame, sample.labels) for sample in frames):
            fed = torch.from_numpy(resize_frame(frame, *SIZE))[None]
            output = network(network.normalize(fed))
            size = output.features.shape[-2:]
            truth = torch.from_numpy(resize_labels(labels, *SIZE)).long()[None]
            plain, paper = nearest_downsample(truth, size, 3)[0], histogram_downsample(truth, size, 3)[0]
            pseudo = pseudo_labels(upsample(output.logits, SIZE), size, confidence=0.34)[0]
            for y, x in np.ndindex(*size):
                if plain[y, x] != 255:
                    nearest[plain[y, x]] += 1
                if paper[y, x] == 255:
                    continue
                voted[paper[y, x]] += 1
                sums[paper[y, x]] += output.features[0, :, y, x].double()
                if pseudo[y, x] != 255:
                    kept[pseudo[y, x]] += 1
                    covered[paper[y, x]] += 1
                    right[paper[y, x]] += pseudo[y, x] == paper[y, x]
    assert seen.nearest[:-1].tolist() == nearest.tolist()
    assert seen.cells.tolist() == voted.tolist()
    assert (seen.pseudo.tolist(), seen.covered.tolist()) == (kept.tolist(), covered.tolist())
    assert seen.pseudo_right.tolist() == right.tolist()
    torch.testing.assert_close(seen.sums, sums, rtol=1e-5, atol=1e-5)
    means = [total / count for total, count in zip(sums, voted.tolist(), strict=True)]

    def angle(one: torch.Tensor, other: torch.Tensor) -> float:
        return math.degrees(math.acos(min(1.0, float(one @ other / one.norm() / other.norm()))))

    expected = [sum(angle(means[i], means[j]) for j in range(3) if j != i) / 2 for i in range(3)]
    assert inter_prototype_angles(seen).tolist() == pytest.approx(expected, abs=1e-3)
    spread = polar(seen)
    assert len(spread.norms) == len(seen.feature_labels)
    assert spread.angles[0] == pytest.approx(angle(seen.features[0].double(), means[seen.feature_labels[0]]), abs=1e-3)
    low, middle, high = np.quantile(spread.norms.numpy(), [0.025, 0.5, 0.975])
    assert (spread.low, spread.median, spread.high) == pytest.approx((low, middle, high))


def test_the_network_is_left_as_it_was_and_pictures_are_those_asked_for(seen: Observation, network: DeepLabV2) -> None:
    assert network.training
    (picture,) = seen.shown
    assert picture.file == "1"
    assert picture.classes.shape == picture.labels.shape
    assert (seen.feature_labels.bincount(minlength=3) <= 7).all()


def test_the_summary_is_plain_and_complete(seen: Observation) -> None:
    document = summary(seen)
    assert document["frames"] == 3
    assert set(document["iou"]) == set(SPACE.names)
    assert sum(document["share_of_pixels"].values()) == pytest.approx(1, abs=1e-5)
    assert document["borders"]["pixels_up_to"] == [*BANDS, None]
    assert 0 <= document["calibration"]["ece"] <= 1
    assert document["angle_between_prototypes"]["mean"] == pytest.approx(float(inter_prototype_angles(seen).mean()))


def test_no_frame(network: DeepLabV2) -> None:
    with pytest.raises(ValueError, match="no frame"):
        observe(network, [], SPACE, SIZE)


def test_a_class_without_a_cell_has_no_angle() -> None:
    empty = Observation.empty(SPACE, 2)
    empty.histogram += torch.tensor([1, 1, 0, 0])
    empty.sums += torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert inter_prototype_angles(empty)[:2].tolist() == pytest.approx([45, 45])
    assert math.isnan(inter_prototype_angles(empty)[2])
    assert torch.isnan(band_iou(empty)).all()


def test_border_distance() -> None:
    labels = np.zeros((5, 12), np.uint8)
    labels[:, 6:] = 1
    assert border_distance(labels)[2].tolist() == [5, 4, 3, 2, 1, 0, 0, 1, 2, 3, 4, 5]
    assert np.isinf(border_distance(np.zeros((4, 4), np.uint8))).all()


def test_the_sample_is_balanced_uniform_and_repeatable() -> None:
    vectors = torch.arange(1000.0)[:, None]
    labels = torch.where(torch.arange(1000) < 30, 0, 1)
    labels[500] = 255

    def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        sample = BalancedSample(3, 100, seed)
        for start in range(0, 1000, 130):
            sample.add(vectors[start : start + 130], labels[start : start + 130])
        return sample.take()

    found, classes = drawn(0)
    assert classes.bincount().tolist() == [30, 100]
    assert sorted(found[classes == 0].flatten().tolist()) == list(range(30))
    assert 500 not in found
    assert torch.equal(drawn(0)[0], found)
    means = [float(drawn(seed)[0][30:].mean()) for seed in range(40)]
    assert sum(means) / 40 == pytest.approx((30 + 999) / 2, abs=15)  # standard error 4.4


def test_an_embedding_keeps_far_clusters_apart_whatever_their_norms() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.eye(3, 20).repeat_interleave(30, 0) + 0.05 * torch.randn(90, 20, generator=generator)
    norms = torch.rand(90, 1, generator=generator) * 100 + 0.1
    points = embed(directions * norms)
    assert points.shape == (90, 2)
    for index in range(3):
        mine, others = points[30 * index : 30 * index + 30], np.delete(points, slice(30 * index, 30 * index + 30), 0)
        inner = np.linalg.norm(mine - mine.mean(0), axis=1).max()
        assert np.linalg.norm(others - mine.mean(0), axis=1).min() > inner
    with pytest.raises(ValueError, match="too few"):
        embed(directions[:2])
