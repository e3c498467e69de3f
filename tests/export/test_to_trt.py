"""The command that builds engines, in processes of its own, with TensorRT for RTX ahead of time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (extra trt-rtx)")

from export.to_trt import build_parser, frames_to_compare, main, parse_shapes  # noqa: E402
from lsr_infer.errors import DeviceError, InputError, QualityGateError, UsageError, exit_status  # noqa: E402
from lsr_infer.labelspace import LabelSpace  # noqa: E402
from lsr_infer.manifest import Manifest  # noqa: E402
from lsr_infer.parity.meter import Verdict  # noqa: E402
from lsr_infer.render.draw import CITYSCAPES_NAMES  # noqa: E402
from lsr_infer.system.cuda import probe_cuda  # noqa: E402
from tests.lsr_infer.tensorrt.graphs import manifest, save, small_file, small_graph  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
NO_GPU = pytest.mark.skipif(bool(probe_cuda().devices), reason="there is a GPU here")


def command(*words: object) -> list[str]:
    return [sys.executable, str(ROOT / "export" / "to_trt.py"), *map(str, words)]


def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=120, env=environment, **options)


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


@NO_GPU
@pytest.mark.parametrize(("precision", "type_name"), [("fp32", "float"), ("fp16", "half"), ("int8", "int8")])
def test_an_engine_is_built_ahead_of_time(tmp_path: Path, precision: str, type_name: str) -> None:
    model = small_file(tmp_path / "model.onnx", precision, "classes")
    done = run(model, "-o", tmp_path / "model.engine", "--shapes", "1x64x32,1x96x64,2x192x128", "--json")
    assert done.returncode == 0, done.stderr
    assert "--flavour auto takes TensorRT for RTX" in done.stderr
    assert "parity is pending" in done.stderr
    assert "\r" not in done.stderr  # no bar where there is no terminal
    document = json.loads(done.stdout)
    assert document["bytes"] == (tmp_path / "model.engine").stat().st_size
    beside = Manifest.from_json((tmp_path / "model.engine.json").read_text(encoding="utf-8"))
    assert document["manifest"] == json.loads(beside.to_json())
    facts = beside.engine
    assert facts is not None
    assert (facts.flavour, facts.parity, facts.types_checked, facts.targets[0]) == ("rtx", None, "network", "80")
    assert facts.shapes == ((1, 32, 64), (1, 64, 96), (2, 128, 192))
    assert facts.types[type_name] > 0
    assert names(tmp_path) == ["model.engine", "model.engine.json", "model.onnx"]
    refused = run(model, "--verify", tmp_path / "model.engine")
    assert refused.returncode == 3
    assert refused.stderr.startswith("error: model.engine, a TensorRT engine, needs a CUDA device, and ")


@NO_GPU
@pytest.mark.slow
def test_a_real_export_becomes_an_engine(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra export)")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra export)")
    from lsr_train.exporting.graph import trace
    from lsr_train.network import DeepLabV2, NetworkSpec

    torch.manual_seed(0)
    spec = NetworkSpec(backbone="resnet18", width=0.125, num_classes=5, output_stride=8, dilations=(2, 4))
    exported = trace(DeepLabV2(spec).eval(), fixed=None, outputs="classes")
    model = save(exported, tmp_path / "model.onnx", manifest(output="classes"))
    done = run(model, "-o", tmp_path / "model.engine", "--shapes", "1x96x64,1x192x96,2x256x128", "--targets", "8.6,89")
    assert done.returncode == 0, done.stderr
    facts = Manifest.from_json((tmp_path / "model.engine.json").read_text(encoding="utf-8")).engine
    assert facts is not None
    assert facts.targets == ("86", "89")
    assert facts.types["uint8"] == 1


@NO_GPU
def test_classic_tensorrt_says_why_not(tmp_path: Path) -> None:
    model = small_file(tmp_path / "model.onnx")
    done = run(model, "-o", tmp_path / "model.engine", "--flavour", "tensorrt")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "TensorRT" in done.stderr
    done = run(model, "-o", tmp_path / "model.engine", "--flavour", "rtx", "--device", "cpu")
    assert done.returncode == 3
    assert "Leave --device out: it then builds ahead of time" in done.stderr
    named = run(model, "-o", tmp_path / "model.engine", "--flavour", "rtx", "--device", "cuda:0")
    assert named.returncode == 3
    assert "needs cuda:0, and" in named.stderr
    assert names(tmp_path) == ["model.onnx"]


@NO_GPU
@pytest.mark.parametrize(("truth", "claim"), [("fp32", "fp16"), ("fp32", "int8"), ("fp16", "fp32"), ("int8", "fp16")])
def test_a_file_that_lies_about_its_precision_gets_no_engine(tmp_path: Path, truth: str, claim: str) -> None:
    model = small_file(tmp_path / "model.onnx", truth)
    save(onnx.load(str(model)), model, manifest(precision=claim))
    with pytest.raises(QualityGateError, match=f"model.onnx: its Manifest says {claim}, but of its convolutions"):
        main([str(model), "-o", str(tmp_path / "model.engine"), "--flavour", "rtx"])
    assert names(tmp_path) == ["model.onnx"]


@NO_GPU
def test_a_report_says_what_is_pending_and_what_failed(tmp_path: Path) -> None:
    """Its members are those of to_onnx.py's."""
    model, report, engine = tmp_path / "model.onnx", tmp_path / "report.json", tmp_path / "model.engine"
    small_file(model, "fp16")
    words = ["-o", engine, "--flavour", "rtx", "--report", report]
    done = run(model, *words)
    assert done.returncode == 0, done.stderr
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert figures == Verdict().report(Manifest.from_json((tmp_path / "model.engine.json").read_text(encoding="utf-8")))
    assert (figures["passed"], figures["failure"], figures["parity"]) == (None, None, None)
    assert run(model, *words).returncode == 2
    save(onnx.load(str(model)), model, manifest(precision="int8"))
    done = run(model, *words, "--overwrite")
    assert done.returncode == 5
    failed = json.loads(report.read_text(encoding="utf-8"))
    assert done.stderr.endswith(f"error: {failed['failure']}\n")
    assert f"all figures are in {report}\n" in done.stderr
    assert (failed["passed"], failed["precision"]) == (False, "int8")
    engine.unlink()
    (tmp_path / "model.engine.json").unlink()
    assert run(model, *words).returncode == 2  # the report alone is there already
    assert names(tmp_path) == ["model.onnx", "report.json"]


@NO_GPU
def test_a_graph_of_logits_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for output, warned in (("logits", True), ("classes", False)):
        model = small_file(tmp_path / f"{output}.onnx", output=output)
        caplog.clear()
        main([str(model), "-o", str(tmp_path / f"{output}.engine"), "--flavour", "rtx"])
        assert ("Export it with --outputs classes" in caplog.text) == warned


@NO_GPU
def test_nothing_is_overwritten_unless_told(tmp_path: Path) -> None:
    model = small_file(tmp_path / "model.onnx")
    engine = tmp_path / "model.engine"
    words = [str(model), "-o", str(engine), "--flavour", "rtx"]
    (tmp_path / "model.engine.json").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match=r"model\.engine\.json already exists"):
        main(words)
    assert (tmp_path / "model.engine.json").read_text(encoding="utf-8") == "mine"
    main([*words, "--overwrite"])
    before = engine.read_bytes()
    with pytest.raises(UsageError, match=r"model\.engine already exists"):
        main(words)
    assert engine.read_bytes() == before


@NO_GPU
def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    model = small_file(tmp_path / "model.onnx")
    with pytest.raises(InputError, match="cannot be written"):
        main([str(model), "-o", str(model / "model.engine"), "--flavour", "rtx"])
    if Path("/dev/full").exists() and os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        with pytest.raises(InputError, match="permission denied"):
            main([str(model), "-o", str(locked / "model.engine"), "--flavour", "rtx"])


@NO_GPU
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_real_build_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """400 convolutions take some seconds to build; the signal comes in their midst."""
    model = save(small_graph(depth=400, width=16), tmp_path / "model.onnx", manifest())
    process = subprocess.Popen(
        command(model, "-o", tmp_path / "model.engine", "--flavour", "rtx"),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if ": building model.onnx" in line:
            while not any(name.endswith(".part.engine") for name in os.listdir(tmp_path)):  # the work begins
                assert process.poll() is None
                time.sleep(0.01)
            time.sleep(1.0)  # the builder has been told of signals
            process.send_signal(number)
            break
    rest = process.stderr.read()
    assert process.wait(60) == 130, "".join(said) + rest
    assert "interrupted: the builder stops at its next step" in rest
    assert "written" not in rest
    assert "Traceback" not in rest
    assert names(tmp_path) == ["model.onnx"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name what to do"),
        (["-o", "a.engine", "--verify", "b.engine"], "name what to do"),
        (["-o", "a.plan"], "must end in .engine"),
        (["-o", "a.engine", "--shapes", "x"], "'x' is no shape"),
        (["-o", "a.engine", "--shapes", "64x64,32x32,64x64"], "does not rise"),
        (["-o", "a.engine", "--shapes", "1x64"], "'1x64' is no shape"),
        (["-o", "a.engine", "--workspace", "0"], "--workspace is 0"),
        (["-o", "a.engine", "--optimization-level", "6"], "--optimization-level"),
        (["-o", "a.engine", "--flavour", "rtx", "--targets", "90"], "does not build for 90"),
        (["-o", "a.engine", "--flavour", "rtx", "--targets", "x"], "does not build for x"),
        (["-o", "a.engine", "--flavour", "rtx", "--hardware-compatible"], "--hardware-compatible is not for"),
        (["-o", "a.engine", "--flavour", "rtx", "--version-compatible"], "--version-compatible is not for"),
        (["-o", "a.engine", "--flavour", "rtx", "--timing-cache", "t"], "--timing-cache is not for"),
        (["-o", "a.engine", "--flavour", "rtx", "--device", "gpu"], "there is no device gpu"),
        (["-o", "a.engine", "--flavour", "rtx", "--agreement", "1.1"], "--agreement is 1.1"),
        (["-o", "a.engine", "--flavour", "rtx", "--miou-loss", "-1"], "--miou-loss is -1"),
        (["-o", "a.engine", "--flavour", "rtx", "--margin", "nan"], "--margin is nan"),
        (["-o", "a.engine", "--flavour", "rtx", "--num-frames", "0"], "--num-frames is 0"),
        (["-o", "a.engine", "--flavour", "rtx", "--labels", "l"], "--labels belong to frames"),
        (["-o", "a.engine", "--flavor", "rtx"], "Did you mean --flavour"),
    ],
)
def test_what_is_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    model = small_file(tmp_path / "model.onnx")
    with pytest.raises(UsageError, match=message):
        main([str(model), *words])
    assert names(tmp_path) == ["model.onnx"]


def test_models_that_cannot_become_one(tmp_path: Path) -> None:
    engine = ["-o", str(tmp_path / "a.engine"), "--flavour", "rtx"]
    for name, data in (("broken.onnx", b"no model"), ("model.txt", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=name):
            main([str(tmp_path / name), *engine])
    with pytest.raises(InputError, match="there is no such model file"):
        main([str(tmp_path / "missing.onnx"), *engine])
    model = small_graph()
    (tmp_path / "bare.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="no Manifest"):
        main([str(tmp_path / "bare.onnx"), *engine])
    other = save(model, tmp_path / "u8s8.onnx", manifest(runtime="onnxruntime", precision="int8"))
    with pytest.raises(InputError, match=r"--precision int8 --for tensorrt"):
        main([str(other), *engine])


def test_verify_needs_an_engine(tmp_path: Path) -> None:
    model = small_file(tmp_path / "model.onnx")
    (tmp_path / "a.engine").write_bytes(b"engine")
    assert exit_status(lambda: main([str(model), "--verify", str(tmp_path / "a.engine")])) == InputError.exit_code


def test_shapes_are_written_as_sizes_are() -> None:
    assert parse_shapes("1024x512") == ((1, 512, 1024),) * 3
    assert parse_shapes("4x1024x512") == ((4, 512, 1024),) * 3
    assert parse_shapes("1x64x32,2x128x64,4x256x128") == ((1, 32, 64), (2, 64, 128), (4, 128, 256))
    for wrong in ("", "64", "64x", "0x64x64", "1x0x64", "1x64x0", "64x64,64x64", "1x64x64x3", "99999x64", "2000x64x64"):
        with pytest.raises(UsageError, match="--shapes"):
            parse_shapes(wrong)


def test_shipped_labels_are_for_shipped_classes_alone() -> None:
    own = frames_to_compare(None, None, 3, manifest())
    assert len(own) == 3
    assert list(own.labels) == [None] * 3
    space = LabelSpace(name="mine", names=CITYSCAPES_NAMES, colors=((0, 0, 0),) * 19)
    shipped = frames_to_compare(None, None, 3, manifest(label_space=space))
    assert all(label is not None and label.shape == frame.shape[:2] for frame, label in shipped.pairs())


def test_help_warns_that_an_engine_is_code() -> None:
    text = " ".join(build_parser().format_help().split())
    assert "An engine is executable code" in text
    done = run("--help")
    assert done.returncode == 0
    assert "MODEL.onnx" in done.stdout


def test_a_missing_library_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    model = small_file(tmp_path / "model.onnx")
    with pytest.raises(DeviceError, match=r"lsr-road\[trt-rtx\]"):
        main([str(model), "-o", str(tmp_path / "a.engine"), "--flavour", "rtx"])


@NO_GPU
def test_building_needs_no_torch_and_no_onnx_package(tmp_path: Path) -> None:
    model = small_file(tmp_path / "model.onnx", output="classes")
    code = (
        "import sys; sys.modules |= dict.fromkeys(('torch', 'onnx', 'lsr_train'))\n"
        "from export.to_trt import main\n"
        f"main([{str(model)!r}, '-o', {str(tmp_path / 'model.engine')!r}, '--flavour', 'rtx'])\n"
        "assert 'onnxruntime' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60, capture_output=True)
    assert (tmp_path / "model.engine").is_file()


def test_verifying_takes_no_options_of_building(tmp_path: Path) -> None:
    model = small_file(tmp_path / "model.onnx")
    done = run(model, "--verify", tmp_path / "model.engine", "--shapes", "1x96x64", "--tf32", "--targets", "89")
    assert done.returncode == 2
    assert "--shapes, --tf32, --targets would change nothing" in done.stderr
