"""The command as a person runs it: real clips, broken media, every exit code, interruption, and what is left behind."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.cli import main
from lsr_infer.images import read_label
from lsr_infer.segmenter import Segmenter
from lsr_infer.video import probe, read_frames
from tests.lsr_infer.onnxfile import colour_model

Shared = Callable[[str], Path]
ROOT = Path(__file__).resolve().parents[2]
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
        assert (info.width, info.height, info.frames) == (2 * 480 + 4, 360, 3)
    left = next(iter(read_frames(tmp_path / "a" / name))).frame[:, :480].astype(int)
    assert np.abs(left - next(iter(read_frames(clip))).frame).mean() < 6
    both = next(iter(read_frames(tmp_path / "b" / name))).frame.astype(int)
    assert np.abs(both[:, :480] - both[:, -480:]).mean() < 6  # the same model twice


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


def test_broken_media_end_in_their_exit_code(
    shared: Shared, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared("data/badmedia")
    rows = list(csv.DictReader((folder / "BEHAVIOUR.tsv").read_text(encoding="utf-8").splitlines(), delimiter="\t"))
    videos = [row for row in rows if row["decoder_b"] == "av"]
    images = [row for row in rows if row["decoder_b"] == "cv2"][::7]
    with_count = 0
    for number, row in enumerate(videos + images):
        code = run(folder / row["file"], "--model", model, "-o", tmp_path / str(number), "--json", "--max-frames", "40")
        captured = capsys.readouterr()
        assert code in (0, 4, 6), row["file"]
        assert "Traceback" not in captured.err
        if row["result_a"].startswith("ok") and row["result_b"].startswith("ok"):
            assert code == 0, row["file"]
        if code == 4:
            assert captured.err.strip().splitlines()[-1].startswith("error: "), row["file"]
            assert not files(tmp_path / str(number))
        if row["file"].endswith("no_timescale.mp4"):
            assert code == 6
            assert "8 frames" in captured.err
            assert json.loads(captured.out)["frames"] == 8
            assert probe(next((tmp_path / str(number)).iterdir())).frames == 8
            with_count += 1
        if row["file"].endswith("invalid_userdata.mp4"):
            assert code == 4
            assert "5544 claimed" in captured.err
            with_count += 1
    assert with_count == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "usage"),
        ([], 2, "at least one"),
        (["x.mp4"], 2, "--output"),
        (["x.mp4", "--ouput", "y"], 2, "--output"),
        (["x.mp4", "-o", "y", "--alpha", "2"], 2, "--alpha"),
        (["x.mp4", "-o", "y", "--save", "overlay,depth"], 2, "depth"),
        (["x.mp4", "-o", "y", "--save", ""], 2, "--save"),
        (["x.mp4", "-o", "y", "--max-frames", "0"], 2, "--max-frames"),
        (["x.mp4", "-o", "y", "--max-frames", "few"], 2, "few"),
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_a_playable_file(shared: Shared, model: Path, tmp_path: Path, number: int) -> None:
    clip = shared("data/clips/udacity_solidWhiteRight.mp4")
    out = tmp_path / "out"
    process = start(clip, clip, "--model", model, "-o", out, "--save", "overlay,mask")
    deadline = time.monotonic() + 60
    while not list(out.glob(".*mask*/000010.png")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
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
