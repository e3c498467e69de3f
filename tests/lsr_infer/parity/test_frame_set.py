"""Frame sets: which frames are chosen, that labels stay with their frames, and what is refused."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.errors import InputError, UnusableFilesError, UsageError
from lsr_infer.labelspace import LabelSpace
from lsr_infer.parity.frame_set import (
    FrameSet,
    check_labels,
    evenly,
    read_frame_set,
    shipped_frames,
    shipped_frames_for,
)
from lsr_infer.render.draw import CITYSCAPES_NAMES
from lsr_infer.video.reader import read_frames
from lsr_infer.video.writer import VideoWriter

Shared = Callable[[str], Path]


def folder(path: Path, count: int = 9) -> Path:
    """Frames whose level is their number, labels likewise."""
    for kind in ("images", "labels"):
        (path / kind).mkdir(parents=True)
    for n in range(count):
        assert cv2.imwrite(str(path / "images" / f"{n:02d}.png"), np.full((4, 6, 3), n, np.uint8))
        assert cv2.imwrite(str(path / "labels" / f"{n:02d}.png"), np.full((4, 6), n, np.uint8))
    return path


def levels(found: FrameSet) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in found.frames]


def test_evenly_spread_indices() -> None:
    assert evenly(5, 0) == evenly(5, 5) == evenly(5, 9) == [0, 1, 2, 3, 4]
    assert evenly(10, 1) == [5]
    assert evenly(10, 2) == [2, 7]
    assert evenly(0, 3) == []
    for total, count in ((367, 60), (1000, 7), (61, 60)):
        chosen = np.array(evenly(total, count))
        assert len(set(chosen.tolist())) == count
        assert np.ptp(np.diff(chosen)) <= 1
        assert abs((chosen[0] + chosen[-1]) - (total - 1)) <= total / count


def test_frames_are_spread_and_keep_their_labels(tmp_path: Path) -> None:
    place = folder(tmp_path / "data")
    found = read_frame_set(place, 3)
    assert levels(found) == [1, 4, 7]
    assert [int(label[0, 0]) for label in found.labels if label is not None] == [1, 4, 7]
    assert found.origin == "3 frames of the user's (data)"
    assert found.names == ["01.png", "04.png", "07.png"]
    assert levels(read_frame_set(place, 99)) == list(range(9))


@pytest.mark.parametrize("inside", ["train/{}", "{}/train"])
def test_a_data_set_gives_one_split_and_never_labels_as_frames(tmp_path: Path, inside: str) -> None:
    made = folder(tmp_path / "made")
    for kind in ("images", "labels"):
        place = tmp_path / "data" / inside.format(kind)
        place.parent.mkdir(parents=True, exist_ok=True)
        (made / kind).rename(place)
    assert levels(read_frame_set(tmp_path / "data", 99, split="train")) == list(range(9))
    labels = read_frame_set(tmp_path / "data", 2, split="train").labels
    assert [int(label[0, 0]) for label in labels if label is not None] == [2, 6]


def test_images_alone_have_no_labels(tmp_path: Path) -> None:
    place = folder(tmp_path / "data") / "images"
    assert read_frame_set(place, 2).labels == [None, None]
    assert levels(read_frame_set(place / "03.png", 5)) == [3]
    labelled = read_frame_set(place, 2, labels=place.parent / "labels")
    assert [int(label[0, 0]) for label in labelled.labels if label is not None] == [2, 6]


def test_a_video_takes_labels_in_the_order_of_their_names(shared: Shared) -> None:
    clip, labels = shared("data/clips/camvid_0016E5_15fps.mp4"), shared("data/camvid/labels/val")
    found = read_frame_set(clip, 4, labels=labels)
    assert len(found) == 4
    frames = [item.frame for item in read_frames(clip)]
    names = sorted(labels.glob("*.png"))
    for place, (frame, label) in zip((12, 37, 63, 88), found.pairs(), strict=True):
        np.testing.assert_array_equal(frame, frames[place])
        assert label is not None
        np.testing.assert_array_equal(label, cv2.imread(str(names[place]), cv2.IMREAD_UNCHANGED))


@pytest.mark.parametrize("wrong", [np.zeros((64, 96), np.uint16), np.zeros((64, 96, 3), np.uint8)])
def test_labels_that_hold_no_class_indices(tmp_path: Path, wrong: np.ndarray) -> None:
    for kind, picture in (("images", np.zeros((64, 96, 3), np.uint8)), ("labels", wrong)):
        (tmp_path / kind).mkdir()
        for n in range(2):
            assert cv2.imwrite(str(tmp_path / kind / f"{n}.png"), picture)
    clip = tmp_path / "clip.mp4"
    with VideoWriter(clip, width=96, height=64, fps=Fraction(25)) as writer:
        for _ in range(2):
            writer.write(np.zeros((64, 96, 3), np.uint8))
    for place in (clip, tmp_path, tmp_path / "images" / "0.png"):
        with pytest.raises(InputError, match=rf"labels/0.png: is {wrong.dtype}.*8-bit class indices"):
            read_frame_set(place, 2, labels=tmp_path / "labels")


def test_the_shipped_frames_are_labelled_and_of_both_domains() -> None:
    found = shipped_frames(4)
    assert len(found) == 4
    assert "Toytown" in found.origin
    for frame, label in found.pairs():
        assert frame.shape == (256, 512, 3)
        assert label is not None
        assert len(np.unique(label)) > 5
    assert len({frame.tobytes() for frame in shipped_frames(12).frames}) == 12


def test_shipped_labels_stay_with_their_own_classes_alone() -> None:
    def space(names: tuple[str, ...], name: str) -> LabelSpace:
        return LabelSpace(name=name, names=names, colors=((0, 0, 0),) * len(names))

    assert all(label is not None for label in shipped_frames_for(space(CITYSCAPES_NAMES, "mine"), 2).labels)
    for names in (("a", "b"), CITYSCAPES_NAMES[::-1]):
        found = shipped_frames_for(space(names, "cityscapes19"), 2)
        assert found.labels == [None, None]
        assert "without their labels" in found.origin


def test_what_is_refused(tmp_path: Path) -> None:
    place = folder(tmp_path / "data")
    with pytest.raises(UsageError):
        read_frame_set(place, 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="gone: there is no such folder of labels"):
        read_frame_set(place, 3, labels=tmp_path / "gone")
    with pytest.raises(InputError, match="holds no image"):
        read_frame_set(tmp_path / "empty", 1)
    (place / "labels" / "04.png").unlink()
    with pytest.raises(InputError, match="does not exist"):
        read_frame_set(place, 3)
    assert cv2.imwrite(str(place / "labels" / "04.png"), np.zeros((3, 6), np.uint8))
    with pytest.raises(InputError, match=r"04\.png: is \[3, 6\], its frame is \[4, 6\]"):
        read_frame_set(place, 3)


def test_every_unusable_file_of_a_folder_is_listed_at_once(tmp_path: Path) -> None:
    """Also those that were not chosen: once the first is removed, others are."""
    place = folder(tmp_path / "data")
    assert len(read_frame_set(place, 3)) == 3
    data = (place / "images" / "04.png").read_bytes()
    for name in ("04", "07"):
        (place / "images" / f"{name}.png").write_bytes(data[:-20])
    (place / "labels" / "02.png").unlink()
    with pytest.raises(UnusableFilesError, match="3 of 9 frames cannot be used") as caught:
        read_frame_set(place, 3)
    assert caught.value.keeps_lines
    first, *listed = str(caught.value).splitlines()
    assert first.startswith(f"{place}: ")
    assert [line.partition(":")[0].strip() for line in listed] == [
        str(place / "labels" / "02.png"), str(place / "images" / "04.png"), str(place / "images" / "07.png")
    ]  # fmt: skip
    for name in ("02", "04", "07"):
        (place / "images" / f"{name}.png").unlink()
    assert len(read_frame_set(place, 99)) == 6


def test_a_named_file_that_is_damaged_is_one_line(tmp_path: Path) -> None:
    place = folder(tmp_path / "data") / "images" / "04.png"
    place.write_bytes(place.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"04\.png") as caught:
        read_frame_set(place, 3)
    assert not caught.value.keeps_lines


def test_labels_that_are_not_wanted_are_not_read(tmp_path: Path) -> None:
    place = folder(tmp_path / "data")
    (place / "labels" / "04.png").write_bytes(b"no label")
    found = read_frame_set(place, 9, labelled=False)
    assert (len(found), found.labels) == (9, [None] * 9)


def test_labels_that_prove_nothing_are_refused() -> None:
    def labelled(*values: int | None) -> FrameSet:
        frames = [np.zeros((4, 6, 3), np.uint8)] * len(values)
        labels = [None if value is None else np.full((4, 6), value, np.uint8) for value in values]
        return FrameSet(frames=frames, labels=labels, origin="the test's")

    check_labels(labelled(None, None), 5)
    check_labels(labelled(255, None, 4), 5)
    with pytest.raises(InputError, match="the labels of the test's are void everywhere"):
        check_labels(labelled(255, None, 255), 5)
    with pytest.raises(InputError, match=r"of frame 2 \(the test's\) hold 254; allowed are .* 0 to 4, and 255"):
        check_labels(labelled(0, 4, 254, 6), 5)
