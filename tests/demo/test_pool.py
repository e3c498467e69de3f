"""Worker processes: what they compute, and that one which hangs, dies or is not wanted any more is killed."""

import asyncio
import csv
import os
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from lsr_infer import InputError, Segmenter
from lsr_infer.io.images import read_image
from pool import WorkerProcess
from settings import Limits, ModelChoice
from tests.demo.conftest import STREET

MODELS = STREET.parents[2]
CHOICES = [
    ModelChoice(path=MODELS / f"{name}.onnx", title=name, device="cpu", threads=1)
    for name in ("toytown-source", "toytown")
]
Worker = Callable[..., WorkerProcess]


@pytest.fixture
def worker() -> Iterator[Worker]:
    started = []

    def start(seconds: float = 60.0, memory: int = 4 << 30) -> WorkerProcess:
        started.append(WorkerProcess(seconds, memory))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def picture(folder: Path, **changes: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    defaults = {"path": STREET, "choices": CHOICES, "limits": Limits(), "folder": folder, "timed": False}
    return {**defaults, **changes}


def test_a_picture_comes_back_as_the_segmenter_gives_it(worker: Worker, tmp_path: Path) -> None:
    result = asyncio.run(worker().run("picture", **picture(tmp_path / "out")))
    frame = read_image(STREET)
    before, after = (Segmenter(choice.path, "cpu", threads=1)(frame) for choice in CHOICES)
    assert result["agreement"] == pytest.approx(np.mean(before.classes == after.classes), abs=1e-6)
    assert result["layers"][1]["shares"] == pytest.approx(after.shares(), abs=1e-6)
    mask = cv2.imread(str(tmp_path / "out" / "after_overlay.png"))
    assert np.array_equal(mask, after.overlay(frame))
    with zipfile.ZipFile(tmp_path / "out" / "results.zip") as archive:
        assert {"before_mask.png", "after_mask.png", "after_overlay.png", "shares.csv", "result.json"} <= set(
            archive.namelist()
        )


def test_the_result_says_what_deep_samples_were_taken_for(worker: Worker, tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), read_image(STREET).astype(np.uint16) << 4)
    pool, facts = worker(), []
    for number, one in enumerate((path, STREET)):
        result = asyncio.run(pool.run("picture", **picture(tmp_path / str(number), path=one)))
        facts.append({"note": result["note"], "agreement": result["agreement"]})
    assert facts[0]["note"] == "16-bit samples with nothing above 4095 are read as of 12 bits"
    assert facts[1] == {"note": "", "agreement": facts[0]["agreement"]}


def test_views_show_the_confidence_and_the_difference(worker: Worker, tmp_path: Path) -> None:
    pool = worker()

    async def both() -> tuple[Any, Any]:
        await pool.run("picture", **picture(tmp_path / "out"))
        options = {"folder": tmp_path / "out", "choices": CHOICES}
        confidence = await pool.run("view", view="confidence", **options)
        return confidence, await pool.run("view", view="difference", **options)

    confidence, difference = asyncio.run(both())
    assert confidence == {"left": "before_confidence.png", "right": "after_confidence.png"}
    frame = read_image(STREET)
    before, after = (Segmenter(choice.path, "cpu", threads=1)(frame).classes for choice in CHOICES)
    drawn = cv2.imread(str(tmp_path / "out" / difference["right"]))
    grey = drawn.max(axis=2) == drawn.min(axis=2)
    assert grey[before == after].all()
    assert not grey[before != after].all()


def test_a_clip_becomes_one_that_browsers_play(worker: Worker, tmp_path: Path, clip_of: Callable[[int], Path]) -> None:
    news: list[dict[str, Any]] = []
    options = {"path": clip_of(21), "choices": CHOICES, "limits": Limits(), "folder": tmp_path, "every": 2}
    result = asyncio.run(worker().run("clip", news.append, **options))
    assert result["frames"] == 11
    assert news[0] == {"frames": 0, "total": 11, "seconds": 0.0}
    with av.open(str(tmp_path / "before_after.mp4")) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.width == 2 * 512 + 4
        assert stream.height > 256  # the classes stand below
        assert [round(float(frame.time), 2) for frame in video.decode(stream)] == [round(n / 5, 2) for n in range(11)]
    with zipfile.ZipFile(tmp_path / "masks.zip") as archive:
        assert len(archive.namelist()) == 11
    rows = list(csv.reader((tmp_path / "shares.csv").open(encoding="utf-8")))
    assert len(rows) == 12
    assert sum(map(float, rows[1][2:])) == pytest.approx(2.0, abs=1e-3)  # of both models
    assert sum(one["shares"][0] for one in result["curves"]["classes"]) == pytest.approx(1.0, abs=1e-3)


def test_a_clip_that_breaks_keeps_its_good_frames(
    worker: Worker, tmp_path: Path, clip_of: Callable[[int], Path]
) -> None:
    cut = tmp_path / "cut.mkv"
    with av.open(str(clip_of(40))) as source, av.open(str(cut), "w", format="matroska") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    options = {"path": cut, "choices": CHOICES[1:], "limits": Limits(), "folder": tmp_path, "every": 1}
    result = asyncio.run(worker().run("clip", **options))
    assert 1 <= result["frames"] < 40
    assert result["notes"] == [f"The file is damaged: nothing after frame {result['frames']} could be read."]


@pytest.mark.slow  # waits for the limit, as a test of the page does
def test_a_process_that_hangs_is_killed_and_the_next_one_works(worker: Worker, tmp_path: Path) -> None:
    hung = worker(seconds=5.0)

    async def run() -> None:
        await hung.run("open", choice=CHOICES[1])
        assert hung.pid is not None
        os.kill(hung.pid, signal.SIGSTOP)  # as a decoder that never returns
        pid = hung.pid
        with pytest.raises(InputError, match=r"This took longer than 5 s and was stopped\. Send less\."):
            await hung.run("picture", **picture(tmp_path / "a"))
        assert not Path(f"/proc/{pid}").exists()
        assert (await hung.run("picture", **picture(tmp_path / "b")))["width"] == 512

    asyncio.run(run())


def test_a_process_that_dies_or_grows_costs_its_own_task_alone(worker: Worker, tmp_path: Path) -> None:
    died, grown = worker(), worker(memory=1 << 20)

    async def run() -> None:
        await died.run("open", choice=CHOICES[1])
        assert died.pid is not None
        os.kill(died.pid, signal.SIGSTOP)
        task = asyncio.create_task(died.run("picture", **picture(tmp_path / "a")))
        await asyncio.sleep(0.1)
        os.kill(died.pid, signal.SIGKILL)
        with pytest.raises(InputError, match="could not process this file"):
            await task
        await died.run("open", choice=CHOICES[1])
        with pytest.raises(InputError, match="needs more memory than one request may take"):
            await grown.run("open", choice=CHOICES[1])

    asyncio.run(run())


def test_a_cancelled_task_ends_its_process_within_a_second(
    worker: Worker, tmp_path: Path, clip_of: Callable[[int], Path]
) -> None:
    pool = worker()

    async def run() -> float:
        running = asyncio.Event()
        options = {"path": clip_of(299), "choices": CHOICES, "limits": Limits(), "folder": tmp_path, "every": 1}
        task = asyncio.create_task(pool.run("clip", lambda news: news["frames"] and running.set(), **options))
        await running.wait()
        pid, start = pool.pid, time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not Path(f"/proc/{pid}").exists()
        return time.monotonic() - start

    assert asyncio.run(run()) < 1.0


def test_errors_are_sentences_without_the_server_s_folders(worker: Worker, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    with pytest.raises(InputError) as error:
        asyncio.run(worker().run("picture", **picture(tmp_path / "out", path=bad)))
    assert "bad.png" in str(error.value)
    assert str(tmp_path) not in str(error.value)
