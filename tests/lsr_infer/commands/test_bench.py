"""`lsr-infer bench`: every step is timed for every frame, on a real clip and on the shipped frames."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsr_infer.cli import main
from lsr_infer.pipeline.timing import STEPS, Timing, shipped_clip, time_steps
from lsr_infer.render.overlay import overlay_planes
from lsr_infer.segmenter import Segmenter
from lsr_infer.video.reader import read_frames
from lsr_infer.video.writer import VideoWriter
from tests.lsr_infer.onnxfile import colour_model, manifest
from tests.lsr_infer.streamserver import transport_stream


def test_percentiles_and_throughput_are_those_of_the_frames() -> None:
    values = [float(n) for n in range(1, 101)]
    timing = Timing(
        frame=(2, 2), network=(2, 2), first_ms=1, steps=dict.fromkeys(STEPS, values), seconds=50, overlapped=25
    )
    latency = timing.latency()
    assert latency["infer"]["p50"] == pytest.approx(50.5)
    assert latency["total"]["p99"] == pytest.approx(6 * np.percentile(values, 99), abs=1e-3)
    assert timing.throughput() == {
        "infer_alone": round(100 / 5.05, 3),
        "one_after_another": 2.0,
        "overlapped": 4.0,
    }


def test_on_a_clip_that_starts_again(
    shared: Callable[[str], Path], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = shared("data/clips/udacity_test_video.mp4")  # 38 frames
    words = ["bench", str(model), "--source", str(clip), "--frames", "41", "--size", "64x32", "--threads", "1"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["frames"], found["threads"], found["frame"]) == (41, 1, [720, 1280])
    assert (found["network_input"], found["device"], found["precision"]) == ([32, 64], "cpu", "fp32")
    assert list(found["latency_ms"]) == [*STEPS, "total"]
    for step, values in found["latency_ms"].items():
        assert 0 < values["p50"] <= values["p90"] <= values["p99"], step
    assert sum(found["latency_ms"][step]["mean"] for step in STEPS) == pytest.approx(
        found["latency_ms"]["total"]["mean"], abs=0.01
    )
    assert all(value > 0 for value in found["throughput"].values())
    assert found["throughput"]["one_after_another"] < found["throughput"]["infer_alone"]


def test_on_a_clip_whose_size_changes(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = tmp_path / "clip.ts"
    clip.write_bytes(transport_stream(5) + transport_stream(5, (72, 96), first=5))
    assert main(["bench", str(model), "--source", str(clip), "--frames", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["frames"], found["frame"]) == (8, [48, 64])


def test_the_throughput_is_that_of_the_stages_of_lsr_infer(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DrawingOptions and encoding run on threads of their own, and a clip that is too short is taken again."""
    clip = shipped_clip(tmp_path, 3)
    assert sum(1 for _ in read_frames(clip)) == 3
    draws, writes = list[int](), list[int]()

    def draw(*values: Any) -> Any:
        draws.append(threading.get_ident())
        return overlay_planes(*values)

    def write(writer: VideoWriter, *values: Any) -> None:
        writes.append(threading.get_ident())
        real_write(writer, *values)

    real_write = VideoWriter.write_planes
    monkeypatch.setattr("lsr_infer.render.draw.overlay_planes", draw)
    monkeypatch.setattr(VideoWriter, "write_planes", write)
    with Segmenter(model, "cpu") as segmenter:
        time_steps(segmenter, clip, frames=5)
    main_thread = threading.get_ident()
    assert writes[:5] == [main_thread] * 5  # one step after another
    assert draws[:5] == [main_thread] * 5
    assert (len(writes), len(draws)) == (10, 10)
    assert main_thread not in {*writes[5:], *draws[5:]}
    assert not {*draws[5:8]} & {*writes[5:8]}


def test_on_the_shipped_frames_as_a_table(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(model), "--frames", "2", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n{step} " in text for step in STEPS)
    assert "shipped Toytown frames, 512x256" in text


@pytest.mark.parametrize("words", [["bench"], []])
def test_help_says_how_many_threads_there_are(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*words, "--help", "all"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(0: one for each physical core the process may use)" in text


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--frames", "0"], 2, "--frames"),
        (["--size", "65x64"], 2, "multiples of 8, such as 64x64"),
        (["--size", "big"], 2, "1024x512"),
        (["--threads", "-1"], 2, "--threads"),
        (["--backend", "guess"], 2, "guess"),
        (["--device", "cuda:98"], 3, "cuda:98"),
        (["--precision", "fp8"], 2, "fp8"),
        (["--source", "absent.mp4"], 4, "absent.mp4"),
    ],
)
def test_mistakes(model: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str) -> None:
    assert main(["bench", str(model), *words]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err.splitlines()[-1]


def test_a_graph_that_takes_several_frames_at_a_time_is_timed_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = colour_model(tmp_path / "four.onnx", manifest(fixed_batch=4))
    assert main(["bench", str(path), "--frames", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 2
    assert "4 frames at a time" in caplog.text
