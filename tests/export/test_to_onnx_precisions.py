"""FP16 and INT8 exports from command line to file: calibrated on real frames, judged, or not there at all."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra export)")
onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra export)")

from export.to_onnx import main  # noqa: E402
from lsr_infer.errors import UsageError, exit_status  # noqa: E402
from lsr_infer.io.images import read_image  # noqa: E402
from lsr_infer.manifest import Manifest  # noqa: E402
from lsr_infer.parity.frame_set import read_frame_set, shipped_frames  # noqa: E402
from lsr_infer.parity.meter import BARS, check_bar  # noqa: E402
from lsr_infer.segmenter import Segmenter  # noqa: E402
from lsr_train.config.data import DataConfig, TargetConfig  # noqa: E402
from lsr_train.config.recipes import to_yaml  # noqa: E402
from lsr_train.config.run import Config  # noqa: E402
from lsr_train.data.labels import CITYSCAPES_19  # noqa: E402
from lsr_train.exporting import ExportOptions, export  # noqa: E402
from lsr_train.exporting.calibration import CALIBRATIONS, Calibration  # noqa: E402
from lsr_train.runs.checkpoint import load_model  # noqa: E402
from tests.lsr_train.exporting.small import network, write_checkpoint  # noqa: E402
from tests.silence import listening  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TOYTOWN = ROOT / "lsr_infer" / "models" / "toytown"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on Toytown, as training leaves it."""
    folder = tmp_path_factory.mktemp("run")
    made = network(num_classes=19)
    write_checkpoint(folder / "checkpoints" / "step-1" / "model.safetensors", made, CITYSCAPES_19)
    (folder / "checkpoints" / "last").write_text("step-1\n", encoding="utf-8")
    target = TargetConfig(layout="toytown-camera", height=96, width=128, limit=60)
    (folder / "config.yaml").write_text(to_yaml(Config(data=DataConfig(target=target))), encoding="utf-8")
    return folder


def manifest_of(path: Path) -> Manifest:
    with Segmenter(path, backend="onnxruntime") as segmenter:
        return segmenter.manifest


def code(*words: str | Path) -> int:
    return exit_status(lambda: main([str(word) for word in words]))


def test_half_precision(run: Path, tmp_path: Path) -> None:
    path, report = tmp_path / "half.onnx", tmp_path / "report.json"
    assert code(run, "-o", path, "--precision", "fp16", "--report", report, "--opset", "19") == 0
    manifest = manifest_of(path)
    assert (manifest.precision, manifest.runtime, manifest.opset) == ("fp16", "any", 19)
    assert any("half precision" in choice for choice in manifest.choices)
    assert manifest.parity is not None
    assert manifest.parity.miou is not None  # Toytown's labels are of this model's classes
    check_bar(manifest.parity, BARS["fp16"])
    assert path.stat().st_size < 2.1 * sum(value.numel() for value in network(num_classes=19).parameters()) + 60_000
    with Segmenter(path) as segmenter:
        assert segmenter.run(np.zeros((2, 64, 96, 3), np.uint8)).dtype == np.float32
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert figures["passed"]
    assert len(figures["drift"]) == 23
    assert figures["parity"] == manifest.parity.to_dict()


@pytest.mark.parametrize(
    ("words", "said"), [(["--for", "tensorrt"], True), pytest.param([], False, marks=pytest.mark.slow)]
)
def test_a_runtime_that_changes_nothing_is_said_so(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, words: list[str], said: bool
) -> None:
    caplog.set_level("INFO")
    assert code(run, "-o", tmp_path / "a.onnx", "--precision", "fp16", "--num-frames", "1", *words) == 0
    line = "--for tensorrt changes nothing: one fp16 file serves ONNX Runtime and TensorRT alike"
    assert (line in caplog.messages) == said
    assert manifest_of(tmp_path / "a.onnx").runtime == "any"


def test_integers_are_calibrated_on_the_runs_own_frames(run: Path, tmp_path: Path) -> None:
    path, report = tmp_path / "int8.onnx", tmp_path / "report.json"
    words = ["--precision", "int8", "--calibration-frames", "20", "--report", report]
    with listening() as heard:
        assert code(run, "-o", path, *words) == 0
    assert heard.found == []
    manifest = manifest_of(path)
    assert (manifest.precision, manifest.runtime) == ("int8", "onnxruntime")
    made = manifest.quantization
    assert made is not None
    assert made.scheme == "U8S8"
    assert set(made.candidates) == set(CALIBRATIONS)
    assert "trained on (toytown-camera)" in made.calibrated_on
    assert made.frames == 20  # and twice 8 were kept back
    assert made.in_float == ()
    assert manifest.parity is not None
    assert manifest.parity.frames_from == "8 shipped Toytown frames"
    assert manifest.parity.class_iou_difference
    check_bar(manifest.parity, BARS["int8"])
    figures = json.loads(report.read_text(encoding="utf-8"))["candidates"]
    best = max(figures, key=lambda one: (one["clear_agreement"], one["agreement"]))
    assert best["calibration"] == made.calibration


def test_classes_for_tensorrt_from_frames_of_the_users(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "classes.onnx"
    words = ["--precision", "int8", "--for", "tensorrt", "--outputs", "classes", "--size", "128x96"]
    assert code(run, "-o", path, *words, "--calibrate", TOYTOWN) == 0
    manifest = manifest_of(path)
    assert (manifest.runtime, manifest.output, manifest.fixed_size) == ("tensorrt", "classes", True)
    assert manifest.quantization is not None
    assert manifest.quantization.scheme == "S8S8"
    assert manifest.quantization.frames == 4
    assert manifest.parity is not None
    assert manifest.parity.frames_from == "4 of 12 frames of the user's (toytown)", "kept back, used for nothing else"
    assert manifest.parity.clear_agreement is not None
    with Segmenter(path) as segmenter:
        assert segmenter(shipped_frames(1).frames[0]).classes.dtype == np.uint8


def test_below_the_bar_class_and_layer_are_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One layer of what is traced is not the checkpoint's."""
    from lsr_train.exporting import exporter

    (model,) = run.glob("checkpoints/*/model.safetensors")
    traced = exporter.trace(load_model(model)[0], fixed=None)
    for item in traced.graph.initializer:
        if item.name == "network.backbone.layer2.0.conv2.weight":
            item.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(item), item.name))
    monkeypatch.setattr(exporter, "trace", lambda made, **options: traced)
    report = tmp_path / "report.json"
    for words in ([], ["--precision", "fp16"], ["--precision", "int8", "--calibration-frames", "4"]):
        assert code(run, "-o", tmp_path / "model.onnx", "--overwrite", *words, "--report", report) == 5
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "the layer that drifts most" in line]
        assert "the layer that drifts most is backbone.layer2.0.conv2 (relative error" in line
        assert any(f"the class that drifts most is {name} (" in line for name in CITYSCAPES_19.names)
        figures = json.loads(report.read_text(encoding="utf-8"))
        assert not figures["passed"]
        assert figures["failure"] in line
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_without_frames_to_calibrate_on_there_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = write_checkpoint(tmp_path / "bare.safetensors", network())
    out = tmp_path / "model.onnx"
    assert code(bare, "-o", out, "--precision", "int8") == 2
    assert "--calibrate" in capsys.readouterr().err
    assert code(bare, "-o", out, "--precision", "int8", "--calibrate", tmp_path / "gone") == 4
    assert code(bare, "-o", out, "--precision", "int8", "--calibrate", TOYTOWN / "images" / "game_900000.jpg") == 2
    assert code(bare, "-o", out, "--calibrate", TOYTOWN) == 2
    assert code(bare, "-o", out, "--labels", TOYTOWN / "labels") == 2
    assert code(bare, "-o", out, "--frames", TOYTOWN / "images", "--labels", TOYTOWN / "labels") == 4
    assert "--label-ids" in capsys.readouterr().err
    assert code(bare, "-o", out, "--num-frames", "0") == 2
    assert code(bare, "-o", out, "--label-ids", "cityscapes-id") == 2
    assert "Name them with --frames" in capsys.readouterr().err
    assert code(bare, "-o", out, "--precision", "int8", "--calibrate", TOYTOWN, "--calibration-frames", "0") == 2
    assert not out.exists()


def test_what_exceeds_one_file_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lsr_infer.errors import InputError

    monkeypatch.setattr("lsr_train.exporting.exporter.LARGEST_ONNX", 1000)
    with pytest.raises(InputError, match="2 GB"):
        export(run, tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="--opset"):
        ExportOptions(opset=9)


@pytest.mark.parametrize(
    ("precision", "outputs"),
    [
        ("int8", "classes"), pytest.param("int8", "logits", marks=pytest.mark.slow),
        *(pytest.param(name, of, marks=pytest.mark.slow) for name in ("fp32", "fp16") for of in ("logits", "classes")),
    ],
)  # fmt: skip
def test_one_dilation_in_every_precision(tmp_path: Path, precision: str, outputs: str) -> None:
    made = tmp_path / "one.safetensors"
    write_checkpoint(made, network(num_classes=19, dilations=(2,)), CITYSCAPES_19)
    words = ["--precision", precision, "--outputs", outputs]
    words += ["--calibrate", str(TOYTOWN), "--calibration-frames", "4"] if precision == "int8" else []
    assert code(made, "-o", tmp_path / "one.onnx", *words) == 0
    assert manifest_of(tmp_path / "one.onnx").precision == precision


def test_a_report_is_kept_and_its_place_is_checked_first(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("mine", encoding="utf-8")
    assert code(run, "-o", tmp_path / "a.onnx", "--report", tmp_path / "mine.json") == 2
    assert (tmp_path / "mine.json").read_text(encoding="utf-8") == "mine"
    (tmp_path / "file").touch()
    assert code(run, "-o", tmp_path / "a.onnx", "--report", tmp_path / "file" / "a.json") == 4
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize(("asked", "compared"), [(4, 4), pytest.param(12, 4, marks=pytest.mark.slow)])
def test_frames_are_counted_after_those_that_calibrate(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, asked: int, compared: int
) -> None:
    """12 images: 4 calibrate and 4 choose, so that 4 are left, of which none may be missed."""
    images = TOYTOWN / "images"
    words = ["--precision", "int8", "--calibrate", images, "--frames", images, "--num-frames", asked]
    assert code(run, "-o", tmp_path / "a.onnx", *words, "--calibration-frames", "6") == 0
    parity = manifest_of(tmp_path / "a.onnx").parity
    assert parity is not None
    assert parity.frames == compared
    assert parity.frames_from == "4 frames of the user's (images)"
    assert ("4 frames are compared, 12 were asked for: the others of images calibrate" in caplog.text) == (asked == 12)


def test_labels_must_say_something_on_the_frames_that_are_compared(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only frames that calibrate have labels that are not void."""
    images, labels, out = TOYTOWN / "images", tmp_path / "labels", tmp_path / "a.onnx"
    labels.mkdir()
    files = sorted(images.iterdir())
    calibrating = Calibration.split(read_frame_set(images, 18), 6)
    known = {frame.tobytes() for part in (calibrating.ranges, calibrating.choice) for frame in part.frames}
    for path in files:
        void = read_image(path).tobytes() not in known
        cv2.imwrite(str(labels / f"{path.stem}.png"), np.full((256, 512), 255 if void else 0, np.uint8))
    words = ["--precision", "int8", "--calibrate", images, "--calibration-frames", "6", "--frames", images]
    assert code(run, "-o", out, *words, "--labels", labels) == 4
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the labels of 4 of 12 frames of the user's (images) are void everywhere" in error
    assert not out.exists()


@pytest.mark.parametrize("option", ["--calibrate", "--frames"])
def test_all_damaged_files_of_a_folder_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    place = tmp_path / "frames"
    shutil.copytree(TOYTOWN / "images", place)
    damaged = sorted(place.iterdir())[3:9:2]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:5000])
    words = ["--precision", "int8", "--calibration-frames", "4", "--num-frames", "12", option, place]
    assert code(run, "-o", tmp_path / "a.onnx", *words) == 4
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0].strip() for line in lines[-3:]] == [str(path) for path in damaged]
    assert lines[-4] == f"error: {place}: 3 of 12 frames cannot be used. Repair or remove them:"


def test_a_terminated_export_leaves_nothing(run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "export/to_onnx.py", str(run), "-o", str(tmp_path / "a.onnx")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("exporting in"):
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
