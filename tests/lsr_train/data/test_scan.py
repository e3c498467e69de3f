"""Every unusable file is named before step 1; what was found is kept, failures are not."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.errors import InputError
from lsr_infer.io.images import fit_mask, read_image, read_label, resize_frame
from lsr_train.data.augmentation import lab_statistics
from lsr_train.data.labels import CAMVID_11, CITYSCAPES_19, encoding_map
from lsr_train.data.layouts import Pair, find_pairs
from lsr_train.data.scan import scan_images, scan_pairs, settle, user_cache_folder

TRAIN_IDS = encoding_map("cityscapes-trainid", CITYSCAPES_19)


def pairs_of(root: Path, split: str = "train") -> tuple[Pair, ...]:
    return find_pairs("folder", str(root), split, "cityscapes-trainid").pairs


def counts_oracle(pairs: tuple[Pair, ...], mask: np.ndarray | None = None) -> np.ndarray:
    """Class by class, image by image."""
    counts = np.zeros((len(pairs), 19), dtype=np.int64)
    for index, pair in enumerate(pairs):
        labels = read_label(pair.labels)
        if mask is not None:
            labels = np.where(mask, 255, labels)
        for label in range(19):
            counts[index, label] = (labels == label).sum()
    return counts


def test_counts_are_those_of_the_files(labelled_folder: Path, tmp_path: Path) -> None:
    pairs = pairs_of(labelled_folder)
    expected = counts_oracle(pairs)
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        scan = scan_pairs(pairs, TRAIN_IDS, 19, cache=cache)
        assert np.array_equal(scan.counts, expected)
        assert not scan.problems
    grouped = scan_pairs(pairs, encoding_map("cityscapes-trainid", CAMVID_11), 11, cache=tmp_path / "cache")
    assert grouped.counts.sum() == expected.sum(), "another label space is served by the same record"


def test_the_mask_is_left_out_of_counts_and_checks(labelled_folder: Path, tmp_path: Path) -> None:
    pairs = pairs_of(labelled_folder)
    values = read_label(pairs[0].labels)
    values[30:] = 77
    cv2.imwrite(str(pairs[0].labels), values)
    mask = np.zeros((36, 48), dtype=bool)
    mask[30:] = True
    cache = tmp_path / "cache"
    assert len(scan_pairs(pairs, TRAIN_IDS, 19, cache=cache).problems) == 1
    scan = scan_pairs(pairs, TRAIN_IDS, 19, mask=mask, cache=cache)
    assert not scan.problems
    assert np.array_equal(scan.counts, counts_oracle(pairs, mask))
    assert len(scan_pairs(pairs, TRAIN_IDS, 19, cache=cache).problems) == 1, "the mask is part of what is kept"


def damage(pairs: tuple[Pair, ...]) -> list[tuple[Path, str]]:
    """Break eight pairs in eight ways; return each culprit and what must be said of it."""
    pairs[0].image.write_bytes(pairs[0].image.read_bytes()[:300])
    pairs[1].labels.write_bytes(pairs[1].labels.read_bytes()[:60])
    cv2.imwrite(str(pairs[2].labels), np.zeros((36, 47), dtype=np.uint8))
    values = read_label(pairs[3].labels)
    values[20, 31] = 34
    values[21, 0] = 35
    cv2.imwrite(str(pairs[3].labels), values)
    pairs[4].image.unlink()
    pairs[5].labels.write_bytes(b"")
    pairs[6].labels.write_bytes(pairs[6].image.read_bytes())
    pairs[7].image.unlink()
    pairs[7].image.mkdir()
    return [
        (pairs[0].image, "is truncated"),
        (pairs[1].labels, "is truncated"),
        (pairs[2].labels, "is 47x36, its image f2.jpg 48x36"),
        (pairs[3].labels, r"label id 34 is not in the map cityscapes-trainid (row 20, column 31)"),
        (pairs[4].image, "does not exist"),
        (pairs[5].labels, "is empty"),
        (pairs[6].labels, "label files are PNG"),
        (pairs[7].image, "is a folder"),
    ]


def test_all_problems_are_in_one_list(labelled_folder: Path, tmp_path: Path) -> None:
    pairs = pairs_of(labelled_folder)
    scan_pairs(pairs, TRAIN_IDS, 19, cache=tmp_path / "cache")
    expected = damage(pairs)
    for cache in (None, tmp_path / "cache"):
        scan = scan_pairs(pairs, TRAIN_IDS, 19, cache=cache)
        assert [index for index, _ in scan.problems] == list(range(8))
        for (path, text), (_, line) in zip(expected, scan.problems, strict=True):
            assert line.startswith(str(path))
            assert text in line
            assert "\n" not in line
        assert "and 1 more such" in scan.problems[3][1]
        assert np.array_equal(scan.counts[8], counts_oracle(pairs[8:])[0])
        assert not scan.counts[:8].any()
    with pytest.raises(InputError) as caught:
        settle([line for _, line in scan.problems], 9, "stop", "files")
    assert "8 of 9 files" in str(caught.value)
    assert all(str(path) in str(caught.value) for path, _ in expected)


def test_skipping_counts_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        settle(["x: bad", "y: bad"], 5, "skip", "files")
    assert "2 of 5 files are left out" in caplog.text
    assert "y: bad" in caplog.text
    settle([], 5, "stop", "files")
    with pytest.raises(InputError, match="none of 2"):
        settle(["x: bad", "y: bad"], 2, "skip", "files")


def test_a_photograph_is_no_label_file(tmp_path: Path, write_image: Callable[..., None]) -> None:
    write_image(tmp_path / "a.png", height=200, width=300)
    colors = encoding_map("camvid-color", CITYSCAPES_19)
    pair = Pair(image=tmp_path / "a.png", labels=tmp_path / "a.png")
    ((_, line),) = scan_pairs([pair], colors, 19).problems
    assert "different values; this is no label file" in line


def test_the_cache_is_used_and_follows_the_files(
    labelled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, cache = pairs_of(labelled_folder), tmp_path / "cache"
    scan_pairs(pairs, TRAIN_IDS, 19, cache=cache)
    reads: list[Path] = []
    monkeypatch.setattr(
        "lsr_train.data.scan.read_image", lambda path, bits: reads.append(path) or read_image(path, bits)
    )
    scan_pairs(pairs, TRAIN_IDS, 19, cache=cache)
    assert not reads
    stat = pairs[2].labels.stat()
    os.utime(pairs[2].labels, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    scan_pairs(pairs, TRAIN_IDS, 19, cache=cache)
    assert reads == [pairs[2].image]
    (file,) = (cache / "scan").iterdir()
    for damaged in ("", "[1]", "{", json.dumps(dict.fromkeys(json.loads(file.read_text()), 5))):
        file.write_text(damaged)
        assert not scan_pairs(pairs, TRAIN_IDS, 19, cache=cache).problems


def test_a_cache_that_cannot_be_written_is_a_warning(
    labelled_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").touch()
    scan = scan_pairs(pairs_of(labelled_folder), TRAIN_IDS, 19, cache=tmp_path / "cache")
    assert not scan.problems
    assert "is not cached" in caplog.text


def test_images_are_checked_and_measured_at_training_size(frames_folder: Path, tmp_path: Path) -> None:
    files = sorted(frames_folder.rglob("*.png"))
    files[3].write_bytes(files[3].read_bytes()[:100])
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        scan = scan_images(files, 18, 24, cache=cache)
        assert [index for index, _ in scan.problems] == [3]
        for index, path in enumerate(files):
            if index != 3:
                assert np.array_equal(scan.lab[index], lab_statistics(resize_frame(read_image(path), 18, 24)))
    assert not np.array_equal(scan_images(files, 9, 12, cache=tmp_path / "cache").lab[0], scan.lab[0])


def test_a_mask_that_is_resized_never_loses_an_ignored_pixel() -> None:
    mask = np.zeros((90, 120), dtype=bool)
    mask[80:] = True
    mask[5, 7] = True
    small = fit_mask(mask, 9, 12)
    assert small is not None
    assert small.tolist()[8] == [True] * 12
    assert small[0, 0]
    assert small.sum() == 13
    large = fit_mask(mask, 180, 240)
    assert large is not None
    assert large.sum() == 4 * mask.sum()
    assert fit_mask(None, 3, 3) is None
    assert fit_mask(mask, 90, 120) is mask


def test_the_users_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_folder() == tmp_path / "lsr_road"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert user_cache_folder() == Path.home() / ".cache" / "lsr_road"


def test_the_data_at_hand_has_no_unknown_id(shared: Callable[[str], Path]) -> None:
    for layout, root in (("gta5", "data/native/gta5"), ("synthia", "data/native/synthia")):
        found = find_pairs(layout, str(shared(root)), "", "auto")
        scan = scan_pairs(found.pairs, encoding_map(found.ids, CITYSCAPES_19), 19)
        assert not scan.problems
        assert (scan.counts.sum(axis=0) > 0).sum() >= 10
    found = find_pairs("gta5", str(shared("data/native/gta5")), "", "cityscapes-trainid")
    scan = scan_pairs(found.pairs, encoding_map(found.ids, CITYSCAPES_19), 19)
    assert len(scan.problems) == 3
    assert "is not in the map cityscapes-trainid" in scan.problems[0][1]
