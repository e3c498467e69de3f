import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from lsr_infer.io.images import resize_frame, resize_labels
from lsr_train.data.samples import LabelledSample
from lsr_train.evaluation.scores import EvaluationProtocol, NetworkPredictor, score, score_frames
from lsr_train.metrics import mean_iou
from tests.lsr_train.fake_network import ConvNetwork, PixelNetwork


def samples(count: int = 3, height: int = 20, width: int = 27, classes: int = 4) -> list[LabelledSample]:
    generator = np.random.default_rng(5)
    found = []
    for index in range(count):
        labels = generator.integers(0, classes, (height, width)).astype(np.uint8)
        labels[0, :5] = 255
        frame = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
        found.append(LabelledSample(frame=frame, labels=labels, file=f"frame{index}"))
    return found


def scene(frame: NDArray[np.uint8], labels: NDArray[np.uint8], file: str) -> LabelledSample:
    return LabelledSample(frame=frame, labels=labels, file=file)


def pixels(data: list[LabelledSample]) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    return [(sample.frame, sample.labels) for sample in data]


def exact(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a frame on which `PixelNetwork` predicts these labels."""
    return np.repeat(labels[..., None], 3, axis=2)


def matrix_oracle(pairs: list[tuple[NDArray[np.uint8], NDArray[np.int64]]], classes: int) -> NDArray[np.int64]:
    matrix = np.zeros((classes, classes), dtype=np.int64)
    for labels, prediction in pairs:
        for truth, guess in zip(labels.ravel().tolist(), prediction.ravel().tolist(), strict=True):
            if truth != 255:
                matrix[truth, guess] += 1
    return matrix


@torch.no_grad()
def view(network: ConvNetwork, frame: NDArray[np.uint8], fed: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
    image = network.normalize(torch.from_numpy(resize_frame(frame, *fed))[None])
    return functional.interpolate(network(image).logits, size, mode="bilinear", align_corners=True)[0]


def test_native_protocol_equals_its_oracle() -> None:
    network, data = ConvNetwork().eval(), samples()
    pairs = [(labels, view(network, frame, (16, 24), (20, 27)).argmax(0).numpy()) for frame, labels in pixels(data)]
    protocol = EvaluationProtocol(height=16, width=24)
    result = score(NetworkPredictor(network, protocol), data, 4)
    assert np.array_equal(result.matrix.numpy(), matrix_oracle(pairs, 4))
    assert (result.frames, result.void) == (3, 15)
    assert score_frames(network, data, (16, 24), 4) == mean_iou(result.iou)
    per_frame = [mean_iou(score(NetworkPredictor(network, protocol), [sample], 4).iou) for sample in data]
    assert [score for _, score in result.frame_miou] == per_frame
    assert mean_iou(result.iou) != pytest.approx(np.mean(per_frame), abs=1e-9)  # dataset-wide, no mean of means


def test_resized_protocol_resizes_the_labels() -> None:
    network, data = ConvNetwork().eval(), samples()
    pairs = [
        (resize_labels(labels, 16, 24), view(network, frame, (16, 24), (16, 24)).argmax(0).numpy())
        for frame, labels in pixels(data)
    ]
    protocol = EvaluationProtocol(kind="resized", height=16, width=24)
    result = score(NetworkPredictor(network, protocol), data, 4, resized=(16, 24))
    assert np.array_equal(result.matrix.numpy(), matrix_oracle(pairs, 4))


def test_several_views_average_their_softmax() -> None:
    network = ConvNetwork().eval()
    frame = samples(1)[0].frame
    views = []
    for fed in ((16, 24), (8, 12)):
        views.append(view(network, frame, fed, (20, 27)).softmax(0))
        mirrored = resize_frame(frame, *fed)[:, ::-1].copy()
        views.append(view(network, mirrored, fed, (20, 27)).softmax(0).flip(-1))
    expected = torch.stack(views).mean(0).argmax(0)
    protocol = EvaluationProtocol(height=16, width=24, scales=(1.0, 0.5), flip=True)
    assert torch.equal(NetworkPredictor(network, protocol)(frame, (20, 27)), expected)


def test_a_perfect_prediction_scores_one_and_flipping_changes_nothing() -> None:
    data: list[LabelledSample] = [scene(exact(item.labels), item.labels, item.file) for item in samples()]
    for flip in (False, True):
        protocol = EvaluationProtocol(height=20, width=27, flip=flip)
        predictor = NetworkPredictor(PixelNetwork(4), protocol)
        assert mean_iou(score(predictor, data, 4).iou) == 1


def test_worst_frames_come_worst_first() -> None:
    labels = samples(1)[0].labels
    data: list[LabelledSample] = []
    for wrong in (3, 0, 9, 5, 9):
        painted = labels.copy()
        painted[5 : 5 + wrong] = (painted[5 : 5 + wrong] + 1) % 4
        data.append(scene(exact(painted), labels, f"{wrong}-{len(data)}"))
    data.append(scene(exact(labels), np.full_like(labels, 255), "void"))
    predictor = NetworkPredictor(PixelNetwork(4), EvaluationProtocol(height=20, width=27))
    result = score(predictor, data, 4, worst=3)
    assert [scored.file for scored in result.worst] == ["9-2", "9-4", "5-3"]
    assert result.worst[0].miou == dict(result.frame_miou)["9-2"]
    assert np.array_equal(result.worst[0].classes[1:], data[2].frame[1:, :, 0])
    assert math.isnan(dict(result.frame_miou)["void"])
    assert score(predictor, data, 4).worst == ()


def test_predictions_are_relabelled() -> None:
    labels = samples(1)[0].labels
    table = np.full(256, 255, dtype=np.uint8)
    table[:4] = [0, 0, 1, 1]
    predictor = NetworkPredictor(PixelNetwork(4), EvaluationProtocol(height=20, width=27))
    result = score(predictor, [scene(exact(labels), table[labels], "a")], 2, relabel=table)
    assert result.iou.tolist() == [1, 1]


def test_errors_name_the_frame() -> None:
    first = samples(1)[0]
    predictor = NetworkPredictor(ConvNetwork(), EvaluationProtocol(height=16, width=24))
    with pytest.raises(ValueError, match="frame0: frame"):
        score(predictor, [replace(first, frame=first.frame[1:])], 4)
    with pytest.raises(ValueError, match=r"frame0: .*outside"):
        score(predictor, [first], 3)
    with pytest.raises(ValueError, match="no frame"):
        score(predictor, [], 4)


def test_an_error_while_reading_arrives() -> None:
    def broken() -> Iterator[LabelledSample]:
        yield samples(1)[0]
        raise OSError("unreadable")

    with pytest.raises(OSError, match="unreadable"):
        score(NetworkPredictor(ConvNetwork(), EvaluationProtocol(height=16, width=24)), broken(), 4)


def test_protocol_checks_and_describes_itself() -> None:
    for wrong in ({"height": 0}, {"scales": ()}, {"scales": (0.0,)}, {"kind": "other"}):
        with pytest.raises(ValueError, match=r"protocol|positive"):
            EvaluationProtocol(**({"height": 8, "width": 8} | wrong))
    text = EvaluationProtocol(height=512, width=1024, scales=(0.75, 1.0), flip=True).text
    assert "1024x512" in text
    assert "0.75, 1" in text
    assert "mirrored" in text
