"""What surrounds an engine on a GPU: memory by shape, CUDA graphs, threads, failures; on a stand-in for the GPU."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (extra trt-rtx)")

from lsr_infer.errors import DeviceError, InputError
from lsr_infer.system.cuda import CudaDevice
from lsr_infer.tensorrt.flavour import Library
from lsr_infer.tensorrt.runner import _SHAPES_KEPT, EngineRunner, use_device
from lsr_infer.tensorrt.verify import run_onnx
from tests.lsr_infer.tensorrt.fakegpu import GPU, FakeCuda, FakeModule
from tests.lsr_infer.tensorrt.graphs import small_graph

MODEL = small_graph(output="classes").SerializeToString()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    made = FakeCuda()
    monkeypatch.setattr("lsr_infer.tensorrt.runner._cudart", lambda: made)
    return made


def runner(rtx: Library, cuda: FakeCuda, flavour: str = "tensorrt", **options: Any) -> EngineRunner:
    module = FakeModule(rtx.module, cuda)
    module.parsed(MODEL)
    return EngineRunner(Library(flavour=flavour, module=module, version="11.1"), b"plan", GPU, **options)


def frames(batch: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


def expected(image: np.ndarray) -> np.ndarray:
    return run_onnx(MODEL, image)["classes"]


@pytest.mark.parametrize("flavour", ["tensorrt", "rtx"])
@pytest.mark.parametrize("graphs", [True, False])
def test_every_shape_and_frame_is_computed(rtx: Library, cuda: FakeCuda, flavour: str, graphs: bool) -> None:
    engine = runner(rtx, cuda, flavour, graphs=graphs)
    assert (engine.inputs, engine.outputs) == (("image",), ("classes",))
    assert (str(engine.type_of("image")), str(engine.type_of("classes"))) == ("uint8", "uint8")
    assert engine.shape_of("image") == (None, None, None, 3)
    kept = []
    for seed, shape in enumerate([(1, 64, 96), (2, 32, 32), (1, 64, 96), (1, 64, 96), (2, 32, 32)]):
        image = frames(*shape, seed=seed)
        found = engine.run({"image": image})["classes"]
        np.testing.assert_array_equal(found, expected(image))
        kept.append((found, found.copy()))
    for found, copy in kept:
        np.testing.assert_array_equal(found, copy)  # the caller's arrays are not written to by later frames
    assert cuda.launches == (5 if graphs and flavour == "tensorrt" else 0)
    engine.close()
    assert (cuda.device, cuda.host, cuda.graphs_alive, cuda.streams) == ({}, {}, 0, 0)


def test_the_memory_of_many_shapes_is_bounded(rtx: Library, cuda: FakeCuda) -> None:
    engine = runner(rtx, cuda)
    for n in range(3 * _SHAPES_KEPT):
        image = frames(1, 32 + 4 * n, 32)
        np.testing.assert_array_equal(engine.run({"image": image})["classes"], expected(image))
        assert len(cuda.device) == len(cuda.host) == 2 * min(n + 1, _SHAPES_KEPT)
        assert cuda.graphs_alive == min(n + 1, _SHAPES_KEPT)
    engine.close()
    assert not cuda.device


def test_an_engine_that_cannot_be_recorded_runs_all_the_same(rtx: Library, cuda: FakeCuda) -> None:
    cuda.may_record = False
    engine = runner(rtx, cuda)
    image = frames(1, 64, 96)
    for _ in range(2):
        np.testing.assert_array_equal(engine.run({"image": image})["classes"], expected(image))
    assert cuda.launches == cuda.graphs_alive == 0


def test_too_little_memory_leaves_none_taken(rtx: Library, cuda: FakeCuda) -> None:
    engine = runner(rtx, cuda)
    for left in (0, 64 * 96 * 3, 2 * 64 * 96 * 3, 2 * 64 * 96 * 3 + 64 * 96):
        cuda.left = left
        with pytest.raises(DeviceError, match=r"CUDA: out of memory \(error 2\). Free memory"):
            engine.run({"image": frames(1, 64, 96)})
        assert (cuda.device, cuda.host, cuda.left) == ({}, {}, left)
    cuda.left = 1 << 20
    assert engine.run({"image": frames(1, 64, 96)})["classes"].shape == (1, 64, 96)


def test_a_graph_that_cannot_be_made_leaves_no_memory_taken(
    rtx: Library, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = runner(rtx, cuda)
    left = cuda.left
    with monkeypatch.context() as patched:
        patched.setattr(cuda, "cudaGraphInstantiate", lambda graph, flags: (700, None))
        for _ in range(3):
            with pytest.raises(DeviceError, match="illegal memory access"):
                engine.run({"image": frames(1, 64, 96)})
            assert (cuda.device, cuda.host, cuda.left) == ({}, {}, left)
    assert engine.run({"image": frames(1, 64, 96)})["classes"].shape == (1, 64, 96)


def test_threads_do_not_mix_their_frames(rtx: Library, cuda: FakeCuda) -> None:
    engine = runner(rtx, cuda)
    wrong: list[int] = []

    def work(seed: int) -> None:
        image = frames(1, 32 + 32 * (seed % 2), 64, seed)
        for _ in range(10):
            same = np.array_equal(engine.run({"image": image})["classes"], expected(image))
            wrong.extend([] if same else [seed])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong


def test_what_the_library_does_not_open(rtx: Library, cuda: FakeCuda) -> None:
    module = FakeModule(rtx.module, cuda)
    with pytest.raises(InputError, match=r"TensorRT 11\.1 does not open it"):
        EngineRunner(Library(flavour="tensorrt", module=module, version="11.1"), b"junk", GPU)
    missing = CudaDevice(index=3, name="none", compute_capability=(8, 9))
    with pytest.raises(DeviceError, match="invalid device ordinal"):
        use_device(missing)


def test_the_real_bindings_know_every_name_that_is_used() -> None:
    real = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed (extra trt)")
    source = Path(__file__).resolve().parents[3] / "lsr_infer" / "tensorrt" / "runner.py"
    text = source.read_text(encoding="utf-8")
    used = [name for name in dir(FakeCuda) if name.startswith("cuda")]
    assert all(name in text for name in used)
    for name in used:
        assert hasattr(real, name), name
        for inner in vars(getattr(FakeCuda, name)) if name in ("cudaMemcpyKind", "cudaStreamCaptureMode") else ():
            assert hasattr(getattr(real, name), inner), inner


def test_the_real_bindings_say_that_there_is_no_gpu() -> None:
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed (extra trt)")
    from lsr_infer.system.cuda import probe_cuda

    if probe_cuda().devices:
        pytest.skip("there is a GPU here")
    with pytest.raises(DeviceError, match=r"CUDA: .+ \(error \d+\)"):
        use_device(GPU)
