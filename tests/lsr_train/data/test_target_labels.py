"""A few labelled frames of the target: how they are named, read, drawn and pasted."""

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lsr_infer.errors import InputError, UsageError
from lsr_train.config.command_line import resolve
from lsr_train.config.data import DataConfig, LabelledConfig, MoreSourceConfig, SourceConfig, TargetConfig
from lsr_train.config.fields import with_fields
from lsr_train.config.run import AugmentConfig, Config
from lsr_train.config.training import WeightsConfig
from lsr_train.data.labels import CITYSCAPES_19
from lsr_train.data.loading import TargetLabels, batches_of, build_labelled, build_source, build_target, open_batches
from lsr_train.data.samples import LabelledBatch
from lsr_train.methods.self_training import SelfTraining
from lsr_train.runs.matching import data_fingerprint

Write = Callable[..., None]


@pytest.fixture
def few(tmp_path: Path, write_image: Write, write_labels: Write) -> Path:
    """Three labelled frames without a classes.yaml, with a car in the lower third."""
    root = tmp_path / "few"
    for index in range(3):
        write_image(root / "images" / f"{index}.png", seed=index)
        write_labels(
            root / "labels" / f"{index}.png", np.repeat(np.uint8([[0], [1], [13]]), 12, axis=0).repeat(48, axis=1)
        )
    return root


def config_of(few: Path, labelled_folder: Path, frames_folder: Path, **labelled: object) -> Config:
    return Config(
        method="self-training",
        weights=WeightsConfig(self_training=1.0),
        augment=AugmentConfig(flip=0.0),
        data=DataConfig(
            source=SourceConfig(root=str(labelled_folder), split="train", height=36, width=48),
            target=TargetConfig(root=str(frames_folder), height=36, width=48),
            labelled=LabelledConfig(root=str(few), **labelled),  # type: ignore[arg-type]
            batch_size=4,
            workers=0,
        ),
    )


@pytest.fixture
def config(few: Path, labelled_folder: Path, frames_folder: Path) -> Config:
    return config_of(few, labelled_folder, frames_folder)


def built(config: Config) -> TargetLabels:
    found = build_labelled(config, CITYSCAPES_19)
    assert found is not None
    return found


def test_the_command_line_names_them() -> None:
    words = ["--target", "CLIP.mp4", "--source", "A", "--source", "B:3", "--labelled", "few:0.5"]
    config = resolve("adapt", words, "selftraining").config
    assert (config.data.labelled.root, config.data.labelled.weight) == ("few", 0.5)
    assert config.data.labelled_share == 0.125
    plain = resolve("adapt", words[:-2], "selftraining").config
    assert (plain.data.labelled_frames, plain.data.labelled_share, plain.data.labelled_batch) == (None, 0.0, 0)
    for extra, message in (
        (["--labelled", "b"], "given twice"), (["--data.labelled.root", "b"], "are the same"),
        (["--labeled", "b"], "Did you mean --labelled?"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            resolve("adapt", [*words, *extra], "selftraining")
    with pytest.raises(UsageError, match="A is a source, and --labelled"):
        resolve("adapt", [*words[:-1], "A"], "selftraining")


@pytest.mark.parametrize(
    ("weight", "others", "batch_size", "share", "drawn"),
    [(1.0, (), 4, 1.0, 4), (0.5, (), 4, 0.5, 2), (1.0, (3.0,), 4, 0.25, 1), (0.1, (), 4, 0.1, 1), (2.0, (), 1, 2.0, 2)],
)
def test_their_weight_is_how_often_they_are_drawn(
    weight: float, others: tuple[float, ...], batch_size: int, share: float, drawn: int
) -> None:
    data = DataConfig(
        source=SourceConfig(root="a"), labelled=LabelledConfig(root="few", weight=weight), batch_size=batch_size,
        more_sources=tuple(MoreSourceConfig(root=f"b{n}", weight=other) for n, other in enumerate(others)),
    )  # fmt: skip
    assert (data.labelled_share, data.labelled_batch) == (share, drawn)


def test_they_have_the_targets_size_and_what_never_counts_in_it_is_void(config: Config, tmp_path: Path) -> None:
    changed = with_fields(config, {"data.target.height": 72, "data.source.height": 72, "data.target.ignore_top": 1 / 6})
    sample = built(changed)[0]
    assert sample.frame.shape == (72, 48, 3)
    assert set(np.unique(sample.labels[:12])) == {255}
    assert [int(sample.labels[row, 5]) for row in (12, 30, 60)] == [0, 1, 13]
    mask = np.zeros((36, 48), np.uint8)
    mask[24:] = 255
    cv2.imwrite(str(tmp_path / "hood.png"), mask)
    assert set(np.unique(built(with_fields(config, {"data.ignore_mask": str(tmp_path / "hood.png")}))[0].labels)) == {
        0, 1, 255,
    }  # fmt: skip
    alone = with_fields(config, {"method": "source-only", "weights.self_training": 0.0, "data.target.root": ""})
    assert built(with_fields(alone, {"data.source.height": 48}))[0].labels.shape == (48, 48)


def test_every_frame_comes_once_in_each_pass_and_a_restart_goes_on(config: Config) -> None:
    config = with_fields(config, {"data.labelled.weight": 0.5})
    target = build_target(config)
    source = build_source(config, CITYSCAPES_19, target)

    def files(start: int, count: int) -> list[tuple[str, ...]]:
        with open_batches(config, source, target, start, labelled=built(config)) as batches:
            assert batches.labelled is not None
            return [next(batches.labelled).files for _ in range(count)]

    whole = files(0, 6)
    assert all(len(batch) == 2 for batch in whole)
    passes = [file for batch in whole for file in batch]
    assert all(len(set(passes[start : start + 3])) == 3 for start in range(0, 12, 3))
    assert files(8, 4) == whole[2:]  # sample 8 of the source is the first of its third batch
    with pytest.raises(UsageError, match="2 labelled frames of the target in a step over 4 processes"):
        next(batches_of(built(config), config, size=2, world=4))
    ranks = [next(batches_of(built(config), config, size=2, rank=rank, world=2)).files for rank in (0, 1)]
    assert (*ranks[0], *ranks[1]) == whole[0]


def test_their_scan_is_reported_apart(config: Config, few: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    built(config)
    assert f"{few}: 3 images from {few}/images; labels from {few}/labels" in caplog.text
    assert "no pixel is" not in caplog.text  # the source may have what a few frames lack
    before = data_fingerprint(config)
    (few / "labels" / "1.png").write_bytes(b"no picture")
    assert data_fingerprint(config) != before
    with pytest.raises(InputError, match=r"1\.png"):
        built(config)


def test_class_mix_pastes_from_them_as_often_as_they_are_drawn(config: Config) -> None:
    """Whatever ranks a batch is divided over."""
    config = with_fields(config, {"data.labelled.weight": 0.5})
    image = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 3, 2, 2)
    labels = torch.arange(12).view(12, 1, 1).expand(12, 2, 2)
    source = LabelledBatch(image=image, labels=labels)
    few = LabelledBatch(image=100 + image[:6], labels=100 + labels[:6])

    def donors(part: slice, few_part: slice, first: int) -> list[int]:
        method = SelfTraining(config, 19, 8)
        assert method._donors(source) is source
        method.labelled = LabelledBatch(image=few.image[few_part], labels=few.labels[few_part])
        method.begin(0, first)
        found = method._donors(LabelledBatch(image=source.image[part], labels=source.labels[part]))
        assert torch.equal(found.image[:, 0, 0, 0].long(), found.labels[:, 0, 0])
        return found.labels[:, 0, 0].tolist()

    whole = donors(slice(12), slice(6), 24)
    assert sum(label >= 100 for label in whole) == 4  # 0.5 of 1.5 parts
    assert [label for place, label in enumerate(whole) if label < 100] == [
        place for place, label in enumerate(whole) if label < 100
    ]
    assert donors(slice(6), slice(3), 24) + donors(slice(6, 12), slice(3, 6), 30) == whole
    with pytest.raises(UsageError, match="labelled frames are of another size"):
        with_fields(config, {"data.labelled.height": 64})
