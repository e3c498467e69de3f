"""Deep images of a data set are read alike by training, evaluation, calibration and the runtime."""

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.io.images import read_image
from lsr_infer.io.sources import find_sources
from lsr_infer.parity.frame_set import read_frame_set
from lsr_infer.pipeline.task import read_source_image
from lsr_train.config.data import SourceConfig, TargetConfig
from lsr_train.data import scan
from lsr_train.data.augmentation import lab_statistics
from lsr_train.data.footage import open_footage
from lsr_train.data.labelled import open_labelled
from lsr_train.data.labels import CITYSCAPES_19
from lsr_train.data.shares import reported_once

LEVELS = {"train": (12, 12, 250, 12), "val": (12, 20)}
"""The brightest level of each frame, of 8 bits."""


@pytest.fixture
def deep_folder(tmp_path: Path, write_labels: Callable[..., None]) -> Path:
    """A labelled folder of frames of 12 bits in 16, of which one alone is bright."""
    for split, levels in LEVELS.items():
        for index, level in enumerate(levels):
            frame = np.linspace(0, level << 4, 36 * 48 * 3).reshape(36, 48, 3).astype(np.uint16)
            path = tmp_path / f"deep/images/{split}/{split}{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), frame)
            write_labels(tmp_path / f"deep/labels/{split}/{split}{index}.png")
    return tmp_path / "deep"


def expected(path: Path) -> np.ndarray:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) >> 4, dtype=np.uint8)


@pytest.mark.parametrize("split", ["train", "val"])
def test_everybody_reads_a_folder_alike(deep_folder: Path, tmp_path: Path, split: str) -> None:
    files = sorted((deep_folder / "images" / split).iterdir())
    source = SourceConfig(root=str(deep_folder), split=split, ids="cityscapes-trainid", height=36, width=48)
    labelled = open_labelled(source, CITYSCAPES_19, cache=tmp_path / "cache")
    options = {"root": str(deep_folder), "split": split, "height": 36, "width": 48}
    footage = open_footage(TargetConfig(layout="folder", **options), cache=tmp_path / "cache")
    few = open_footage(TargetConfig(layout="folder", **options, limit=1))
    calibrating = read_frame_set(deep_folder, 9, split=split)
    found = {source.place: source for source in find_sources([str(deep_folder)]).sources}
    assert np.array_equal(few[0].frame, expected(Path(few[0].file)))
    for index, path in enumerate(files):
        right = expected(path)
        assert np.array_equal(labelled[index].frame, right)
        assert np.array_equal(footage[index].frame, right)
        assert np.array_equal(footage.lab()[index], lab_statistics(right))
        assert np.array_equal(calibrating.frames[index], right)
        assert np.array_equal(read_source_image(found[path], 1.0), right)


def test_what_is_known_of_a_set_follows_its_files(
    deep_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    target = TargetConfig(root=str(deep_folder / "images/val"), height=36, width=48)
    reads: list[Path] = []
    used_bits = scan.used_bits
    monkeypatch.setattr(scan, "used_bits", lambda path: reads.append(path) or used_bits(path))
    with caplog.at_level(logging.WARNING), reported_once():
        for _ in range(2):
            footage = open_footage(target, cache=tmp_path / "cache")
    assert len(reads) == 2, "each of both once"
    assert footage[0].frame.max() == 12 << 2
    assert caplog.text.count("nothing above 1023 are read as of 10 bits") == 1
    cv2.imwrite(str(deep_folder / "images/val/val2.png"), np.full((36, 48, 3), 4000, dtype=np.uint16))
    footage = open_footage(target, cache=tmp_path / "cache")
    assert [footage[index].frame.max() for index in range(3)] == [12, 20, 250]
    assert len(reads) == 3
    for index, path in enumerate(sorted((deep_folder / "images/val").iterdir())):
        assert np.array_equal(footage.lab()[index], lab_statistics(read_image(path, 12)))
