"""Frames to score on and frames for statistics: whole, in order, never augmented."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.images import read_image, read_label, resize_frame
from lsr_train.config.run import AugmentConfig, Config, DataConfig, TargetConfig
from lsr_train.data.footage import TargetFrames
from lsr_train.data.labelled import LabelledFrames, ToytownImages, toytown_seeds
from lsr_train.data.labels import CAMVID_11, CITYSCAPES_19
from lsr_train.data.loading import build_target


def test_labelled_frames_keep_their_size_and_order(labelled_folder: Path) -> None:
    frames = LabelledFrames("folder", str(labelled_folder), "train", "cityscapes-trainid", 32, 40, CITYSCAPES_19)
    assert len(frames) == 9
    for index, (frame, labels, file) in enumerate(frames):
        assert Path(file).name == f"f{index}.jpg"
        assert np.array_equal(frame, read_image(Path(file)))
        assert np.array_equal(labels, read_label(labelled_folder / "labels" / "train" / f"f{index}.png"))
    assert len(list(frames)) == 9, "a second look sees them again"
    assert len(LabelledFrames("folder", str(labelled_folder), "", "cityscapes-trainid", 32, 40, CITYSCAPES_19, 4)) == 4
    with pytest.raises(IndexError):
        frames[9]


def test_labelled_frames_are_in_the_wanted_space_with_the_mask_void(labelled_folder: Path, tmp_path: Path) -> None:
    mask = np.zeros((36, 48), dtype=np.uint8)
    mask[:4] = 9
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    frames = LabelledFrames(
        "folder", str(labelled_folder), "train", "cityscapes-trainid", 32, 40, CAMVID_11,
        ignore_mask=str(tmp_path / "mask.png"), cache=tmp_path / "cache",
    )  # fmt: skip
    _, labels, _ = frames[4]
    assert (labels[:4] == 255).all()
    assert set(np.unique(labels[4:])) == {0, 1, 9}


def test_bad_files_stop_or_are_left_out(labelled_folder: Path) -> None:
    (labelled_folder / "labels" / "val" / "f1.png").write_bytes(b"no")
    arguments = ("folder", str(labelled_folder), "val", "cityscapes-trainid", 32, 40, CITYSCAPES_19)
    with pytest.raises(InputError, match="1 of 2"):
        LabelledFrames(*arguments)
    frames = LabelledFrames(*arguments, on_bad="skip")
    assert len(frames) == 1
    assert len(frames.left_out) == 1
    with pytest.raises(UsageError, match=r"data\.source\.layout"):
        LabelledFrames("nothing", *arguments[1:])


def test_target_frames_are_evenly_spread_and_plain(frames_folder: Path) -> None:
    config = Config(
        data=DataConfig(target=TargetConfig(root=str(frames_folder), height=32, width=40)),
        augment=AugmentConfig(flip=1.0, jitter=50),
    )
    target = build_target(config)
    files = sorted(frames_folder.rglob("*.png"))
    frames = target.evenly(3)
    assert frames.files == tuple(str(files[index]) for index in (1, 3, 5))
    for index, frame in enumerate(frames):
        assert np.array_equal(frame, resize_frame(read_image(Path(frames.files[index])), 32, 40))
    batches = list(frames.batches(2))
    assert [len(batch) for batch, _ in batches] == [2, 1]
    assert all(mask is None and batch.dtype == torch.uint8 for batch, mask in batches)
    assert torch.equal(torch.cat([batch for batch, _ in batches])[1], torch.from_numpy(frames[1]))
    assert len(target.evenly(0)) == len(target.evenly(99)) == 7


def test_the_mask_comes_with_the_batches(frames_folder: Path) -> None:
    config = Config(data=DataConfig(target=TargetConfig(root=str(frames_folder), height=36, width=48)))
    ignored = np.zeros((36, 48), dtype=bool)
    ignored[30:] = True
    frames = TargetFrames(build_target(config).footage, 4, 32, 40, ignored)
    for batch, mask in frames.batches(3):
        assert mask is not None
        assert mask.shape == batch.shape[:3]
        assert mask.sum() == len(batch) * 26 * 40


def test_toytowns_splits_never_meet() -> None:
    ranges = [toytown_seeds(domain, split, 500) for domain in ("game", "camera") for split in ("train", "val")]
    assert len(set().union(*ranges)) == 2000
    assert toytown_seeds("game", "", 3) == toytown_seeds("game", "train", 3)
    assert len(toytown_seeds("game", "val", 0)) == 100
    with pytest.raises(UsageError, match="no split"):
        toytown_seeds("game", "test", 3)
    frames = LabelledFrames("toytown-camera", "", "val", "auto", 32, 64, CITYSCAPES_19, 2)
    frame, labels, file = frames[1]
    assert (frame.shape, labels.shape) == ((32, 64, 3), (32, 64))
    again = ToytownImages("camera", toytown_seeds("camera", "val", 2), 32, 64).read(1)
    assert np.array_equal(frame, again[0])
    assert np.array_equal(labels, again[1])
    assert file.startswith("toytown-camera:")


def test_the_real_labelled_frames(shared: Callable[[str], Path], tmp_path: Path) -> None:
    frames = LabelledFrames(
        "camvid", str(shared("data/camvid")), "val", "cityscapes-trainid", 240, 320, CAMVID_11, 12, cache=tmp_path
    )
    counts = np.zeros(256, dtype=np.int64)
    for frame, labels, _ in frames:
        assert frame.shape == (*labels.shape, 3) == (360, 480, 3)
        counts += np.bincount(labels.ravel(), minlength=256)
    assert counts[11:255].sum() == 0
    assert (counts[:11] > 0).sum() >= 9
