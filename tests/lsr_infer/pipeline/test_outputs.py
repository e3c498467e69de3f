"""No result takes the place of what is read, however it is named, and none that of a folder of somebody else's."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.cli import main
from tests.lsr_infer.onnxfile import colour_model

Shared = Callable[[str], Path]


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


def picture(path: Path, level: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((40, 60, 3), level, np.uint8))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """All that lies below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def clip(shared: Shared) -> Path:
    return shared("data/clips/camvid_0016E5_15fps.mp4")


def test_a_source_behind_a_link_is_kept(
    model: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The link may lead to a file of the very name of a result, through another link on the way."""
    (tmp_path / "out").mkdir()
    (tmp_path / "in").mkdir()
    kept = shutil.copyfile(clip, tmp_path / "out" / "clip_overlay.mp4")
    (tmp_path / "in" / "one.mp4").symlink_to(kept)
    (tmp_path / "in" / "clip.mp4").symlink_to("one.mp4")
    (tmp_path / "also").symlink_to("out")
    for out in ("out", "also"):
        words = (tmp_path / "in" / "clip.mp4", "-m", model, "-o", tmp_path / out, "--max-frames", "1")
        assert run(*words, "--overwrite") == 2
        assert "is, or holds, the source" in capsys.readouterr().err
        assert kept.read_bytes() == clip.read_bytes()


def test_a_folder_behind_a_link_from_which_is_read_is_kept(model: Path, clip: Path, tmp_path: Path) -> None:
    picture(tmp_path / "far" / "000000.png")
    data = tmp_path / "data"
    data.mkdir()
    shutil.copyfile(clip, data / "clip.mp4")
    (data / "clip_mask").symlink_to(tmp_path / "far")
    words = (data / "clip.mp4", data / "clip_mask" / "000000.png", "-m", model, "-o", data, "--save", "mask")
    assert run(*words, "--overwrite", "--max-frames", "1") == 2
    assert (data / "clip_mask").is_symlink()


@pytest.mark.parametrize("link", [False, True])
def test_models_are_kept(clip: Path, tmp_path: Path, link: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """They lie where the masks of a clip would, under the names of masks: nothing else tells them from results."""
    source, out = tmp_path / "av.mp4", tmp_path / "out"
    source.symlink_to(clip)
    (out / "av_mask").mkdir(parents=True)
    model = colour_model(out / "av_mask" / "m.onnx")
    named = tmp_path / "link.onnx" if link else model
    if link:
        named.symlink_to(model)
    before = contents(out)
    other = colour_model(tmp_path / "other.onnx")
    words = (source, "-o", out, "--save", "mask,overlay", "--overwrite", "--max-frames", "1")
    for models in (("-m", named), ("-m", other, "--side-by-side", named)):
        assert run(*words, *models) == 2
        error = capsys.readouterr().err
        assert "av_mask would be a result" in error
        assert f"is, or holds, {named}, which is read" in error
        assert contents(out) == before


def test_the_ignore_mask_is_kept(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, mask = picture(tmp_path / "pic.png"), picture(tmp_path / "pic_mask.png", 255)
    before = mask.read_bytes()
    words = (source, "-m", model, "-o", tmp_path, "--save", "mask", "--overwrite")
    assert run(*words, "--ignore-mask", mask) == 2
    assert f"is, or holds, {mask}" in capsys.readouterr().err
    assert mask.read_bytes() == before
    assert run(*words) == 0  # nothing reads it then
    assert mask.read_bytes() != before


def test_a_folder_is_replaced_only_where_all_of_it_is_a_result(
    model: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = (clip, "-m", model, "-o", out, "--save", "overlay,mask", "--overwrite", "--max-frames")
    assert run(*words, "3") == 0
    assert run(*words, "2") == 0
    masks = out / f"{clip.stem}_mask"
    assert sorted(os.listdir(masks)) == ["000000.png", "000001.png"]
    for name in ("thesis.tex", "0.png", "deep/000000.png"):
        mine = masks / name
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine", encoding="utf-8")
        before = contents(out)
        assert run(*words, "1") == 2
        assert f"{masks} holds {name.partition('/')[0]}" in capsys.readouterr().err
        assert contents(out) == before
        mine.unlink()
    mine.write_text("mine", encoding="utf-8")
    assert run(picture(tmp_path / "a.png"), *words, "1") == 2  # before anything is begun
    assert contents(out) == before
    mine.unlink()
    (masks / "deep").rmdir()
    assert run(*words, "1") == 0


def test_a_broken_source_is_said_before_a_folder_that_is_kept(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "a_mask").mkdir(parents=True)
    (tmp_path / "out" / "a_mask" / "thesis.tex").touch()
    (tmp_path / "a.mp4").write_bytes(b"no video")
    picture(tmp_path / "b.png")
    words = ("-m", model, "-o", tmp_path / "out", "--save", "mask", "--overwrite")
    assert run(tmp_path / "a.mp4", *words) == 4
    assert run(tmp_path / "a.mp4", tmp_path / "b.png", *words) == 6
    assert "thesis" not in capsys.readouterr().err
