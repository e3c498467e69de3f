from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.errors import InputError, UsageError
from lsr_infer.labelspace import LabelSpace
from lsr_train.evaluation.scores import ScoredFrame, check_folder, comparison, write_worst

SPACE = LabelSpace(name="two", names=("a", "b"), colors=((255, 0, 0), (0, 255, 0)))


def scored(name: str, miou: float) -> ScoredFrame:
    labels = np.zeros((8, 10), dtype=np.uint8)
    return ScoredFrame(
        file=name, miou=miou, frame=np.full((8, 10, 3), 100, np.uint8), labels=labels, classes=labels + 1
    )


def test_comparison_shows_frame_labels_and_prediction_and_names_the_classes() -> None:
    labels = np.zeros((60, 200), dtype=np.uint8)
    frame = np.full((60, 200, 3), 100, np.uint8)
    picture = comparison(ScoredFrame(file="x", miou=0.1, frame=frame, labels=labels, classes=labels + 1), SPACE)
    assert picture.shape[0] > 60
    lowest = picture[59]
    assert lowest[0].tolist() == [100, 100, 100]
    assert lowest[lowest.shape[0] // 2].tolist() == [45, 45, 185]  # BGR
    assert lowest[-1].tolist() == [45, 185, 45]
    assert all((picture[60:] == color[::-1]).all(axis=2).any() for color in SPACE.colors)


def test_pictures_are_written_in_order_under_harmless_names(tmp_path: Path) -> None:
    written = write_worst(tmp_path / "new" / "w", [scored("/a/b/c d:1.png", 0.123), scored("e", 0.5)], SPACE)
    assert [path.name for path in written] == ["01_miou-12.3_c_d_1.jpg", "02_miou-50.0_e.jpg"]
    picture = cv2.imread(str(written[0]))
    assert picture is not None
    assert picture.shape[0] > 8  # the classes are named below
    assert sorted(path.name for path in written[0].parent.iterdir()) == [path.name for path in written]


def test_a_second_call_replaces_the_pictures_of_the_first_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").touch()
    write_worst(tmp_path, [scored("a", 0.1), scored("b", 0.2)], SPACE)
    written = write_worst(tmp_path, [scored("c", 0.3)], SPACE)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.jpg", written[0].name}


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    check_folder(tmp_path / "none", overwrite=False)
    check_folder(tmp_path, overwrite=False)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="overwrite"):
        check_folder(tmp_path, overwrite=False)
    check_folder(tmp_path, overwrite=True)
    with pytest.raises(InputError, match="folder"):
        check_folder(tmp_path / "file", overwrite=True)


def test_a_place_that_cannot_be_made_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_worst(tmp_path / "file" / "w", [scored("e", 0.5)], SPACE)
