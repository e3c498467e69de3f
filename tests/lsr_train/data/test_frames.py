"""Frames to score on and frames for statistics: whole, in order, never augmented."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.images import read_image, read_label, resize_frame
from lsr_train.config.data import AugmentConfig, DataConfig, SourceConfig, TargetConfig
from lsr_train.config.run import Config
from lsr_train.data.footage import TargetFrames
from lsr_train.data.labelled import ToytownImages, open_labelled, toytown_seeds
from lsr_train.data.labels import CAMVID_11, CITYSCAPES_19
from lsr_train.data.loading import build_target


def source(root: Path, split: str, limit: int = 0, mask: str = "") -> SourceConfig:
    return SourceConfig(
        layout="folder", root=str(root), split=split, ids="cityscapes-trainid", height=32, width=40, limit=limit,
        ignore_mask=mask,
    )  # fmt: skip


def test_labelled_frames_keep_their_size_and_order(labelled_folder: Path) -> None:
    frames = open_labelled(source(labelled_folder, "train"), CITYSCAPES_19)
    assert len(frames) == 9
    for index, sample in enumerate(frames):
        assert Path(sample.file).name == f"f{index}.jpg"
        assert np.array_equal(sample.frame, read_image(Path(sample.file)))
        assert np.array_equal(sample.labels, read_label(labelled_folder / "labels" / "train" / f"f{index}.png"))
    assert len(list(frames)) == 9, "a second look sees them again"
    assert len(open_labelled(source(labelled_folder, "", 4), CITYSCAPES_19)) == 4
    with pytest.raises(IndexError):
        frames[9]


def test_labelled_frames_are_in_the_wanted_space_with_the_mask_void(labelled_folder: Path, tmp_path: Path) -> None:
    mask = np.zeros((36, 48), dtype=np.uint8)
    mask[:4] = 9
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    masked = source(labelled_folder, "train", mask=str(tmp_path / "mask.png"))
    labels = open_labelled(masked, CAMVID_11, cache=tmp_path / "cache")[4].labels
    assert (labels[:4] == 255).all()
    assert set(np.unique(labels[4:])) == {0, 1, 9}


def test_bad_files_stop_or_are_left_out(labelled_folder: Path) -> None:
    (labelled_folder / "labels" / "val" / "f1.png").write_bytes(b"no")
    with pytest.raises(InputError, match="1 of 2"):
        open_labelled(source(labelled_folder, "val"), CITYSCAPES_19)
    frames = open_labelled(source(labelled_folder, "val"), CITYSCAPES_19, on_bad="skip")
    assert len(frames) == 1
    assert len(frames.left_out) == 1


def test_target_frames_are_evenly_spread_and_plain(frames_folder: Path) -> None:
    config = Config(
        data=DataConfig(target=TargetConfig(root=str(frames_folder), height=32, width=40)),
        augment=AugmentConfig(flip=1.0, jitter=50),
    )
    target = build_target(config)
    files = sorted(frames_folder.rglob("*.png"))
    frames = target.evenly(3)
    assert [sample.file for sample in frames] == [str(files[index]) for index in (1, 3, 5)]
    for sample in frames:
        assert np.array_equal(sample.frame, resize_frame(read_image(Path(sample.file)), 32, 40))
    batches = list(frames.batches(2))
    assert [len(batch.image) for batch in batches] == [2, 1]
    assert [len(batch.image) for batch in frames.batches(2, whole=True)] == [2]
    assert all(batch.mask is None and batch.image.dtype == torch.uint8 for batch in batches)
    assert torch.equal(torch.cat([batch.image for batch in batches])[1], torch.from_numpy(frames[1].frame))
    assert sum((batch.files for batch in batches), ()) == tuple(sample.file for sample in frames)
    assert len(target.evenly(0)) == len(target.evenly(99)) == 7


def test_the_mask_comes_with_the_batches(frames_folder: Path) -> None:
    config = Config(data=DataConfig(target=TargetConfig(root=str(frames_folder), height=36, width=48)))
    ignored = np.zeros((36, 48), dtype=bool)
    ignored[30:] = True
    frames = TargetFrames(build_target(config).footage, 4, 32, 40, ignored)
    for batch in frames.batches(3):
        assert batch.mask is not None
        assert batch.mask.shape == batch.image.shape[:3]
        assert batch.mask.sum() == len(batch.image) * 26 * 40


def test_toytowns_splits_never_meet() -> None:
    ranges = [toytown_seeds(domain, split, 500) for domain in ("game", "camera") for split in ("train", "val")]
    assert len(set().union(*ranges)) == 2000
    assert toytown_seeds("game", "", 3) == toytown_seeds("game", "train", 3)
    assert len(toytown_seeds("game", "val", 0)) == 100
    with pytest.raises(UsageError, match="no split"):
        toytown_seeds("game", "test", 3)
    toytown = SourceConfig(layout="toytown-camera", split="val", height=32, width=64, limit=2)
    sample = open_labelled(toytown, CITYSCAPES_19)[1]
    assert (sample.frame.shape, sample.labels.shape) == ((32, 64, 3), (32, 64))
    again = ToytownImages("camera", toytown_seeds("camera", "val", 2), 32, 64)[1]
    assert np.array_equal(sample.frame, again.frame)
    assert np.array_equal(sample.labels, again.labels)
    assert sample.file.startswith("toytown-camera:")


def test_the_real_labelled_frames(shared: Callable[[str], Path], tmp_path: Path) -> None:
    camvid = SourceConfig(
        layout="camvid", root=str(shared("data/camvid")), split="val", ids="cityscapes-trainid", height=240, width=320,
        limit=12,
    )  # fmt: skip
    counts = np.zeros(256, dtype=np.int64)
    for sample in open_labelled(camvid, CAMVID_11, cache=tmp_path):
        assert sample.frame.shape == (*sample.labels.shape, 3) == (360, 480, 3)
        counts += np.bincount(sample.labels.ravel(), minlength=256)
    assert counts[11:255].sum() == 0
    assert (counts[:11] > 0).sum() >= 9
