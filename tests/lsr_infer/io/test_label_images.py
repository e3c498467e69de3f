"""Label images beside frames are no frames, and no frame of a recording is taken for one."""

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.cli import main
from lsr_infer.io.label_images import folders_of, without_labels
from lsr_infer.io.sources import find_sources
from lsr_infer.parity.frame_set import read_frame_set


def photograph(path: Path, levels: int = 256) -> None:
    """Write noise, the darker the fewer levels; of a video nothing but the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4":
        path.touch()
        return
    noise = np.random.default_rng(len(str(path))).integers(0, levels, (48, 64, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), noise)


def label(path: Path) -> None:
    """Write areas of 6 classes: as colours where it is a JPEG, which adds others, else as numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    areas = np.repeat(np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3), 24, axis=0), 24, axis=1)[:, :64]
    colors = np.random.default_rng(1).integers(0, 256, (6, 3), dtype=np.uint8)[areas]
    assert cv2.imwrite(str(path), colors if path.suffix == ".jpg" else areas)


def names(files: list[Path], top: Path) -> list[str]:
    return sorted(path.relative_to(top).as_posix() for path in files)


LAYOUTS = [
    (("leftImg8bit/train/aachen/a_leftImg8bit.png", "leftImg8bit/val/b_leftImg8bit.png"),
     ("gtFine/train/aachen/a_gtFine_color.png", "gtFine/train/aachen/a_gtFine_labelIds.png", "gtFine/b_labelIds.png")),
    (("leftImg8bit_trainvaltest/leftImg8bit/val/x/b.png",), ("gtFine_trainvaltest/gtFine/val/x/b.png",)),
    (("RGB/1.png",), ("GT/LABELS/1.png", "GT/COLOR/1.png")),
    (("train/images/1.jpg", "val/images/2.jpg"), ("train/labels/1.png", "val/labels/2.png")),
    (("images/train/1.jpg", "images/val/2.jpg"), ("labels/train/1.png", "labels/val/2.png")),
    (("train/1.png", "val/2.png"), ("train_labels/1_L.png", "val_labels/2_L.png")),
    (("train/1.png", "test/2.png"), ("trainannot/1.png", "testannot/2.png")),
    (("Train/1.png",), ("TrainLabels/1.png",)),
    (("a/train/1.png",), ("a/labels_train/1.png",)),
    (("drives/a/images/1.jpg", "drives/b/2.jpg"), ("drives/a/masks/1.png",)),
    (("drive/1.jpg", "drive/2.jpg"), ("drive/labels/1.png", "drive/labels/2.png")),
    (("img_dir/1.jpg",), ("ann_dir/1.png",)),
    (("701_StillsRaw_full/0001TP_1.png",), ("LabeledApproved_full/0001TP_1_L.png",)),
    (("1_leftImg8bit.png", "2.png"), ("1_gtFine_labelTrainIds.png", "2_labelIds.png", "2_instanceIds.png")),
    (("0001TP_1.png", "0001TP_2.png"), ("0001TP_1_L.png", "0001TP_2_L.png")),
    (("1.jpg", "2.jpg"), ("1.png", "2.png")),
    (("rgb_1.png", "rgb_2.png"), ("seg_1.png", "classgt_2.png")),
    (("drive/clip.mp4",), ("drive/masks/bonnet.png",)),
    (("seg/images/1.jpg",), ("seg/labels/1.png",)),
    (("training/images/1.jpg",), ("training/v2.0/labels/1.png", "training/v2.0/instances/1.png")),
    (("frames/rgb/Camera_0/rgb_1.jpg",), ("frames/classSegmentation/Camera_0/classgt_1.png",)),
    (("training/image_2/1.png",), ("training/semantic/1.png", "training/semantic_rgb/1.png")),
    (("rgb_anon/fog/1.png",), ("gt/fog/1_gt_labelColor.png",)),
    (("images/1.png",), ("labels/1.jpg",)),
    (("RUGD_frames-with-annotations/creek/1.png",), ("RUGD_annotations/creek/1.png",)),
]  # fmt: skip


@pytest.mark.parametrize(("frames", "labels"), LAYOUTS, ids=lambda names: names[0])
def test_label_images_beside_frames_are_no_frames(
    tmp_path: Path, frames: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    for name in frames:
        photograph(tmp_path / name)
    for name in labels:
        label(tmp_path / name)
    found = find_sources([str(tmp_path)])
    assert names([Path(source.file) for source in found.sources], tmp_path) == sorted(frames)
    assert names(found.labels, tmp_path) == sorted(labels)
    for folder in {tmp_path / name.split("/")[0] for name in labels if "/" in name}:
        if not any(frame.startswith(f"{folder.name}/") for frame in frames):
            assert not find_sources([str(folder)]).labels, "it is named itself"
    assert len(find_sources([str(tmp_path / labels[0])]).sources) == 1
    pattern = find_sources([f"{tmp_path}/**/*.*g"])
    assert len(pattern.sources) == len(labels) + sum(name.endswith("g") for name in frames), "a pattern names files"


STAY = {
    "a stereo camera": (("a.png", "a_L.png", "a_R.png"), ()),
    "a folder called labels": (("images/1.jpg", "images/2.jpg", "labels/1.jpg", "labels/2.png"), ()),
    "parts of a drive": (("seg_1/1.png", "seg_2/2.png", "gt_race/1.jpg", "images/labels_of_my_shop/1.png"), ()),
    "a picture beside its raw one": (("1.jpg", "1.png"), ()),
    "a title picture": (("clip.mp4", "clip.png"), ()),
    "a dark camera beside another": (("cam0/1.jpg",), ("cam1/1.png", "lens_cap.png")),
    "dark parts of a drive": (("seg_1/1.jpg",), ("seg_2/1.png", "seg3/1.png")),
    "images below a folder of labels": (("cam/1.jpg",), ("seg/images/2.png",)),
    "a photograph among labels": (("images/1.png", "labels/7.png"), ("labels/1.png", "labels/2.png")),
    "label images alone": ((), ("labels/1.png", "labels/1_color.png", "gtFine/1_labelIds.png")),
}


@pytest.mark.parametrize("case", STAY)
def test_no_frame_of_a_recording_is_left_out(tmp_path: Path, case: str) -> None:
    photographs, flat = STAY[case]
    for name in photographs:
        photograph(tmp_path / name)
    for name in flat:
        label(tmp_path / name)
    found = find_sources([str(tmp_path)])
    assert names([Path(source.file) for source in found.sources], tmp_path) == sorted(photographs + flat)
    assert not found.labels


@pytest.mark.parametrize("levels", [12, 60])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_camera_of_few_levels_is_told_from_labels_by_its_noise(tmp_path: Path, levels: int, channels: int) -> None:
    files = [tmp_path / name for name in ("0.jpg", "0_nir.png", "1.jpg", "1.png")]
    for path in files:
        photograph(path)
    ramp = np.linspace(0, levels - 1, 64) + np.random.default_rng(3).normal(0, 1, (48, 64))
    levels_of = np.clip(np.round(ramp), 0, levels - 1).astype(np.uint8)
    for path in (files[1], files[3]):
        assert cv2.imwrite(str(path), np.dstack([levels_of] * channels))
    assert without_labels(files, tmp_path) == (files, [])


@pytest.mark.parametrize("levels", [3, 8, 32, 60])
def test_a_thermal_camera_without_noise_is_told_from_labels_by_its_gradients(tmp_path: Path, levels: int) -> None:
    files = [tmp_path / name for name in ("0.jpg", "0_thermal.png", "1.jpg", "1.png")]
    for path in files:
        photograph(path)
    warm = np.random.default_rng(3).random((12, 16)).astype(np.float32)
    picture = np.round(cv2.resize(warm, (640, 480), interpolation=cv2.INTER_CUBIC) * (levels - 1)).clip(0, levels - 1)
    for path in (files[1], files[3]):
        assert cv2.imwrite(str(path), picture.astype(np.uint8))
    assert without_labels(files, tmp_path) == (files, [])
    label(files[3])
    assert names(without_labels(files, tmp_path)[1], tmp_path) == ["1.png"], "no verdict is kept"


def test_a_lens_cap_is_no_label(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("0.jpg", "0.png")]
    photograph(files[0])
    dark = np.random.default_rng(3).random((48, 64)) > 0.98
    assert cv2.imwrite(str(files[1]), dark.astype(np.uint8))
    assert without_labels(files, tmp_path) == (files, [])


def test_one_channel_of_16_bits_is_a_label_only_where_its_name_says_so(tmp_path: Path) -> None:
    deep = np.random.default_rng(1).integers(0, 2**16, (48, 64), dtype=np.uint16)
    for name in ("images/1.png", "images/1_thermal.png", "depth/1.png", "gt/1_instanceIds.png", "thermal/1.png"):
        photograph(tmp_path / name)
        if not name.endswith("images/1.png"):
            assert cv2.imwrite(str(tmp_path / name), deep)
    files = sorted(tmp_path.rglob("*.png"))
    assert names(without_labels(files, tmp_path)[1], tmp_path) == ["depth/1.png", "gt/1_instanceIds.png"]


def test_damaged_files_decide_nothing(tmp_path: Path) -> None:
    for number in range(4):
        photograph(tmp_path / f"images/{number}.png")
        label(tmp_path / f"labels/{number}.png")
        photograph(tmp_path / f"masks/{number}.png")
        (tmp_path / f"masks/{number}.png").write_bytes(b"no image")
    (tmp_path / "labels/0.png").write_bytes(b"no image")
    assert [path.parent.name for path in find_sources([str(tmp_path)]).labels] == ["labels"] * 4


def test_what_is_left_out_is_counted_and_said(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    for number in range(3):
        photograph(data / f"drive/{number}.png")
        label(data / f"drive/labels/{number}.png")
        label(data / f"drive/{number}_L.png")
    words = ["-m", str(model), "--json"]
    assert main([str(data), *words, "-o", str(tmp_path / "out")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["found"], document["done"], document["left_out"]) == (3, 3, 6)
    line = f"6 label images beside frames are left out: 3 in {data}/drive, 3 in {data}/drive/labels. To take them, name"
    assert line in caplog.text
    for named in (f"{data}/drive/labels", f"{data}/drive/*_L.png"):
        assert main([named, *words, "-o", str(tmp_path / "all"), "--overwrite"]) == 0
        assert json.loads(capsys.readouterr().out)["found"] == 3


def test_frames_to_calibrate_with_are_no_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for number in range(3):
        photograph(tmp_path / f"train/{number}.png")
        label(tmp_path / f"trainannot/{number}.png")
    photograph(tmp_path / "train/._hidden.png")
    assert read_frame_set(tmp_path, 9, split="train", labelled=False).names == [f"train/{n}.png" for n in range(3)]
    assert f"3 label images beside frames are left out: 3 in {tmp_path}/trainannot." in caplog.text
    assert len(read_frame_set(tmp_path / "trainannot", 9)) == 3


def test_folders_are_named_until_they_are_many() -> None:
    files = [Path(f"/d/{city}/{index}.png") for city in "abc" for index in range(2)]
    assert folders_of(files) == "/d/a, /d/b, /d/c"
    assert folders_of([*files, Path("/d/e/f/1.png")]) == "/d (4 folders below)"
