"""Every backend that opens ONNX files: what it computes, says of itself, and refuses; and how many cores it takes."""

import ctypes
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lsr_infer.backends import BackendOptions, TensorPort
from lsr_infer.backends.onnxruntime import DeviceRunner
from lsr_infer.errors import DeviceError, InputError, UsageError
from lsr_infer.manifest import METADATA_KEY
from lsr_infer.parity.frame_set import shipped_frames
from lsr_infer.segmenter import BACKENDS, Segmenter, open_backend
from lsr_infer.shipped import model_path
from lsr_infer.system.cuda import CudaDevice, CudaProbe
from tests.lsr_infer.onnxfile import colour_model, expected_logits, manifest
from tests.lsr_infer.onnxfile import model as encode

FOR_ONNX = ("onnxruntime", "openvino")


def available(name: str) -> str:
    if name == "openvino":
        pytest.importorskip("openvino", reason="openvino: the extra is not installed")
    return name


@pytest.mark.parametrize("name", FOR_ONNX)
def test_every_backend_of_onnx_files_says_what_it_is_and_computes_the_same(model: Path, name: str) -> None:
    assert name in BACKENDS
    backend = open_backend(model, BackendOptions(device="cpu", threads=1), name=available(name))
    assert (backend.name, backend.device) == (name, "cpu")
    assert METADATA_KEY in backend.metadata
    assert backend.inputs == (TensorPort(name="image", type="uint8", shape=(None, None, None, 3)),)
    assert [(port.name, port.type) for port in backend.outputs] == [("logits", "float32")]
    images = np.random.default_rng(5).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    images.flags.writeable = False
    result = backend.run(images)
    np.testing.assert_allclose(result, np.stack([expected_logits(image) for image in images]), atol=1e-3)
    kept = result.copy()
    backend.run(np.zeros((2, 16, 24, 3), np.uint8))
    np.testing.assert_array_equal(result, kept)  # the array is the caller's
    assert backend.run(np.zeros((1, 40, 8, 3), np.uint8)).shape == (1, 3, 5, 1)
    with pytest.raises(InputError, match=r"failed on frames \[1, 16, 24, 4\]") as caught:
        backend.run(np.zeros((1, 16, 24, 4), np.uint8))
    assert "\n" not in str(caught.value)
    backend.close()
    backend.close()
    with pytest.raises(UsageError, match="closed"):
        backend.run(images)


@pytest.mark.parametrize("name", FOR_ONNX)
def test_threads_share_one_segmenter(model: Path, name: str) -> None:
    rng = np.random.default_rng(6)
    frames = [rng.integers(0, 256, (64 + 8 * (n % 3), 96, 3), dtype=np.uint8) for n in range(24)]
    with Segmenter(model, "cpu", available(name)) as segmenter:
        expected = [segmenter(frame).classes for frame in frames]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda frame: segmenter(frame).classes, frames))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_openvino_computes_in_what_was_asked_for(model: Path) -> None:
    available("openvino")
    frame = np.random.default_rng(7).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    with Segmenter(model, "cpu", "openvino") as exact, Segmenter(model, "cpu", "onnxruntime") as other:
        assert (exact.precision, other.precision) == ("fp32", "fp32")
        precise, same = exact(frame).logits, other(frame).logits
        assert precise is not None
        np.testing.assert_allclose(precise, same, atol=1e-3)
    try:
        rough = Segmenter(model, "cpu", "openvino", precision="bf16")
    except DeviceError as error:
        pytest.skip(str(error))
    assert rough.precision == "bf16"
    logits = rough(frame).logits
    assert logits is not None
    assert 0.01 < np.abs(logits - precise).max() < 2  # levels up to 255 in eight bits


def test_openvino_says_that_a_quantised_file_runs_in_int8() -> None:
    available("openvino")
    frame = shipped_frames(1).frames[0]
    path = model_path(None)
    with Segmenter(path, "cpu", "onnxruntime") as other:
        assert other.manifest.precision == "int8"
        expected = other(frame).classes
    for precision in (None, "fp32"):
        with Segmenter(path, "cpu", "openvino", precision=precision) as segmenter:
            assert segmenter.precision == "int8"
            assert (segmenter(frame).classes == expected).mean() > 0.98


def test_openvino_says_what_runs_and_not_what_the_manifest_says(model: Path, tmp_path: Path) -> None:
    available("openvino")
    path = colour_model(tmp_path / "half.onnx", manifest(precision="fp16"))
    with Segmenter(path, "cpu", "openvino") as segmenter:
        assert segmenter.precision == "fp32"


def test_openvino_has_no_other_precisions_and_devices(model: Path) -> None:
    for device, precision, error in (
        ("cpu", "fp8", UsageError),
        ("cuda:0", None, DeviceError),
        ("tpu", None, UsageError),
    ):
        with pytest.raises(error, match=precision or device):
            Segmenter(model, device, "openvino", precision=precision)


def test_a_missing_extra_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DeviceError, match=r"lsr-road\[openvino\]"):
        Segmenter(model, backend="openvino")


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_onnx_runtime_on_the_cpu_keeps_the_files_precision(model: Path, precision: str) -> None:
    with pytest.raises(UsageError, match=precision):
        Segmenter(model, "cpu", "onnxruntime", precision=precision)


def test_buffers_that_are_kept_on_a_device(model: Path) -> None:
    """The path of CUDA devices, here with the CPU as the device: the calls are the same."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    runner = DeviceRunner(session, "cpu", 0)
    rng = np.random.default_rng(8)
    results, expected = [], []
    for n in range(36):  # each shape three times in turn, more shapes than are kept, and the first ones again
        images = rng.integers(0, 256, (1 + n // 3 % 2, 16 + 8 * (n // 6 % 4), 24, 3), dtype=np.uint8)
        images.flags.writeable = False
        results.append(runner.run(images))
        assert runner.kept <= 4
        expected.append(np.stack([expected_logits(image) for image in images]))
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, wanted, atol=1e-3)


def test_shapes_too_large_to_be_captured_are_let_go(model: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    runner = DeviceRunner(session, "cpu", 0, graphs=True)
    for count in (1, 2, *range(9, 16), 1):  # up to 8 frames a graph is captured and kept, beyond it there is none
        runner.run(np.zeros((count, 16, 24, 3), dtype=np.uint8))
        assert runner.kept <= 2 + 4
    assert runner.kept == 6


def cuda_works() -> bool:
    """Whether a driver is there and ONNX Runtime's provider can be loaded, asked without our own code."""
    import onnxruntime

    try:
        ctypes.CDLL("libcuda.so.1")
        ctypes.CDLL(str(Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:99"])
def test_an_absent_device_is_said_and_not_replaced(model: Path, device: str, capfd: pytest.CaptureFixture[str]) -> None:
    if cuda_works() and device != "cuda:99":
        assert open_backend(model, BackendOptions(device=device)).device == "cuda:0"
    else:
        with pytest.raises(DeviceError, match=device):
            open_backend(model, BackendOptions(device=device))
    assert capfd.readouterr().err == ""


def test_auto_says_which_device_it_took(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lsr_infer"), Segmenter(model, "auto", "onnxruntime") as segmenter:
        assert segmenter.device == ("cuda:0" if cuda_works() else "cpu")
    (line,) = [record.message for record in caplog.records if "device auto" in record.message]
    assert segmenter.device in line


@pytest.mark.gpu
def test_a_cuda_device_computes_what_the_cpu_does(model: Path, tmp_path: Path) -> None:
    frame = np.random.default_rng(9).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    fixed = colour_model(tmp_path / "fixed.onnx", manifest(fixed_size=True))
    for path in (model, fixed):
        with Segmenter(path, "cuda:0") as gpu, Segmenter(path, "cpu") as cpu:
            assert gpu.device == "cuda:0"
            for one in (frame, frame[::-1], frame, 255 - frame):  # a captured graph must read the new frame
                found, expected = gpu(one).logits, cpu(one).logits
                assert found is not None
                np.testing.assert_allclose(found, expected, atol=1e-2)


def test_a_driver_whose_device_cannot_be_used(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A fake only of the driver's answer: ONNX Runtime itself then fails to load its CUDA libraries, for real."""
    if cuda_works():
        pytest.skip("CUDA works here")
    import lsr_infer.backends.onnxruntime as backend

    device = CudaDevice(index=0, name="a fake", compute_capability=(8, 6))
    monkeypatch.setattr(backend, "probe_cuda", lambda: CudaProbe(devices=(device,), driver=(13, 0)))
    with pytest.raises(DeviceError, match=r"cuda:0: ONNX Runtime could not use the CUDA device.*lsr-road\[cuda\]"):
        Segmenter(model, "cuda:0", "onnxruntime")
    with caplog.at_level(logging.INFO, "lsr_infer"), Segmenter(model, "auto", "onnxruntime") as segmenter:
        assert segmenter.device == "cpu"
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]
    bad = model.with_name("bad.onnx")
    bad.write_bytes(model.read_bytes().replace(b"AveragePool", b"AveragePoop"))
    for name in ("cuda:0", "auto", "cpu"):
        with pytest.raises(InputError, match="AveragePoop"):
            Segmenter(bad, name, "onnxruntime")
    assert capfd.readouterr().out == ""


def test_a_model_brings_no_settings_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime can be told to take its options from a file's metadata: ours never is."""
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    trace = tmp_path / "trace"
    settings = '{"session_options": {"enable_profiling": 1, "profile_file_prefix": "%s", "intra_op_num_threads": 0}}'
    path = tmp_path / "m.onnx"
    metadata = {METADATA_KEY: manifest().to_json(), "ort_config": settings % trace}
    path.write_bytes(encode(np.eye(3, dtype=np.float32), np.zeros(3, np.float32), metadata))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="settings for ONNX Runtime"):
        Segmenter(path, "cpu", "onnxruntime")
    with Segmenter(colour_model(path), "cpu", "onnxruntime") as segmenter:
        segmenter.warm_up()
    assert [found.name for found in tmp_path.iterdir()] == ["m.onnx"]
