"""Models from strangers: every damaged one ends in exit 4 and one line, and no Manifest reaches beyond the results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.backends.model_file import LARGEST_FILE
from lsr_infer.cli import main
from lsr_infer.labelspace import LabelSpace
from lsr_infer.manifest import FORMAT, METADATA_KEY
from tests.lsr_infer.onnxfile import SPACE, block, colour_model, manifest
from tests.lsr_infer.onnxfile import model as encode

ROOT = Path(__file__).resolve().parents[3]
EYE, ZERO = np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
GOOD = manifest().to_json()
FOUR = LabelSpace(name="four", names=("a", "b", "c", "d"), colors=((0, 0, 0),) * 4)


def contents(tmp_path: Path) -> dict[str, bytes]:
    """Files that are no models of ours, by what is wrong with them."""
    return {
        "empty": b"",
        "noise": np.random.default_rng(0).integers(0, 256, 3000, dtype=np.uint8).tobytes(),
        "another format": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "truncated": encode(EYE, ZERO, {METADATA_KEY: GOOD})[:200],
        "a tail": encode(EYE, ZERO, {METADATA_KEY: GOOD}) + b"\xff" * 20,
        "no manifest": encode(EYE, ZERO, {}),
        "manifest is no JSON": encode(EYE, ZERO, {METADATA_KEY: "{"}),
        "manifest is nested without end": encode(EYE, ZERO, {METADATA_KEY: "[" * 100_000}),
        "manifest with half a character": encode(EYE, ZERO, {METADATA_KEY: GOOD.replace('"green"', '"gr\\ud800n"')}),
        "manifest with an infinite colour": encode(
            EYE, ZERO, {METADATA_KEY: GOOD.replace("[0, 255, 0]", "[0, 1e400, 0]")}
        ),
        "manifest with a figure that is none": encode(
            EYE, ZERO, {METADATA_KEY: GOOD.replace('"scores": {}', '"scores": {"miou": "nan"}')}
        ),
        "manifest of the future": encode(
            EYE, ZERO, {METADATA_KEY: json.dumps(json.loads(GOOD) | {"format": FORMAT + 1})}
        ),
        "wrong number of classes": encode(EYE, ZERO, {METADATA_KEY: manifest(FOUR).to_json()}),
        "wrong input": encode(EYE, ZERO, {METADATA_KEY: GOOD}, input_name="picture"),
        "wrong size": encode(EYE, ZERO, {METADATA_KEY: manifest(fixed_size=True).to_json()}, size=(32, 32)),
        "wrong output": encode(EYE, ZERO, {METADATA_KEY: manifest(output="classes").to_json()}),
        "four channels": encode(EYE, ZERO, {METADATA_KEY: GOOD}, channels=4),
        "a second graph": encode(EYE, ZERO, {METADATA_KEY: GOOD}) + block(7, b""),
        "data outside its folder": encode(EYE, ZERO, {METADATA_KEY: GOOD}, location="../secret.bin"),
        "data at an absolute path": encode(EYE, ZERO, {METADATA_KEY: GOOD}, location=str(tmp_path / "secret.bin")),
        "data behind a link": encode(EYE, ZERO, {METADATA_KEY: GOOD}, location="link.bin"),
        "data in memory": encode(EYE, ZERO, {METADATA_KEY: GOOD}, location="*/_ORT_MEM_ADDR_/*"),
    }


NAMES = tuple(contents(Path()))


def place(tmp_path: Path, name: str) -> Path:
    """Write a file with what its attack needs around it."""
    (tmp_path / "secret.bin").write_bytes(b"\0" * 36)
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = folder / "bad.onnx"
    path.write_bytes(contents(tmp_path)[name])
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_tampered_model_is_refused_by_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path, picture, out = place(tmp_path, name), tmp_path / "a.png", tmp_path / "out"
    assert cv2.imwrite(str(picture), np.zeros((40, 60, 3), np.uint8))
    for words in (
        [picture, "--model", path, "--output", out],
        ["info", path],
        ["bench", path, "--frames", "1"],
        ["serve-config", path, "-o", out],
    ):
        assert main([str(word) for word in words]) == 4, words
        captured = capsys.readouterr()
        (line,) = [line for line in captured.err.splitlines() if not line.startswith("device auto")]
        assert line.startswith("error: "), words
        assert "bad.onnx" in line
        assert captured.out == ""
        assert not list(out.rglob("*")) if out.exists() else True


def test_logits_that_are_not_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nan.onnx"
    path.write_bytes(encode(EYE * np.float32(np.nan), ZERO, {METADATA_KEY: GOOD}))
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 60, 3), np.uint8))
    assert main([str(tmp_path / "a.png"), "--model", str(path), "-o", str(tmp_path / "out")]) == 4
    assert "not finite" in capsys.readouterr().err


def test_what_is_no_file_of_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large, pipe, loop = tmp_path / "large.onnx", tmp_path / "pipe.onnx", tmp_path / "loop.onnx"
    with large.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    for path in (large, pipe, loop, tmp_path, Path("/dev/zero")):
        assert main(["info", str(path)]) == 4, path
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_link_to_a_model_is_the_model(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = tmp_path / "link.onnx"
    link.symlink_to(model)
    assert main(["info", str(link), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == "link.onnx"


WATCHED = """
import json, sys
opened = []
def note(event, arguments):
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.symlink", "shutil.copyfile", "subprocess.Popen",
                 "os.system", "socket.connect", "import"):
        opened.append([event, *map(str, arguments)])
sys.addaudithook(note)
from lsr_infer.cli import main
code = main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump({"code": code, "opened": opened}, file)
"""


@pytest.mark.parametrize(
    "hostile", ["../../MARKER", "{out}/../MARKER", "MARKER\x00.png", "file:///MARKER", "%s%n$(MARKER)"]
)
def test_no_text_of_a_manifest_becomes_a_path(tmp_path: Path, hostile: str) -> None:
    """Every event Python audits is noted in a process of its own: none may name what the Manifest's texts name."""
    text = hostile.format(out=tmp_path / "out") if "{out}" in hostile else hostile
    space = LabelSpace(name=text, names=(text, "b", f"{text}2"), colors=SPACE.colors, subsets={text: (0,)})
    document = manifest(
        space, method=text, licence=text, intended_use=text, exporter=text, checkpoint=text, normalization=text,
        choices=(text,), scores={text: 0.5},
    )  # fmt: skip
    path = colour_model(tmp_path / "m.onnx", document)
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 60, 3), np.uint8))
    before = {str(found) for found in tmp_path.parent.rglob("*")}
    for words in (
        [tmp_path / "a.png", "--model", path, "-o", tmp_path / "out", "--save", "overlay,mask", "--json"],
        ["info", path],
        ["serve-config", path, "-o", tmp_path / "repository"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, str(tmp_path / "events.json"), *map(str, words)],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        noted = json.loads((tmp_path / "events.json").read_text(encoding="utf-8"))
        assert noted["code"] == 0, done.stderr
        assert any(str(path) in event for _, *arguments in noted["opened"] for event in arguments)  # the hook sees
        assert not [event for event in noted["opened"] if any("MARKER" in argument for argument in event[1:])]
    new = {str(found) for found in tmp_path.parent.rglob("*")} - before
    allowed = tuple(str(tmp_path / name) for name in ("out", "repository", "events.json"))
    assert all(found.startswith(allowed) for found in new), new
