"""Folders as users have them: what belongs together is found, what cannot is named, and what is unusual is said."""

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.errors import InputError, UsageError
from lsr_infer.labelspace import LabelSpace
from lsr_train.config.data import SourceConfig, TargetConfig
from lsr_train.config.run import Config, DataConfig
from lsr_train.data.footage import footage_files, open_footage
from lsr_train.data.labelled import LabelledImages, choose_label_space, open_labelled
from lsr_train.data.labels import CITYSCAPES_19
from lsr_train.data.layouts import find_pairs
from lsr_train.data.pairing import Pair, Suffixes
from lsr_train.data.scan import settle
from lsr_train.data.shares import report_labels, reported_once

Shared = Callable[[str], Path]
CASES = "data/cases/folders"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def warnings(log: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in log.records if record.levelno >= logging.WARNING)


def opened(root: Path, **options: object) -> LabelledImages:
    source = SourceConfig(**{"root": str(root), "height": 36, "width": 48, **options})  # type: ignore[arg-type]
    return open_labelled(source, choose_label_space(Config(data=DataConfig(source=source))))


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(files: list[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in files]


# -- the target -------------------------------------------------------------------------------------------------------


def test_labels_beside_the_images_of_a_target_are_no_frames(shared: Shared, log: pytest.LogCaptureFixture) -> None:
    root = shared(f"{CASES}/target_with_labels")
    footage = open_footage(TargetConfig(root=str(root), height=36, width=48))
    assert [footage[index].file for index in range(len(footage))] == [
        str(root / "images/00000.png"), str(root / "images/00001.png"),
    ]  # fmt: skip
    assert f"2 files with frames from {root}/images" in log.text
    assert f"2 label images beside frames are left out: 2 in {root}/labels." in log.text
    assert not warnings(log)


def test_label_images_are_told_from_frames_as_everywhere(
    tmp_path: Path, write_image: Callable[..., None], write_labels: Callable[..., None], log: pytest.LogCaptureFixture
) -> None:
    for index in range(3):
        write_image(tmp_path / f"train/{index}.png", seed=index)
        write_labels(tmp_path / f"train_labels/{index}_L.png", range(5))
    frames = [f"train/{index}.png" for index in range(3)]
    for root in (str(tmp_path), f"{tmp_path}/**/*.*"):
        assert names(footage_files(TargetConfig(root=root)), tmp_path) == frames
    assert len(footage_files(TargetConfig(root=f"{tmp_path}/train_labels"))) == 3, "it is named itself"
    open_footage(TargetConfig(root=str(tmp_path), height=36, width=48))
    assert f"3 label images beside frames are left out: 3 in {tmp_path}/train_labels. To take them" in log.text


def test_frames_that_look_like_labels_are_warned_of(
    tmp_path: Path, write_image: Callable[..., None], write_labels: Callable[..., None], log: pytest.LogCaptureFixture
) -> None:
    for index in range(3):
        write_image(tmp_path / f"cam/{index}.png", seed=index, height=200, width=300)
        write_labels(tmp_path / f"cam_classes/{index}.png", range(19), height=200, width=300)
        write_labels(tmp_path / f"cam/{index}_drivable.png", range(5), height=200, width=300)
        write_labels(tmp_path / f"other/mask{index}.png", range(5), height=200, width=300)
    cv2.imwrite(str(tmp_path / "cam/lens_cap.png"), np.zeros((200, 300, 3), np.uint8))
    footage = open_footage(TargetConfig(root=str(tmp_path), height=36, width=48))
    frames = [Path(footage[index].file) for index in range(len(footage))]
    assert names(frames, tmp_path) == [
        "cam/0.png", "cam/1.png", "cam/2.png", "cam/lens_cap.png",
        "other/mask0.png", "other/mask1.png", "other/mask2.png",
    ]  # fmt: skip
    assert footage.lab().shape == (7, 2, 3)
    assert f"left out: 3 in {tmp_path}/cam, 3 in {tmp_path}/cam_classes." in log.text, "called as frames are"
    assert f"3 of 7 frames have as few colours as label images, in {tmp_path}/other" in warnings(log)
    assert "--target" in warnings(log)


# -- pairs ------------------------------------------------------------------------------------------------------------


def test_label_files_derived_from_others_are_left_out_and_said(shared: Shared, log: pytest.LogCaptureFixture) -> None:
    root = shared(f"{CASES}/gta_daformer")
    images = opened(root, layout="gta5")
    assert len(images) == 4
    assert "4 files beside these, such as 00001_labelTrainIds.png, belong to none by name and are left out" in log.text
    derived = find_pairs("gta5", str(root), "", "cityscapes-trainid", Suffixes(label="_labelTrainIds"))
    assert [pair.labels.name for pair in derived.pairs] == [f"0000{index}_labelTrainIds.png" for index in range(1, 5)]
    assert not derived.problems


def test_a_number_behind_a_name_is_another_image(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "labels/a.png", "labels/a_2.png", "labels/a_color.png", "labels/a-train.ids.png")
    found = find_pairs("folder", str(tmp_path), "", "auto").matched
    assert found.problems == (f"{tmp_path}/labels/a_2.png: is a label file without an image",)
    assert names(list(found.left_out), tmp_path) == ["labels/a-train.ids.png", "labels/a_color.png"]


def test_cityscapes_without_cities_pairs(shared: Shared) -> None:
    root = shared(f"{CASES}/cs_flat")
    for split in ("", "train"):
        found = find_pairs("cityscapes", str(root), split, "auto")
        assert [pair.labels.name for pair in found.pairs] == [f"a{index}_gtFine_labelIds.png" for index in range(4)]
        assert not found.problems


@pytest.mark.parametrize(
    ("images", "labels"),
    [("", ""), ("train/", "train/"), ("train/", "train/aachen/"), ("train/aachen/", "train/"), ("aachen/", "aachen/")],
)
@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes_trees_of_other_depths_pair(tmp_path: Path, images: str, labels: str, kind: str) -> None:
    for name in ("aachen_0_1", "aachen_0_2"):
        touch(tmp_path, f"leftImg8bit/{images}{name}_leftImg8bit.jpg", f"gtFine/{labels}{name}_gtFine_{kind}.png")
    found = find_pairs("cityscapes", str(tmp_path), "", "auto")
    assert (len(found.pairs), found.problems) == (2, ())


def test_cities_may_number_their_images_alike(tmp_path: Path) -> None:
    for city in ("a", "b"):
        touch(tmp_path, f"leftImg8bit/train/{city}/1_leftImg8bit.png", f"gtFine/train/{city}/1_gtFine_labelIds.png")
    found = find_pairs("cityscapes", str(tmp_path), "", "auto")
    assert all(pair.image.parent.name == pair.labels.parent.name for pair in found.pairs)
    assert (len(found.pairs), found.problems) == (2, ())


def test_the_near_match_and_its_option_are_named(shared: Shared) -> None:
    root = shared(f"{CASES}/suffix")
    with pytest.raises(InputError) as caught:
        opened(root)
    text = str(caught.value)
    assert text.startswith("none of 4 files of")
    assert "Set --data.source.label_suffix _labelTrainIds to pair such names." in text
    assert f"{root}/images/00000.png: has no label file; {root}/labels/00000_labelTrainIds.png is near" in text
    assert len(opened(root, label_suffix="_labelTrainIds")) == 4


@pytest.mark.parametrize(
    ("image", "label", "suffixes"),
    [
        ("{}_leftImg8bit", "{}_gtFine_labelIds", Suffixes(image="_leftImg8bit", label="_gtFine_labelIds")),
        ("{}_rgb", "{}_seg", Suffixes(image="_rgb", label="_seg")),
        ("{}", "{}_L", Suffixes(label="_L")),
        ("{}.camera", "{}", Suffixes(image=".camera")),
        ("seq/{}", "seq/{}-mask", Suffixes(label="-mask")),
    ],
)
def test_suffixes_are_found_and_taken(tmp_path: Path, image: str, label: str, suffixes: Suffixes) -> None:
    for index in ("0001", "0002", "0010"):
        touch(tmp_path, f"images/{image.format(index)}.jpg", f"labels/{label.format(index)}.png")
    found = find_pairs("folder", str(tmp_path), "", "auto").matched
    options = [f"--data.source.{side}_suffix {ending}" for side, ending in vars(suffixes).items() if ending]
    assert found.advice == (f"Set {' '.join(options)} to pair such names.",)
    assert len(found.problems) == 3
    taken = find_pairs("folder", str(tmp_path), "", "auto", suffixes)
    assert (len(taken.pairs), taken.problems) == (3, ())


def test_several_kinds_of_labels_are_all_offered(tmp_path: Path) -> None:
    for index in range(3):
        touch(tmp_path, f"images/{index}.png", f"labels/{index}_ids.png", f"labels/{index}_color.png", "labels/x.png")
    found = find_pairs("folder", str(tmp_path), "", "auto").matched
    assert found.advice == (
        "Set --data.source.label_suffix _ids or --data.source.label_suffix _color to pair such names.",
    )
    assert [line for line in found.problems if "without an image" in line] == [
        f"{tmp_path}/labels/x.png: is a label file without an image"
    ]


def test_labels_in_jpeg_and_in_other_folders_are_said(tmp_path: Path) -> None:
    touch(tmp_path, "a/images/1.png", "a/labels/1.jpg", "a/images/2.png", "a/labels/2.png", "a/labels/2.jpg")
    found = find_pairs("folder", str(tmp_path / "a"), "", "auto").matched
    assert "as PNG where they are made" in found.advice[0]
    assert "converting it keeps" in found.advice[0]
    assert len(found.advice) == 1
    assert found.problems == (f"{tmp_path}/a/images/1.png: has no label file; {tmp_path}/a/labels/1.jpg is near",)
    assert names(list(found.left_out), tmp_path) == ["a/labels/2.jpg"]
    touch(tmp_path, "b/images/train/1.png", "b/labels/1.png")
    found = find_pairs("folder", str(tmp_path / "b"), "", "auto").matched
    assert found.advice == ("Give images and labels the same names, in folders of the same names.",)
    assert f"{tmp_path}/b/labels/1.png is near" in found.problems[0]


@pytest.mark.parametrize(
    ("image", "label"), [("IMG_{}.JPG", "img_{}.png"), ("rgb_{}.png", "seg_{}.png"), ("{}.png", "gt{}.png")]
)
def test_names_of_another_case_or_prefix_are_near(tmp_path: Path, image: str, label: str) -> None:
    for index in ("0001", "0002"):
        touch(tmp_path, f"images/{image.format(index)}", f"labels/{label.format(index)}")
    found = find_pairs("folder", str(tmp_path), "", "auto").matched
    assert found.advice == ("Give images and labels the same names, in folders of the same names.",)
    assert [
        line.endswith(f"{label.format(f'000{index}')} is near") for index, line in enumerate(found.problems, 1)
    ] == [True] * 2


def test_a_suffix_may_have_its_file_type() -> None:
    assert Suffixes(image="_leftImg8bit.png", label="_labelTrainIds.PNG") == Suffixes(
        image="_leftImg8bit", label="_labelTrainIds"
    )
    assert Suffixes(image=".camera").image == ".camera"


def test_a_layout_is_recognised_in_place_of_another(tmp_path: Path) -> None:
    touch(tmp_path, "leftImg8bit/train/a_leftImg8bit.png")
    with pytest.raises(InputError, match="It looks like layout cityscapes"):
        find_pairs("folder", str(tmp_path), "", "auto")
    touch(tmp_path, "images/train/a.png", "masks/train/a.png")
    for split, beside in (("", "images, leftImg8bit, masks"), ("train", "val")):
        with pytest.raises(InputError, match=rf"there is no {tmp_path}/labels.*; in .* are {beside}\. Call the folder"):
            find_pairs("folder", str(tmp_path), split, "auto")
        (tmp_path / "labels/val").mkdir(parents=True, exist_ok=True)
    with pytest.raises(InputError, match=f"Name {tmp_path}, which holds it"):
        find_pairs("folder", str(tmp_path / "images"), "", "auto")
    touch(tmp_path / "mmseg", "img_dir/a.png", "ann_dir/a.png")
    with pytest.raises(InputError, match=r"are ann_dir, img_dir\. Set the layout or the folder"):
        find_pairs("folder", str(tmp_path / "mmseg"), "", "auto")
    with pytest.raises(UsageError, match="suffixes of its own"):
        find_pairs("cityscapes", str(tmp_path), "", "auto", Suffixes(label="_x"))


def test_long_lists_are_cut_with_a_count(caplog: pytest.LogCaptureFixture) -> None:
    problems = [f"{index}.png: has no label file" for index in range(1234)]
    with pytest.raises(InputError) as caught:
        settle(problems, 2000, "stop", "files", ["Do this."])
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[-1]) == (22, "  and 1214 more")
    assert lines[0].endswith("Do this.")
    settle(problems, 2000, "skip", "files")
    assert len(caplog.records) == 22
    with pytest.raises(InputError) as caught:
        settle(problems[:20], 20, "skip", "files")
    assert len(str(caught.value).splitlines()) == 21


# -- classes ----------------------------------------------------------------------------------------------------------

CLASSES = "classes:\n  - {name: lane, color: [1, 2, 3], ids: [0, 1]}\n  - {name: kerb, color: [3, 2, 1], ids: [13]}\n"


@pytest.mark.parametrize("name", ["classes.yaml", "classes.yml", "Classes.YML"])
def test_the_file_of_classes_may_be_called_yml(labelled_folder: Path, name: str) -> None:
    (labelled_folder / name).write_text(CLASSES + "ignore: [2, 3, 4]\n", encoding="utf-8")
    source = SourceConfig(root=str(labelled_folder), height=36, width=48)
    assert choose_label_space(Config(data=DataConfig(source=source))).names == ("lane", "kerb")
    assert opened(labelled_folder).counts.shape == (11, 2)


def test_a_file_of_classes_elsewhere_says_what_label_files_hold(labelled_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "OWN.YML"
    file.write_text(CLASSES + "ignore: [2, 3, 4]\n", encoding="utf-8")
    source = SourceConfig(root=str(labelled_folder), height=36, width=48)
    space = choose_label_space(Config(label_space=str(file), data=DataConfig(source=source)))
    assert open_labelled(source, space, label_space=str(file)).counts[:, 0].all()


def test_two_files_of_classes_are_refused_and_one_by_another_name_is_said(
    labelled_folder: Path, log: pytest.LogCaptureFixture
) -> None:
    (labelled_folder / "label_map.json").write_text("{}", encoding="utf-8")
    opened(labelled_folder)
    assert "label_map.json: is not read. Name classes in" in warnings(log)
    for name in ("classes.yaml", "classes.yml"):
        (labelled_folder / name).write_text(CLASSES, encoding="utf-8")
    with pytest.raises(InputError, match=r"has classes\.yaml and classes\.yml\. Keep one"):
        opened(labelled_folder)


# -- what the labels hold ---------------------------------------------------------------------------------------------


def test_labels_of_0_and_255_are_one_class_and_void(shared: Shared, log: pytest.LogCaptureFixture) -> None:
    root = shared(f"{CASES}/bin255")
    images = opened(root)
    assert images.counts[:, 1:].sum() == 0
    void = 1 - images.counts.sum() / (4 * 64 * 128)
    assert f"{root}: {100 * void:.3g} % of all pixels are void (255); of the others road 100 %" in log.text
    assert f"every labelled pixel is road, one of 19 classes of {CITYSCAPES_19.name}" in warnings(log)
    assert f"4 images from {root}/images; labels from {root}/labels" in log.text


def test_ids_in_another_channel_are_refused(shared: Shared) -> None:
    root = shared(f"{CASES}/carla_blue")
    with pytest.raises(
        InputError, match=r"none of 4 files.*\n.*its red channel, where ids are read, holds 0 everywhere, and blue"
    ):
        opened(root)


def test_colours_where_ids_are_read_are_told_from_wrong_ids(
    labelled_folder: Path, write_labels: Callable[..., None]
) -> None:
    colors = np.zeros((36, 48, 3), np.uint8)
    colors[:], colors[:, 9:] = (128, 64, 128), (0, 0, 142)
    write_labels(labelled_folder / "labels/val/f0.png", colors)
    with pytest.raises(InputError, match=r"label id 128 .*read from the red channel; RGB colours .* label_colors"):
        opened(labelled_folder)


@pytest.mark.parametrize(("channel", "other"), [(1, "green"), (2, "blue")])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_ids_in_any_other_channel_are_refused_and_in_the_first_they_are_read(
    tmp_path: Path, write_image: Callable[..., None], channel: int, other: str, kind: type
) -> None:
    write_image(tmp_path / "images/1.png")
    (tmp_path / "labels").mkdir()
    colors = np.full((36, 48, 3), 7, dtype=kind)
    colors[:, 20:, channel] = 3
    cv2.imwrite(str(tmp_path / "labels/1.png"), colors[..., ::-1])
    with pytest.raises(InputError, match=f"holds 7 everywhere, and {other} does not"):
        opened(tmp_path)
    cv2.imwrite(str(tmp_path / "labels/1.png"), np.roll(colors, -channel, axis=2)[..., ::-1])
    assert opened(tmp_path).counts[0, [3, 7]].tolist() == [36 * 28, 36 * 20]
    cv2.imwrite(str(tmp_path / "labels/1.png"), np.full((36, 48, 3), (9, 5, 7), dtype=kind))
    assert opened(tmp_path).counts[0, 7] == 36 * 48, "one class, and one instance, all over"


def test_shares_absent_classes_and_much_void_are_said(
    tmp_path: Path, write_image: Callable[..., None], write_labels: Callable[..., None], log: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "images/1.png", height=40, width=100)
    write_labels(tmp_path / "labels/1.png", [*[0] * 3, 13, *[255] * 6], height=40, width=100)
    opened(tmp_path)
    assert "60 % of all pixels are void (255); of the others road 75 %, car 25 %" in log.text
    said = warnings(log)
    assert "no pixel is sidewalk, building, wall, fence, pole" in said
    assert "60 % of all pixels are void, and nothing is learned there" in said
    assert "every labelled pixel" not in said
    for _ in range(2):  # two commands in one process
        log.clear()
        with reported_once():
            opened(tmp_path)
            with reported_once():
                opened(tmp_path)
        assert warnings(log) == said
        assert log.text.count("of the others road") == 1


def test_lists_of_classes_are_cut_with_a_count(log: pytest.LogCaptureFixture) -> None:
    names = tuple(f"class{index}" for index in range(120))
    space = LabelSpace(name="many", names=names, colors=tuple((index, 0, 0) for index in range(120)))
    pairs = [Pair(image=Path("images/1.png"), labels=Path("labels/1.png"))]
    few = np.zeros((1, 120), np.int64)
    few[0, :2] = 300, 100
    report_labels("here", pairs, space, few, np.zeros(1, np.int64))
    assert "no pixel is class2, class3, " in warnings(log)
    assert "class21, and 98 more. Check" in warnings(log)
    assert "class22" not in log.text
    log.clear()
    report_labels("here", pairs, space, np.full((1, 120), 50), np.zeros(1, np.int64))
    assert "of the others class0 0.833 %, class1 0.833 %, " in log.text
    assert log.text.rstrip().endswith("class19 0.833 %, and 100 more")
    assert not warnings(log)


def test_what_is_usual_is_no_warning(shared: Shared, log: pytest.LogCaptureFixture) -> None:
    opened(shared("data/streets"), split="val", ids="cityscapes-trainid")
    lines = warnings(log).splitlines()
    assert all("no pixel is" in line for line in lines), lines
