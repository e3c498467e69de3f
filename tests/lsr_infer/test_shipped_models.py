"""The networks of the package: small, what they say they are, and better after adaptation."""

import json
from pathlib import Path

import numpy as np
import pytest

import lsr_infer
from lsr_infer.cli import main
from lsr_infer.parity.frame_set import shipped_frames
from lsr_infer.parity.meter import BARS, check_bar
from lsr_infer.segmenter import Segmenter

MODELS = Path(lsr_infer.__file__).parent / "models"
NAMES = ("street-source", "street", "toytown-source", "toytown")


def mean_iou(name: str, domain: slice) -> float:
    """Over the frames of one domain, of the classes that are labelled or found."""
    matrix = np.zeros((19, 19), dtype=np.int64)
    found = shipped_frames(12)
    with Segmenter(MODELS / f"{name}.onnx", device="cpu") as segmenter:
        for frame, labels in list(found.pairs())[domain]:
            assert labels is not None
            kept = labels != 255
            np.add.at(matrix, (labels[kept], segmenter(frame).classes[kept]), 1)
    hit, union = np.diag(matrix), matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    return float((hit[union > 0] / union[union > 0]).mean())


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_network_is_small_and_was_compared(name: str) -> None:
    path = MODELS / f"{name}.onnx"
    assert path.stat().st_size <= 5_000_000
    with Segmenter(path, device="cpu") as segmenter:
        manifest = segmenter.manifest
    assert manifest.label_space.num_classes == 19
    assert manifest.precision in ("fp16", "int8")
    assert manifest.parity is not None
    check_bar(manifest.parity, BARS[manifest.precision])
    assert manifest.licence
    assert manifest.intended_use


def test_adaptation_helps_where_it_was_meant_to() -> None:
    camera = slice(0, 6)  # the names of the camera's frames come first
    assert mean_iou("toytown", camera) > mean_iou("toytown-source", camera) + 0.1


def test_without_a_model_the_command_says_what_it_uses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    frames = MODELS / "toytown" / "images"
    with caplog.at_level("INFO"):
        assert main([str(frames), "--output", str(tmp_path / "out"), "--save", "mask", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"] == "street.onnx"
    assert document["done"] == 12
    assert "never saw your camera" in caplog.text
