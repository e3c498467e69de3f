"""Unlabelled frames from folders, globs, videos and Toytown; no label is looked for."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.images import read_image, resize_frame
from lsr_infer.video.reader import read_frames
from lsr_infer.video.writer import VideoWriter
from lsr_train.config.data import TargetConfig
from lsr_train.data.augmentation import lab_statistics
from lsr_train.data.footage import Footage, VideoSampling, open_footage, sample_video, thinned
from tests.lsr_infer.video.damaged_clip import damaged_video


def target(root: Path | str, **options: object) -> TargetConfig:
    return TargetConfig(**{"root": str(root), "height": 36, "width": 48, **options})  # type: ignore[arg-type]


def everything(footage: Footage) -> tuple[list[bytes], list[str], bytes]:
    """All that can be seen of footage, for comparisons."""
    frames = [footage[index].frame.tobytes() for index in range(len(footage))]
    return frames, [footage[index].file for index in range(len(footage))], footage.lab().tobytes()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Three seconds at 10 frames a second: moving, standing from 1.0 to 2.0 s, moving again."""
    path = tmp_path / "clip.mp4"
    texture = cv2.resize(np.random.default_rng(0).integers(0, 256, (12, 40, 3), dtype=np.uint8), (640, 96))
    with VideoWriter(path, width=128, height=96, fps=Fraction(10)) as writer:
        for index in range(30):
            shift = 12 * (index if index < 10 else 10 if index < 20 else index - 10)
            writer.write(np.ascontiguousarray(texture[:, shift : shift + 128]).astype(np.uint8))
    return path


def test_a_folder_is_searched_below_and_a_glob_is_taken_as_it_is(frames_folder: Path) -> None:
    footage = open_footage(target(frames_folder))
    files = sorted(frames_folder.rglob("*.png"))
    assert [footage[index].file for index in range(7)] == [str(path) for path in files]
    assert np.array_equal(footage[2].frame, read_image(files[2]))
    for index, path in enumerate(files):
        assert np.array_equal(footage.lab()[index], lab_statistics(read_image(path)))
    assert len(open_footage(target(frames_folder / "*.png"))) == 5
    assert len(open_footage(target(f"{frames_folder}/**/*.png"))) == 7
    assert len(open_footage(target(files[0]))) == 1


def test_a_limit_takes_evenly_spread_frames(frames_folder: Path) -> None:
    everything_there = open_footage(target(frames_folder))
    few = open_footage(target(frames_folder, limit=3))
    assert [few[index].file for index in range(3)] == [everything_there[index].file for index in (1, 3, 5)]
    assert np.array_equal(few.lab(), everything_there.lab()[[1, 3, 5]])


def test_bad_frames_stop_or_are_left_out(frames_folder: Path, tmp_path: Path) -> None:
    files = sorted(frames_folder.rglob("*.png"))
    files[1].write_bytes(files[1].read_bytes()[:-30])
    files[6].write_bytes(b"")
    with pytest.raises(InputError) as caught:
        open_footage(target(frames_folder), cache=tmp_path / "cache")
    assert str(files[1]) in str(caught.value)
    assert str(files[6]) in str(caught.value)
    footage = open_footage(target(frames_folder), on_bad="skip")
    assert len(footage) == 5
    assert len(footage.left_out) == 2
    assert np.array_equal(footage.lab()[1], lab_statistics(read_image(files[2])))


def test_a_wrong_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    for root, message in (
        (tmp_path / "none", "does not exist"),
        (tmp_path / "none*.png", "holds no image and no video"),
        (tmp_path / "empty", "holds no image and no video"),
        (tmp_path / "notes.txt", "neither image nor video"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            open_footage(target(root))
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"--data\.target\.root"):
        open_footage(target(""))


def test_data_sets_give_their_images_without_labels(labelled_folder: Path) -> None:
    for path in labelled_folder.rglob("labels/**/*.png"):
        path.unlink()
    assert len(open_footage(target(labelled_folder, layout="folder", split="train"))) == 9
    assert len(open_footage(target(labelled_folder, layout="camvid"))) == 11


@pytest.mark.parametrize("seconds", [0.0, 0.04, 0.3, 0.5, 7.0])
def test_frames_are_taken_at_the_first_moment_of_each_interval(seconds: float) -> None:
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.uniform(0.01, 0.2, 60)) + 3.0  # a variable rate, starting late
    frames = [(float(moment), rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for moment in times]
    sampling = VideoSampling(seconds=seconds, static=0, height=8, width=8)
    taken = [moment for moment, _ in thinned(frames, sampling)]
    if seconds == 0:
        assert taken == times.tolist()
        return
    intervals = np.floor((times - times[0]) / seconds + 1e-6)
    expected = [float(times[np.flatnonzero(intervals == value)[0]]) for value in np.unique(intervals)]
    assert taken == expected


def test_standing_frames_are_measured_against_the_last_kept_one() -> None:
    levels = [100, 101, 102, 103, 104, 110, 110, 90]
    frames = [(float(index), np.full((8, 8, 3), level, dtype=np.uint8)) for index, level in enumerate(levels)]
    for static, expected in ((0.0, list(range(8))), (2.0, [0, 2, 4, 5, 7]), (15.0, [0])):
        sampling = VideoSampling(seconds=0, static=static, height=8, width=8)
        assert [int(moment) for moment, _ in thinned(frames, sampling)] == expected


def test_a_video_is_sampled_the_same_from_memory_and_from_the_cache(video: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    options = {"seconds": 0.2, "static": 3.0}
    fresh = everything(open_footage(target(video, **options)))
    for _ in range(2):
        assert everything(open_footage(target(video, **options), cache=cache)) == fresh
    names = fresh[1]
    assert names[0] == f"{video}@0.000s"
    assert [float(name.rpartition("@")[2][:-1]) for name in names] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 2.2, 2.4, 2.6, 2.8]
    expected = [item.frame for item in read_frames(video) if item.index in (0, 22)]
    footage = open_footage(target(video, **options), cache=cache)
    assert np.array_equal(footage[0].frame, resize_frame(expected[0], 36, 48))
    assert np.array_equal(footage[6].frame, resize_frame(expected[1], 36, 48))
    assert len(open_footage(target(video, **options, limit=4), cache=cache)) == 4
    assert len(open_footage(target(video, seconds=0.2, static=0.0), cache=cache)) == 15


def test_a_damaged_cache_of_a_video_is_made_again(video: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    fresh = everything(open_footage(target(video), cache=cache))
    (folder,) = (path for path in (cache / "video").iterdir() if path.is_dir())
    names = {path.name for path in folder.iterdir()}
    for harm in (
        lambda: (folder / "000001.png").unlink(),
        lambda: (folder / "frames.json").write_text("{"),
        lambda: (folder / "frames.json").write_text('{"times": 5}'),
        lambda: (folder / "frames.json").unlink(),
    ):
        harm()
        assert everything(open_footage(target(video), cache=cache)) == fresh
    assert {path.name for path in folder.iterdir()} == names, "nothing half-made is left"
    (tmp_path / "file").touch()
    unwritable = open_footage(target(video), cache=tmp_path / "file")
    assert [unwritable[index].frame.tobytes() for index in range(len(unwritable))] == fresh[0]


def test_a_folder_may_hold_videos_and_frames(video: Path, frames_folder: Path) -> None:
    video.rename(frames_folder / "clip.mp4")
    footage = open_footage(target(frames_folder, seconds=0.5, static=0.0))
    assert len(footage) == 7 + 6
    assert footage.lab().shape == (13, 2, 3)
    assert footage[12].file.endswith("clip.mp4@2.500s")


def test_a_video_broken_in_the_middle_stops_or_gives_what_it_has(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    folder = shared("data/badmedia")
    for name in ("derived/text_renamed.mp4", "mp4parse/invalid_userdata.mp4", "derived/truncated_half.mp4"):
        with pytest.raises(InputError, match="none of 1"):
            open_footage(target(folder / name), on_bad="skip", cache=tmp_path / "cache")
    path = folder / "mp4parse" / "no_timescale.mp4"  # 12 of its packets cannot be decoded
    footage = open_footage(target(path, seconds=0.0, static=0.0), cache=tmp_path / "cache")
    assert (len(footage), footage.left_out) == (170, ())
    path = tmp_path / "cut.mkv"
    damaged_video(path, 12, (), cut=0.6)
    with pytest.raises(InputError, match=r"cut\.mkv"):
        open_footage(target(path, static=0.0), cache=tmp_path / "cache")
    footage = open_footage(target(path, seconds=0.0, static=0.0), on_bad="skip", cache=tmp_path / "cache")
    assert 1 <= len(footage) < 12
    assert len(footage.left_out) == 1
    again = open_footage(target(path, seconds=0.0, static=0.0), on_bad="skip", cache=tmp_path / "cache")
    assert everything(again) == everything(footage)
    assert again.left_out == footage.left_out


def test_a_missing_video_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    sampling = VideoSampling(seconds=1, static=0, height=8, width=8)
    for cache in (None, tmp_path / "cache"):
        sampled = sample_video(tmp_path / "none.mp4", sampling, cache)
        assert not sampled.frames
        assert sampled.problem is not None
        assert "none.mp4" in sampled.problem


def test_toytown_as_target_shows_no_labels() -> None:
    footage = open_footage(TargetConfig(layout="toytown-camera", split="train", height=32, width=64, limit=3))
    assert len(footage) == 3
    assert footage[1].frame.shape == (32, 64, 3)
    assert footage.lab().shape == (3, 2, 3)
    assert footage[0].file.startswith("toytown-camera:")
    assert not hasattr(footage, "counts")


def test_a_real_drive_is_sampled_by_time(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    clip = shared("data/clips/camvid_0016E5_15fps.mp4")
    footage = open_footage(target(clip, seconds=1.0, static=0.0, height=60, width=80), cache=tmp_path)
    times = [float(footage[index].file.rpartition("@")[2][:-1]) for index in range(len(footage))]
    assert len(footage) == int(times[-1]) + 1
    assert np.allclose(times, np.arange(len(footage)), atol=1 / 15 + 1e-6)


@pytest.mark.parametrize("on_bad", ["stop", "skip"])
def test_packets_that_cannot_be_decoded_are_counted_and_the_video_is_used(
    on_bad: str, tmp_path: Path, shared: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = shared("data/cases/media/bad_packet_all_keyframes.mp4")
    for _ in range(2):  # from the file, then from the cache
        footage = open_footage(target(path, seconds=0, static=0), on_bad=on_bad, cache=tmp_path)
        assert [footage[n].file.rpartition("@")[2] for n in range(5)] == [
            "0.000s",
            "0.067s",
            "0.100s",
            "0.133s",
            "0.167s",
        ]
        assert (len(footage), footage.left_out) == (5, ())
        warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert warned == [f"{path}: 1 packet could not be decoded; the other 5 frames are kept."]
        caplog.clear()


def test_frames_and_files_are_counted_apart(
    frames_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged_video(frames_folder / "packets.mp4", 12, (3, 7, 8))
    options = {"seconds": 0, "static": 0}
    footage = open_footage(target(frames_folder, **options))
    assert (len(footage), footage.left_out) == (7 + 9, ())
    assert "packets.mp4: 3 packets could not be decoded; the other 9 frames are kept." in caplog.text
    damaged_video(frames_folder / "cut.mkv", 12, (), cut=0.6)
    (frames_folder / "none.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"2 of 10 files of .* cannot be used, 1 of them only from where it breaks"):
        open_footage(target(frames_folder, **options))
    caplog.clear()
    footage = open_footage(target(frames_folder, **options), on_bad="skip")
    assert len(footage.left_out) == 2
    assert 7 + 9 < len(footage) < 7 + 9 + 12
    assert "2 of 10 files of" in caplog.text
    assert "are left out, 1 of them only from where it breaks" in caplog.text
    alone = open_footage(target(frames_folder / "cut.mkv", **options), on_bad="skip")
    assert len(alone) == len(footage) - 7 - 9
