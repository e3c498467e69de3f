"""Tests Toytown as files: a clip that reads back whole, and frames with their labels."""

import sys
from pathlib import Path

import numpy as np
import pytest

from lsr_infer.io.images import read_image, read_label
from lsr_infer.video.reader import read_frames
from lsr_train.toytown import render
from lsr_train.toytown.__main__ import main


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["toytown", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_clip_holds_every_frame(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "new" / "clip.mp4"
    size = ["--height", "64", "--width", "128"]
    assert run(monkeypatch, "clip", "--frames", "5", *size, "-o", str(out)) == 0
    frames = list(read_frames(out))
    assert len(frames) == 5
    assert frames[0].frame.shape == (64, 128, 3)
    assert run(monkeypatch, "clip", "--frames", "5", *size, "-o", str(out)) == 2


def test_frames_are_those_of_render(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ["frames", "--domain", "game", "--seed", "3", "--frames", "2", "--height", "64", "--width", "128"]
    assert run(monkeypatch, *words, "-o", str(tmp_path)) == 0
    frame, labels = render("game", 4, height=64, width=128)
    assert np.array_equal(read_image(tmp_path / "images/game_00004.png"), frame)
    assert np.array_equal(read_label(tmp_path / "labels/game_00004.png"), labels)
    assert run(monkeypatch, *words, "-o", str(tmp_path)) == 2
    assert run(monkeypatch, *words[:-4], "--frames", "0", "-o", str(tmp_path)) == 2


def test_a_mistyped_option_or_word_is_named_before_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, sentence in (
        (("frames", "--doman", "game"), "unrecognized arguments: --doman. Did you mean --domain?"),
        (("frams", "-o", "x"), "Did you mean frames?"),
    ):
        assert run(monkeypatch, *words) == 2
        assert sentence in capsys.readouterr().err
