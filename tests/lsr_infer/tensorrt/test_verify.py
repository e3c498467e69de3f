"""The whole way from ONNX file to engine on a stand-in for the GPU: built for real, compared, refused, verified."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (extra trt-rtx)")

from lsr_infer.backends import BackendOptions  # noqa: E402
from lsr_infer.errors import DeviceError, InputError, QualityGateError, UsageError  # noqa: E402
from lsr_infer.manifest.records import EngineFacts  # noqa: E402
from lsr_infer.parity.frame_set import FrameSet  # noqa: E402
from lsr_infer.parity.meter import (  # noqa: E402
    BARS,
    Bar,
    ParityCheck,
    check_bar,
)
from lsr_infer.segmenter import Segmenter, open_backend  # noqa: E402
from lsr_infer.system.cuda import CudaDevice, CudaProbe  # noqa: E402
from lsr_infer.tensorrt.admission import engine_manifest, manifest_path, sha256_of  # noqa: E402
from lsr_infer.tensorrt.build import (  # noqa: E402
    Builder,
    BuildOptions,
    BuildProgress,
    Shapes,
)
from lsr_infer.tensorrt.flavour import Library  # noqa: E402
from lsr_infer.tensorrt.make import engine_contract, make_engine, verify_engine  # noqa: E402
from lsr_infer.tensorrt.verify import OnnxReference, compare_with_onnx  # noqa: E402
from tests.lsr_infer.tensorrt.fakegpu import GPU, FakeCuda, FakeModule  # noqa: E402
from tests.lsr_infer.tensorrt.graphs import SPACE, damaged, manifest, read_model, small_file  # noqa: E402

ONE: Shapes = ((1, 64, 96),) * 3
SPAN: Shapes = ((1, 32, 32), (1, 64, 96), (2, 96, 128))
RANDOM = np.random.default_rng(3)
FRAMES = FrameSet(
    frames=[RANDOM.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(2)],
    labels=[RANDOM.integers(0, 5, (64, 96), dtype=np.uint8), None],
    origin="2 frames of the test's",
)


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    made = FakeCuda()
    monkeypatch.setattr("lsr_infer.tensorrt.runner._cudart", lambda: made)
    monkeypatch.setattr("lsr_infer.backends.tensorrt.probe_cuda", lambda: CudaProbe(devices=(GPU,)))
    return made


def library(rtx: Library, cuda: FakeCuda, flavour: str = "tensorrt", **options: Any) -> Library:
    version = "11.1.0.106" if flavour == "tensorrt" else rtx.version
    return Library(flavour=flavour, module=FakeModule(rtx.module, cuda, **options), version=version)


def builder(made: Library, shapes: Shapes = ONE, gpu: CudaDevice | None = GPU, **options: Any) -> Builder:
    return Builder(library=made, options=BuildOptions(shapes=shapes, **options), gpu=gpu)


def comparison(precision: str = "fp32", frames: FrameSet = FRAMES, **changes: Any) -> ParityCheck:
    return ParityCheck(frames=frames, bar=replace(BARS[precision], **changes))


@pytest.mark.parametrize("output", ["classes", "logits"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_is_built_compared_opened_and_run(
    rtx: Library, cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, output: str
) -> None:
    path = small_file(tmp_path / "model.onnx", precision, output)
    engine = tmp_path / "model.engine"
    tensorrt = library(rtx, cuda)
    made = make_engine(
        builder(tensorrt, SPAN),
        read_model(path),
        engine,
        comparison=comparison(precision),
    )
    facts = made.engine
    assert facts is not None
    assert (facts.gpu, facts.compute_capability, facts.targets) == (GPU.name, (8, 9), ())
    assert facts.sha256 == sha256_of(engine.read_bytes())
    assert facts.onnx_sha256 == sha256_of(path.read_bytes())
    parity = facts.parity
    assert parity is not None
    assert (parity.reference, parity.frames) == ("onnx", 2)
    assert parity.agreement > 0.999
    assert parity.frames_from == "2 frames of the test's, on NVIDIA RTX 4090"
    assert parity.miou is not None
    assert parity.miou == pytest.approx(parity.miou_reference, abs=1e-3)
    assert (parity.max_logit_difference == 0) if output == "logits" else (parity.max_logit_difference is None)
    assert engine_manifest(engine)[1] == made
    assert sorted(item.name for item in tmp_path.iterdir()) == ["model.engine", "model.engine.json", "model.onnx"]

    monkeypatch.setattr("lsr_infer.backends.tensorrt.load_library", lambda flavour: tensorrt)
    frame = FRAMES.frames[0]
    with Segmenter(path, device="cpu") as onnx_file, Segmenter(engine) as segmenter:
        assert (segmenter.backend, segmenter.device, segmenter.manifest) == ("tensorrt", "cuda:0", made)
        np.testing.assert_array_equal(segmenter(frame).classes, onnx_file(frame).classes)
        three = [frame, FRAMES.frames[1], frame[::-1]]  # one more than it takes at a time
        for one, other in zip(segmenter.batch(three), onnx_file.batch(three), strict=True):
            np.testing.assert_array_equal(one.classes, other.classes)
        with pytest.raises(UsageError, match="the size 256x64 was asked for; allowed: 32x32 to 128x96"):
            segmenter(frame, size=(64, 256))
    backend = open_backend(engine)
    with pytest.raises(InputError, match=r"takes 1x32x32 to 2x128x96 \(frames x width x height\), not 3x96x64"):
        backend.run(np.stack([frame] * 3))
    backend.close()
    assert not cuda.device


def test_the_types_are_those_of_the_built_engine(rtx: Library, cuda: FakeCuda, tmp_path: Path) -> None:
    model = read_model(small_file(tmp_path / "model.onnx", "fp16"))
    engine = tmp_path / "model.engine"
    shown = library(rtx, cuda, inspected=("Half", "Half", "Float"))
    made = make_engine(builder(shown), model, engine, comparison=comparison("fp16"))
    assert made.engine is not None
    assert (made.engine.types, made.engine.types_checked) == ({"float": 1, "half": 2}, "engine")
    engine.unlink()
    manifest_path(engine).unlink()
    slow = library(rtx, cuda, inspected=("Float", "Float"))
    with pytest.raises(DeviceError, match="says fp16, but of the built engine's convolutions 2 compute in float"):
        make_engine(builder(slow), model, engine, comparison=comparison("fp16"))
    one = library(rtx, cuda, inspected=("Half", "Float", "Float"))
    with pytest.raises(DeviceError, match="2 compute in float, 1 compute in half"):
        make_engine(builder(one), model, engine, comparison=comparison("fp16"))
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]
    assert not cuda.device


@pytest.mark.parametrize("output", ["classes", "logits"])
def test_an_engine_that_drifts_is_not_written(rtx: Library, cuda: FakeCuda, tmp_path: Path, output: str) -> None:
    model = read_model(small_file(tmp_path / "model.onnx", output=output))
    faulty = library(rtx, cuda, damage=damaged("conv1"))
    with pytest.raises(QualityGateError) as caught:
        make_engine(builder(faulty), model, tmp_path / "model.engine", comparison=comparison())
    message = str(caught.value)
    assert "parity with the onnx on 2 frames" in message
    assert any(f"the class that drifts most is {name}" in message for name in SPACE.names)
    assert "the layer that drifts most is Conv conv1" in message
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(("layer", "passed"), [("", True), ("conv1", False)])
def test_a_report_has_the_figures_of_both_verdicts(
    rtx: Library, cuda: FakeCuda, tmp_path: Path, layer: str, passed: bool
) -> None:
    model = read_model(small_file(tmp_path / "model.onnx", output="classes"))
    engine, report = tmp_path / "model.engine", tmp_path / "report.json"
    made = library(rtx, cuda, **({"damage": damaged(layer)} if layer else {}))
    asked = replace(comparison(), report=report)
    failure = None
    try:
        make_engine(builder(made), model, engine, comparison=asked)
    except QualityGateError as error:
        failure = str(error)
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert (figures["passed"], figures["failure"]) == (passed, failure)
    assert (figures["precision"], figures["runtime"]) == ("fp32", "tensorrt")
    assert figures["parity"]["frames"] == 2
    assert [drift["layer"] for drift in figures["drift"]] == ([] if passed else ["Conv conv1"])
    assert engine.exists() == passed


def test_a_verification_reports_too(rtx: Library, cuda: FakeCuda, tmp_path: Path) -> None:
    path, engine, report = tmp_path / "model.onnx", tmp_path / "model.engine", tmp_path / "report.json"
    model = read_model(small_file(path))
    make_engine(builder(library(rtx, cuda)), model, engine, comparison=comparison())
    asked = replace(comparison(), report=report, overwrite_report=True)
    for damage in ("", "head"):
        target = library(rtx, cuda, **({"damage": damaged(damage)} if damage else {}))
        target.module.parsed(path.read_bytes())
        before = manifest_path(engine).read_bytes()
        if damage:
            with pytest.raises(QualityGateError):
                verify_engine(target, model, engine, comparison=asked, gpu=GPU)
            assert manifest_path(engine).read_bytes() == before
        else:
            verify_engine(target, model, engine, comparison=asked, gpu=GPU)
        assert json.loads(report.read_text(encoding="utf-8"))["passed"] == (not damage)


def test_clear_places_are_those_of_the_margin_that_was_asked(rtx: Library, cuda: FakeCuda, tmp_path: Path) -> None:
    model = read_model(small_file(tmp_path / "model.onnx"))
    shares = []
    for n, margin in enumerate((0.0, 1e5)):
        engine = tmp_path / f"{n}.engine"
        made = make_engine(builder(library(rtx, cuda)), model, engine, comparison=comparison(margin=margin))
        assert made.engine is not None
        assert made.engine.parity is not None
        shares.append(made.engine.parity.clear_share)
    assert shares == [1.0, 0.0]


def test_an_old_engine_stays_where_a_new_one_fails(rtx: Library, cuda: FakeCuda, tmp_path: Path) -> None:
    model = read_model(small_file(tmp_path / "model.onnx"))
    engine = tmp_path / "model.engine"
    make_engine(builder(library(rtx, cuda)), model, engine, comparison=comparison())
    before = {item: item.read_bytes() for item in tmp_path.iterdir()}
    with pytest.raises(UsageError, match="already exists"):
        make_engine(builder(library(rtx, cuda)), model, engine, comparison=comparison())
    faulty = library(rtx, cuda, damage=damaged("head"))
    with pytest.raises(QualityGateError):
        make_engine(builder(faulty), model, engine, comparison=comparison(), overwrite=True)
    assert {item: item.read_bytes() for item in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["model.engine", "model.engine.json", "report.json"])
def test_what_appears_during_a_build_is_kept(rtx: Library, cuda: FakeCuda, tmp_path: Path, name: str) -> None:
    model = read_model(small_file(tmp_path / "model.onnx"))
    asked = replace(comparison(), report=tmp_path / "report.json")
    there = tmp_path / name

    def appear(share: float, phase: str) -> None:
        there.write_bytes(b"theirs")

    with pytest.raises(UsageError, match=f"{name} appeared while its content was being made"):
        make_engine(
            builder(library(rtx, cuda)), model, tmp_path / "model.engine", comparison=asked,
            progress=BuildProgress(appear),
        )  # fmt: skip
    assert there.read_bytes() == b"theirs"
    assert not [item for item in tmp_path.iterdir() if item.name.startswith(".")]


def test_logits_that_are_not_finite_are_no_match(rtx: Library, cuda: FakeCuda, tmp_path: Path) -> None:
    model = read_model(small_file(tmp_path / "model.onnx"))
    faulty = library(rtx, cuda, damage=damaged("conv2", float("nan")))
    with pytest.raises(QualityGateError, match=r"a logit is not finite.*layer that drifts most is Conv conv2"):
        make_engine(builder(faulty), model, tmp_path / "model.engine", comparison=comparison())


def test_an_engine_built_ahead_of_time_is_verified_on_the_target(
    rtx: Library, cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_file(tmp_path / "model.onnx", output="classes")
    engine = tmp_path / "model.engine"
    made = make_engine(builder(rtx, gpu=None, targets=("86", "89")), read_model(path), engine, comparison=comparison())
    assert made.engine is not None
    assert (made.engine.parity, made.engine.gpu, made.engine.types_checked) == (None, "", "network")
    target = library(rtx, cuda, "rtx", inspected=("Float",))
    target.module.parsed(path.read_bytes())
    monkeypatch.setattr("lsr_infer.backends.tensorrt.load_library", lambda flavour: target)
    with pytest.raises(InputError, match=rf"--verify {re.escape(str(engine))}"):
        Segmenter(engine)
    with Segmenter(engine, allow_unverified=True) as segmenter:
        assert segmenter.backend == "tensorrt-rtx"

    document = manifest_path(engine).read_bytes()
    faulty = library(rtx, cuda, "rtx", damage=damaged("head"))
    faulty.module.parsed(path.read_bytes())
    with pytest.raises(QualityGateError, match="layer that drifts most is Conv head"):
        verify_engine(faulty, read_model(path), engine, comparison=comparison(), gpu=GPU)
    assert manifest_path(engine).read_bytes() == document
    other = small_file(tmp_path / "other.onnx", output="classes", method="another")
    with pytest.raises(InputError, match=r"was not built from .*other.onnx"):
        verify_engine(target, read_model(other), engine, comparison=comparison(), gpu=GPU)
    opened = target.module.opened
    newer = replace(target, version="1.8.0")
    with pytest.raises(DeviceError, match=r"here is 1\.8\.0"):
        verify_engine(newer, read_model(path), engine, comparison=comparison(), gpu=GPU)
    assert target.module.opened == opened

    verified = verify_engine(target, read_model(path), engine, comparison=comparison(), gpu=GPU)
    assert verified.engine is not None
    assert verified.engine.parity is not None
    assert verified.engine.proved_on == GPU.compute_capability
    assert (verified.engine.types, verified.engine.types_checked) == ({"float": 1}, "engine")
    assert replace(verified, engine=None) == replace(made, engine=None)
    with Segmenter(engine) as segmenter:
        assert segmenter.manifest == verified


def test_a_device_error_names_the_file(
    rtx: Library, cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_file(tmp_path / "model.onnx")
    engine = tmp_path / "model.engine"
    tensorrt = library(rtx, cuda)
    make_engine(builder(tensorrt), read_model(path), engine, comparison=comparison())
    monkeypatch.setattr("lsr_infer.backends.tensorrt.load_library", lambda flavour: tensorrt)
    from lsr_infer.backends.tensorrt import TensorRtBackend

    backend = TensorRtBackend(engine, BackendOptions(), "tensorrt")
    cuda.left = 0
    with pytest.raises(DeviceError, match=r"model\.engine: CUDA: out of memory"):
        backend.run(FRAMES.frames[0][None])
    backend.close()
    backend.close()
    with pytest.raises(UsageError, match="is closed"):
        backend.run(FRAMES.frames[0][None])
    with pytest.raises(UsageError, match=r"tensorrt opens \.engine files"):
        TensorRtBackend(path, BackendOptions(), "tensorrt")


@pytest.mark.parametrize("output", ["classes", "logits"])
def test_figures_of_a_comparison_are_those_of_the_arrays(tmp_path: Path, output: str) -> None:
    """ONNX Runtime on both sides: a candidate that is wrong on known pixels gives known figures."""
    model = read_model(small_file(tmp_path / "model.onnx", output=output))
    reference = OnnxReference(model.data, model.manifest)

    def candidate(image: np.ndarray) -> np.ndarray:
        logits, classes = reference.run(image)
        if classes is not None:
            changed = classes.copy()
            changed[:16] = (changed[:16] + 1) % 5
            return changed[None]
        return np.asarray(logits[None] + 0.25)

    parity = compare_with_onnx(reference, candidate, model.manifest, FRAMES)
    assert parity.pixels == 2 * 64 * 96
    assert parity.agreement == (0.75 if output == "classes" else 1.0)
    if output == "logits":
        assert parity.max_logit_difference == pytest.approx(0.25, abs=1e-6)
        assert parity.mean_logit_difference == pytest.approx(0.25, abs=1e-6)
    else:
        with pytest.raises(QualityGateError, match=r"75\.0000 % of the pixels, 99.99 % asked"):
            check_bar(parity, BARS["fp32"])
    with pytest.raises(QualityGateError, match="no frame was compared"):
        check_bar(
            compare_with_onnx(reference, candidate, model.manifest, FrameSet(frames=[], labels=[], origin="none")),
            Bar(agreement=0.1),
        )


def test_labels_of_other_classes_are_refused(tmp_path: Path) -> None:
    model = read_model(small_file(tmp_path / "model.onnx", output="classes"))
    reference = OnnxReference(model.data, model.manifest)
    wrong = replace(FRAMES, labels=[np.full((64, 96), 7, np.uint8), None])
    with pytest.raises(InputError, match="labels of 2 frames of the test's do not fit the model's classes"):
        compare_with_onnx(reference, lambda image: reference.run(image)[1][None], model.manifest, wrong)  # type: ignore[index]  # classes


def test_what_an_engine_takes_is_in_its_manifest() -> None:
    free = manifest(height=512, width=1024)
    fixed = engine_contract(free, ((1, 256, 512),) * 3)
    assert (fixed.height, fixed.width, fixed.fixed_size, fixed.fixed_batch) == (256, 512, True, 1)
    assert (fixed.resize, fixed.runtime) == ("stretch", "tensorrt")
    span = engine_contract(free, ((1, 256, 512), (2, 512, 1024), (4, 1024, 2048)))
    assert (span.height, span.width, span.fixed_size, span.fixed_batch) == (512, 1024, False, None)
    assert span.resize == "keep-aspect"
    facts = EngineFacts(flavour="rtx", version="1", shapes=((1, 256, 512), (1, 512, 1024), (4, 512, 1024)))
    ranged = replace(span, engine=facts)
    for height, width in ((720, 1280), (480, 640), (1280, 720), (64, 4096), (512, 1024)):
        rows, columns = ranged.working_size(height, width)  # the area of 1024x512, but never beyond what is taken
        assert 256 <= rows <= 512
        assert 512 <= columns <= 1024
    assert ranged.working_size(300, 600) == (512, 1024)
    bound = manifest(fixed_size=True, fixed_batch=2, resize="stretch")
    assert engine_contract(bound, ((2, 64, 96),) * 3).fixed_batch == 2
    with pytest.raises(UsageError, match="this graph takes 96x64 alone"):
        engine_contract(bound, ((2, 64, 96), (2, 64, 96), (2, 128, 96)))
    with pytest.raises(UsageError, match="takes 2 frames at a time"):
        engine_contract(bound, ((1, 64, 96), (2, 64, 96), (2, 64, 96)))
