"""A real ONNX Runtime session behind the Segmenter: what it computes, and every file and frame it refuses."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

import lsr_infer
from lsr_infer.backends import BackendOptions
from lsr_infer.backends.onnxruntime import OnnxRuntimeBackend
from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.images import read_label, resize_frame
from lsr_infer.manifest import METADATA_KEY
from lsr_infer.render.masks import interpolate
from lsr_infer.segmenter import BACKENDS, Segmentation, Segmenter
from lsr_infer.shipped import shipped_models
from lsr_infer.video.reader import read_frames
from tests.lsr_infer.onnxfile import SPACE, colour_model, expected_logits, level_model, manifest
from tests.lsr_infer.onnxfile import model as encode

Shared = Callable[[str], Path]


def test_a_frame_of_the_working_size(model: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    with Segmenter(model, device="cpu") as segmenter:
        result = segmenter(frame)
        assert (segmenter.device, segmenter.backend) == ("cpu", "onnxruntime")
        assert segmenter.label_space == SPACE
    assert result.logits is not None
    np.testing.assert_allclose(result.logits, expected_logits(frame), atol=1e-3)
    np.testing.assert_array_equal(result.classes, interpolate(result.logits, 64, 96).argmax(0))
    assert result.confidence.shape == (64, 96)
    assert 1 / 3 - 1e-6 <= result.confidence.min() <= result.confidence.max() <= 1


def test_frames_of_a_real_clip_at_their_own_size(shared: Shared, model: Path) -> None:
    path = shared("data/clips/udacity_test_video.mp4")
    frames = [item.frame for item in read_frames(path, duration=0.3)]
    with Segmenter(model) as segmenter:
        size = segmenter.manifest.working_size(720, 1280)
        assert size == (56, 104)  # the area of 64x96, sides a multiple of 8
        for frame, (streamed, result) in zip(frames, segmenter.stream(path), strict=False):
            np.testing.assert_array_equal(frame, streamed)
            assert result.logits is not None
            np.testing.assert_allclose(result.logits, expected_logits(resize_frame(frame, *size)), atol=1e-3)
            assert result.classes.shape == (720, 1280)
            np.testing.assert_array_equal(result.overlay(frame, alpha=0), frame)


def test_a_batch_is_its_frames(model: Path) -> None:
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 256, (50, 70, 3), dtype=np.uint8) for _ in range(3)]
    with Segmenter(model) as segmenter:
        assert segmenter.batch([]) == []
        for frame, result in zip(frames, segmenter.batch(frames), strict=True):
            np.testing.assert_array_equal(result.classes, segmenter(frame).classes)
        with pytest.raises(InputError, match="differ in size"):
            segmenter.batch([frames[0], frames[1][:20]])


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_a_graph_that_takes_four_frames_at_a_time(
    tmp_path: Path, model: Path, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(count)
    frames = [rng.integers(0, 256, (50, 70, 3), dtype=np.uint8) for _ in range(count)]
    four = colour_model(tmp_path / "four.onnx", manifest(fixed_batch=4))  # ONNX Runtime refuses any other number
    with Segmenter(four, "cpu") as segmenter, Segmenter(model, "cpu") as free:
        for _ in range(2):
            found = segmenter.batch(frames)
            assert len(found) == count
            for result, frame in zip(found, frames, strict=True):
                np.testing.assert_array_equal(result.classes, free(frame).classes)
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == (count % 4 > 0)  # once, and only where frames were repeated
    assert all("four.onnx: takes 4 frames at a time" in line for line in said)


def test_a_class_the_model_does_not_have(tmp_path: Path) -> None:
    frame = np.full((64, 96, 3), 2, np.uint8)
    with Segmenter(level_model(tmp_path / "levels.onnx"), "cpu") as segmenter:
        assert segmenter(frame).shares() == {"red": 1.0}
        frame[5, 7, 1] = 200
        with pytest.raises(InputError, match=r"levels.onnx: gave class 200, it has 0 to 2"):
            segmenter(frame)
    with pytest.raises(InputError, match="gave class 3"):
        Segmentation(SPACE, (2, 2), classes=np.full((2, 2), 3, np.uint8))


def test_a_size_far_beyond_the_models_own_is_said_once(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = np.zeros((64, 96, 3), np.uint8)
    with Segmenter(model, "cpu") as segmenter:
        for size in (None, (64, 96), (128, 192), (8, 8)):  # four times its area is the last that passes
            segmenter(frame, size=size)
        segmenter(np.zeros((640, 960, 3), np.uint8))  # a large frame that is shrunk
        assert not caplog.records
        for size in ((128, 200), (256, 384)):
            segmenter(frame, size=size)
        (line,) = [record.message for record in caplog.records]
    assert "model.onnx: frames enter the network at 200x128, 4 times the area" in line
    assert "(96x64)" in line
    assert "--tile" in line


def test_without_a_name_the_shipped_network_is_opened(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    with Segmenter(device="cpu") as segmenter:
        assert segmenter.path.name == "street.onnx"
    assert "no model named: using street" in caplog.text
    monkeypatch.setattr("lsr_infer.shipped._FOLDER", tmp_path)
    with pytest.raises(UsageError, match="ships no model"):
        Segmenter(device="cpu")


def test_a_shipped_network_is_opened_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Segmenter("toytown-source", device="cpu") as segmenter:
        assert segmenter.path == shipped_models()["toytown-source"]
    with pytest.raises(InputError, match=r"toytwon: there is no such model file. Shipped ones: .*toytown"):
        Segmenter("toytwon", device="cpu")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toytown").write_bytes(b"")  # what is there goes before
    with pytest.raises(InputError, match="no backend opens such files"):
        Segmenter("toytown", device="cpu")


class FakeGpu(OnnxRuntimeBackend):
    """ONNX Runtime on the CPU that takes itself for a GPU; the only fake part is the device's name."""

    def __init__(self, path: Path, options: BackendOptions) -> None:
        super().__init__(path, replace(options, device="cpu"))
        self.device = "cuda:0"
        self.shapes: list[tuple[int, ...]] = []

    def run(self, frames: np.ndarray) -> np.ndarray:
        self.shapes.append(frames.shape)
        return super().run(frames)


def test_on_a_gpu_the_model_has_run_before_the_first_frame(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[FakeGpu] = []

    def open_fake(path: Path, options: BackendOptions) -> FakeGpu:
        opened.append(FakeGpu(path, options))
        return opened[-1]

    monkeypatch.setitem(cast(dict[str, object], BACKENDS), "onnxruntime", open_fake)
    with Segmenter(model) as segmenter:
        assert segmenter.device == "cuda:0"
        assert opened[0].shapes == [(1, 64, 96, 3)]
    broken = tmp_path / "broken.onnx"
    eye, zero = np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
    broken.write_bytes(encode(eye * np.float32(np.nan), zero, {METADATA_KEY: manifest().to_json()}))
    with pytest.raises(InputError, match="not finite"):
        Segmenter(broken)
    with pytest.raises(UsageError, match="closed"):
        opened[1].run(np.zeros((1, 64, 96, 3), np.uint8))


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 400), (400, 3), (1080, 1920)])
def test_frames_of_every_shape(model: Path, shape: tuple[int, int]) -> None:
    frame = np.zeros((*shape, 3), dtype=np.uint8)
    frame[..., 1] = 200
    with Segmenter(model) as segmenter:
        classes = segmenter(frame).classes
    assert classes.shape == shape
    assert (classes == 1).all()


def test_a_graph_of_fixed_size_stretches(tmp_path: Path) -> None:
    path = colour_model(tmp_path / "fixed.onnx", manifest(fixed_size=True))
    with Segmenter(path) as segmenter:
        assert segmenter.manifest.working_size(720, 1280) == (64, 96)
        assert segmenter(np.zeros((100, 30, 3), np.uint8)).classes.shape == (100, 30)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((64, 96), np.uint8),
        np.zeros((64, 96, 4), np.uint8),
        np.zeros((64, 96, 3), np.float32),
        np.zeros((0, 96, 3), np.uint8),
    ],
)
def test_what_is_no_frame_is_refused(model: Path, frame: np.ndarray) -> None:
    with Segmenter(model) as segmenter, pytest.raises(InputError, match="a frame is"):
        segmenter(frame)


def test_a_stream_raises_what_its_source_raises(model: Path) -> None:
    def frames() -> Iterator[np.ndarray]:
        yield np.zeros((64, 96, 3), np.uint8)
        raise InputError("it broke")

    seen: list[object] = []
    with Segmenter(model) as segmenter, pytest.raises(InputError, match="it broke"):
        seen.extend(segmenter.stream(frames()))
    assert len(seen) == 1


def test_missing_and_unknown_files(tmp_path: Path, model: Path) -> None:
    with pytest.raises(InputError, match="no such model"):
        Segmenter(tmp_path / "absent.onnx")
    with pytest.raises(InputError, match=r"is a folder. Export a run"):
        Segmenter(tmp_path)
    other = tmp_path / "weights.pt"
    other.write_bytes(b"x")
    with pytest.raises(InputError, match="no backend opens"):
        Segmenter(other)
    with pytest.raises(UsageError, match="no backend"):
        Segmenter(model, backend="guess")


def test_a_device_that_is_none(model: Path) -> None:
    with pytest.raises(UsageError, match="there is no device"):
        Segmenter(model, device="tpu")


def test_a_size_of_the_users(model: Path, tmp_path: Path) -> None:
    frame = np.random.default_rng(3).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    with Segmenter(model) as segmenter:
        result = segmenter(frame, size=(32, 200))
        assert result.logits is not None
        np.testing.assert_allclose(result.logits, expected_logits(resize_frame(frame, 32, 200)), atol=1e-3)
        assert result.classes.shape == (100, 150)
        ((_, streamed),) = segmenter.stream([frame], size=(32, 200))
        np.testing.assert_array_equal(streamed.classes, result.classes)
        for size in ((33, 200), (0, 200), (-8, 200), (32768, 200)):
            with pytest.raises(UsageError, match=rf"model.onnx: the size 200x{size[0]} was asked for"):
                segmenter(frame, size=size)
    fixed = colour_model(tmp_path / "fixed.onnx", manifest(fixed_size=True))
    with Segmenter(fixed) as segmenter:
        assert segmenter(frame, size=(64, 96)).classes.shape == (100, 150)
        with pytest.raises(UsageError, match="only 96x64"):
            segmenter(frame, size=(32, 96))


def test_frames_that_are_views_read_only_or_backwards(model: Path) -> None:
    whole = np.random.default_rng(4).integers(0, 256, (128, 192, 3), dtype=np.uint8)
    views = [whole[::2, ::2], whole[63::-1, 191:95:-1], whole[:64, :96], np.asfortranarray(whole[:64, :96])]
    locked = whole[:64, :96].copy()
    locked.flags.writeable = False
    before = whole.copy()
    with Segmenter(model) as segmenter:
        for frame in [*views, locked, whole[::-1, ::-1]]:
            found = segmenter(frame).logits
            expected = segmenter(np.ascontiguousarray(frame)).logits
            assert found is not None
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(whole, before)


def test_what_a_segmentation_can_be_turned_into(model: Path, tmp_path: Path) -> None:
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:, :48, 0] = 200
    frame[:, 48:, 2] = 200
    with Segmenter(model) as segmenter:
        result = segmenter(frame)
    (tmp_path / "mask.png").write_bytes(result.to_png())
    np.testing.assert_array_equal(read_label(tmp_path / "mask.png"), result.classes)
    assert (result.colorize()[:, 0] == (255, 0, 0)).all()
    assert result.shares() == pytest.approx({"blue": 0.5, "red": 0.5}, abs=0.05)


def test_warm_up_runs_the_model(model: Path, tmp_path: Path) -> None:
    with Segmenter(model) as segmenter:
        segmenter.warm_up()
        segmenter.warm_up(720, 1280, frames=2)
    broken = tmp_path / "broken.onnx"
    eye, zero = np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
    broken.write_bytes(encode(eye * np.float32(np.nan), zero, {METADATA_KEY: manifest().to_json()}))
    with Segmenter(broken) as segmenter, pytest.raises(InputError, match="not finite"):
        segmenter.warm_up()


def test_a_segmentation_holds_one_of_two() -> None:
    with pytest.raises(ValueError, match="either"):
        Segmentation(SPACE, (2, 2))
    result = Segmentation(SPACE, (2, 2), classes=np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match="no confidence"):
        _ = result.confidence


def test_importing_the_runtime_loads_neither_torch_nor_an_engine() -> None:
    code = (
        "import sys, lsr_infer\n"
        "assert 'numpy' not in sys.modules\n"
        "import lsr_infer.segmenter, lsr_infer.cli, lsr_infer.backends.onnxruntime, lsr_infer.backends.openvino\n"
        "from lsr_infer import *\n"
        "assert Segmenter is lsr_infer.segmenter.Segmenter\n"
        "heavy = {'torch', 'onnxruntime', 'tensorrt', 'tensorrt_rtx', 'openvino'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=root, env=os.environ)


def test_the_public_names() -> None:
    for name in lsr_infer.__all__:
        assert getattr(lsr_infer, name).__name__ == name
        assert name in dir(lsr_infer)
    with pytest.raises(AttributeError, match="Segmentor"):
        _ = lsr_infer.Segmentor


@pytest.mark.parametrize("wrong", [None, "frame.png", [[0, 1, 2]]])
def test_what_is_no_array_is_an_input_error(model: Path, wrong: object) -> None:
    segmenter = Segmenter(model)
    with pytest.raises(InputError, match=rf"a frame is a {type(wrong).__name__}; needed"):
        segmenter(wrong)  # type: ignore[arg-type]


def test_one_array_in_place_of_a_list_is_an_input_error(model: Path) -> None:
    with pytest.raises(InputError, match=r"needed: uint8 \[H,W,3\]"):
        Segmenter(model).batch(np.zeros((32, 48, 3), np.uint8))  # type: ignore[arg-type]
