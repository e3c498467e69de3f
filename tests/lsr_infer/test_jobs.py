"""The stages of a run: bounded queues, stopping, sources that change, progress on a terminal."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lsr_infer.commands.segment_report import Progress
from lsr_infer.drawing import Drawing
from lsr_infer.errors import InputError
from lsr_infer.inference import Inference
from lsr_infer.jobs import Outcome, Task, plan_outputs, segment_images, segment_video
from lsr_infer.maskids import MaskIds
from lsr_infer.segmenter import Segmenter
from lsr_infer.selection import Selection
from lsr_infer.sources import Source, find_sources
from lsr_infer.video import read_frames
from tests.lsr_infer.streamserver import serving, transport_stream
from tests.lsr_infer.test_cli import start

Shared = Callable[[str], Path]


def task_of(model: Path, **changes: object) -> Task:
    segmenter = Segmenter(model)
    values = {"inference": Inference(segmenter), "drawing": Drawing(ids=MaskIds.of("train", segmenter.label_space))}
    return Task(**values | changes)  # type: ignore[arg-type]  # fields of several types


def test_a_slow_encoder_holds_everything_back_and_loses_nothing(shared: Shared, model: Path, tmp_path: Path) -> None:
    """The last stage waits at a gate: the network may be no more than what the queues hold ahead of it."""
    gate, drawn, segmented = threading.Event(), [], []

    def slow(name: str, frame: np.ndarray) -> None:
        drawn.append(name)
        gate.wait()

    (source,) = find_sources([str(shared("data/clips/camvid_0016E5_15fps.mp4"))]).sources
    task = task_of(model, show=slow)
    outputs = plan_outputs(source, tmp_path, task.drawing)
    outcomes: list[Outcome] = []
    work = threading.Thread(
        target=lambda: outcomes.append(
            segment_video(source, outputs, task, on_frame=lambda: segmented.append(time.monotonic()))
        )
    )
    work.start()
    deadline = time.monotonic() + 30
    while not segmented or time.monotonic() - segmented[-1] < 0.5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(drawn) == 1
    assert len(segmented) <= 4  # one is drawn, two wait, one was just handed over
    gate.set()
    work.join(60)
    assert outcomes == [Outcome(101)]
    assert len(list(read_frames(outputs["overlay"]))) == 101


def test_a_task_stopped_before_its_first_frame_leaves_nothing(shared: Shared, model: Path, tmp_path: Path) -> None:
    (source,) = find_sources([str(shared("data/clips/camvid_0016E5_15fps.mp4"))]).sources
    task = task_of(model)
    task.stop.set()
    with pytest.raises(KeyboardInterrupt):
        segment_video(source, plan_outputs(source, tmp_path / "out", task.drawing), task)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_start_behind_the_end_is_an_input_error(shared: Shared, model: Path, tmp_path: Path) -> None:
    (source,) = find_sources([str(shared("data/clips/camvid_0016E5_15fps.mp4"))]).sources
    task = task_of(model, selection=Selection(start=100))
    with pytest.raises(InputError, match="Choose an earlier start"):
        segment_video(source, plan_outputs(source, tmp_path / "out", task.drawing), task)
    assert list((tmp_path / "out").iterdir()) == []


def test_frames_that_change_their_size_are_brought_to_the_first(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = tmp_path / "clip.ts"
    parts = []
    for height, width in ((48, 64), (72, 96)):
        part = tmp_path / f"{width}.ts"
        with av.open(str(part), "w", format="mpegts") as container:
            stream = container.add_stream("libx264", rate=25, options={"g": "1"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            stream.time_base = Fraction(1, 25)
            for n in range(5):
                picture = av.VideoFrame.from_ndarray(np.full((height, width, 3), 90, np.uint8), format="bgr24")
                picture.pts = n + 5 * len(parts)
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        parts.append(part.read_bytes())
    clip.write_bytes(b"".join(parts))
    (source,) = find_sources([str(clip)]).sources
    task = task_of(model)
    outputs = plan_outputs(source, tmp_path / "out", task.drawing)
    assert segment_video(source, outputs, task).frames == 10
    assert {item.frame.shape for item in read_frames(outputs["overlay"])} == {(48, 64, 3)}
    assert caplog.text.count("change to 96x72") == 1


def test_images_end_each_on_its_own(model: Path, tmp_path: Path) -> None:
    for n in range(5):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.full((32, 48, 3), (0, 0, 200), np.uint8))
    (tmp_path / "2.png").write_bytes(b"no picture")
    sources = find_sources([str(tmp_path)]).sources
    task = task_of(model)
    ended: dict[Source, Outcome | InputError] = {}
    jobs = [(source, plan_outputs(source, tmp_path / "out", task.drawing)) for source in sources]
    segment_images(jobs, task, ended.__setitem__)
    assert [isinstance(ended[source], InputError) for source in sources] == [False, False, True, False, False]
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_sources_keep_their_places_and_their_names_apart(tmp_path: Path) -> None:
    for name in ("clips/a.mp4", "clips/deep/a.mp4", "0", "clips/one.two.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    words = [str(tmp_path / "clips"), "rtsp://u:p@cam/one", "rtsp://u:p@cam/one?x=2", "3", "camera:03", "camera:4"]
    sources = find_sources(words).sources
    assert [source.kind for source in sources] == ["video"] * 3 + ["stream", "stream", "camera", "camera"]
    assert [str(source.name) for source in sources] == [
        "a", "deep/a", "one.two", "cam_one", "cam_one_2", "camera_3", "camera_4",
    ]  # fmt: skip
    assert [source.label for source in sources[3:6]] == ["rtsp://cam/one", "rtsp://cam/one", "camera:3"]
    (file,) = find_sources([str(tmp_path / "0")]).sources
    assert file.kind == "video"


def test_an_interrupted_stream_is_kept_too(model: Path, tmp_path: Path) -> None:
    stream = transport_stream()
    with serving(stream, rate=2 * len(stream)) as server:
        out = tmp_path / "out"
        words = [f"{server.address}?{n}" for n in range(2)]
        process = start(*words, "--model", model, "-o", out, "--save", "overlay,mask", "--json")
        deadline = time.monotonic() + 60
        while len(list(out.glob(".*mask*/000010.png"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        text, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    for report in json.loads(text)["sources"]:
        overlay, masks = map(Path, report["outputs"])
        assert len(list(read_frames(overlay))) == len(list(masks.iterdir())) == report["frames"] > 10
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_progress_on_a_terminal_shows_rate_and_time_left(model: Path, tmp_path: Path, shared: Shared) -> None:
    clip = shared("data/clips/camvid_0016E5_15fps.mp4")
    code = "import sys; from lsr_infer.cli import main; sys.exit(main())"
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(clip), "--model", str(model), "-o", str(tmp_path / "out")], stderr=theirs
    )
    os.close(theirs)
    text = b""
    try:
        while piece := os.read(ours, 4096):
            text += piece
    except OSError:  # the other end is closed
        pass
    assert process.wait(60) == 0
    assert b"/101 [" in text
    assert b"frame/s" in text
    assert b"<00:0" in text  # time left


def test_progress_without_a_terminal_is_a_line_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsr_infer.commands.segment_report._REPORT_SECONDS", 0.0)
    with caplog.at_level("INFO"), Progress("clip", 4) as progress:
        time.sleep(0.01)
        progress.step()
    assert "clip: 1 of 4 frames" in caplog.text
    assert "s left" in caplog.text
