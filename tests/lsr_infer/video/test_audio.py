"""The sound of videos behind addresses: copied as a file's is, or left out with a word."""

import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lsr_infer.video.reader import read_frames
from lsr_infer.video.writer import AudioSource, VideoOptions, VideoWriter
from tests.lsr_infer.streamserver import serving
from tests.lsr_infer.video.test_writer import FPS, SECONDS, clip_with_sound, packets, run


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("path", ["/clip.mp4", "/clip"])
def test_the_sound_of_a_recording_behind_an_address_is_copied(
    tmp_path: Path, model: Path, kind: str, path: str
) -> None:
    source = clip_with_sound(tmp_path / f"clip.{kind}")
    assert run(source, "--model", model, "-o", tmp_path / "file") == 0
    expected = packets(tmp_path / "file" / "clip_overlay.mp4")
    with serving(source.read_bytes(), whole=True) as server:
        address = server.address.replace("/road", path)
        assert run(address, "--model", model, "-o", tmp_path / "out") == 0
    (video,) = (tmp_path / "out").iterdir()
    assert len(expected) > 10
    assert packets(video) == expected
    assert len(list(read_frames(video))) == SECONDS * FPS


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
def test_the_sound_of_a_recording_follows_the_stretch_that_is_taken(tmp_path: Path, model: Path, kind: str) -> None:
    source = clip_with_sound(tmp_path / f"clip.{kind}")
    stretch = ("--start", "1", "--duration", "1.0", "--model", model)
    assert run(source, *stretch, "-o", tmp_path / "file") == 0
    with serving(source.read_bytes(), whole=True) as server:
        assert run(server.address, *stretch, "-o", tmp_path / "out") == 0
    (video,) = (tmp_path / "out").iterdir()
    found = packets(video)
    assert found == packets(tmp_path / "file" / "clip_overlay.mp4")
    times = [item.time for item in read_frames(video)]
    assert times[0] - 0.1 < found[0][0] < times[0] + 0.1
    assert times[-1] < found[-1][0] < times[-1] + 1 / FPS


def test_sound_that_cannot_be_fetched_is_left_out_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "out.mp4"
    options = VideoOptions(audio=AudioSource(place="http://me:secret@127.0.0.1:1/clip.mp4?token=secret"))
    with (
        caplog.at_level(logging.WARNING),
        VideoWriter(place, width=64, height=48, fps=Fraction(FPS), options=options) as writer,
    ):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    assert "clip.mp4: its sound cannot be fetched and is left out" in caplog.text
    assert "secret" not in caplog.text
    assert packets(place) == []
    assert len(list(read_frames(place))) == 1
