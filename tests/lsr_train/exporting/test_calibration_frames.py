"""Which frames an export looks at, and that no frame is both calibrated on and compared on."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.errors import InputError, UsageError
from lsr_infer.parity.frame_set import FrameSet, shipped_frames, shipped_frames_for
from lsr_train.config.data import DataConfig, MoreSourceConfig, SourceConfig, TargetConfig
from lsr_train.config.recipes import to_yaml
from lsr_train.config.run import Config
from lsr_train.data.labels import CAMVID_11, CITYSCAPES_19
from lsr_train.exporting.calibration import Calibration, read_labelled, training_frames, without


def numbered(count: int) -> FrameSet:
    frames = [np.full((4, 5, 3), n, np.uint8) for n in range(count)]
    return FrameSet(frames=frames, labels=[None] * count, origin=f"{count} frames")


@pytest.mark.parametrize("count", [3, 5, 9, 48, 200])
def test_the_three_parts_share_no_frame(count: int) -> None:
    dealt = Calibration.split(numbered(count), 8)
    parts = [{int(frame[0, 0, 0]) for frame in part.frames} for part in (dealt.ranges, dealt.choice, dealt.proof)]
    assert sum(map(len, parts)) == count == len(set.union(*parts))
    assert len(parts[1]) == len(parts[2]) == min(8, count // 3)
    if count == 200:
        assert max(parts[1]) - min(parts[1]) > 150
    assert dealt.ranges.origin == f"{len(parts[0])} of {count} frames"


def test_too_few_frames_to_deal_out() -> None:
    with pytest.raises(UsageError, match="--calibrate"):
        Calibration.split(numbered(2), 8)


def run_folder(path: Path, data: DataConfig) -> Path:
    model = path / "checkpoints" / "step-3" / "model.safetensors"
    model.parent.mkdir(parents=True)
    (path / "config.yaml").write_text(to_yaml(Config(data=data)), encoding="utf-8")
    return model


def test_training_frames_of_a_run(tmp_path: Path) -> None:
    target = TargetConfig(layout="toytown-camera", height=48, width=64, limit=20)
    frames, toytown = training_frames(run_folder(tmp_path / "adapted", DataConfig(target=target)), 5)
    assert toytown
    assert len(frames) == 5
    assert {frame.shape for frame in frames.frames} == {(48, 64, 3)}
    assert len({frame.tobytes() for frame in frames.frames}) == 5
    assert "5 frames that the checkpoint was trained on (toytown-camera)" in frames.origin
    assert str(tmp_path) not in frames.origin

    images = tmp_path / "mine" / "images"
    images.mkdir(parents=True)
    (tmp_path / "mine" / "labels").mkdir()
    for n in range(6):
        cv2.imwrite(str(images / f"{n}.png"), np.full((40, 50, 3), 30 * n, np.uint8))
        cv2.imwrite(str(tmp_path / "mine" / "labels" / f"{n}.png"), np.zeros((40, 50), np.uint8))
    source = SourceConfig(layout="folder", root=str(tmp_path / "mine"), height=48, width=64)
    frames, toytown = training_frames(run_folder(tmp_path / "source", DataConfig(source=source)), 4)
    assert not toytown
    assert len(frames) == 4
    assert frames.labels == [None] * 4
    more = MoreSourceConfig(layout="toytown-game", limit=6)
    both = run_folder(tmp_path / "both", DataConfig(source=source, more_sources=(more,)))
    frames, toytown = training_frames(both, 5)
    assert not toytown
    assert [frame.shape[0] for frame in frames.frames] == [40, 40, 40, 48, 48]
    assert "(mine, toytown-game)" in frames.origin


def test_training_frames_that_are_gone(tmp_path: Path) -> None:
    (tmp_path / "bare.safetensors").touch()
    with pytest.raises(UsageError, match=r"no run folder.*--calibrate"):
        training_frames(tmp_path / "bare.safetensors", 4)
    target = TargetConfig(layout="frames", root=str(tmp_path / "gone"))
    with pytest.raises(UsageError, match=r"does not exist.*--calibrate"):
        training_frames(run_folder(tmp_path / "run", DataConfig(target=target)), 4)


def test_toytown_labels_count_only_for_its_own_classes() -> None:
    assert all(label is not None for label in shipped_frames_for(CITYSCAPES_19, 2).labels)
    others = shipped_frames_for(CAMVID_11, 2)
    assert others.labels == [None, None]
    assert "without their labels" in others.origin


def test_frames_that_calibrate_prove_nothing() -> None:
    every = shipped_frames(12)
    first = FrameSet(frames=every.frames[:4], labels=every.labels[:4], origin="four")
    left = without(every, (first,))
    assert len(left) == 8
    assert not {frame.tobytes() for frame in left.frames} & {frame.tobytes() for frame in first.frames}
    assert without(left, (first,)) is left
    with pytest.raises(UsageError, match="prove nothing"):
        without(first, (every,))


def test_labels_are_brought_to_the_models_classes(tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "truth"
    images.mkdir()
    labels.mkdir()
    cv2.imwrite(str(images / "a.png"), np.zeros((4, 5, 3), np.uint8))
    cv2.imwrite(str(labels / "a.png"), np.full((4, 5), 13, np.uint8))
    found = read_labelled(images, 1, CAMVID_11, labels=labels, label_ids="cityscapes-trainid").labels[0]
    assert found is not None
    assert set(found.ravel().tolist()) == {CAMVID_11.names.index("car")}
    with pytest.raises(InputError, match=r"labels of a\.png: label id 13.*--label-ids"):
        read_labelled(images, 1, CAMVID_11, labels=labels)
    with pytest.raises(UsageError, match="--label-ids"):
        read_labelled(images, 1, CAMVID_11, labels=labels, label_ids="colours")
