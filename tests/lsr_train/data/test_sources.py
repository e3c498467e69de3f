"""Several labelled sources: named on a command line, mixed by weight, read by names, reported apart."""

import itertools
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsr_infer.errors import InputError, UsageError
from lsr_train.config.command_line import resolve, training_request
from lsr_train.config.data import AugmentConfig, DataConfig, MoreSourceConfig, SourceConfig
from lsr_train.config.recipes import config_from_text, to_yaml
from lsr_train.config.run import Config
from lsr_train.data.labelled import choose_label_space, open_sources
from lsr_train.data.labels import CITYSCAPES_19
from lsr_train.data.loading import Mix, SourceDataset, batches_of, build_source
from lsr_train.runs.matching import data_fingerprint, differing
from tests.lsr_train.data.conftest import Write

CLASSES = """
classes:
  - {name: road, color: [128, 64, 128], ids: [7]}
  - {name: kerb, color: [1, 2, 3], ids: [8]}
ignore: [9]
"""


@pytest.fixture
def other_folder(tmp_path: Path, write_image: Write, write_labels: Write) -> Path:
    """Four images of two classes of its own, `road` and `kerb`, and of ids that count nowhere."""
    root = tmp_path / "other"
    for index in range(4):
        write_image(root / "images" / f"g{index}.png", seed=50 + index)
        write_labels(root / "labels" / f"g{index}.png", (7, 8, 9))
    (root / "classes.yaml").write_text(CLASSES, encoding="utf-8")
    return root


@pytest.fixture
def config(labelled_folder: Path, other_folder: Path) -> Config:
    """Four images a step from two folders, three of the first for one of the second."""
    first = SourceConfig(root=str(labelled_folder), split="train", height=36, width=48, weight=3)
    data = DataConfig(source=first, more_sources=(MoreSourceConfig(root=str(other_folder)),), batch_size=4, workers=0)
    return Config(seed=3, data=data, augment=AugmentConfig(flip=0.5, jitter=9))


def built(config: Config) -> SourceDataset:
    return build_source(config, choose_label_space(config))


# -- the command line ---------------------------------------------------------------------------------------------


def sources(*argv: str) -> tuple[SourceConfig, ...]:
    request = training_request("adapt", [*argv, "--target", "t"])
    assert request is not None
    return request.config.data.sources


def test_each_source_has_its_own_fields_and_the_size_of_the_first() -> None:
    first, second, third = sources(
        "--data.source.height", "640", "--source", "a", "--data.source.layout=gta5", "--source=b:0.5",
        "--data.source.layout", "synthia", "--data.source.limit", "3", "--source", "c:2e1", "--data.source.ids=classes",
    )  # fmt: skip
    assert (first.root, first.layout, first.weight, first.height) == ("a", "gta5", 1, 640)
    assert (second.root, second.layout, second.limit, second.weight, second.height) == ("b", "synthia", 3, 0.5, 640)
    assert (third.root, third.layout, third.ids, third.weight) == ("c", "folder", "classes", 20)
    assert type(second) is SourceConfig


def test_a_colon_of_a_path_is_no_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sim:2").mkdir()
    found = sources("--source", "sim:2", "--source", "C:\\sim", "--source=sim:3", "--source=D:\\x:0.5", "--source=b:1x")
    assert [(source.root, source.weight) for source in found] == [
        ("sim:2", 1), ("C:\\sim", 1), ("sim", 3), ("D:\\x", 0.5), ("b:1x", 1)
    ]  # fmt: skip


def test_a_folder_may_be_called_anything() -> None:
    odd = [
        "b\x85c\x01",
        "😀",
        "b'\"q",
        "b: x, y",
        "{b}",
        "[b]",
        "123",
        "null",
        "b\nc\t",
        " b #c ",
        "~",
        "1e5",
    ]
    found = sources("--source=a", *(f"--source={root}" for root in odd))
    assert [source.root for source in found[1:]] == odd


def test_the_sources_of_a_recipe_are_named_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    more = [{"layout": "synthia", "weight": 0.5, "height": 64, "width": 96}]
    document = {"method": "source-only", "data": {"source": {"layout": "gta5"}, "more_sources": more}}
    file.write_text(json.dumps(document), encoding="utf-8")
    argv = ["--recipe", str(file), "--augment.crop_height", "32", "--augment.crop_width", "32"]
    request = training_request("pretrain", [*argv, "--source", "a", "--source", "b:2", "--source", "c"])
    assert request is not None
    found = [(source.root, source.layout, source.weight, source.height) for source in request.config.data.sources]
    assert found == [("a", "gta5", 1, 512), ("b", "synthia", 2, 64), ("c", "folder", 1, 512)]
    assert {"data.more_sources.0.layout", "data.more_sources.1.root"} <= request.stated
    with pytest.raises(UsageError, match=r"^source 2 is not named\. Name it by one more --source, or set its root\.$"):
        training_request("pretrain", [*argv, "--source", "a"])


def test_old_and_new_configurations_are_read(config: Config) -> None:
    assert config_from_text(to_yaml(config), "x") == config
    text = to_yaml(Config(data=DataConfig(source=config.data.source)))
    old = text.replace("    weight: 3\n", "").replace("  more_sources: []\n", "")
    assert len(old) < len(text) - 20
    assert config_from_text(old, "x").data.sources == (replace(config.data.source, weight=1),)


def test_a_crop_of_the_default_recipe_fits_the_smallest_source() -> None:
    argv = ["--source", "a", "--source", "b", "--data.source.height", "128", "--data.source.width", "200"]
    request = training_request("adapt", [*argv, "--target", "t"])
    assert request is not None
    assert (request.config.augment.crop_height, request.config.augment.crop_width) == (128, 200)


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (["--source", "b:0"], "the weight of --source b is 0; it must be a number above 0. Write --source b:WEIGHT."),
        (["--source", "b:-1"], "the weight of --source b is -1; it must be a number above 0."),
        (["--source", "b/../a"], "b/../a is named as a source twice. Name it once, with a larger weight."),
        (["--source", "b", "--source", "b", "--data.source.split", "val"], "b is named as a source twice."),
        (["--source"], "--source needs a value after it."),
        (["--source", "b", "--data.source.layot", "gta5"], "no option --data.source.layot. Did you mean --data."),
        (["--source", "b", "--data.source.layout", "gta"], "data.source.layout is 'gta'; one of"),
        (["--source", "b", "--data.source.limit", "few"], "data.source.limit is 'few'; a whole number is needed."),
        (["--source", "b", "--data.source.height=64", "--augment.crop_height=0"], "the sources are of several sizes."),
        (["--source", "b", "--data.source.height", "9"], "data.source.height is 9; allowed: [32, 8192]."),
        (["--data.more_sources", "[{rot: b}]"], "data.more_sources: there is no field rot. Did you mean root?"),
        (["--data.more_sources", "[{root: b}]", "--source", "c"], "--source and --data.more_sources are the same."),
        (["--data.source.root", "b"], "--source and --data.source.root are the same. Take one of them."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_what_to_do(argv: list[str], wanted: str) -> None:
    crop = [] if "--augment.crop_height=0" in argv else ["--augment.crop_height", "32"]
    crop += ["--augment.crop_width", "32" if crop else "0"]
    with pytest.raises(UsageError) as caught:
        sources("--source", "a", *argv, *crop)
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_splits_of_a_folder_are_two_sources() -> None:
    first, second = sources("--source=a", "--data.source.split=train", "--source=a:9", "--data.source.split=val")
    assert (first.split, second.split) == ("train", "val")


# -- the mix --------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5), st.integers(0, 2**31), st.integers(0, 10**9))
def test_samples_are_mixed_by_weight_and_numbered_without_gaps(weights: list[float], seed: int, start: int) -> None:
    mix = Mix(seed, weights)
    window = [mix(n) for n in range(start, start + 300)]
    for index, weight in enumerate(weights):
        own = [number for source, number in window if source == index]
        assert own == list(range(own[0], own[0] + len(own))) if own else True
        assert abs(len(own) - 300 * weight / sum(weights)) < len(weights)
    assert [mix(n) for n in range(start + 299, start - 1, -1)] == window[::-1]


def test_a_batch_holds_each_source_by_its_weight(config: Config) -> None:
    dataset = built(config)
    batches = list(itertools.islice(batches_of(dataset, config), 9))
    assert all(sum("/other/" in file for file in batch.files) == 1 for batch in batches)
    seen = [file for batch in batches for file in batch.files]
    assert len({file for file in seen[:12] if "/other/" not in file}) == 9, "an epoch shows every image once"
    assert len({file for file in seen[:16] if "/other/" in file}) == 4
    again = built(replace(config, seed=4))
    assert [again[n].file for n in range(36)] != seen
    assert [dataset[n].file for n in range(36)] == seen
    for start, rank, world in ((8, 0, 1), (0, 1, 2), (4, 0, 4)):
        part = next(batches_of(pickle.loads(pickle.dumps(dataset)), config, start, rank=rank, world=world))
        first = start + rank * 4 // world
        assert part.files == tuple(seen[first : first + 4 // world])


def test_rare_classes_are_drawn_within_each_source(config: Config) -> None:
    rare = replace(config, augment=AugmentConfig(rare_class_temperature=0.1))
    dataset = built(rare)
    files = [dataset[n].file for n in range(160)]
    assert sum("/other/" in file for file in files) == 40
    assert np.mean(["/f4." in file for file in files if "/other/" not in file]) > 0.25


def test_one_source_draws_what_it_always_drew(config: Config, labelled_folder: Path) -> None:
    """Its order is that of the generator without a number of a data set, so that old runs resume bit-equal."""
    alone = built(replace(config, data=replace(config.data, more_sources=())))
    order = np.random.default_rng([3, 0, 0]).permutation(9)
    assert [Path(alone[n].file).stem for n in range(9)] == [f"f{index}" for index in order]


# -- what is read -----------------------------------------------------------------------------------------------------


def test_classes_join_by_name_and_what_a_source_lacks_is_void_there(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="lsr_train.data")
    space = choose_label_space(config)
    assert space.names == (*CITYSCAPES_19.names, "kerb")
    first, second = open_sources(config, space)
    assert first.counts[:, 19].sum() == 0
    assert second.counts.sum(axis=0).tolist() == [4 * 36 * 16, *([0] * 18), 4 * 36 * 16]
    assert set(np.unique(second[0].labels)) == {0, 19, 255}
    lines = [record.getMessage() for record in caplog.records]
    (other,) = (source.root for source in config.data.more_sources)
    assert any(
        line.startswith(f"{other}: 33.3 % of all pixels are void (255); of the others road 50 %") for line in lines
    )
    mixed = f"images of a batch by weight: {config.data.source.root} 75 %, {other} 25 %; classes: the 20 of "
    assert any(line.startswith(mixed) for line in lines)
    assert f"{config.data.source.root}: no pixel is kerb; other sources have them" in lines
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1
    assert warned[0].startswith("no pixel of any source is pole,")
    narrow = replace(config, label_space="cityscapes19")
    assert choose_label_space(narrow) == CITYSCAPES_19
    _, second = open_sources(narrow, CITYSCAPES_19)
    assert set(np.unique(second[0].labels)) == {0, 255}, "kerb is void in a space without it"


def test_a_source_without_a_class_of_the_space_is_named(config: Config, other_folder: Path) -> None:
    (other_folder / "classes.yaml").write_text(CLASSES.replace("road", "lane"), encoding="utf-8")
    with pytest.raises(
        InputError, match=r"other: label space cityscapes19 .* shares no class name with other \(lane, "
    ):
        open_sources(replace(config, label_space="cityscapes19"), CITYSCAPES_19)


def test_unusable_files_of_all_sources_are_listed_together(config: Config, other_folder: Path) -> None:
    for file in (other_folder / "labels/g0.png", Path(config.data.source.root, "labels/train/f3.png")):
        file.write_bytes(b"x")
    with pytest.raises(InputError, match=r"(?s)1 of 9 .*f3\.png.*1 of 4 .*g0\.png"):
        built(config)
    skipping = built(replace(config, data=replace(config.data, on_bad="skip")))
    assert (len(skipping), len(skipping.left_out)) == (11, 2)


def test_every_source_is_in_the_fingerprint(config: Config, other_folder: Path) -> None:
    before = data_fingerprint(config)
    (other_folder / "labels/g2.png").write_bytes(b"changed")
    assert data_fingerprint(config) != before
    more = replace(config.data.more_sources[0], weight=2.0)
    heavier = replace(config, data=replace(config.data, more_sources=(more,)))
    assert differing(config, heavier) == [
        f"data.more_sources root {other_folder}, weight 2.0 (here root {other_folder})"
    ]
    alone = replace(config, data=replace(config.data, more_sources=()))
    assert differing(config, alone) == [f"data.more_sources () (here root {other_folder})"]


def test_the_layouts_of_gta5_and_synthia_together(shared: Callable[[str], Path]) -> None:
    argv = ["--source", str(shared("data/native/gta5")), "--data.source.layout", "gta5"]
    argv += ["--source", f"{shared('data/native/synthia')}:0.5", "--data.source.layout", "synthia"]
    sizes = ["--data.source.height", "96", "--data.source.width", "160"]
    config = resolve("pretrain", [*sizes, *argv, "--data.batch_size", "6", "--data.workers", "0"], None).config
    space = choose_label_space(config)
    assert space == CITYSCAPES_19
    gta5, synthia = open_sources(config, space)
    assert (len(gta5), len(synthia)) == (3, 3)
    batch = next(batches_of(built(config), config))
    assert batch.image.shape == (6, 96, 160, 3)
    assert sum("/synthia/" in file for file in batch.files) == 2
    assert all(bool((labels != 255).any()) for labels in batch.labels)
