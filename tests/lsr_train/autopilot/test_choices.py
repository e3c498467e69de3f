"""What is chosen, why, and that nothing stated is touched."""

from pathlib import Path

import pytest

from lsr_infer.errors import UsageError
from lsr_train.autopilot.choices import (
    MEMORY_SHARE,
    Choices,
    fitting,
    network_of_file,
    smaller_widths,
    split_of_folder,
    training_size,
)
from lsr_train.config.command_line import resolve
from lsr_train.config.run import Config
from lsr_train.network import DeepLabV2, NetworkSpec
from lsr_train.network.weights import backbone_of

PIXEL = 1000


def choices(*argv: str) -> Choices:
    """Return the default recipe's choices with some arguments."""
    source = [] if "--source" in argv else ["--source", "s"]
    request = resolve("adapt", [*source, "--target", "t", *argv], "selftraining")
    return Choices(request.config, request.stated, request.flags)


def sizes(config: Config) -> set[tuple[int, int]]:
    return {(side.width, side.height) for side in (config.data.source, config.data.target)}


def needs(config: Config) -> int:
    """Take a kilobyte a pixel of the batch."""
    height = config.augment.crop_height or config.data.source.height
    return config.data.batch_size * height * (config.augment.crop_width or config.data.source.width) * PIXEL


@pytest.mark.parametrize(
    ("frame", "device", "expected"),
    [
        ((1080, 1920), "cuda", (1024, 576)),
        ((1080, 1920), "cpu", (512, 288)),
        ((360, 480), "cuda", (480, 352)),
        ((360, 480), "cpu", (480, 352)),
        ((1920, 1080), "cuda", (1024, 1824)),
        ((33, 40), "cpu", (64, 64)),
        ((720, 1280), "cpu", (512, 288)),
    ],
)
def test_the_size_is_the_footages(frame: tuple[int, int], device: str, expected: tuple[int, int]) -> None:
    chosen = choices()
    training_size(chosen, frame, device)
    assert sizes(chosen.config) == {expected}
    assert chosen.config.augment.crop_height == 0
    assert len(chosen.lines) == 1
    assert chosen.lines[0].startswith(f"size {expected[0]}x{expected[1]}")


def test_a_stated_size_stays_whether_a_flag_or_a_recipe_states_it(tmp_path: Path) -> None:
    size = ["--data.source.height", "64", "--data.source.width", "128", "--data.target.height", "64"]
    size += ["--data.target.width", "128", "--augment.crop_height", "0", "--augment.crop_width", "0"]
    for argv in (size, ["--recipe", "my_footage"]):
        chosen = choices(*argv)
        before = chosen.config
        training_size(chosen, (1080, 1920), "cuda")
        assert chosen.config == before


@pytest.mark.parametrize(
    ("frame", "expected"), [((360, 480), [256, 384]), ((1080, 1920), [256, 384]), ((64, 96), []), ((240, 320), [256])]
)
def test_a_budget_may_take_smaller_images(frame: tuple[int, int], expected: list[int]) -> None:
    chosen = choices()
    training_size(chosen, frame, "cpu")
    assert smaller_widths(chosen) == expected


def test_a_stated_size_is_not_narrowed() -> None:
    stated = choices("--recipe", "my_footage")
    training_size(stated, (360, 480), "cpu")
    assert smaller_widths(stated) == []


STATED = ("--data.source.height", "--data.source.width", "--data.target.height", "--data.target.width")


@pytest.mark.parametrize(
    ("stated", "crop"),
    [((64, 96, 64, 96), (0, 0)), ((720, 1280, 576, 1024), (512, 512)), ((64, 96, 72, 128), (64, 96))],
)
def test_all_four_sizes_can_be_stated_without_a_crop(stated: tuple[int, ...], crop: tuple[int, int]) -> None:
    chosen = choices(*(word for pair in zip(STATED, map(str, stated), strict=True) for word in pair))
    training_size(chosen, (1080, 1920), "cpu")
    fitting(chosen, 10**15, needs)
    source, target, augment = chosen.config.data.source, chosen.config.data.target, chosen.config.augment
    assert (source.height, source.width, target.height, target.width) == stated
    assert (augment.crop_height, augment.crop_width) == crop


def test_a_crop_that_a_flag_or_a_named_recipe_states_is_not_cut() -> None:
    small = [word for pair in zip(STATED, ("64", "96", "64", "96"), strict=True) for word in pair]
    for argv in (["--augment.crop_height", "512", "--augment.crop_width", "512"], ["--recipe", "selftraining"]):
        with pytest.raises(UsageError, match="crop of 512x512 leaves"):
            choices(*argv, *small)


def test_a_stated_crop_stays_and_must_fit() -> None:
    chosen = choices("--augment.crop_height", "256", "--augment.crop_width", "256")
    training_size(chosen, (1080, 1920), "cuda")
    fitting(chosen, 10**15, needs)
    assert chosen.config.augment.crop_height == 256
    with pytest.raises(UsageError, match="crop of 256x256 leaves"):
        training_size(choices("--augment.crop_height", "256", "--augment.crop_width", "256"), (180, 320), "cuda")


@pytest.mark.parametrize(
    ("room", "batch", "crop"),
    [
        (4 * 1024 * 576, 4, (0, 0)),
        (2 * 1024 * 576, 2, (0, 0)),
        (4 * 512 * 512, 4, (512, 512)),
        (2 * 512 * 512, 2, (512, 512)),
        (2 * 320 * 320, 2, (320, 320)),
        (2 * 224 * 224, 2, (224, 224)),
        (1 * 224 * 224, 1, (224, 224)),
    ],
)
def test_batch_and_crop_are_the_largest_that_fit(room: int, batch: int, crop: tuple[int, int]) -> None:
    chosen = choices()
    training_size(chosen, (1080, 1920), "cuda")
    fitting(chosen, round((room * PIXEL + PIXEL) / MEMORY_SHARE), needs)
    augment = chosen.config.augment
    assert (chosen.config.data.batch_size, (augment.crop_height, augment.crop_width)) == (batch, crop)
    assert ("more would take" in chosen.lines[-1]) == (room < 4 * 1024 * 576)


def test_a_stated_batch_stays_and_the_crop_gives_way() -> None:
    chosen = choices("--data.batch_size", "6")
    training_size(chosen, (1080, 1920), "cuda")
    fitting(chosen, round(6 * 512 * 512 * PIXEL / MEMORY_SHARE) + PIXEL, needs)
    assert (chosen.config.data.batch_size, chosen.config.augment.crop_width) == (6, 512)


def test_what_fits_nowhere_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"a step or evaluation needs about .* at the least"):
        fitting(choices(), 10**6, needs)


def test_the_network_is_that_of_the_weights(tmp_path: Path) -> None:
    import torch

    network = DeepLabV2(NetworkSpec(backbone="resnet34", width=0.25, num_classes=3))
    file = tmp_path / "encoder.pth"
    torch.save(network.backbone.state_dict(), file)
    chosen = choices("--network.weights", str(file))
    network_of_file(chosen, backbone_of)
    assert (chosen.config.network.backbone, chosen.config.network.width) == ("resnet34", 0.25)
    assert (chosen.config.network.stem, "are assumed, since no file names them" in chosen.lines[0]) == (
        "torchvision",
        True,
    )
    torch.save({f"Scale.{name}": value for name, value in network.backbone.state_dict().items()}, file)
    caffe = choices("--network.weights", str(file))
    network_of_file(caffe, backbone_of)
    assert (caffe.config.network.stem, caffe.config.network.normalization) == ("caffe", "caffe-bgr")
    assert "from Caffe" in caffe.lines[0]
    stated = choices("--network.weights", str(file), "--network.width", "1.0")
    network_of_file(stated, backbone_of)
    assert stated.config.network.backbone == "resnet50"
    default = choices()
    network_of_file(default, backbone_of)
    assert default.lines == ["network resnet50, width 1, from torchvision's ImageNet weights"]


def test_an_efficientnet_brings_its_normalization() -> None:
    mobile = choices("--network.backbone", "efficientnet-lite0")
    network_of_file(mobile, backbone_of)
    assert mobile.config.network.normalization == "lite-rgb"
    assert mobile.lines[0].endswith("from its package's ImageNet weights; normalization lite-rgb: theirs")
    for more in (["--network.normalization", "imagenet-rgb"], ["--network.weights", "none"]):
        stated = choices("--network.backbone", "efficientnet-lite0", *more)
        network_of_file(stated, backbone_of)
        assert stated.config.network.normalization == "imagenet-rgb"


@pytest.mark.parametrize(
    ("folders", "argv", "expected"),
    [
        (("train", "val"), (), "train"), (("train",), (), ""), ((), (), ""),
        (("train", "val"), ("--data.source.split", "val"), "val"),
    ],
)  # fmt: skip
def test_a_validation_split_is_kept_back(
    tmp_path: Path, folders: tuple[str, ...], argv: tuple[str, ...], expected: str
) -> None:
    for folder in folders:
        (tmp_path / "images" / folder).mkdir(parents=True)
    chosen = choices("--source", str(tmp_path), *argv)
    split_of_folder(chosen)
    assert chosen.config.data.source.split == expected
    assert len(chosen.lines) == (expected == "train")


def test_each_source_keeps_its_validation_split_back(tmp_path: Path) -> None:
    for folder in ("a/images/train", "a/images/val", "b/images/train", "b/images/val", "c/images"):
        (tmp_path / folder).mkdir(parents=True)
    first, second, third = (str(tmp_path / name) for name in "abc")
    chosen = choices("--source", first, "--source", f"{second}:2", "--source", third)
    split_of_folder(chosen)
    assert [source.split for source in chosen.config.data.sources] == ["train", "train", ""]
    assert [source.weight for source in chosen.config.data.sources] == [1, 2, 1]
    assert len(chosen.lines) == 2
    stated = choices("--source", first, "--source", second, "--data.source.split", "")
    split_of_folder(stated)
    assert [source.split for source in stated.config.data.sources] == ["train", ""]
