"""The whole way on a GPU, with whichever of the two libraries is installed: build, types, parity, run, drift."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed (extra export)")

from lsr_infer.errors import DeviceError, InputError
from lsr_infer.parity.frame_set import FrameSet
from lsr_infer.parity.meter import BARS, ParityCheck
from lsr_infer.segmenter import Segmenter
from lsr_infer.system.cuda import CudaDevice, probe_cuda
from lsr_infer.tensorrt.admission import manifest_path
from lsr_infer.tensorrt.build import Builder, BuildOptions, Shapes, build_engine
from lsr_infer.tensorrt.flavour import Library, load_library
from lsr_infer.tensorrt.make import make_engine, runs_of, verify_engine
from lsr_infer.tensorrt.runner import EngineRunner
from lsr_infer.tensorrt.verify import find_worst_layer, run_onnx
from tests.lsr_infer.tensorrt.graphs import damaged, read_model, small_file, small_graph

pytestmark = pytest.mark.gpu

SPAN: Shapes = ((1, 32, 32), (1, 64, 96), (2, 96, 128))
RANDOM = np.random.default_rng(3)
FRAMES = FrameSet(
    frames=[RANDOM.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(3)],
    labels=[None] * 3,
    origin="3 frames of the test's",
)


@pytest.fixture(params=["tensorrt", "rtx"])
def library(request: pytest.FixtureRequest) -> Library:
    try:
        return load_library(request.param)
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture
def gpu() -> CudaDevice:
    return probe_cuda().devices[0]


def builder(library: Library, gpu: CudaDevice, **changes: object) -> Builder:
    """For RTX, this very GPU among the targets."""
    here = "{}{}".format(*gpu.compute_capability)
    if library.flavour == "rtx" and here not in library.all_targets():
        pytest.skip(f"{library.title} does not build for {gpu}")
    options = BuildOptions(shapes=SPAN, targets=(here,) if library.flavour == "rtx" else ())
    changed = replace(options, **changes)  # type: ignore[arg-type]  # tests set any field
    return Builder(library=library, options=changed, gpu=gpu)


def comparison(precision: str) -> ParityCheck:
    return ParityCheck(frames=FRAMES, bar=BARS["fp32" if precision == "fp32" else "fp16"])


@pytest.mark.parametrize("output", ["classes", "logits"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_computes_what_its_onnx_file_does(
    library: Library, gpu: CudaDevice, tmp_path: Path, precision: str, output: str
) -> None:
    path = small_file(tmp_path / "model.onnx", precision, output)
    engine = tmp_path / "model.engine"
    made = make_engine(builder(library, gpu), read_model(path), engine, comparison=comparison(precision))
    assert made.engine is not None
    assert made.engine.parity is not None
    assert made.engine.types
    with Segmenter(path, device="cpu") as onnx_file, Segmenter(engine) as segmenter:
        assert segmenter.device == "cuda:0"
        for size in ((64, 96), (48, 64), (64, 96), (96, 128)):
            frame = RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)
            for _ in range(2):  # recorded, then launched
                assert (segmenter(frame).classes == onnx_file(frame).classes).mean() > 0.98
    beside = manifest_path(engine)
    document = json.loads(beside.read_text(encoding="utf-8"))
    document["engine"]["parity"] = "pending"
    beside.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(InputError, match="--verify"):
        Segmenter(engine)
    verify_engine(library, read_model(path), engine, comparison=comparison(precision), gpu=gpu)
    with Segmenter(engine) as segmenter:
        assert segmenter.manifest.engine is not None
        assert segmenter.manifest.engine.parity is not None


def test_a_cuda_graph_changes_nothing(library: Library, gpu: CudaDevice) -> None:
    model = small_graph(output="logits").SerializeToString()
    plan = build_engine(builder(library, gpu), model).plan
    recorded, plain = EngineRunner(library, plan, gpu), EngineRunner(library, plan, gpu, graphs=False)
    kept = []
    for batch, height, width in ((1, 64, 96), (2, 32, 32), (1, 64, 96), (1, 96, 128), (2, 64, 64), (1, 40, 40)) * 2:
        image = RANDOM.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
        found = recorded.run({"image": image})["logits"]
        np.testing.assert_allclose(found, plain.run({"image": image})["logits"], rtol=1e-4, atol=1e-4)
        kept.append((found, found.copy()))
    for found, copy in kept:
        np.testing.assert_array_equal(found, copy)
    recorded.close()
    plain.close()


def test_the_damaged_layer_is_found(library: Library, gpu: CudaDevice) -> None:
    model = small_graph(depth=12).SerializeToString()
    build, damage = runs_of(builder(library, gpu)), damaged("conv7")
    drift = find_worst_layer(
        model, FRAMES.frames[0][None], run_onnx, lambda marked, frames: build(damage(marked), frames)
    )
    assert drift is not None
    assert drift.layer == "Conv conv7"


def test_the_timing_cache_is_written_and_read(library: Library, gpu: CudaDevice, tmp_path: Path) -> None:
    if library.flavour == "rtx":
        pytest.skip("TensorRT for RTX has no timing cache")
    model = small_graph().SerializeToString()
    how = builder(library, gpu, timing_cache=tmp_path / "model.timing")
    build_engine(how, model)
    assert (tmp_path / "model.timing").stat().st_size > 0
    build_engine(how, model)
    (tmp_path / "model.timing").write_bytes(b"of another GPU")
    build_engine(how, model)


def test_an_engine_that_may_be_carried(library: Library, gpu: CudaDevice, tmp_path: Path) -> None:
    if library.flavour == "rtx":
        pytest.skip("TensorRT for RTX names its targets instead")
    path = small_file(tmp_path / "model.onnx", output="classes")
    how = builder(library, gpu, version_compatible=True, hardware_compatible="ampere_plus")
    if gpu.compute_capability < (8, 0):
        pytest.skip(f"{gpu} is older than Ampere")
    engine = tmp_path / "model.engine"
    make_engine(how, read_model(path), engine, comparison=comparison("fp32"))
    with Segmenter(engine) as segmenter:
        assert segmenter(FRAMES.frames[0]).classes.shape == (64, 96)
