"""The command as a person runs it: real clips, broken media, every exit code, interruption, and what is left behind."""

import contextlib
import csv
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.cli import main
from lsr_infer.io.images import read_label
from lsr_infer.labelspace import LabelSpace
from lsr_infer.segmenter import Segmenter
from lsr_infer.video.reader import probe, read_frames
from lsr_infer.video.writer import VideoWriter
from tests.lsr_infer.io.test_images import FILLED
from tests.lsr_infer.onnxfile import colour_model, manifest

Shared = Callable[[str], Path]
ROOT = Path(__file__).resolve().parents[3]
RUN = "import sys; from lsr_infer.cli import main; sys.exit(main())"


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


def start(*words: str | Path) -> subprocess.Popen[str]:
    """Start the command in a process of its own, which minds Ctrl-C even where the tests run in the background."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, words)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def picture(path: Path, level: tuple[int, int, int] = (0, 200, 0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((40, 60, 3), level, np.uint8))
    return path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_real_clip_becomes_an_overlay_and_masks(
    shared: Shared, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = shared("data/clips/udacity_test_video.mp4")
    out = tmp_path / "out"
    assert run(clip, "--model", model, "--output", out, "--save", "overlay,mask", "--json") == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["done"], document["frames"], document["device"]) == (1, 38, "cpu")
    info = probe(out / "udacity_test_video_overlay.mp4")
    assert (info.width, info.height, info.frames) == (1280, 720, 38)
    source, result = list(read_frames(clip)), list(read_frames(out / "udacity_test_video_overlay.mp4"))
    assert [item.time for item in result] == pytest.approx([item.time for item in source], abs=1e-6)
    masks = sorted((out / "udacity_test_video_mask").iterdir())
    assert len(masks) == 38
    with Segmenter(model) as segmenter:
        found = segmenter(source[20].frame)
        np.testing.assert_array_equal(read_label(masks[20]), found.classes)
        drawn = found.overlay(source[20].frame)
    assert np.abs(drawn.astype(int) - result[20].frame).mean() < 8  # H.264 loses a little


def test_side_by_side_with_the_frame_and_with_another_model(shared: Shared, model: Path, tmp_path: Path) -> None:
    clip = shared("data/clips/camvid_0016E5_15fps.mp4")
    other = colour_model(tmp_path / "other.onnx")
    assert run("--model", model, "-o", tmp_path / "a", "--max-frames", "3", "--side-by-side", clip) == 0
    assert run(clip, "--model", model, "-o", tmp_path / "b", "--max-frames", "3", "--side-by-side", other) == 0
    name = "camvid_0016E5_15fps_side_by_side.mp4"
    for folder in ("a", "b"):
        info = probe(tmp_path / folder / name)
        assert (info.width, info.height, info.frames) == (2 * 480 + 4, 360 + 26, 3)  # the classes' names below
    left = next(iter(read_frames(tmp_path / "a" / name))).frame[:360, :480].astype(int)
    assert np.abs(left - next(iter(read_frames(clip))).frame).mean() < 6
    both = next(iter(read_frames(tmp_path / "b" / name))).frame[:360].astype(int)
    assert np.abs(both[:, :480] - both[:, -480:]).mean() < 6  # the same model twice


def test_results_lie_in_a_folder_of_their_own_where_none_is_named(
    shared: Shared, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = shared("data/clips/camvid_0016E5_15fps.mp4")
    assert run(clip, "--model", model, "--max-frames", "2") == 0
    assert [path.name for path in (tmp_path / "segmented").iterdir()] == ["camvid_0016E5_15fps_overlay.mp4"]


def test_folders_mirror_names_stay_apart_and_bad_files_do_not_stop_good_ones(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for name in ("a.png", "a.bmp", "deep/a.png", "deep/b.png"):
        picture(data / name)
    (data / "notes.txt").write_text("left out", encoding="utf-8")
    (data / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    out = data / "out"
    assert run(data, "--model", model, "--output", out, "--save", "mask", "--json") == 6
    document = json.loads(capsys.readouterr().out)
    assert (document["found"], document["done"], document["failed"], document["left_out"]) == (5, 4, 1, 1)
    assert files(out) == {"a.png_mask.png", "a.bmp_mask.png", "deep/a_mask.png", "deep/b_mask.png"}
    assert (read_label(out / "deep" / "a_mask.png") == 1).all()
    assert run(data / "*.bmp", "--model", model, "--output", tmp_path / "glob") == 0
    assert files(tmp_path / "glob") == {"a_overlay.jpg"}


def test_an_ignored_part_is_void(model: Path, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    hood = np.zeros((20, 30), np.uint8)
    hood[10:] = 255
    cv2.imwrite(str(tmp_path / "hood.png"), hood)
    words = (source, "--model", model, "-o", tmp_path / "out", "--save", "mask", "--ignore-mask", tmp_path / "hood.png")
    assert run(*words) == 0
    mask = read_label(tmp_path / "out" / "a_mask.png")
    assert (mask[:20] == 1).all()
    assert (mask[20:] == 255).all()


def test_existing_results_are_kept_unless_told(model: Path, tmp_path: Path, shared: Shared) -> None:
    clip = shared("data/clips/camvid_0016E5_15fps.mp4")
    words = (clip, "--model", model, "-o", tmp_path / "out", "--save", "overlay,mask", "--max-frames")
    assert run(*words, "2") == 0
    before = {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")}
    assert run(*words, "3") == 2
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")} == before
    assert run(*words, "3", "--overwrite") == 0
    assert len(files(tmp_path / "out")) == 4
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def claimed(row: dict[str, str]) -> tuple[bool, int]:
    """Whether both decoders read a file whole, and how many frames a video then has."""
    whole = row["result_a"].startswith("ok") and row["result_b"].startswith("ok") and row["file"] not in FILLED
    found = re.search(r"frames=(\d+)", row["result_b"]) or re.search(r" n=(\d+)", row["result_a"])
    return whole, int(found[1]) if found else 1


def test_every_broken_file_ends_in_its_exit_code(
    shared: Shared, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them, as the command runs them: 0, 4 or 6, one clear line, no traceback, no hang, no silent loss."""
    folder = shared("data/badmedia")
    rows = list(csv.DictReader((folder / "BEHAVIOUR.tsv").read_text(encoding="utf-8").splitlines(), delimiter="\t"))
    listed = {row["file"] for row in rows}
    there = files(folder) - {"BEHAVIOUR.tsv", "README.md"}
    rows += [{"file": name, "result_a": "", "result_b": ""} for name in sorted(there - listed)]
    assert len(rows) > 170
    codes: dict[int, int] = {}
    for number, row in enumerate(rows):
        name, out = row["file"], tmp_path / str(number)
        code = run(folder / name, "--model", model, "-o", out, "--json", "--save", "overlay,mask")
        captured = capsys.readouterr()
        codes[code] = codes.get(code, 0) + 1
        assert code in (0, 4, 6), name
        assert "Traceback" not in captured.err
        (report,) = json.loads(captured.out)["sources"]
        whole, frames = claimed(row)
        if whole:
            assert code == 0, (name, report["error"])
            assert report["frames"] + report.get("pictures_left_out", 0) >= (
                frames if report["kind"] == "video" else 1
            ), name
        errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == (code != 0), (name, captured.err)
        if code == 4:
            assert name in errors[0]
            assert not files(out)
        else:
            overlay, masks = (Path(path) for path in report["outputs"])
            if report["kind"] == "video":
                assert len(list(read_frames(overlay))) == report["frames"] == len(list(masks.iterdir()))
        if code == 6:
            assert str(report["frames"]) in errors[0]
        if name.endswith("no_timescale.mp4"):
            assert (code, report["frames"]) == (6, 170)
            assert "12 packets could not be decoded" in report["error"]
        if name.endswith("invalid_userdata.mp4"):
            assert code == 4
            assert "5544 claimed" in errors[0]
    assert min(codes.values()) >= 1
    assert set(codes) == {0, 4, 6}


@pytest.mark.parametrize(
    ("name", "kind", "frames", "left_out"),
    [
        ("image-rs/any-disposal.gif", "video", 5, 0),
        ("image-rs/interlaced.gif", "image", 1, 0),
        ("pillow/iss634.apng", "video", 41, 0),
        ("pillow/sequence_repeat_chunk.png", "image", 1, 1),
        ("pillow/multipage_out_of_order.tiff", "image", 1, 2),
        ("pillow/multipage_single_frame_loop.tiff", "image", 1, 0),
    ],
)
def test_files_of_several_pictures_lose_none_in_silence(
    shared: Shared, model: Path, tmp_path: Path, name: str, kind: str, frames: int, left_out: int,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    source = shared(f"data/badmedia/{name}")
    with caplog.at_level(logging.WARNING):
        assert run(source, "--model", model, "-o", tmp_path, "--json") == 0
    (report,) = json.loads(capsys.readouterr().out)["sources"]
    assert (report["kind"], report["frames"], report.get("pictures_left_out", 0)) == (kind, frames, left_out)
    assert (f"holds {left_out + 1} pictures" in caplog.text) == (left_out > 0)


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own at a folder, or a skip where mounting is not allowed."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


RESULTS = [("overlay",), ("mask",), ("mask", "--lossless"), ("confidence",), ("json",)]


@pytest.mark.parametrize("save", RESULTS, ids=" ".join)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    shared: Shared, model: Path, tmp_path: Path, save: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    clip = shared("data/clips/udacity_test_video.mp4")
    with mounted(tmp_path / "small", "size=64k") as place:
        (place / "filler").write_bytes(bytes(60 << 10))
        assert run(clip, "--model", model, "-o", place / "out", "--save", *save) == 4
        error = capsys.readouterr().err
        assert "the disk is full" in error.splitlines()[-1]
        assert "Traceback" not in error
        assert files(place) == {"filler"}


def test_a_full_disk_in_the_middle_of_a_folder_keeps_what_is_whole(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    data.mkdir()
    for n in range(6):
        cv2.imwrite(str(data / f"{n}.png"), rng.integers(0, 256, (120, 160, 3), dtype=np.uint8))
    with mounted(tmp_path / "small", "size=64k") as place:
        assert run(data, "--model", model, "-o", place / "out") == 6
        error = capsys.readouterr().err.splitlines()[-1]
        assert "the disk is full" in error
        kept = files(place / "out")
        assert 1 <= len(kept) < 6
        assert f"{len(kept)} of 6 sources done" in error
        assert "not started" in error
        assert all(cv2.imread(str(place / "out" / name)) is not None for name in kept)


@pytest.mark.parametrize("save", RESULTS, ids=" ".join)
def test_a_read_only_folder_is_one_line(
    shared: Shared, model: Path, tmp_path: Path, save: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    clip = shared("data/clips/udacity_test_video.mp4")
    with mounted(tmp_path / "fixed", "ro,size=1m") as place:
        for out in (place, place / "deeper" / "out"):
            assert run(clip, "--model", model, "-o", out, "--save", *save) == 4
            assert "read-only" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("save", RESULTS, ids=" ".join)
def test_every_kind_of_result_is_kept_unless_told(
    shared: Shared, model: Path, tmp_path: Path, save: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "drive.0016.mp4"  # a dot within the name
    clip.symlink_to(shared("data/clips/camvid_0016E5_15fps.mp4"))
    words = (clip, "--model", model, "-o", tmp_path / "out", "--save", *save, "--max-frames")
    assert run(*words, "2") == 0
    before = {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")}
    assert run(*words, "3") == 2
    assert "already exists" in capsys.readouterr().err
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")} == before
    assert run(*words, "3", "--overwrite") == 0
    after = {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")}
    assert after != before
    assert not [name for name in after if "/." in name or name.startswith(".")]
    assert (len(after) == 3) == (save in (("mask",), ("confidence",)))  # a file a frame, else one in all


def test_a_broken_input_is_said_before_an_unusable_output(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "a.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    picture(tmp_path / "out" / "a_overlay.jpg")
    assert run(broken, "--model", model, "-o", tmp_path / "out") == 4
    (tmp_path / "file").write_text("x", encoding="utf-8")
    capsys.readouterr()
    assert run(broken, "--model", model, "-o", tmp_path / "file") == 4
    assert str(broken) in capsys.readouterr().err
    picture(broken)
    assert run(broken, "--model", model, "-o", tmp_path / "out") == 2


def test_confidence_and_shares_say_what_the_segmenter_says(
    shared: Shared, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = shared("data/clips/camvid_0016E5_15fps.mp4")
    hood = np.zeros((36, 48), np.uint8)
    hood[27:] = 255
    cv2.imwrite(str(tmp_path / "hood.png"), hood)
    code = run(
        clip, "--model", model, "-o", tmp_path / "out", "--save", "mask,confidence,json", "--start", "2",
        "--every", "4", "--max-frames", "3", "--ignore-mask", tmp_path / "hood.png",
    )  # fmt: skip
    assert code == 0
    head, *lines = map(json.loads, (tmp_path / "out/camvid_0016E5_15fps_classes.jsonl").read_text().splitlines())
    assert head["classes"] == ["blue", "green", "red"]
    assert (head["width"], head["height"]) == (480, 360)
    source = list(read_frames(clip, start=2))[::4][:3]
    with Segmenter(model) as segmenter:
        for line, item in zip(lines, source, strict=True):
            found = segmenter(item.frame)
            confidence = cv2.imread(
                str(tmp_path / f"out/camvid_0016E5_15fps_confidence/{line['frame']:06d}.png"), cv2.IMREAD_UNCHANGED
            )
            np.testing.assert_array_equal(confidence[:270], np.rint(255 * found.confidence[:270]))
            assert not confidence[270:].any()
            mask = read_label(tmp_path / f"out/camvid_0016E5_15fps_mask/{line['frame']:06d}.png")
            assert line["source_time"] == pytest.approx(item.time, abs=1e-6)
            assert line["time"] == pytest.approx(item.time - 2, abs=1e-6)
            assert line["void"] == pytest.approx(0.25)
            for index, name in enumerate(head["classes"]):
                assert line["shares"].get(name, 0) == pytest.approx((mask == index).mean(), abs=1e-6)
    capsys.readouterr()


def test_working_sizes_reach_the_network(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "a.png"), rng.integers(0, 256, (128, 192, 3), dtype=np.uint8))
    masks = {}
    for name, words in {
        "own": (), "same": ("--size", "96x64"), "size": ("--size", "192x128"), "stride": ("--stride", "1"),
        "tile": ("--tile", "auto"),
    }.items():  # fmt: skip
        assert run(tmp_path / "a.png", "--model", model, "-o", tmp_path / name, "--save", "mask", *words) == 0
        masks[name] = read_label(tmp_path / name / "a_mask.png")
    np.testing.assert_array_equal(masks["own"], masks["same"])
    np.testing.assert_array_equal(masks["size"], masks["stride"])
    assert (masks["own"] != masks["size"]).mean() > 0.1
    assert (masks["tile"] == masks["size"]).mean() > 0.7 > (masks["tile"] == masks["own"]).mean()
    assert run(tmp_path / "a.png", "--model", model, "-o", tmp_path / "x", "--size", "100x60") == 2
    fixed = colour_model(tmp_path / "fixed.onnx", manifest(fixed_size=True))
    for words in (("--size", "192x128"), ("--stride", "2"), ("--tile", "192x128")):
        assert run(tmp_path / "a.png", "--model", fixed, "-o", tmp_path / "x", *words) == 2
    assert run(tmp_path / "a.png", "--model", fixed, "-o", tmp_path / "fixed", "--tile", "auto", "--save", "mask") == 0
    np.testing.assert_array_equal(read_label(tmp_path / "fixed" / "a_mask.png"), masks["tile"])
    capsys.readouterr()


def test_masks_hold_other_ids_only_for_classes_that_have_them(model: Path, tmp_path: Path) -> None:
    space = LabelSpace(name="few", names=("sky", "vegetation", "car"), colors=((0, 0, 255), (0, 255, 0), (255, 0, 0)))
    named = colour_model(tmp_path / "named.onnx", manifest(space))
    source = picture(tmp_path / "a.png")
    words = ("-o", tmp_path / "out", "--save", "mask", "--mask-ids", "cityscapes")
    assert run(source, "--model", model, *words) == 2
    assert run(source, "--model", named, *words) == 0
    assert (read_label(tmp_path / "out" / "a_mask.png") == 21).all()
    assert (cv2.imread(str(tmp_path / "out" / "a_mask.png")) == (0, 255, 0)).all()


def test_a_window_needs_a_display(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert run(picture(tmp_path / "a.png"), "--model", model, "--show") == 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "usage"),
        ([], 2, "at least one"),
        (["x.mp4"], 4, "x.mp4"),
        (["x.mp4", "--ouput", "y"], 2, "--output"),
        (["x.mp4", "-o", "y", "--alpha", "2"], 2, "--alpha"),
        (["x.mp4", "-o", "y", "--save", "overlay,depth"], 2, "depth"),
        (["x.mp4", "-o", "y", "--save", ""], 2, "a name is empty"),
        (["x.mp4", "-o", "y", "--max-frames", "0"], 2, "--max-frames"),
        (["x.mp4", "-o", "y", "--max-frames", "few"], 2, "few"),
        (["x.mp4", "-o", "y", "--every", "0"], 2, "--every"),
        (["x.mp4", "-o", "y", "--fps", "0"], 2, "--fps"),
        (["x.mp4", "-o", "y", "--start", "-1"], 2, "--start"),
        (["x.mp4", "-o", "y", "--size", "big"], 2, "big"),
        (["x.mp4", "-o", "y", "--size", "8x8", "--stride", "2"], 2, "one of them"),
        (["x.mp4", "-o", "y", "--mask-ids", "coco"], 2, "--mask-ids"),
        (["x.mp4", "-o", "y", "--lossless"], 2, "--lossless"),
        (["x.mp4", "-o", "y", "--mask-ids", "cityscapes"], 2, "--mask-ids is about masks"),
        (["x.mp4", "-o", "y", "--fps", "inf"], 2, "a finite number"),
        (["x.mp4", "-o", "y", "--timeout", "0"], 2, "--timeout"),
        (["x.mp4", "-o", "y", "--reconnects", "-1"], 2, "--reconnects"),
        (["ftp://a/x.mp4", "-o", "y"], 2, "rtsp"),
        (["x.mp4", "-o", "y", "--threads", "-1"], 2, "--threads"),
        (["x.mp4", "-o", "y", "--save", "mask", "--side-by-side"], 2, "--side-by-side"),
        (["absent.mp4", "-o", "y"], 4, "absent.mp4"),
        (["nothing/*.mp4", "-o", "y"], 4, "pattern"),
        (["info", "absent.onnx"], 4, "absent.onnx"),
        (["info"], 2, "MODEL"),
    ],
)
def test_every_mistake_is_one_line_and_its_code(
    words: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    try:
        found = main(words)
    except SystemExit as end:  # argparse's own --help
        found = int(end.code or 0)
    captured = capsys.readouterr()
    assert found == code
    text = captured.out if code == 0 else captured.err
    assert said in text
    assert code == 0 or len(text.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_device_model_and_place(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = picture(tmp_path / "a.png")
    out = tmp_path / "out"
    assert run(source, "--model", model, "-o", out, "--device", "tpu") == 2
    assert run(source, "--model", model, "-o", out, "--device", "cuda:99") == 3
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    assert run(source, "--model", bad, "-o", out) == 4
    assert not out.exists()
    place = tmp_path / "file"
    place.write_text("x", encoding="utf-8")
    assert run(source, "--model", model, "-o", place) == 4
    assert place.read_text(encoding="utf-8") == "x"
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 1), (signal.SIGINT, 3), (signal.SIGTERM, 1)])
def test_an_interruption_leaves_a_playable_file(
    shared: Shared, model: Path, tmp_path: Path, number: int, times: int
) -> None:
    clip = shared("data/clips/udacity_solidWhiteRight.mp4")
    out = tmp_path / "out"
    process = start(clip, clip, "--model", model, "-o", out, "--save", "overlay,mask")
    deadline = time.monotonic() + 60
    while not list(out.glob(".*mask*/000010.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    for _ in range(times):  # impatience does not make it worse
        process.send_signal(number)
        time.sleep(0.02)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    video = out / "udacity_solidWhiteRight_overlay.mp4"
    frames = len(list(read_frames(video)))
    assert 10 <= frames < 221
    assert len(list((out / "udacity_solidWhiteRight_mask").iterdir())) == frames
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom lsr_infer.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'numpy', 'cv2', 'av', 'tqdm', 'onnxruntime', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "lsr-infer" in done.stdout


def test_results_above_the_frames_leave_none_of_them_out(model: Path, tmp_path: Path) -> None:
    picture(tmp_path / "frames" / "a.png")
    assert run(tmp_path / "frames", "--model", model, "-o", tmp_path, "--save", "mask") == 0
    assert (tmp_path / "a_mask.png").is_file()


def test_a_picture_the_network_cannot_take_ends_alone(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    picture(data / "a.png")
    picture(data / "c.png")
    assert cv2.imwrite(str(data / "b.png"), np.zeros((1, 60000, 3), np.uint8))
    assert run(data, "--model", model, "-o", tmp_path / "out", "--stride", "1", "--json") == 6
    document = json.loads(capsys.readouterr().out)
    assert [report["status"] for report in document["sources"]] == ["done", "failed", "done"]
    assert "b.png" in document["sources"][1]["error"]
    assert "60000" in document["sources"][1]["error"]
    assert files(tmp_path / "out") == {"a_overlay.jpg", "c_overlay.jpg"}
    assert run(data / "b.png", "--model", model, "-o", tmp_path / "out", "--stride", "1") == 4


def test_a_name_too_long_for_a_result_ends_alone(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b" * 250, "c"):
        picture(tmp_path / "data" / f"{name}.png")
    assert run(tmp_path / "data", "--model", model, "-o", tmp_path / "out", "--json") == 6
    document = json.loads(capsys.readouterr().out)
    assert [report["status"] for report in document["sources"]] == ["done", "failed", "done"]
    assert "Give the source a shorter name" in document["sources"][1]["error"]
    assert files(tmp_path / "out") == {"a_overlay.jpg", "c_overlay.jpg"}


def test_names_that_are_no_text_reach_results_and_documents(shared: Shared, model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    picture(data / "a.png")
    clip = shared("data/clips/camvid_0016E5_15fps.mp4")
    try:
        (data / "a.png").rename(data / os.fsdecode(b"a\xff.png"))
        (data / os.fsdecode(b"b\xe4.mp4")).symlink_to(clip)
    except OSError:
        pytest.skip("this file system takes no such names")
    words = ("--model", model, "-o", tmp_path / "out", "--save", "overlay,mask,json", "--max-frames", "2", "--json")
    process = start(data, *words)
    text, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert not any("\ud800" <= letter < "\ue000" for letter in text)  # it is UTF-8
    for report, name in zip(json.loads(text)["sources"], (b"a\xff.png", b"b\xe4.mp4"), strict=True):
        assert os.fsencode(report["source"]).endswith(name)  # the escapes lead back to the file
        overlay, masks, lines = map(Path, report["outputs"])
        assert overlay.is_file()
        assert masks.exists()
        head = json.loads(lines.read_text(encoding="utf-8").splitlines()[0])
        assert head["source"] == report["source"]


def test_nothing_in_a_name_reaches_the_terminal_as_a_command(model: Path, tmp_path: Path) -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\u202e\nerror: forged.png"
    picture(tmp_path / "data" / hostile)
    (tmp_path / "data" / f"broken{hostile}").write_bytes(b"no picture")
    for words in ((tmp_path / "data",), (tmp_path / "data" / f"broken{hostile}",)):
        process = start(*words, "--model", model, "-o", tmp_path / "out", "--overwrite")
        _, err = process.communicate(timeout=60)
        assert process.returncode in (4, 6)
        assert "\\x1b]0;owned\\x07\\x1b[2J\\u202e" in err
        assert not {letter for letter in err if letter < " " and letter != "\n"} | ({"\u202e"} & set(err))
        assert not [line for line in err.splitlines() if line.startswith("error: forged")]


def test_a_long_folder_is_a_summary_and_its_failures(model: Path, tmp_path: Path) -> None:
    for number in range(25):
        picture(tmp_path / "data" / f"{number:02d}.png")
    (tmp_path / "data" / "07.png").write_bytes(b"no picture")
    process = start(tmp_path / "data", "--model", model, "-o", tmp_path / "out")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 6
    lines = [line for line in err.splitlines() if ".png" in line]
    assert len(lines) == 1
    assert "07.png" in lines[0]
    assert err.splitlines()[-1].startswith("error: 24 of 25 sources done")


def test_a_video_and_a_folder_of_the_same_name_do_not_meet(shared: Shared, model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    picture(data / "clip_mask" / "a.png")
    (data / "clip.mp4").symlink_to(shared("data/clips/camvid_0016E5_15fps.mp4"))
    words = (data, "--model", model, "-o", tmp_path / "out", "--save", "mask", "--max-frames", "1")
    assert run(*words) == 0
    assert files(tmp_path / "out") == {"clip_mask/a_mask.png", "clip_2_mask/000000.png"}
    assert run(*words) == 2
    assert run(*words, "--overwrite") == 0
    assert files(tmp_path / "out") == {"clip_mask/a_mask.png", "clip_2_mask/000000.png"}


def test_a_source_is_not_overwritten_by_another_ones_result(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "a.png")
    before = picture(tmp_path / "a_mask.png").read_bytes()
    words = (tmp_path / "a.png", tmp_path / "a_mask.png", "--model", model, "-o", tmp_path, "--save", "mask")
    assert run(*words, "--overwrite") == 2
    assert "is, or holds, the source" in capsys.readouterr().err
    assert (tmp_path / "a_mask.png").read_bytes() == before


def test_the_last_frame_of_a_thinned_video_lasts_as_long_as_the_others(model: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    with VideoWriter(clip, width=64, height=48, fps=Fraction(20)) as writer:
        for n in range(20):
            writer.write(np.full((48, 64, 3), 10 * n, np.uint8))
    assert run(clip, "--model", model, "-o", tmp_path / "out", "--every", "4") == 0
    info = probe(tmp_path / "out" / "clip_overlay.mp4")
    assert info.frames == 5
    assert info.duration == pytest.approx(1.0, abs=0.02)
