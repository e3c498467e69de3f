"""`lsr-infer info`: what it says of every kind of model file, without running one, and what it refuses."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.cli import main
from lsr_infer.labelspace import LabelSpace
from lsr_infer.manifest import Manifest
from lsr_infer.manifest.records import EngineFacts, Parity, Quantization, TeacherFacts
from lsr_infer.segmenter import Segmenter
from tests.lsr_infer.onnxfile import colour_model, manifest

ROOT = Path(__file__).resolve().parents[3]
COMPARED = Parity(
    reference="checkpoint", frames_from="4 shipped Toytown frames", frames=4, pixels=1000, agreement=0.9987,
    clear_agreement=0.9999, max_logit_difference=0.25, mean_logit_difference=0.01,
    class_agreement={"blue": 0.999, "green": 0.75, "red": 0.98}, miou_reference=0.5, miou=0.495,
)  # fmt: skip
QUANTIZED = Quantization(
    scheme="U8S8", calibration="entropy", calibrated_on="the checkpoint's own frames", frames=32,
    candidates={"minmax": 0.97, "entropy": 0.985}, in_float=("head",),
)  # fmt: skip
FACTS = EngineFacts(
    flavour="tensorrt", version="11.1.0", gpu="NVIDIA Test", compute_capability=(8, 6),
    shapes=((1, 64, 96), (1, 64, 96), (4, 128, 192)), types={"half": 7, "float": 2}, types_checked="engine",
)  # fmt: skip


def engine(path: Path, document: Manifest) -> Path:
    """An engine file as `info` sees it: bytes that it must not open, and the Manifest beside them."""
    path.write_bytes(b"not to be deserialised")
    path.with_name(f"{path.name}.json").write_text(document.to_json(), encoding="utf-8")
    return path


def test_a_table_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = manifest(
        parity=COMPARED, quantization=QUANTIZED, precision="int8", runtime="onnxruntime", scores={"miou": 0.4321},
        teacher=TeacherFacts(sha256="f" * 64, method="lsr-st", step=1800, scores={"flip": 0.7826}),
        choices=("head in float",), licence="MIT", method="lsr", checkpoint="abc",
    )  # fmt: skip
    assert main(["info", str(colour_model(tmp_path / "m.onnx", document))]) == 0
    captured = capsys.readouterr()
    for said in (
        "m.onnx", "blue, green, red", "96x64", "int8, made for onnxruntime", "U8S8, entropy on 32 frames",
        "minmax: 97.00 %", "in float: head",
        "head in float", "miou 0.4321", "checkpoint -> ONNX: 99.8700 %", "4 shipped Toytown frames",
        "99.9900 % of clear", "50.00 before, 49.50 after", "worst: green 75.000 %, red 98.000 %", "MIT", "lsr", "abc",
        "lsr-st, step 1800, SHA-256 ffff", "its scores: flip 0.7826",
    ):  # fmt: skip
        assert said in captured.out, said
    assert "engine" not in captured.out
    assert captured.err == ""


def test_one_document_under_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = colour_model(tmp_path / "m.onnx", manifest(parity=COMPARED))
    assert main(["info", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert Manifest.from_json(json.dumps(found["manifest"])) == manifest(parity=COMPARED)
    assert (found["kind"], found["bytes"], found["weights"]) == ("onnx", path.stat().st_size, 12)
    assert found["inputs"] == [{"name": "image", "type": "uint8", "shape": [None, None, None, 3]}]
    assert list(found["worst_classes"]["checkpoint -> ONNX"]) == ["green", "red", "blue"]


def test_an_engine_is_described_by_what_lies_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = engine(tmp_path / "m.engine", manifest(parity=COMPARED, engine=FACTS, precision="fp16"))
    assert main(["info", str(path)]) == 0
    text = capsys.readouterr().out
    for said in ("tensorrt 11.1.0", "NVIDIA Test (8.6)", "4 x 192x128", "half 7, float 2", "read from the engine"):
        assert said in text, said
    assert "ONNX -> engine: pending" in text
    proved = manifest(parity=COMPARED, engine=replace(FACTS, parity=COMPARED))
    assert main(["info", str(engine(path, proved)), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["worst_classes"]) == ["checkpoint -> ONNX", "ONNX -> engine"]


@pytest.mark.parametrize("beside", [None, "{", b"\xff\xfe", manifest().to_json()])
def test_an_engine_without_its_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], beside: str | bytes | None
) -> None:
    path = tmp_path / "m.engine"
    path.write_bytes(b"x")
    if beside is not None:
        (tmp_path / "m.engine.json").write_bytes(beside.encode() if isinstance(beside, str) else beside)
    assert main(["info", str(path)]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "m.engine" in line


def test_the_files_text_cannot_command_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = "\x1b[2J\x9b31mred\n\rnext\u202e\x7f"
    space = LabelSpace(name=text, names=(text, f"{text}2", "b"), colors=((0, 0, 0),) * 3, subsets={text: (0,)})
    document = manifest(
        space, licence=text, method="\x07", scores={text: 0.5}, choices=(text,), intended_use=text, exporter=text
    )
    path, picture = colour_model(tmp_path / "m\x1b[5m.onnx", document), tmp_path / "a\x1b[6m.png"
    assert cv2.imwrite(str(picture), np.zeros((40, 60, 3), np.uint8))
    out = ["-o", str(tmp_path / "out"), "--overwrite"]
    for words in (
        ["info", str(path)], ["info", str(path), "--json"], ["info", str(path), "--manifest"],
        ["bench", str(path), "--frames", "2"], ["bench", str(path), "--frames", "2", "--json"],
        [str(picture), "-m", str(path), *out, "--json"], [str(picture), "-m", str(path), "--mask-ids", text, *out],
        ["serve-config", str(path), "-o", str(tmp_path / "repository")],
    ):  # fmt: skip
        code = main(words)
        assert code == (2 if "--mask-ids" in words else 0), words
        shown = "".join(capfd.readouterr())
        assert all(line.isprintable() for line in shown.split("\n")), (words, shown)
    assert main(["info", str(path)]) == 0
    assert r"\x1b[2J\x9b31mred\n\rnext\u202e\x7f" in capfd.readouterr().out


def test_info_loads_no_engine(model: Path) -> None:
    code = (
        f"import sys\nfrom lsr_infer.cli import main\nassert main(['info', {str(model)!r}]) == 0\n"
        "heavy = {'onnxruntime', 'openvino', 'tensorrt', 'torch', 'av'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60, capture_output=True)


def test_the_manifest_alone_is_what_the_file_carries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = colour_model(tmp_path / "m.onnx")
    assert main(["info", str(path), "--manifest"]) == 0
    with Segmenter(path) as segmenter:
        assert Manifest.from_json(capsys.readouterr().out) == segmenter.manifest
