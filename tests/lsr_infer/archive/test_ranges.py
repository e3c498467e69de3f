"""Ranges of a clip, joined: as one run in everything but the encoding of overlay pictures."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lsr_infer.archive.clip_work import ClipWorker, Unit, new_job
from lsr_infer.archive.ledger import ClipRecord
from lsr_infer.archive.ranges import range_starts
from lsr_infer.pipeline.options import SegmentOptions
from tests.lsr_infer.pipeline.test_task import late_clip
from tests.lsr_infer.video.test_writer import clip_with_sound, packets


def uneven_clip(path: Path) -> Path:
    """Pictures at uneven times, reordered by the encoder, with key frames where it likes."""
    rng = np.random.default_rng(3)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "20", "bf": "3", "x264-params": "open-gop=1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90_000)
        time = 0
        for n in range(90):
            picture = np.full((48, 64, 3), n, np.uint8)
            picture[n % 48] = 255 - n
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = time, Fraction(1, 90_000)
            container.mux(stream.encode(frame))
            time += int(rng.integers(1500, 6000))
        container.mux(stream.encode(None))
    return path


def both(clip: Path, model: Path, out: Path, seconds: float, **options: Any) -> tuple[Path, Path, ClipRecord, int]:
    """Do a clip in one piece and by ranges; return both folders, the record of the joined one, and the ranges."""
    chosen = SegmentOptions(sources=(), output=out, model=model, threads=1, **options)
    worker = ClipWorker(new_job(chosen, run="run", range_seconds=seconds, retry=False))
    assert worker.work(Unit(place=str(clip), name=f"one/{clip.name}")).status == "done"
    parts = worker.cut(Unit(place=str(clip), name=f"two/{clip.name}"))
    for part in reversed(parts):
        assert worker.work(part).status == "done"
    record = worker.join(parts[0])
    worker.clear(parts[0])
    return out / "one" / clip.name, out / "two" / clip.name, record, len(parts)


def stamps(path: Path) -> list[tuple[int | None, Fraction | None]]:
    with av.open(str(path)) as container:
        return [(frame.pts, frame.time_base) for frame in container.decode(video=0)]


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def check(one: Path, two: Path) -> None:
    names = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    assert names == {path.relative_to(two) for path in two.rglob("*") if path.is_file()}
    for name in names:
        if name.suffix == ".mp4":
            assert stamps(one / name) == stamps(two / name)
            assert packets(one / name) == packets(two / name)
            for alone, joined in zip(pictures(one / name), pictures(two / name), strict=True):
                assert np.abs(alone.astype(int) - joined).mean() < 4
        elif name.suffix == ".mkv":
            assert stamps(one / name) == stamps(two / name)
            np.testing.assert_array_equal(pictures(one / name), pictures(two / name))
        else:
            assert (one / name).read_bytes() == (two / name).read_bytes(), name


@pytest.mark.parametrize(
    ("make", "save"),
    [(clip_with_sound, {"overlay", "mask", "confidence"}), (late_clip, {"overlay"}), (uneven_clip, {"overlay"})],
)
def test_ranges_joined_are_one_run(model: Path, tmp_path: Path, make: Callable[[Path], Path], save: set[str]) -> None:
    clip = make(tmp_path / "clip.mp4")
    one, two, record, ranges = both(clip, model, tmp_path / "out", 0.9, save=frozenset(save))
    assert ranges >= 3
    assert record.status == "done"
    assert not list((tmp_path / "out/.archive/ranges").iterdir())
    check(one, two)


def test_lossless_masks_of_ranges_are_one_video(model: Path, tmp_path: Path) -> None:
    clip = uneven_clip(tmp_path / "clip.mp4")
    check(*both(clip, model, tmp_path / "out", 0.9, save=frozenset({"mask", "json"}), lossless=True)[:2])


@pytest.mark.slow
def test_ranges_of_a_real_clip(shared: Callable[[str], Path], model: Path, tmp_path: Path) -> None:
    clip = shared("data/clips/udacity_solidWhiteRight.mp4")
    one, two, _, ranges = both(clip, model, tmp_path / "out", 3.0, save=frozenset({"mask", "json"}), lossless=True)
    assert ranges >= 2
    check(one, two)


def test_only_long_clips_whose_index_is_known_are_cut(tmp_path: Path) -> None:
    assert range_starts(clip_with_sound(tmp_path / "a.mp4"), 60) == (0.0,)
    assert range_starts(clip_with_sound(tmp_path / "a.mkv"), 0.5) == (0.0,)
    assert range_starts(clip_with_sound(tmp_path / "a.mp4"), 1) == (0.0, 1.0, 2.0)


def test_ranges_that_do_not_fit_together_are_no_clip(model: Path, tmp_path: Path) -> None:
    clip = clip_with_sound(tmp_path / "clip.mp4")
    chosen = SegmentOptions(sources=(), output=tmp_path / "out", model=model, threads=1)
    worker = ClipWorker(new_job(chosen, run="run", range_seconds=1, retry=False))
    parts = worker.cut(Unit(place=str(clip), name="clip.mp4"))
    for part in parts:
        worker.work(part)
    lines = next((tmp_path / "out" / parts[1].result_name).glob("*.jsonl"))
    lines.write_text("".join(lines.read_text().splitlines(keepends=True)[:-2]), encoding="utf-8")
    record = worker.join(parts[0])
    assert record.status == "failed"
    assert "its ranges have 28 frames, their video 30" in str(record.reason)
    assert not (tmp_path / "out/clip.mp4").exists()
