"""Files are found where publishers put them, and nothing is passed over in silence."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.sources import image_files
from lsr_train.config.data import Layout
from lsr_train.data.layouts import FOLDER_LAYOUTS, find_images, find_pairs


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_every_layout_of_the_configuration_is_known() -> None:
    assert {*FOLDER_LAYOUTS, "toytown-game", "toytown-camera"} == set(get_args(Layout))


@pytest.mark.parametrize("shape", ["{side}/{split}", "{split}/{side}"])
@pytest.mark.parametrize("layout", ["folder", "camvid", "gta5"])
def test_both_shapes_of_a_folder_are_read(tmp_path: Path, shape: str, layout: str) -> None:
    for split, names in (("train", ("a", "b")), ("val", ("c",))):
        for name in names:
            touch(tmp_path, f"{shape.format(side='images', split=split)}/{name}.jpg")
            touch(tmp_path, f"{shape.format(side='labels', split=split)}/{name}.png")
    train = find_pairs(layout, str(tmp_path), "train", "cityscapes-trainid")
    assert [pair.image.stem for pair in train.pairs] == ["a", "b"]
    assert all(pair.image.stem == pair.labels.stem and pair.labels.suffix == ".png" for pair in train.pairs)
    assert train.ids == "cityscapes-trainid"
    assert not train.problems
    assert [pair.image.stem for pair in find_pairs(layout, str(tmp_path), "", "auto").pairs] == ["a", "b", "c"]
    assert [path.stem for path in find_images(layout, str(tmp_path), "val")] == ["c"]


def test_a_folder_without_splits(tmp_path: Path) -> None:
    touch(tmp_path, "images/seq1/a.png", "images/seq2/a.png", "labels/seq1/a.png", "labels/seq2/a.png", "classes.yaml")
    found = find_pairs("folder", str(tmp_path), "", "auto")
    assert [pair.labels.parent.name for pair in found.pairs] == ["seq1", "seq2"]
    assert found.classes == tmp_path / "classes.yaml"
    assert found.ids == "classes"


def test_what_has_no_partner_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/b.png", "images/b.jpg", "images/c.png", "labels/b.png", "labels/d.png")
    found = find_pairs("folder", str(tmp_path), "", "auto")
    assert len(found.pairs) == 1
    lines = "\n".join(found.problems)
    for text in (
        "a.png: has no label file",
        "c.png: has no label file",
        "d.png: is a label file without",
        "b.png: has the same name",
    ):
        assert text in lines
    assert len(found.problems) == 4


def test_cityscapes_as_downloaded(tmp_path: Path) -> None:
    for split, city in (("train", "aachen"), ("train", "ulm"), ("val", "munster"), ("test", "berlin")):
        stem = f"{city}_000000_000019"
        touch(tmp_path, f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png")
        for kind in ("labelIds", "instanceIds", "color"):
            touch(tmp_path, f"gtFine/{split}/{city}/{stem}_gtFine_{kind}.png")
        touch(tmp_path, f"gtFine/{split}/{city}/{stem}_gtFine_polygons.json")
    found = find_pairs("cityscapes", str(tmp_path), "train", "auto")
    assert found.ids == "cityscapes-id"
    assert [pair.labels.name for pair in found.pairs] == [
        "aachen_000000_000019_gtFine_labelIds.png", "ulm_000000_000019_gtFine_labelIds.png",
    ]  # fmt: skip
    assert len(find_pairs("cityscapes", str(tmp_path), "", "auto").pairs) == 3, "test has no labels to train on"
    assert len(find_images("cityscapes", str(tmp_path), "")) == 4
    missing = find_pairs("cityscapes", str(tmp_path), "val", "cityscapes-trainid")
    assert not missing.pairs
    assert len(missing.problems) == 1
    touch(tmp_path, "gtFine/val/munster/munster_000000_000019_gtFine_labelTrainIds.png")
    found = find_pairs("cityscapes", str(tmp_path), "val", "cityscapes-trainid")
    assert found.pairs[0].labels.name.endswith("labelTrainIds.png")
    with pytest.raises(UsageError, match="cityscapes-trainid or auto"):
        find_pairs("cityscapes", str(tmp_path), "val", "synthia-id")


def test_synthia_and_gta5_as_downloaded(tmp_path: Path) -> None:
    touch(tmp_path, "synthia/RGB/0000000.png", "synthia/GT/LABELS/0000000.png", "synthia/GT/COLOR/0000000.png")
    found = find_pairs("synthia", str(tmp_path / "synthia"), "", "auto")
    assert (len(found.pairs), found.ids, found.problems) == (1, "synthia-id", ())
    touch(tmp_path, "gta5/images/00001.png", "gta5/labels/00001.png")
    found = find_pairs("gta5", str(tmp_path / "gta5"), "", "auto")
    assert (len(found.pairs), found.ids, found.problems) == (1, "gta5-id", ())
    assert len(find_images("synthia", str(tmp_path / "synthia"), "")) == 1


def test_camvid_as_published(tmp_path: Path) -> None:
    touch(tmp_path, "701_StillsRaw_full/0001TP_006690.png", "LabeledApproved_full/0001TP_006690_L.png")
    found = find_pairs("camvid", str(tmp_path), "", "auto")
    assert (len(found.pairs), found.ids, found.problems) == (1, "camvid-color", ())
    assert len(find_images("camvid", str(tmp_path), "")) == 1
    with pytest.raises(InputError, match="no splits"):
        find_pairs("camvid", str(tmp_path), "val", "auto")


@pytest.mark.parametrize("layout", sorted(FOLDER_LAYOUTS))
def test_a_wrong_place_is_one_line(tmp_path: Path, layout: str) -> None:
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "empty").mkdir()
    for root, split, message in (
        (str(tmp_path / "none"), "", "does not exist"),
        (str(file), "", "is not a folder"),
        (str(tmp_path / "empty"), "", "there is no"),
        (str(tmp_path / "empty"), "train", "there is no .*train.* another split"),
    ):
        for find in (
            lambda r=root, s=split: find_pairs(layout, r, s, "auto"),
            lambda r=root, s=split: find_images(layout, r, s),
        ):
            with pytest.raises(InputError, match=message) as caught:
                find()
            assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"--data\.source\.root"):
        find_pairs(layout, "", "", "auto")


def test_folders_without_an_image_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/readme.txt", "images/._a.png", "labels/x.txt")
    with pytest.raises(InputError, match="holds no images"):
        find_pairs("folder", str(tmp_path), "", "auto")
    with pytest.raises(InputError, match="holds no images"):
        find_images("folder", str(tmp_path), "")


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.png", "frames/b.png")
    (tmp_path / "frames" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "frames" / "loop").symlink_to(tmp_path / "frames")
    assert [path.name for path in image_files(tmp_path / "frames")] == ["b.png", "a.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_one_may_not_read_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/closed/b.png")
    (tmp_path / "images" / "closed").chmod(0)
    with pytest.raises(InputError, match="cannot be searched"):
        image_files(tmp_path / "images")


def test_the_data_at_hand_is_found(shared: Callable[[str], Path]) -> None:
    for layout, root, split, count, ids in (
        ("gta5", "data/native/gta5", "", 3, "gta5-id"),
        ("synthia", "data/native/synthia", "", 3, "synthia-id"),
        ("folder", "data/streets", "train", 720, "classes"),
        ("folder", "data/streets", "val", 80, "classes"),
        ("camvid", "data/camvid", "train", 367, "cityscapes-trainid"),
        ("camvid", "data/camvid", "val", 101, "cityscapes-trainid"),
    ):
        found = find_pairs(layout, str(shared(root)), split, "auto")
        assert (len(found.pairs), found.ids, found.problems) == (count, ids, ())
        assert len(find_images(layout, str(shared(root)), split)) == count
