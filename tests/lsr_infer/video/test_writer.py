"""Masks as FFV1 that read back exactly, and sound that is copied packet by packet."""

import logging
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lsr_infer.cli import main
from lsr_infer.errors import InputError
from lsr_infer.io.images import read_label
from lsr_infer.video.reader import probe, read_frames
from lsr_infer.video.writer import AudioSource, MaskVideoWriter, VideoOptions, VideoWriter

SECONDS, FPS, RATE = 3, 10, 16000


def clip_with_sound(path: Path, codec: str = "aac", *, seconds: float = SECONDS) -> Path:
    """A video of `SECONDS` with sound of `seconds`."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"g": "5"})
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        audio = container.add_stream(codec, rate=RATE, layout="mono")
        sound = np.sin(np.arange(int(seconds * RATE)) / 9).astype(np.float32) / 2
        for n in range(SECONDS * FPS):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * n, np.uint8), format="bgr24")
            container.mux(video.encode(picture))
        for start in range(0, len(sound), 1024):
            piece = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="fltp", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = RATE, start, Fraction(1, RATE)
            for frame in av.AudioResampler(format=audio.codec_context.format, layout="mono", rate=RATE).resample(piece):
                container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def packets(path: Path | str) -> list[tuple[float, bytes]]:
    """The sound of a file: times and bytes."""
    with av.open(str(path)) as container:
        streams = container.streams.audio
        if not streams:
            return []
        return [
            (float(packet.pts * packet.time_base), bytes(packet))
            for packet in container.demux(streams[0])
            if packet.size
        ]


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


def test_masks_read_back_exactly_with_two_readers(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    maps = [rng.integers(0, 256, (37, 51), dtype=np.uint8) for _ in range(6)]
    times = [0.0, 0.04, 0.1, 0.5, 0.51, 2.0]
    path = tmp_path / "masks.mkv"
    with MaskVideoWriter(path, width=51, height=37, fps=Fraction(25)) as writer:
        for labels, time in zip(maps, times, strict=True):
            writer.write(labels, time)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.color_range) == ("ffv1", "gray", 2)
        back = [(float(frame.time), frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
    assert [time for time, _ in back] == pytest.approx(times, abs=1e-3)
    capture = cv2.VideoCapture(str(path))
    for labels, (_, other) in zip(maps, back, strict=True):
        np.testing.assert_array_equal(other, labels)
        np.testing.assert_array_equal(capture.read()[1][:, :, 0], labels)


def test_a_mask_video_of_another_size_or_without_frames_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="no frame"),
        MaskVideoWriter(tmp_path / "a.mkv", width=4, height=4, fps=Fraction(1)),
    ):
        pass
    with (
        pytest.raises(InputError, match="frame 0"),
        MaskVideoWriter(tmp_path / "a.mkv", width=4, height=4, fps=Fraction(1)) as writer,
    ):
        writer.write(np.zeros((5, 4), np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("codec", ["aac", "flac", "libopus"])
def test_sound_is_copied_undecoded(tmp_path: Path, model: Path, codec: str) -> None:
    source = clip_with_sound(tmp_path / "clip.mkv", codec)
    assert run(source, "--model", model, "-o", tmp_path / "out") == 0
    before, after = packets(source), packets(tmp_path / "out" / "clip_overlay.mp4")
    assert len(before) > 10
    assert [data for _, data in after] == [data for _, data in before]
    assert [time for time, _ in after] == pytest.approx([time for time, _ in before], abs=2e-3)
    assert len(list(read_frames(tmp_path / "out" / "clip_overlay.mp4"))) == SECONDS * FPS


def test_sound_follows_the_stretch_that_is_taken(tmp_path: Path, model: Path) -> None:
    source = clip_with_sound(tmp_path / "clip.mp4")
    assert run(source, "--model", model, "-o", tmp_path / "cut", "--start", "1", "--duration", "1.0") == 0
    video = tmp_path / "cut" / "clip_overlay.mp4"
    assert [item.time for item in read_frames(video)] == pytest.approx([n / FPS for n in range(10)], abs=1e-3)
    wanted = {data: time for time, data in packets(source) if 1.0 <= time < 2.0}
    found = {data: time for time, data in packets(video)}
    assert set(found) == set(wanted)
    assert all(found[data] == pytest.approx(wanted[data] - 1.0, abs=2e-3) for data in found)
    assert run(source, "--model", model, "-o", tmp_path / "few", "--max-frames", "5") == 0
    assert max(time for time, _ in packets(tmp_path / "few" / "clip_overlay.mp4")) < 0.5 + 1e-6


def test_sound_that_outlasts_the_video_is_kept(tmp_path: Path, model: Path) -> None:
    source = clip_with_sound(tmp_path / "clip.mp4", seconds=SECONDS + 1.5)
    assert run(source, "--model", model, "-o", tmp_path / "out") == 0
    assert packets(tmp_path / "out" / "clip_overlay.mp4")[-1][0] > SECONDS + 1.3


def test_sound_that_mp4_cannot_hold_is_left_out_with_a_word(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = clip_with_sound(tmp_path / "clip.mkv", "pcm_s16le")
    with caplog.at_level(logging.WARNING):
        assert run(source, "--model", model, "-o", tmp_path / "out") == 0
    assert "pcm_s16le" in caplog.text
    assert packets(tmp_path / "out" / "clip_overlay.mp4") == []


def test_broken_sound_does_not_cost_the_video(tmp_path: Path, model: Path) -> None:
    whole = clip_with_sound(tmp_path / "clip.ts", "aac")
    data = bytearray(whole.read_bytes())
    rng = np.random.default_rng(1)
    for start in range(188 * 40, len(data) - 188, 188):
        identifier = int.from_bytes(data[start + 1 : start + 3], "big") & 0x1FFF
        if identifier == 0x101:  # the sound's packets
            data[start + 40 : start + 188] = rng.integers(0, 256, 148, dtype=np.uint8).tobytes()
    broken = tmp_path / "broken.ts"
    broken.write_bytes(bytes(data))
    assert run(broken, "--model", model, "-o", tmp_path / "out") == 0
    assert probe(tmp_path / "out" / "broken_overlay.mp4").frames == SECONDS * FPS


def test_a_writer_with_sound_but_no_frame_leaves_nothing(tmp_path: Path) -> None:
    source = clip_with_sound(tmp_path / "clip.mp4")
    place = tmp_path / "out.mp4"
    options = VideoOptions(audio=AudioSource(place=source))
    with (
        pytest.raises(InputError, match="no frame"),
        VideoWriter(place, width=64, height=48, fps=Fraction(10), options=options),
    ):
        pass
    assert not place.exists()


def test_a_video_of_unknown_length_is_written_in_pieces_and_begins_at_0(tmp_path: Path) -> None:
    source = clip_with_sound(tmp_path / "clip.mp4")
    place = tmp_path / "out.mp4"
    rng = np.random.default_rng(3)
    options = VideoOptions(fragmented=True, audio=AudioSource(place=source))
    times = [n / FPS for n in range(300)]
    with VideoWriter(place, width=64, height=48, fps=Fraction(FPS), options=options) as writer:
        for time in times:
            writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), time)
    boxes, data, at = [], place.read_bytes(), 0
    while at < len(data):
        boxes.append(data[at + 4 : at + 8])
        at += int.from_bytes(data[at : at + 4], "big")
    assert boxes[:4] == [b"ftyp", b"moov", b"moof", b"mdat"]
    assert boxes.count(b"moof") > 1
    assert [item.time for item in read_frames(place)] == pytest.approx(times, abs=1e-3)
    heard = packets(place)
    assert [data for _, data in heard] == [data for _, data in packets(source)]
    assert [time for time, _ in heard] == pytest.approx([time for time, _ in packets(source)], abs=2e-3)


def test_sound_that_has_vanished_does_not_cost_the_video(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "out.mp4"
    options = VideoOptions(audio=AudioSource(place=tmp_path / "gone.mp4"))
    with VideoWriter(place, width=64, height=48, fps=Fraction(FPS), options=options) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    assert len(list(read_frames(place))) == 1
    assert "gone.mp4: its sound cannot be fetched and is left out" in caplog.text
    assert "does not exist" in caplog.text


@pytest.mark.parametrize("start", [(), ("--start", "2")])
def test_sound_and_pictures_of_files_put_together_stay_in_step(
    tmp_path: Path, model: Path, start: tuple[str, ...]
) -> None:
    """Both clips in one file, and the sound of each is what it was beside the pictures."""
    single = clip_with_sound(tmp_path / "one.ts")
    both = tmp_path / "both.ts"
    both.write_bytes(single.read_bytes() * 2)
    assert run(both, "--model", model, "-o", tmp_path / "out", *start) == 0
    place = tmp_path / "out" / "both_overlay.mp4"
    times = [item.time for item in read_frames(place)]
    assert len(times) == 2 * SECONDS * FPS - (2 * FPS if start else 0)
    steps = np.diff(times)
    second = len(times) - SECONDS * FPS
    assert np.delete(steps, second - 1) == pytest.approx(1 / FPS, abs=1e-3)
    assert 0 < steps[second - 1] < 0.5
    pictures = [item.time for item in read_frames(single)]
    before, after = packets(single), packets(place)[-len(packets(single)) :]
    assert [data for _, data in after] == [data[7:] for _, data in before]  # without what TS puts before it
    for (was, _), (is_now, _) in zip(before, after, strict=True):
        assert is_now - times[second] == pytest.approx(was - pictures[0], abs=2e-3)


def test_lossless_masks_and_pngs_hold_the_same_numbers(tmp_path: Path, model: Path) -> None:
    source = clip_with_sound(tmp_path / "clip.mp4")
    common = ("--model", model, "--save", "mask", "--every", "6")
    assert run(source, *common, "-o", tmp_path / "a", "--lossless") == 0
    assert run(source, *common, "-o", tmp_path / "b") == 0
    with av.open(str(tmp_path / "a" / "clip_mask.mkv")) as container:
        maps = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    pngs = [read_label(path) for path in sorted((tmp_path / "b" / "clip_mask").iterdir())]
    assert len(pngs) == 5
    for one, other in zip(maps, pngs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_the_same_frames_are_encoded_alike_each_time(tmp_path: Path) -> None:
    """x264's code for AVX-512 differs now and then, where several encoders are at work."""
    rng = np.random.default_rng(1)
    coarse = cv2.resize(rng.integers(0, 256, (9, 16, 3), dtype=np.uint8), (160, 90))
    frames = [np.roll(coarse, 3 * n, axis=1).copy() for n in range(15)]

    def encoded(number: int) -> bytes:
        path = tmp_path / f"{number}.mp4"
        with VideoWriter(path, width=160, height=90, fps=Fraction(15)) as writer:
            for frame in frames:
                writer.write(frame)
        content = path.read_bytes()
        path.unlink()
        return content

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(encoded, range(600)))) == 1
