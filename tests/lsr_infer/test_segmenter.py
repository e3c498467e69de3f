"""A real ONNX Runtime session behind the Segmenter: what it computes, and every file and frame it refuses."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lsr_infer.backends import BACKENDS, BackendOptions, open_backend
from lsr_infer.errors import DeviceError, InputError, UsageError
from lsr_infer.images import resize_frame
from lsr_infer.labelspace import LabelSpace
from lsr_infer.manifest import FORMAT, METADATA_KEY
from lsr_infer.masks import interpolate
from lsr_infer.segmenter import Segmentation, Segmenter
from lsr_infer.video import read_frames
from tests.lsr_infer.onnxfile import SPACE, colour_model, manifest
from tests.lsr_infer.onnxfile import model as encode

Shared = Callable[[str], Path]


def expected_logits(image: np.ndarray) -> np.ndarray:
    """Mean levels of 8x8 blocks [3,h,w], what the test model computes."""
    h, w = image.shape[0] // 8, image.shape[1] // 8
    means = image[: h * 8, : w * 8].reshape(h, 8, w, 8, 3).mean(axis=(1, 3))  # [h,w,3]
    return np.asarray(means.transpose(2, 0, 1), dtype=np.float32)


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


def four_classes() -> LabelSpace:
    return LabelSpace(name="four", names=("a", "b", "c", "d"), colors=((0, 0, 0),) * 4)


def tampered(tmp_path: Path) -> dict[str, Path]:
    """Files that are no models of ours, by what is wrong with them."""
    eye, zero = np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
    good = manifest().to_json()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 36)
    (tmp_path / "models").mkdir()
    contents = {
        "empty": b"",
        "noise": np.random.default_rng(0).integers(0, 256, 3000, dtype=np.uint8).tobytes(),
        "truncated": encode(eye, zero, {METADATA_KEY: good})[:200],
        "no manifest": encode(eye, zero, {}),
        "manifest is no JSON": encode(eye, zero, {METADATA_KEY: "{"}),
        "manifest of the future": encode(
            eye, zero, {METADATA_KEY: good.replace(f'"format": {FORMAT}', '"format": 99')}
        ),
        "wrong number of classes": encode(eye, zero, {METADATA_KEY: manifest(four_classes()).to_json()}),
        "wrong input": encode(eye, zero, {METADATA_KEY: good}, input_name="picture"),
        "wrong size": encode(eye, zero, {METADATA_KEY: manifest(fixed_size=True).to_json()}, size=(32, 32)),
        "not finite": encode(eye * np.float32(np.nan), zero, {METADATA_KEY: good}),
        "data outside its folder": encode(eye, zero, {METADATA_KEY: good}, location="../secret.bin"),
        "data at an absolute path": encode(eye, zero, {METADATA_KEY: good}, location=str(tmp_path / "secret.bin")),
    }
    paths = {}
    for number, (name, content) in enumerate(contents.items()):
        paths[name] = tmp_path / "models" / f"{number}.onnx"
        paths[name].write_bytes(content)
    return paths


def test_tampered_models_are_refused_in_one_line(tmp_path: Path) -> None:
    for name, path in tampered(tmp_path).items():
        with pytest.raises(InputError) as caught:
            Segmenter(path)(np.zeros((64, 96, 3), np.uint8))
        message = str(caught.value)
        assert path.name in message, name
        assert "\n" not in message, name


def test_missing_and_unknown_files(tmp_path: Path, model: Path) -> None:
    with pytest.raises(InputError, match="no such model"):
        Segmenter(tmp_path / "absent.onnx")
    with pytest.raises(InputError, match="no such model"):
        Segmenter(tmp_path)
    other = tmp_path / "weights.pt"
    other.write_bytes(b"x")
    with pytest.raises(InputError, match="no backend opens"):
        Segmenter(other)
    with pytest.raises(UsageError, match="no backend"):
        Segmenter(model, backend="guess")


def cuda_is_there() -> bool:
    try:
        return bool(ctypes.CDLL("libcuda.so.1").cuInit(0) == 0)
    except OSError:
        return False


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_an_absent_device_is_said_and_not_replaced(model: Path, device: str) -> None:
    if cuda_is_there():
        assert open_backend(model, BackendOptions(device=device)).device == ("cuda:0" if device == "cuda" else device)
    else:
        with pytest.raises(DeviceError, match=device):
            open_backend(model, BackendOptions(device=device))


def test_a_device_that_is_none(model: Path) -> None:
    with pytest.raises(UsageError, match="there is no device"):
        Segmenter(model, device="tpu")


@pytest.mark.parametrize("name", sorted(name for name in BACKENDS if not name.startswith("tensorrt")))
def test_every_backend_reports_what_it_is(model: Path, name: str) -> None:
    backend = open_backend(model, BackendOptions(device="cpu", threads=1), name=name)
    assert (backend.name, backend.device) == (name, "cpu")
    assert [port.name for port in backend.inputs + backend.outputs] == ["image", "logits"]
    assert METADATA_KEY in backend.metadata
    assert backend.run(np.zeros((2, 16, 24, 3), np.uint8)).shape == (2, 3, 2, 3)
    backend.close()


def test_a_segmentation_holds_one_of_two() -> None:
    with pytest.raises(ValueError, match="either"):
        Segmentation(SPACE, (2, 2))
    result = Segmentation(SPACE, (2, 2), classes=np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match="no confidence"):
        _ = result.confidence


def test_importing_the_runtime_loads_neither_torch_nor_an_engine() -> None:
    code = (
        "import sys, lsr_infer, lsr_infer.segmenter, lsr_infer.cli, lsr_infer.backends\n"
        "heavy = {'torch', 'onnxruntime', 'tensorrt', 'openvino'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=root, env=os.environ)
