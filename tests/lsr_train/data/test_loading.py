"""Batches are a function of seed and sample number: workers, ranks and a restart change nothing."""

import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lsr_infer.errors import InputError, UsageError
from lsr_infer.labelspace import LabelSpace
from lsr_train.config.data import AugmentConfig, DataConfig, SourceConfig, TargetConfig
from lsr_train.config.run import Config
from lsr_train.data import loading
from lsr_train.data.labelled import choose_label_space
from lsr_train.data.labels import CAMVID_11, CITYSCAPES_19, translation
from lsr_train.data.loading import (
    SampleNumbers,
    SourceDataset,
    TargetDataset,
    batches_of,
    build_source,
    build_target,
    open_batches,
)
from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from tests.processes import running, wait_until

AUGMENT = AugmentConfig(
    crop_height=24, crop_width=32, flip=0.5, scale_min=0.8, scale_max=1.5, jitter=10, hue=9, blur=0.5, noise=2,
    lab_transfer=0.5, rare_class_temperature=0.1,
)  # fmt: skip


@pytest.fixture
def config(labelled_folder: Path, frames_folder: Path) -> Config:
    """Four images a step from both small folders, with every kind of augmentation."""
    return Config(
        seed=11,
        data=DataConfig(
            source=SourceConfig(
                layout="folder", root=str(labelled_folder), split="train", ids="cityscapes-trainid", height=36, width=48
            ),
            target=TargetConfig(root=str(frames_folder), height=36, width=48),
            batch_size=4,
            workers=0,
        ),
        augment=AUGMENT,
    )


def with_data(config: Config, **options: object) -> Config:
    return replace(config, data=replace(config.data, **options))  # type: ignore[arg-type]


@pytest.fixture
def target(config: Config) -> TargetDataset:
    return build_target(config)


@pytest.fixture
def source(config: Config, target: TargetDataset) -> SourceDataset:
    return build_source(config, CITYSCAPES_19, target)


def take(batches: Iterator, count: int) -> list:
    """The first batches, after which the loader is closed."""
    taken = list(itertools.islice(batches, count))
    batches.close()  # type: ignore[attr-defined]
    return taken


def equal(one: LabelledBatch | UnlabelledBatch, other: LabelledBatch | UnlabelledBatch) -> bool:
    pairs = [(value, getattr(other, name)) for name, value in vars(one).items()]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def test_a_batch_is_what_it_says(config: Config, source: SourceDataset, target: TargetDataset) -> None:
    (labelled,), (unlabelled,) = take(batches_of(source, config), 1), take(batches_of(target, config), 1)
    assert labelled.image.shape == (4, 24, 32, 3)
    assert labelled.labels.shape == (4, 24, 32)
    assert labelled.image.dtype == labelled.labels.dtype == torch.uint8
    assert all(Path(file).exists() for file in (*labelled.files, *unlabelled.files))
    assert unlabelled.image.shape == (4, 24, 32, 3)
    assert unlabelled.mask is None
    assert not hasattr(unlabelled, "labels")
    assert {0, 1} <= set(labelled.labels.unique().tolist()) <= {0, 1, 2, 3, 4, 13}
    assert len(source) == 9
    assert len(target) == 7


def test_both_domains_open_and_end_together(config: Config, source: SourceDataset, target: TargetDataset) -> None:
    before = set(multiprocessing.active_children())
    with open_batches(with_data(config, workers=1), source, target, 4) as batches:
        assert batches.target is not None
        assert equal(next(batches.source), take(batches_of(source, config, 4), 1)[0])
        assert equal(next(batches.target), take(batches_of(target, config, 4), 1)[0])
        assert len(set(multiprocessing.active_children()) - before) == 2
    wait_until(lambda: not set(multiprocessing.active_children()) - before, 20)
    with open_batches(config, source, None, 0) as batches:
        assert batches.target is None


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(
    config: Config, source: SourceDataset, target: TargetDataset, workers: int
) -> None:
    many = with_data(config, workers=workers)
    for dataset in (source, target):
        alone, together = take(batches_of(dataset, config), 7), take(batches_of(dataset, many), 7)
        assert all(equal(one, other) for one, other in zip(alone, together, strict=True))
        assert not equal(alone[0], alone[1])


def test_no_more_workers_than_cores(
    config: Config, source: SourceDataset, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})  # torch warns of more than these
    monkeypatch.setattr(loading, "usable_cores", lambda: 1)
    before = set(multiprocessing.active_children())
    with closing(batches_of(source, with_data(config, workers=3))) as batches:
        next(batches)
        assert len(set(multiprocessing.active_children()) - before) == 1
    assert not recwarn.list


def test_a_restart_goes_on_where_it_was(config: Config, source: SourceDataset, target: TargetDataset) -> None:
    for dataset in (source, target):
        whole = take(batches_of(dataset, config), 6)
        rest = take(batches_of(dataset, config, 12), 3)
        assert all(equal(one, other) for one, other in zip(whole[3:], rest, strict=True))


def test_the_same_configuration_gives_the_same_data_set(config: Config, tmp_path: Path) -> None:
    first = [
        build_source(config, CITYSCAPES_19, build_target(config, cache=c), cache=c) for c in (None, tmp_path, tmp_path)
    ]
    batches = [take(batches_of(dataset, config), 3) for dataset in first]
    assert all(equal(one, other) for one, other in zip(batches[0], batches[1], strict=True))
    assert all(equal(one, other) for one, other in zip(batches[0], batches[2], strict=True))
    other = replace(config, seed=12)
    (changed, *_) = take(batches_of(build_source(other, CITYSCAPES_19, build_target(other)), other), 1)
    assert not equal(changed, batches[0][0])


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_batches_of_one(
    config: Config, source: SourceDataset, target: TargetDataset, world: int
) -> None:
    for dataset in (source, target):
        whole = take(batches_of(dataset, config, 8), 5)
        parts = [take(batches_of(dataset, config, 8, rank=rank, world=world), 5) for rank in range(world)]
        for step, batch in enumerate(whole):
            assert torch.equal(torch.cat([part[step].image for part in parts]), batch.image)
            assert sum((part[step].files for part in parts), ()) == batch.files


def test_sample_numbers_cover_everything_once() -> None:
    numbers = [list(itertools.islice(SampleNumbers(24, 2, rank, 3), 4)) for rank in range(3)]
    assert sorted(itertools.chain(*itertools.chain(*numbers))) == list(range(24, 48))
    assert numbers[1][0] == [26, 27]
    with pytest.raises(ValueError, match="not the first of a global batch"):
        SampleNumbers(4, 2, 0, 3)


def test_data_sets_travel_to_other_processes(config: Config, source: SourceDataset, target: TargetDataset) -> None:
    copies = pickle.loads(pickle.dumps((source, target)))
    assert equal(*(take(batches_of(dataset, config), 1)[0] for dataset in (source, copies[0])))
    assert equal(*(take(batches_of(dataset, config), 1)[0] for dataset in (target, copies[1])))


def test_a_batch_that_cannot_be_split_is_refused(config: Config, source: SourceDataset) -> None:
    with pytest.raises(UsageError, match=r"batch_size is 4 over 3 processes"):
        next(batches_of(source, config, world=3))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_breaks_later_is_one_line(config: Config, source: SourceDataset, workers: int) -> None:
    for path in Path(config.data.source.root).rglob("labels/train/*.png"):
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="is truncated") as caught:
        take(batches_of(source, with_data(config, workers=workers)), 4)
    assert "\n" not in str(caught.value)
    assert "labels/train" in str(caught.value)


def test_a_label_that_changes_later_is_named(config: Config, source: SourceDataset) -> None:
    for path in Path(config.data.source.root).rglob("labels/train/*.png"):
        cv2.imwrite(str(path), np.full((36, 48), 33, dtype=np.uint8))
    with pytest.raises(InputError, match=r"labels/train/.*label id 33 .*row 0, column 0"):
        take(batches_of(source, config), 1)


def workers_of(batches: Iterator) -> list[multiprocessing.process.BaseProcess]:
    next(batches)
    return multiprocessing.active_children()


def test_closing_ends_the_workers(config: Config, source: SourceDataset) -> None:
    before = set(multiprocessing.active_children())
    batches = batches_of(source, with_data(config, workers=2))
    workers = set(workers_of(batches)) - before
    assert workers
    batches.close()
    deadline = time.monotonic() + 20
    while any(worker.is_alive() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(worker.is_alive() for worker in workers)


def test_an_interruption_is_the_trainers_business(config: Config, source: SourceDataset) -> None:
    expected = take(batches_of(source, config), 8)
    batches = batches_of(source, with_data(config, workers=2))
    got = [next(batches), next(batches)]  # one of each worker, so that both have set their signals up
    for worker in multiprocessing.active_children():
        assert worker.pid is not None
        for name in ("INT", "TERM"):  # not from this process: what the trainer itself sends is obeyed
            subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    got += take(batches, 6)
    assert all(equal(one, other) for one, other in zip(expected, got, strict=True))


def test_a_trainer_that_fails_with_an_open_loader_ends(labelled_folder: Path, repository: Path) -> None:
    code = f"""
from lsr_train.config.data import AugmentConfig, DataConfig, SourceConfig
from lsr_train.config.run import Config
from lsr_train.data.loading import batches_of, build_source
from lsr_train.data.labels import CITYSCAPES_19
source = SourceConfig(root={str(labelled_folder)!r}, split="train", ids="cityscapes-trainid", height=36, width=48)
config = Config(data=DataConfig(source=source, workers=2), augment=AugmentConfig())
batches = batches_of(build_source(config, CITYSCAPES_19), config)
next(batches)
raise RuntimeError("as planned")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "as planned" in done.stderr


@pytest.mark.slow  # torch's workers look for their parent every five seconds
def test_workers_end_when_the_trainer_is_killed(labelled_folder: Path, repository: Path) -> None:
    code = f"""
import multiprocessing, os, signal
from lsr_train.config.data import AugmentConfig, DataConfig, SourceConfig
from lsr_train.config.run import Config
from lsr_train.data.loading import batches_of, build_source
from lsr_train.data.labels import CITYSCAPES_19
source = SourceConfig(root={str(labelled_folder)!r}, split="train", ids="cityscapes-trainid", height=36, width=48)
config = Config(data=DataConfig(source=source, workers=2), augment=AugmentConfig())
batches = batches_of(build_source(config, CITYSCAPES_19), config)
next(batches)
print(*[worker.pid for worker in multiprocessing.active_children()], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, stdout=subprocess.PIPE, text=True, timeout=100)
    pids = [int(word) for word in done.stdout.split()]
    assert done.returncode == -signal.SIGKILL
    assert len(pids) == 2
    wait_until(lambda: not any(running(pid) for pid in pids), 30)


def test_the_ignore_masks_follow_the_geometry(config: Config, tmp_path: Path) -> None:
    mask = np.zeros((72, 96), dtype=np.uint8)
    mask[54:, :24] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    masked = replace(
        config,
        augment=AugmentConfig(flip=0.5, crop_height=30, crop_width=48),
        data=replace(
            config.data,
            ignore_mask=str(tmp_path / "mask.png"),
            source=replace(config.data.source, ignore_mask=str(tmp_path / "mask.png")),
        ),
    )
    target = build_target(masked)
    seen = set()
    for batch in take(batches_of(target, masked), 10):
        assert batch.mask is not None
        assert batch.mask.dtype == torch.bool
        for counts in batch.mask:
            rows, columns = np.nonzero(~counts.numpy())
            seen.add((int(columns.min()), int(columns.max())))
            assert rows.min() >= 27 - 6
    assert seen == {(0, 11), (36, 47)}
    source = build_source(masked, CITYSCAPES_19, target)
    voids = [(batch.labels == 255).sum(dim=(1, 2)) for batch in take(batches_of(source, masked), 5)]
    assert all(bool((count > 0).all()) for count in voids)
    assert source.parts[0].images.counts.sum() == 9 * (36 * 48 - 9 * 12)
    frames = target.evenly(3)
    assert frames.mask is not None
    assert (~frames.mask).sum() == 9 * 12


def test_ignored_rows_are_the_frames_not_the_crops(config: Config) -> None:
    """The bottom quarter of 36 rows is the hood: a crop of 20 shows none of it to all of it."""
    target = replace(config.data.target, ignore_top=0.1, ignore_bottom=0.25)
    ignoring = replace(
        config, augment=AugmentConfig(crop_height=20, crop_width=48), data=replace(config.data, target=target)
    )
    dataset = build_target(ignoring)
    below, above = set(), set()
    for batch in take(batches_of(dataset, ignoring), 20):
        assert batch.mask is not None
        for counts in batch.mask:
            rows = counts.any(dim=1)
            assert bool((counts == rows[:, None]).all())
            below.add(20 - (int(rows.nonzero().max()) + 1))
            above.add(int(rows.nonzero().min()))
    assert {0, 9} <= below <= set(range(10))
    assert {0, 4} <= above <= set(range(5))
    frames = dataset.evenly(2)
    assert frames.mask is not None
    assert frames.mask.any(axis=1).tolist() == [False] * 4 + [True] * 23 + [False] * 9


def test_rare_classes_come_more_often(config: Config) -> None:
    def share(temperature: float) -> float:
        chosen = replace(config, augment=AugmentConfig(rare_class_temperature=temperature))
        dataset = build_source(chosen, CITYSCAPES_19)
        return float(np.mean(["f4" in dataset[n].file for n in range(120)]))

    assert share(0.0) == pytest.approx(1 / 9, abs=0.02)
    assert share(0.1) > 0.25


def test_lab_transfer_needs_the_target(config: Config) -> None:
    with pytest.raises(ValueError, match="lab_transfer"):
        build_source(config, CITYSCAPES_19)


def test_on_bad_reaches_both_domains(config: Config, frames_folder: Path) -> None:
    (frames_folder / "t0.png").write_bytes(b"x")
    Path(config.data.source.root, "labels", "train", "f3.png").write_bytes(b"x")
    with pytest.raises(InputError, match="1 of 7"):
        build_target(config)
    skipping = with_data(config, on_bad="skip")
    target = build_target(skipping)
    source = build_source(skipping, CITYSCAPES_19, target)
    assert (len(target), len(source), len(target.left_out), len(source.left_out)) == (6, 8, 1, 1)
    assert "f3" not in " ".join(source[n].file for n in range(40))
    with pytest.raises(InputError, match="1 of 9"):
        build_source(config, CITYSCAPES_19, target)


@pytest.mark.parametrize("domain", ["game", "camera"])
def test_toytown_is_a_layout(config: Config, domain: str) -> None:
    toytown = replace(
        config,
        data=DataConfig(
            source=SourceConfig(layout=f"toytown-{domain}", split="train", height=32, width=64, limit=5),  # type: ignore[arg-type]
            target=TargetConfig(layout="toytown-camera", split="train", height=32, width=64, limit=4),
            batch_size=2,
            workers=0,
        ),
        augment=AugmentConfig(lab_transfer=0.5, rare_class_temperature=0.1),
    )
    dataset = build_source(toytown, CAMVID_11, build_target(toytown))
    (one, two), many = (
        take(batches_of(dataset, toytown), 2),
        take(batches_of(dataset, with_data(toytown, workers=1)), 2),
    )
    assert equal(one, many[0])
    assert equal(two, many[1])
    assert one.image.shape == (2, 32, 64, 3)
    assert int(one.labels[one.labels != 255].max()) < 11
    assert dataset.parts[0].images.counts.sum() <= 5 * 32 * 64


def test_the_label_space_comes_from_the_folder(config: Config, labelled_folder: Path) -> None:
    source = replace(config.data.source, ids="auto")
    own = with_data(config, source=source)
    assert choose_label_space(own) == CITYSCAPES_19
    (labelled_folder / "classes.yaml").write_text(
        "name: mine\nclasses:\n- {name: road, color: [1, 1, 1], ids: [0, 1]}\n"
        "- {name: rest, color: [2, 2, 2], ids: [2, 3, 4, 13]}\n"
    )
    space = choose_label_space(own)
    assert isinstance(space, LabelSpace)
    assert space.names == ("road", "rest")
    dataset = build_source(replace(own, augment=AugmentConfig()), space)
    assert set(np.unique(dataset[0].labels)) == {0, 1}
    into_cityscapes = build_source(replace(own, augment=AugmentConfig()), CITYSCAPES_19)
    assert set(np.unique(into_cityscapes[0].labels)) == {0, 255}
    assert choose_label_space(replace(own, label_space="camvid11")) == CAMVID_11


def test_labels_that_are_all_void_are_refused(config: Config, labelled_folder: Path) -> None:
    for path in labelled_folder.rglob("labels/train/*.png"):
        cv2.imwrite(str(path), np.full((36, 48), 255, dtype=np.uint8))
    with pytest.raises(InputError, match="every pixel is void"):
        build_source(replace(config, augment=AugmentConfig()), CITYSCAPES_19)


def test_the_real_pair_loads(shared: Callable[[str], Path], tmp_path: Path) -> None:
    config = Config(
        label_space="camvid11",
        data=DataConfig(
            source=SourceConfig(
                layout="folder", root=str(shared("data/streets")), split="val", ids="cityscapes-trainid", height=240,
                width=320,
            ),
            target=TargetConfig(
                layout="camvid", root=str(shared("data/camvid")), split="val", height=240, width=320, limit=30
            ),
            batch_size=4,
            workers=1,
        ),
        augment=AugmentConfig(hue=18, blur=0.5, lab_transfer=0.5, rare_class_temperature=0.05),
    )  # fmt: skip
    space = choose_label_space(config)
    target = build_target(config, cache=tmp_path)
    source = build_source(config, space, target, cache=tmp_path)
    assert (len(source), len(target)) == (80, 30)
    (batch, *_) = take(batches_of(source, config), 3)
    assert batch.image.shape == (4, 240, 320, 3)
    assert set(batch.labels.unique().tolist()) <= {*range(11), 255}


@pytest.mark.parametrize("layout", ["gta5", "synthia"])
def test_the_native_layouts_load(layout: str, shared: Callable[[str], Path]) -> None:
    config = Config(
        data=DataConfig(
            source=SourceConfig(layout=layout, root=str(shared(f"data/native/{layout}")), height=96, width=160),  # type: ignore[arg-type]
            batch_size=3,
            workers=0,
        ),
        augment=AugmentConfig(flip=0.0),
    )
    dataset = build_source(config, CITYSCAPES_19)
    (batch,) = take(batches_of(dataset, config), 1)
    shares = np.bincount(batch.labels.numpy().ravel(), minlength=256) / batch.labels.numel()
    assert shares[0] > 0.1, "road"
    assert shares[[2, 5, 10]].min() > 0.01, "building, pole, sky"
    road = batch.labels.numpy() == 0
    assert np.nonzero(road)[1].mean() > 0.55 * 96, "road lies low in the image"
    assert (translation(CITYSCAPES_19, CAMVID_11)[batch.labels.numpy()][road] == 0).all()
