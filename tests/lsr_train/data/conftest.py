"""Small data sets with real files."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

Write = Callable[..., None]


@pytest.fixture
def write_image() -> Write:
    """Write a textured frame whose colours depend on `seed`."""

    def write(path: Path, *, height: int = 36, width: int = 48, seed: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        assert cv2.imwrite(str(path), cv2.resize(coarse, (width, height)))

    return write


@pytest.fixture
def write_labels() -> Write:
    """Write a label file of vertical bars of the given ids (or of the given array)."""

    def write(path: Path, ids: object = (0, 1, 13), *, height: int = 36, width: int = 48) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.asarray(ids)
        if values.ndim == 1:
            values = np.tile(values[np.arange(width) * len(values) // width], (height, 1)).astype(np.uint8)
        assert cv2.imwrite(str(path), values if values.ndim == 2 else np.ascontiguousarray(values[..., ::-1]))

    return write


@pytest.fixture
def labelled_folder(tmp_path: Path, write_image: Write, write_labels: Write) -> Path:
    """images/train and labels/train with nine pairs, images/val and labels/val with two; class 13 in one image only."""
    root = tmp_path / "labelled"
    for split, count in (("train", 9), ("val", 2)):
        for index in range(count):
            write_image(root / "images" / split / f"f{index}.jpg", seed=index)
            ids = (0, 1, 13) if index == 4 else (0, 1, 2 + index % 3)
            write_labels(root / "labels" / split / f"f{index}.png", ids)
    return root


@pytest.fixture
def frames_folder(tmp_path: Path, write_image: Write) -> Path:
    """A folder of seven unlabelled frames, two of them below."""
    root = tmp_path / "frames"
    for index in range(7):
        write_image(root / ("later" if index > 4 else "") / f"t{index}.png", seed=100 + index)
    return root
