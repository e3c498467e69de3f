"""Label spaces, the encodings of published label files, and a user's own classes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsr_infer.errors import InputError, UsageError
from lsr_infer.labelspace import LabelSpace
from lsr_train.data.classes_file import load_classes, load_label_space
from lsr_train.data.labels import (
    CAMVID_11,
    CITYSCAPES_19,
    ENCODINGS,
    IGNORE_INDEX,
    LABEL_SPACES,
    SYNTHIA_13,
    SYNTHIA_16,
    IdMap,
    encoding_map,
    translation,
)

CITYSCAPES_NAMES_BY_ID = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
SYNTHIA_NAMES_BY_ID = {
    1: "sky", 2: "building", 3: "road", 4: "sidewalk", 5: "fence", 6: "vegetation", 7: "pole", 8: "car",
    9: "traffic sign", 10: "person", 11: "bicycle", 12: "motorcycle", 15: "traffic light", 16: "terrain", 17: "rider",
    18: "truck", 19: "bus", 20: "train", 21: "wall",
}  # fmt: skip


def named(id_map: IdMap, space: LabelSpace, value: int) -> str | None:
    """The class name a raw id ends in."""
    label = int(id_map.apply(np.array([[value]], dtype=np.uint16))[0, 0])
    return None if label == IGNORE_INDEX else space.names[label]


@pytest.mark.parametrize("name", sorted(LABEL_SPACES))
def test_a_space_is_found_by_its_name_and_survives_plain_data(name: str) -> None:
    space = load_label_space(name)
    assert space.name == name
    assert LabelSpace.from_dict(space.to_dict()) == space
    assert len(set(space.colors)) == space.num_classes


def test_the_spaces_have_the_published_sizes_and_subsets() -> None:
    assert [space.num_classes for space in (CITYSCAPES_19, SYNTHIA_16, SYNTHIA_13, CAMVID_11)] == [19, 16, 13, 11]
    absent = {"terrain", "truck", "train"}
    assert set(CITYSCAPES_19.names) - set(SYNTHIA_16.names) == absent
    assert set(SYNTHIA_16.names) - set(SYNTHIA_13.names) == {"wall", "fence", "pole"}
    for space, subset, expected in (
        (CITYSCAPES_19, "16", SYNTHIA_16), (CITYSCAPES_19, "13", SYNTHIA_13), (SYNTHIA_16, "13", SYNTHIA_13),
    ):  # fmt: skip
        assert tuple(space.names[index] for index in space.subsets[subset]) == expected.names


@pytest.mark.parametrize(
    ("ids", "by_id", "voids"),
    [
        ("cityscapes-id", CITYSCAPES_NAMES_BY_ID, [0, 1, 4, 6, 9, 14, 18, 29, 30, 255]),
        ("gta5-id", CITYSCAPES_NAMES_BY_ID, [0, 34, 255]),
        ("synthia-id", SYNTHIA_NAMES_BY_ID, [0, 13, 14, 22, 255]),
        ("cityscapes-trainid", dict(enumerate(CITYSCAPES_19.names)), [255]),
    ],
)
@pytest.mark.parametrize("space", [CITYSCAPES_19, SYNTHIA_16, SYNTHIA_13])
def test_an_id_ends_in_the_class_of_that_name(
    ids: str, by_id: dict[int, str], voids: list[int], space: LabelSpace
) -> None:
    id_map = encoding_map(ids, space)
    for value, name in by_id.items():
        assert named(id_map, space, value) == (name if name in space.names else None), value
    for value in voids:
        assert named(id_map, space, value) is None


def test_camvid_groups_are_those_of_the_real_pair() -> None:
    groups = {
        "road": [0], "sidewalk": [1], "building": [2, 3], "fence": [4], "pole": [5], "sign": [6, 7], "tree": [8, 9],
        "sky": [10], "pedestrian": [11], "car": [13, 14, 15, 16], "bicyclist": [12, 17, 18],
    }  # fmt: skip
    assert tuple(groups) == CAMVID_11.names
    id_map = encoding_map("cityscapes-trainid", CAMVID_11)
    for name, members in groups.items():
        assert {named(id_map, CAMVID_11, member) for member in members} == {name}
    assert sum(len(members) for members in groups.values()) == 19


def test_camvid_colors_become_classes() -> None:
    raw = np.array([[[128, 64, 128], [0, 0, 0], [64, 0, 128], [128, 128, 0]]], dtype=np.uint8)
    labels = encoding_map("camvid-color", CAMVID_11).apply(raw)[0]
    assert [CAMVID_11.names[label] if label != 255 else None for label in labels] == ["road", None, "car", "tree"]
    assert len(ENCODINGS["camvid-color"].labels) == 32
    with pytest.raises(InputError, match=r"label colour \(1, 2, 3\).*row 0, column 0"):
        encoding_map("camvid-color", CAMVID_11).apply(np.array([[[1, 2, 3]]], dtype=np.uint8))
    with pytest.raises(ValueError, match="one channel"):
        encoding_map("camvid-color", CAMVID_11).apply(np.zeros((2, 2), dtype=np.uint8))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_id_outside_the_map_is_named_with_its_place(dtype: type) -> None:
    raw = np.full((120, 700), 7, dtype=dtype)
    raw[112, 640] = 34
    with pytest.raises(InputError, match=r"label id 34 .*cityscapes-id \(row 112, column 640\).*data.source.ids"):
        encoding_map("cityscapes-id", CITYSCAPES_19).apply(raw)
    ignored = np.zeros(raw.shape, dtype=bool)
    ignored[112, 640] = True
    labels = encoding_map("cityscapes-id", CITYSCAPES_19).apply(raw, ignored)
    assert labels[112, 640] == IGNORE_INDEX
    assert labels.dtype == np.uint8
    assert (np.delete(labels.ravel(), 112 * 700 + 640) == 0).all()


def test_ids_beyond_every_table_are_outside_the_map() -> None:
    for value in (35, 254, 256, 300, 65535):
        with pytest.raises(InputError, match=f"label id {value} "):
            encoding_map("cityscapes-id", CITYSCAPES_19).apply(np.array([[value]], dtype=np.uint16))
    without_void = IdMap(name="x", labels={254: 1})
    assert without_void.lookup(np.array([253, 254, 255, 256, 65535])).tolist() == [-1, 1, -1, -1, -1]


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.integers(0, 0xFFFF), st.integers(0, 255), min_size=1, max_size=40), st.booleans())
def test_lookup_equals_a_dictionary(labels: dict[int, int], colors: bool) -> None:
    id_map = IdMap(name="any", labels=labels, colors=colors)
    values = np.array([*labels, *(value + 1 for value in labels), 0, 77], dtype=np.int64)
    assert id_map.lookup(values).tolist() == [labels.get(int(value), -1) for value in values]


def test_three_channels_under_an_id_map_mean_the_first() -> None:
    raw = np.zeros((2, 3, 3), dtype=np.uint16)
    raw[..., 0], raw[..., 1] = 8, 12345
    assert (encoding_map("synthia-id", CITYSCAPES_19).apply(raw) == 13).all()


def test_translation_goes_by_name_between_other_spaces() -> None:
    own = LabelSpace(name="own", names=("car", "thing", "road"), colors=((0, 0, 1), (0, 0, 2), (0, 0, 3)))
    table = translation(own, CITYSCAPES_19)
    assert table[:3].tolist() == [13, 255, 0]
    assert table[255] == 255
    assert translation(CITYSCAPES_19, own)[[0, 13, 1]].tolist() == [2, 0, 255]
    other = LabelSpace(name="other", names=("kitchen",), colors=((0, 0, 1),))
    with pytest.raises(InputError, match="shares no class name"):
        translation(own, other)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="allowed: cityscapes19, synthia16"):
        load_label_space("cityscape19")
    with pytest.raises(UsageError, match="allowed: cityscapes-id"):
        encoding_map("cityscapes", CITYSCAPES_19)


CLASSES = """
name: my simulator
classes:
  - {name: road, color: [128, 64, 128], ids: [1, 24]}
  - {name: car, color: [0, 0, 142], ids: [14]}
ignore: [0, 23]
subsets: {drivable: [road]}
"""


def test_a_users_classes_are_read(tmp_path: Path) -> None:
    file = tmp_path / "classes.yaml"
    file.write_text(CLASSES, encoding="utf-8")
    classes = load_classes(file)
    assert load_label_space(str(file)) == classes.space
    assert classes.space.names == ("road", "car")
    assert classes.space.subsets == {"drivable": (0,)}
    assert classes.id_map.apply(np.array([[1, 24, 14, 0, 23, 255]], dtype=np.uint8)).tolist() == [
        [0, 0, 1, 255, 255, 255]
    ]
    into = encoding_map("classes", CITYSCAPES_19, classes)
    assert into.apply(np.array([[24, 14, 0]], dtype=np.uint8)).tolist() == [[0, 13, 255]]
    with pytest.raises(InputError, match=r"label id 2 .*classes\.yaml"):
        classes.id_map.apply(np.array([[2]], dtype=np.uint8))


def test_label_colors_of_a_user_are_read(tmp_path: Path) -> None:
    file = tmp_path / "classes.yaml"
    file.write_text(
        "classes:\n- {name: road, color: [1, 2, 3], label_colors: [[128, 64, 128], [157, 234, 50]]}\n"
        "- {name: car, color: [4, 5, 6], label_colors: [[0, 0, 142]]}\nignore: [[0, 0, 0]]\n",
        encoding="utf-8",
    )
    raw = np.array([[[157, 234, 50], [0, 0, 142], [0, 0, 0]]], dtype=np.uint8)
    assert load_classes(file).id_map.apply(raw).tolist() == [[0, 1, 255]]


def test_without_ids_a_class_is_its_own_number(tmp_path: Path) -> None:
    file = tmp_path / "classes.yaml"
    file.write_text("classes:\n- {name: a, color: [1, 2, 3]}\n- {name: b, color: [3, 2, 1]}\n", encoding="utf-8")
    assert load_classes(file).id_map.apply(np.array([[0, 1, 255]], dtype=np.uint8)).tolist() == [[0, 1, 255]]
    own = encoding_map("classes", CAMVID_11)
    assert own.apply(np.array([[0, 10, 255]], dtype=np.uint8)).tolist() == [[0, 10, 255]]
    with pytest.raises(InputError, match="label id 11 "):
        own.apply(np.array([[11]], dtype=np.uint8))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expected `object`, got `null`"),
        ("[1, 2]", "Expected `object`, got `array`"),
        ("classes: 5", r"Expected `array`, got `int` - at `\$.classes`"),
        ("classes: []", "has 0 classes"),
        ("classes: [{name: a, color: [1, 2]}]", r"`array` of length 3, got 2 - at `\$.classes\[0\].color`"),
        ("classes: [{name: a, color: [1, 2, 300]}]", "`int` <= 255"),
        ("classes: [{name: a, color: [1, 2, true]}]", "Expected `int`, got `bool`"),
        ("classes: [{name: 7, color: [1, 2, 3]}]", "Expected `str`, got `int`"),
        ("classes: [{name: a, colour: [1, 2, 3]}]", "unknown field `colour`"),
        ("classes: [{name: a, color: [1, 2, 3], ids: 3}]", r"`array \| null`, got `int` - at `\$.classes\[0\].ids`"),
        ("classes: [{name: a, color: [1, 2, 3], ids: [x]}]", "Expected `int`, got `str`"),
        ("classes: [{name: a, color: [1, 2, 3], ids: [3]}]\nignore: [3]", "already given"),
        (
            "classes: [{name: a, color: [1, 2, 3], ids: [3]}]\nignore: [[1, 2, 3]]",
            "Expected `int`, got `array`",
        ),
        ("classes: [{name: a, color: [1, 2, 3], ids: [70000]}]", "`int` <= 65535"),
        (
            "classes: [{name: a, color: [1,2,3], ids: [1]}, {name: b, color: [1,2,4], label_colors: [[1,1,1]]}]",
            "one or",
        ),
        ("classes: [{name: a, color: [1, 2, 3]}, {name: a, color: [1, 2, 4]}]", "names a class twice"),
        ("classes: [{name: a, color: [1, 2, 3]}]\nsubsets: {x: [b]}", "allowed: a"),
        ("classes: [{name: a, color: [1, 2, 3]}]\nsubsets: 3", "Expected `object`, got `int`"),
        ("a: b: c", "no readable YAML"),
        ("!!python/object/apply:os.system ['touch /tmp/never']", "no readable YAML"),
        ("\x00\x01", "no readable YAML"),
    ],
)
def test_an_unusable_classes_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "classes.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        load_classes(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_missing_classes_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_label_space(str(tmp_path / "none.yaml"))


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200))
def test_noise_for_a_classes_file_never_ends_in_another_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.mktemp("noise") / "classes.yaml"
    file.write_bytes(data)
    with pytest.raises(InputError):
        load_classes(file)
