"""The stages of a run: bounded queues, stopping, sources that change, progress on a terminal."""

import fcntl
import json
import os
import pty
import queue
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

from lsr_infer.errors import InputError, LsrError, UsageError
from lsr_infer.io.sources import Source, find_sources
from lsr_infer.pipeline.destination import Destination
from lsr_infer.pipeline.execute import PlannedSource, SourceThreads
from lsr_infer.pipeline.frame_inference import Inference
from lsr_infer.pipeline.options import Selection
from lsr_infer.pipeline.outputs import plan_all, plan_outputs
from lsr_infer.pipeline.run_report import RunReport
from lsr_infer.pipeline.task import SourceResult, Task, segment_images, segment_video
from lsr_infer.render.draw import DrawingOptions, MaskIds
from lsr_infer.segmenter import Segmenter
from lsr_infer.video.reader import read_frames
from tests.lsr_infer.commands.test_cli import start
from tests.lsr_infer.streamserver import serving, transport_stream
from tests.lsr_infer.video.test_writer import clip_with_sound

Shared = Callable[[str], Path]


def task_of(model: Path, **changes: object) -> Task:
    segmenter = Segmenter(model)
    values = {
        "inference": Inference(segmenter),
        "drawing": DrawingOptions(ids=MaskIds.of("train", segmenter.label_space)),
    }
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
    outcomes: list[SourceResult] = []
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
    assert outcomes == [SourceResult(101)]
    assert len(list(read_frames(outputs["overlay"]))) == 101


def test_a_video_drawn_in_its_own_planes_is_that_drawn_in_pictures(shared: Shared, model: Path, tmp_path: Path) -> None:
    (source,) = find_sources([str(shared("data/clips/camvid_0016E5_15fps.mp4"))]).sources
    drawn = []
    for show in (None, lambda _name, _picture: None):  # what is shown is drawn as a picture
        task = task_of(model, show=show, selection=Selection(max_frames=5))
        outputs = plan_outputs(source, tmp_path / str(len(drawn)), task.drawing)
        segment_video(source, outputs, task)
        drawn.append([item.frame.astype(float) for item in read_frames(outputs["overlay"])])
    for planes, picture in zip(*drawn, strict=True):
        assert np.abs((planes - picture).mean(axis=(0, 1))).max() < 1  # what H.264 loses included
        assert np.abs(planes - picture).mean() < 4


def test_a_task_stopped_before_its_first_frame_leaves_nothing(shared: Shared, model: Path, tmp_path: Path) -> None:
    (source,) = find_sources([str(shared("data/clips/camvid_0016E5_15fps.mp4"))]).sources
    task = task_of(model)
    task.stop.set()
    with pytest.raises(KeyboardInterrupt):
        segment_video(source, plan_outputs(source, tmp_path / "out", task.drawing), task)
    assert not (tmp_path / "out").exists()


def test_a_start_behind_the_end_is_an_input_error(shared: Shared, model: Path, tmp_path: Path) -> None:
    (source,) = find_sources([str(shared("data/clips/camvid_0016E5_15fps.mp4"))]).sources
    task = task_of(model, selection=Selection(start=100))
    with pytest.raises(InputError, match="Choose an earlier start"):
        segment_video(source, plan_outputs(source, tmp_path / "out", task.drawing), task)
    assert not (tmp_path / "out").exists()


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
    ended: dict[Source, SourceResult | LsrError] = {}
    planned = [(source, plan_outputs(source, tmp_path / "out", task.drawing)) for source in sources]
    segment_images(planned, task, ended.__setitem__)
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


@pytest.mark.parametrize("sound", [False, True])
def test_a_stalled_recording_is_left_when_it_is_interrupted(model: Path, tmp_path: Path, sound: bool) -> None:
    """It would be waited for ten minutes; its frames are kept."""
    clip = clip_with_sound(tmp_path / "clip.mkv")
    out = tmp_path / "out"
    with serving(clip.read_bytes(), until=clip.stat().st_size * 7 // 10) as server:
        server.stall.set()
        save = "overlay,mask" if sound else "mask"
        words = ["--model", model, "-o", out, "--save", save, "--timeout", "600", "--json"]
        process = start(f"{server.address}.mkv", *words)
        deadline = time.monotonic() + 60
        while not list(out.glob(".*mask*/000003.png")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        text, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    (report,) = json.loads(text)["sources"]
    assert report["frames"] > 3


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


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)  # no label image
    assert cv2.imwrite(str(path), noise)
    return path


def drawing_of(model: Path, *save: str) -> DrawingOptions:
    return DrawingOptions(ids=MaskIds.of("train", Segmenter(model).label_space), save=frozenset(save))


def test_no_result_meets_another(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("clip.mp4", "clip_2.mp4", "deep/clip.mp4", "deep/clip_confidence/x.mp4"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(b"x")
    for name in ("clip_mask/0.png", "clip_2_mask/0.png", "deep/clip_mask/a/0.png", "a.png", "a_mask.png/b.png"):
        picture(data / name)
    sources = find_sources([str(data)]).sources
    plans = plan_all(sources, tmp_path / "out", drawing_of(model, "overlay", "mask", "confidence", "json"))
    paths = [path for outputs in plans.values() for path in outputs.values()]
    assert len(paths) == 4 * len(sources) == 4 * 9
    assert len(set(paths)) == len(paths)
    assert not [(one, other) for one in paths for other in paths if other in one.parents]
    masks = {str(s.place.relative_to(data)): str(plans[s]["mask"].relative_to(tmp_path / "out")) for s in sources}
    assert masks == {
        "clip.mp4": "clip_3_mask",
        "clip_2.mp4": "clip_2_2_mask",
        "deep/clip.mp4": "deep/clip_2_mask",
        "deep/clip_confidence/x.mp4": "deep/clip_confidence/x_mask",
        "clip_mask/0.png": "clip_mask/0_mask.png",
        "clip_2_mask/0.png": "clip_2_mask/0_mask.png",
        "deep/clip_mask/a/0.png": "deep/clip_mask/a/0_mask.png",
        "a.png": "a_2_mask.png",
        "a_mask.png/b.png": "a_mask.png/b_mask.png",
    }


def test_no_result_takes_the_place_of_a_source(model: Path, tmp_path: Path) -> None:
    for name in ("a.png", "a_mask.png", "b_mask/0.png"):
        picture(tmp_path / name)
    (tmp_path / "b.mp4").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path)
    drawing = drawing_of(model, "mask")
    for words, names in (
        (["a.png", "a_mask.png"], ("a_mask.png", "a.png")),
        (["b.mp4", "b_mask/0.png"], ("b.mp4", "b_mask/0.png")),
    ):
        sources = find_sources([str(tmp_path / word) for word in words]).sources
        for folder in (tmp_path, tmp_path / "link", tmp_path / "b_mask" / ".."):
            with pytest.raises(UsageError) as caught:
                plan_all(sources, folder, drawing)
            assert all(str(tmp_path / name) in str(caught.value) for name in names)
        assert len(plan_all(sources, tmp_path / "out", drawing)) == 2


def late_clip(path: Path, begin: int = 10, *, heard: float = 3.0) -> Path:
    """Three seconds at 10 frames a second, with sound for `heard`; the clock of both says `begin` at the beginning."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10, options={"g": "5", "bf": "0"})
        video.width, video.height, video.pix_fmt, video.time_base = 64, 48, "yuv420p", Fraction(1, 10)
        audio = container.add_stream("aac", rate=16000, layout="mono")
        sound = np.sin(np.arange(int(heard * 16000)) / 9).astype(np.float32)[None] / 2
        for n in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * n, np.uint8), format="bgr24")
            frame.pts = n + 10 * begin
            container.mux(video.encode(frame))
        for start in range(0, sound.shape[1], 1024):
            piece = av.AudioFrame.from_ndarray(sound[:, start : start + 1024], format="fltp", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = 16000, start + 16000 * begin, Fraction(1, 16000)
            container.mux(audio.encode(piece))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def sounds(path: Path) -> list[tuple[float, bytes]]:
    """Time and content of each packet of sound, without what TS puts before it."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.audio[0]) if packet.size]
        head = 7 if container.format.name == "mpegts" else 0
        return [(float(packet.pts * packet.time_base), bytes(packet)[head:]) for packet in packets]


@pytest.mark.parametrize("begin", [0, 10])
@pytest.mark.parametrize(("start", "duration"), [(None, None), (1.05, None), (1.05, 1.0)])
def test_results_begin_at_0_whatever_the_clock_says(
    model: Path, tmp_path: Path, start: float | None, duration: float | None, begin: int
) -> None:
    clip = late_clip(tmp_path / "late.ts", begin)
    (source,) = find_sources([str(clip)]).sources
    drawing = drawing_of(model, "overlay", "json", "mask")
    task = task_of(model, drawing=drawing, selection=Selection(start=start, duration=duration))
    outputs = plan_outputs(source, tmp_path / "out", drawing)
    taken = list(read_frames(clip, start=start, duration=duration))
    assert taken[0].time >= begin + (start or 0)
    assert segment_video(source, outputs, task).frames == len(taken) > 8
    times = [item.time for item in read_frames(outputs["overlay"])]
    assert times == pytest.approx([item.time - taken[0].time for item in taken], abs=1e-3)
    assert times[0] == 0
    lines = [json.loads(line) for line in outputs["json"].read_text(encoding="utf-8").splitlines()[1:]]
    assert [line["time"] for line in lines] == pytest.approx(times, abs=1e-3)
    assert [line.get("source_time", line["time"]) for line in lines] == [pytest.approx(item.time) for item in taken]
    before = {data: time for time, data in sounds(clip)}
    heard = sounds(outputs["overlay"])
    assert len(heard) > 10
    for at, data in heard:  # in step with the pictures
        assert at == pytest.approx(before[data] - taken[0].time, abs=2e-3)
    assert duration is None or heard[-1][0] < 1.0


@pytest.mark.parametrize("heard", [3.0, 2.9, 1.0])
def test_no_picture_lies_on_another_where_the_sound_starts_again_before_it(
    model: Path, tmp_path: Path, heard: float
) -> None:
    """The reader hands out the last picture of the first part behind the first sound of the second."""
    part, clip = late_clip(tmp_path / "part.ts", 0, heard=heard), tmp_path / "clip.ts"
    clip.write_bytes(part.read_bytes() * 3)
    times = [item.time for item in read_frames(clip)]
    assert len(times) == 90
    assert np.diff(times).min() > 0.09
    assert np.diff(times).max() < 0.4
    (source,) = find_sources([str(clip)]).sources
    drawing = drawing_of(model, "overlay")
    outputs = plan_outputs(source, tmp_path / "out", drawing)
    assert segment_video(source, outputs, task_of(model, drawing=drawing)).frames == 90
    before, after = sounds(part), sounds(outputs["overlay"])
    assert [data for _, data in after] == [data for _, data in before] * 3
    begins = [times[30 * n] - times[0] for n in range(3)]
    for number, (at, _) in enumerate(after):
        was = before[number % len(before)][0] - times[0]
        assert at - begins[number // len(before)] == pytest.approx(was, abs=0.11)  # a picture's length apart at most


def test_a_result_that_appears_meanwhile_is_kept_and_ends_one_image_alone(model: Path, tmp_path: Path) -> None:
    sources = find_sources([str(picture(tmp_path / f"{name}.png").parent) for name in "abc"]).sources
    drawing = drawing_of(model, "overlay", "mask")
    plans = plan_all(sources, tmp_path / "out", drawing)

    def meanwhile(label: str, shown: np.ndarray) -> None:
        if label.endswith("b.png"):
            (tmp_path / "out" / "b_overlay.jpg").write_bytes(b"theirs")

    ended: dict[Source, SourceResult | LsrError] = {}
    segment_images(list(plans.items()), task_of(model, drawing=drawing, show=meanwhile), ended.__setitem__)
    assert [isinstance(ended[source], UsageError) for source in sources] == [False, True, False]
    assert (tmp_path / "out" / "b_overlay.jpg").read_bytes() == b"theirs"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "a_overlay.jpg", "a_mask.png", "b_overlay.jpg", "c_overlay.jpg", "c_mask.png",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_result_that_appears_meanwhile_is_a_mistake_in_usage_where_it_is_the_only_one(
    model: Path, tmp_path: Path, kind: str
) -> None:
    place = picture(tmp_path / "a.png") if kind == "image" else late_clip(tmp_path / "a.ts")
    (source,) = find_sources([str(place)]).sources
    drawing = drawing_of(model, "overlay")
    outputs = plan_outputs(source, tmp_path / "out", drawing)
    report = RunReport([source])
    (tmp_path / "out").mkdir()
    task = task_of(model, drawing=drawing, show=lambda label, shown: outputs["overlay"].touch())
    assert SourceThreads([PlannedSource(source, outputs)], task, report, None, Destination(tmp_path)).wait() is None
    with pytest.raises(UsageError, match="--overwrite"):
        report.conclude("in out", None)
    assert outputs["overlay"].stat().st_size == 0


def test_results_that_appear_meanwhile_keep_their_places_before_a_video(model: Path, tmp_path: Path) -> None:
    (source,) = find_sources([str(late_clip(tmp_path / "clip.ts"))]).sources
    for kind in ("overlay", "mask"):
        drawing = drawing_of(model, kind)
        outputs = plan_outputs(source, tmp_path / kind, drawing)
        task = task_of(model, drawing=drawing)

        def meanwhile(place: Path = outputs[kind]) -> None:
            place.mkdir(exist_ok=True)
            (place / "theirs").touch()

        with pytest.raises(UsageError, match="appeared"):
            segment_video(source, outputs, task, on_frame=meanwhile)
        assert [path.name for path in outputs[kind].iterdir()] == ["theirs"]
        assert list((tmp_path / kind).iterdir()) == [outputs[kind]]


def test_all_results_of_an_image_appear_or_none(model: Path, tmp_path: Path) -> None:
    """The name of the confidence is too long by one byte, that of the overlay is not."""
    sources = find_sources([str(picture(tmp_path / "data" / f"{'b' * 241}.png"))]).sources
    drawing = drawing_of(model, "overlay", "confidence")
    ended: list[SourceResult | LsrError] = []
    plans = plan_all(sources, tmp_path / "out", drawing)
    segment_images(list(plans.items()), task_of(model, drawing=drawing), lambda source, how: ended.append(how))
    assert "nothing there changed" in str(ended[0])
    assert list((tmp_path / "out").iterdir()) == []


def test_an_image_that_vanishes_once_it_is_done_stays_done(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sources = find_sources([str(picture(tmp_path / "data" / f"{name}.png").parent) for name in "ab"]).sources
    task = task_of(model, show=lambda label, shown: Path(label).unlink() if label.endswith("a.png") else None)
    ended: dict[Source, SourceResult | LsrError] = {}
    segment_images(list(plan_all(sources, tmp_path / "out", task.drawing).items()), task, ended.__setitem__)
    assert [ended[source] for source in sources] == [SourceResult(1), SourceResult(1)]
    assert "a.png: does not exist; whether it holds further pictures is unknown" in caplog.text


def test_an_interruption_while_the_last_thread_ends_is_not_waited_for(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C lands exactly when a blocking call of the waiting thread returns, for each call that there might be."""
    sources = find_sources([str(picture(tmp_path / "a.png"))]).sources
    task = task_of(model)
    report = RunReport(sources)
    run = SourceThreads(
        [PlannedSource(sources[0], plan_outputs(sources[0], tmp_path / "out", task.drawing))],
        task,
        report,
        None,
        Destination(None),
    )
    waiting = threading.Thread(target=run.wait, daemon=True)
    interrupted: list[str] = []
    starting = [thread._started for thread in run._threads]  # type: ignore[attr-defined]  # waited for before all else

    def torn(owner: type, name: str) -> None:
        call = getattr(owner, name)

        def wrapped(*words: object, **options: object) -> object:
            result = call(*words, **options)
            if threading.current_thread() is waiting and words[0] not in starting and name not in interrupted:
                interrupted.append(name)
                raise KeyboardInterrupt
            return result

        monkeypatch.setattr(owner, name, wrapped)

    torn(threading.Thread, "join")
    torn(threading.Event, "wait")
    torn(queue.Queue, "get")
    waiting.start()
    deadline = time.monotonic() + 20
    while waiting.is_alive():
        assert time.monotonic() < deadline, "it waits for ever"
        time.sleep(0.01)
    assert interrupted
    assert report.interrupted
