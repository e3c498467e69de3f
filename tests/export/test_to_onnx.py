"""Real exports of small networks: the file computes what the checkpoint computes, at any size, or does not appear."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra export)")
onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra export)")

from export.to_onnx import main  # noqa: E402
from lsr_infer.commands.parser import parse_size  # noqa: E402
from lsr_infer.errors import InputError, QualityGateError, UsageError, exit_status  # noqa: E402
from lsr_infer.labelspace import LabelSpace  # noqa: E402
from lsr_infer.manifest import METADATA_KEY, Manifest  # noqa: E402
from lsr_infer.parity.frame_set import shipped_frames_for  # noqa: E402
from lsr_infer.parity.meter import BARS, Verdict, check_bar  # noqa: E402
from lsr_infer.render.masks import interpolate, upsample_argmax  # noqa: E402
from lsr_infer.segmenter import Segmenter  # noqa: E402
from lsr_train.data.labels import CAMVID_11  # noqa: E402
from lsr_train.exporting import ExportOptions, FramesOptions, export  # noqa: E402
from lsr_train.exporting.checkpoint_parity import compare_with_checkpoint, judge_export  # noqa: E402
from lsr_train.exporting.graph import trace  # noqa: E402
from lsr_train.network import DeepLabV2  # noqa: E402
from lsr_train.runs.checkpoint import ModelInfo, model_hash, save_model  # noqa: E402
from tests.lsr_infer.unprivileged import unprivileged  # noqa: E402
from tests.lsr_train.exporting.small import network  # noqa: E402
from tests.lsr_train.network.test_weights import adaptsegnet_weights  # noqa: E402

Shared = Callable[[str], Path]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "best.safetensors"
    info = ModelInfo(label_space=CAMVID_11, method="lsr", height=96, width=128, scores={"miou": 0.25})
    save_model(path, network(), info)
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    export(checkpoint, path)
    return path


def logits(frames: np.ndarray, made: DeepLabV2) -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(made(made.normalize(torch.from_numpy(frames))).logits.numpy())


@pytest.mark.parametrize("shape", [(1, 96, 128), (3, 96, 128), (2, 61, 203), (1, 8, 8), (1, 240, 320)])
def test_one_file_takes_every_number_and_size(exported: Path, shape: tuple[int, int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    with Segmenter(exported) as segmenter:
        np.testing.assert_allclose(segmenter.run(frames), logits(frames, network()), rtol=1e-3, atol=2e-3)


def test_the_manifest_says_what_is_in_the_file(exported: Path, checkpoint: Path) -> None:
    with Segmenter(exported) as segmenter:
        manifest = segmenter.manifest
    assert manifest.label_space == CAMVID_11
    assert (manifest.height, manifest.width, manifest.multiple, manifest.fixed_size) == (96, 128, 8, False)
    assert (manifest.precision, manifest.output, manifest.method) == ("fp32", "logits", "lsr")
    assert manifest.checkpoint == model_hash(checkpoint)
    assert manifest.scores == {"miou": 0.25}
    assert manifest.licence
    assert manifest.intended_use
    assert manifest.parity is not None
    assert "Toytown" in manifest.parity.frames_from
    assert manifest.parity.frames == 8
    assert "without their labels" in manifest.parity.frames_from
    assert manifest.parity.miou is None
    assert (manifest.runtime, manifest.quantization) == ("any", None)
    check_bar(manifest.parity, BARS["fp32"])


def test_the_file_is_lean_and_knows_no_machine(exported: Path) -> None:
    data = exported.read_bytes()
    assert str(ROOT).encode() not in data
    assert b"site-packages" not in data
    model = onnx.load(str(exported))
    onnx.checker.check_model(model)
    assert [entry.key for entry in model.metadata_props] == [METADATA_KEY]
    assert not {"BatchNormalization"} & {node.op_type for node in model.graph.node}
    weights = 4 * sum(value.numel() for value in network().parameters())
    assert len(data) < 1.2 * weights + 100_000


@pytest.mark.parametrize("size", [None, (64, 160)])
def test_classes_in_the_graph_are_the_masks_of_the_logits(
    exported: Path, checkpoint: Path, tmp_path: Path, size: tuple[int, int] | None
) -> None:
    path = tmp_path / "classes.onnx"
    manifest = export(checkpoint, path, ExportOptions(outputs="classes", size=size))
    assert manifest.output == "classes"
    assert manifest.parity is not None
    assert manifest.parity.max_logit_difference is None
    assert manifest.parity.agreement > 0.9999
    assert Manifest.from_json(manifest.to_json()) == manifest
    frames = np.random.default_rng(1).integers(0, 256, (2, *(size or (96, 128)), 3), dtype=np.uint8)
    with Segmenter(path) as decided, Segmenter(exported) as free:
        found, scores = decided.run(frames), np.asarray(free.run(frames), dtype=np.float32)
    for mask, one in zip(found, scores, strict=True):
        full = np.sort(interpolate(one, *mask.shape), axis=0)
        clear = full[-1] - full[-2] > 1e-5
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(mask[clear], upsample_argmax(one, *mask.shape)[clear])


def test_a_graph_that_decides_wrongly_is_caught(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "classes.onnx"
    export(checkpoint, path, ExportOptions(outputs="classes"))
    with pytest.raises(QualityGateError, match="agree"):
        check_bar(compare_with_checkpoint(network(width=0.25), path, shipped_frames_for(CAMVID_11, 2)), BARS["fp32"])


def test_a_fixed_size_is_the_only_one(checkpoint: Path, tmp_path: Path, shared: Shared) -> None:
    path = tmp_path / "fixed.onnx"
    frames = FramesOptions(compare=shared("data/clips/camvid_0016E5_15fps.mp4"), count=3)
    manifest = export(checkpoint, path, ExportOptions(size=(64, 160)), frames)
    assert manifest.fixed_size
    assert manifest.parity is not None
    assert manifest.parity.frames == 3
    assert "camvid_0016E5_15fps.mp4" in manifest.parity.frames_from
    with Segmenter(path) as segmenter:
        assert segmenter(np.zeros((100, 100, 3), np.uint8)).classes.shape == (100, 100)
        with pytest.raises(InputError, match="ONNX Runtime failed"):
            segmenter.run(np.zeros((1, 96, 128, 3), np.uint8))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"stem": "caffe", "normalization": "caffe-bgr", "backbone": "resnet50", "width": 0.0625},
            marks=pytest.mark.slow,
        ),
        {"output_stride": 16, "dilations": (6, 12, 18, 24)},
    ],
    ids=str,
)
def test_every_kind_of_network(changes: dict[str, object], tmp_path: Path) -> None:
    made = network(**changes)
    manifest = Manifest(label_space=CAMVID_11, height=96, width=128, multiple=made.spec.output_stride)
    model = trace(made, fixed=None)
    model.metadata_props.add(key=METADATA_KEY, value=manifest.to_json())
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    check_bar(compare_with_checkpoint(made, path, shipped_frames_for(CAMVID_11, 2)), BARS["fp32"])


def test_a_file_that_computes_something_else_does_not_appear(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is traced is another network than the checkpoint: the gate must see it."""
    other = network()
    with torch.no_grad():
        next(iter(other.head.parameters())).mul_(-1)
    traced = trace(other, fixed=None)
    monkeypatch.setattr("lsr_train.exporting.exporter.trace", lambda made, **options: traced)
    path = tmp_path / "model.onnx"
    with pytest.raises(QualityGateError, match="parity with the checkpoint on 8 frames"):
        export(checkpoint, path)
    assert exit_status(lambda: main([str(checkpoint), "-o", str(path)])) == 5
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"older")
    assert exit_status(lambda: main([str(checkpoint), "-o", str(path), "--overwrite"])) == 5
    assert path.read_bytes() == b"older"
    assert len(capsys.readouterr().err.strip().splitlines()) <= 6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.onnx", "report.json"])
def test_what_appears_during_an_export_is_kept(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / name

    def judge_late(*given: Any, **options: Any) -> Verdict:
        there.write_bytes(b"theirs")  # another process, while this one compares
        return judge_export(*given, **options)

    monkeypatch.setattr("lsr_train.exporting.exporter.judge_export", judge_late)
    words = [str(checkpoint), "-o", str(tmp_path / "model.onnx"), "--report", str(tmp_path / "report.json")]
    assert exit_status(lambda: main(words)) == 2
    assert f"{name} appeared while its content was being made" in capsys.readouterr().err
    assert there.read_bytes() == b"theirs"
    there.unlink()
    assert exit_status(lambda: main([*words, "--overwrite"])) == 0
    assert there.read_bytes() != b"theirs"


def test_mistakes_have_their_codes(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def code(*words: str | Path) -> int:
        return exit_status(lambda: main([str(word) for word in words]))

    out = tmp_path / "model.onnx"
    (tmp_path / "there.onnx").write_bytes(b"mine")
    (tmp_path / "empty").mkdir()
    torch.save({"x": torch.zeros(2)}, tmp_path / "foreign.pth")
    assert code(tmp_path / "absent.safetensors", "-o", out) == 4
    assert code(tmp_path / "foreign.pth", "-o", out) == 4
    assert code(checkpoint, "-o", tmp_path / "there.onnx") == 2
    assert code(checkpoint, "-o", tmp_path / "there.onnx", "--frames", tmp_path / "empty") == 4  # inputs come first
    assert code(checkpoint, "-o", tmp_path / "model.bin") == 2
    assert code(checkpoint, "-o", out, "--size", "96") == 2
    assert code(checkpoint, "-o", out, "--size", "0x9") == 2
    assert code(checkpoint, "-o", out, "--agreement", "1.5") == 2
    assert code(checkpoint, "-o", out, "--sise", "96x96") == 2
    assert "--size" in capsys.readouterr().err.splitlines()[-1]
    assert code(checkpoint, "-o", out, "--frames", tmp_path / "empty") == 4
    assert code(checkpoint, "-o", out, "--frames", checkpoint) == 4
    assert code(checkpoint, "-o", tmp_path / "there.onnx" / "folder.onnx") == 4
    assert code(tmp_path / "there.onnx", "-o", out) == 2
    assert code(checkpoint, "-o", out, "--label-space", "nonsense") in (2, 4)
    assert not out.exists()
    assert (tmp_path / "there.onnx").read_bytes() == b"mine"
    assert "Traceback" not in capsys.readouterr().err


def test_the_dilations_of_a_published_file_are_stated_or_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(adaptsegnet_weights()[0], tmp_path / "published.pth")
    words = [str(tmp_path / "published.pth"), "-o", str(tmp_path / "model.onnx")]
    for more, warned in (([], True), (["--dilations", "6,12,18,24"], False)):
        caplog.clear()
        assert exit_status(lambda more=more: main([*words, *more])) == 2  # its five classes have no names
        assert "Pass --label-space" in capsys.readouterr().err
        assert ("Set --dilations '[6, 12, 18, 24]' or '[6, 12]'" in caplog.text) == warned
    assert exit_status(lambda: main([*words, "--dilations", "6 12"])) == 2
    assert exit_status(lambda: main([*words, "--dilations", "6,12,18,24,30"])) == 4
    assert "has 4 branches, 5 are asked for" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["", "--frames", "--labels", "--calibrate"])
def test_a_folder_that_may_not_be_entered_is_one_line(checkpoint: Path, tmp_path: Path, option: str) -> None:
    locked, out = tmp_path / "locked", tmp_path / "out"
    locked.mkdir(mode=0)
    inside = locked / "inside.safetensors"
    more = {"": (), "--labels": ("--frames", tmp_path), "--calibrate": ("--precision", "int8")}.get(option, ())
    words = [checkpoint, option, inside, *more] if option else [inside]
    with unprivileged(locked, script="export/to_onnx.py") as command:
        done = command(*words, "-o", out / "model.onnx")
    assert done.returncode == 4, done.stderr
    assert (
        done.stderr == f"error: {inside}: cannot be accessed, permission denied. Name another, or make it accessible.\n"
    )
    assert not out.exists()


def test_a_checkpoint_without_classes_needs_them_named(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_model(path, network(), ModelInfo(label_space=None))
    with pytest.raises(UsageError, match="label-space"):
        export(path, tmp_path / "model.onnx", ExportOptions(size=(64, 64)))
    with pytest.raises(UsageError, match="size"):
        export(path, tmp_path / "model.onnx", ExportOptions(label_space=CAMVID_11))
    two = LabelSpace(name="two", names=("a", "b"), colors=((0, 0, 0), (1, 1, 1)))
    with pytest.raises(UsageError, match="11 classes"):
        export(path, tmp_path / "model.onnx", ExportOptions(size=(64, 64), label_space=two))


def test_sizes_are_width_times_height() -> None:
    assert parse_size("1024x512") == (512, 1024)
    for wrong in ("", "1024", "1024*512", "x512", "-1x5"):
        with pytest.raises(UsageError, match="width x height"):
            parse_size(wrong)


def test_the_script_alone_prints_its_help_without_torch() -> None:
    code = "import sys, runpy; sys.modules['torch'] = None; sys.argv = ['to_onnx.py', '--help']; "
    code += "runpy.run_path('export/to_onnx.py', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "CHECKPOINT" in done.stdout


def test_the_exported_clip_end_to_end(exported: Path, shared: Shared, tmp_path: Path) -> None:
    """The spine: checkpoint, ONNX, segmented video."""
    from lsr_infer.cli import main as infer
    from lsr_infer.video.reader import probe

    clip = shared("data/clips/udacity_test_video.mp4")
    words = [str(clip), "--model", str(exported), "--output", str(tmp_path), "--max-frames", "4", "--side-by-side"]
    assert infer(words) == 0
    info = probe(tmp_path / "udacity_test_video_side_by_side.mp4")
    assert (info.width, info.frames) == (2564, 4)
    assert info.height > 720  # the classes are named below
    with Segmenter(exported) as segmenter:
        assert json.loads(segmenter.manifest.to_json())["output"]["name"] == "logits"
