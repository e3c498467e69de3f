"""The C++ program of docs/export.md is compiled, run, and gives the classes that the runtime gives."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lsr_infer.errors import exit_status
from lsr_infer.parity.frame_set import shipped_frames
from lsr_infer.segmenter import Segmenter
from lsr_train.data.labels import CAMVID_11
from lsr_train.runs.checkpoint import ModelInfo, save_model
from tests.export.test_to_onnx import network

ROOT = Path(__file__).resolve().parents[2]
openvino = pytest.importorskip("openvino", reason="openvino is not installed (extra openvino)")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler here")
    package = Path(openvino.__file__).parent
    (source,) = re.findall(r"```cpp\n(// segment .*?)```", (ROOT / "docs/export.md").read_text(), flags=re.DOTALL)
    folder = tmp_path_factory.mktemp("program")
    (folder / "segment.cpp").write_text(source, encoding="utf-8")
    (library,) = package.glob("libs/libopenvino.so.*")
    command = [compiler, "-std=c++17", "-Wall", "-I", str(package / "include"), str(folder / "segment.cpp"), "-o"]
    link = [str(folder / "segment"), str(library), f"-Wl,-rpath,{package / 'libs'}", "-Wl,--allow-shlib-undefined"]
    done = subprocess.run([*command, *link], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return folder / "segment"


def test_a_program_in_cpp_gives_the_same_classes(program: Path, tmp_path: Path) -> None:
    from export.to_onnx import main

    made, model = tmp_path / "made.safetensors", tmp_path / "road.onnx"
    save_model(made, network(), ModelInfo(label_space=CAMVID_11, method="lsr", height=64, width=128))
    words = [str(made), "-o", str(model), "--outputs", "classes", "--size", "128x64"]
    assert exit_status(lambda: main(words)) == 0
    frame = np.ascontiguousarray(shipped_frames(1).frames[0][100:164, 200:328])
    done = subprocess.run([program, model, "64", "128"], input=frame.tobytes(), capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = np.frombuffer(done.stdout, dtype=np.uint8).reshape(64, 128)
    with Segmenter(model) as segmenter:
        expected = segmenter(frame).classes
    assert len(np.unique(expected)) > 1
    wrong = subprocess.run([program, model, "48", "128"], input=frame.tobytes(), capture_output=True, timeout=120)
    assert wrong.returncode == 4
    assert wrong.stderr.startswith(b"error: ")
    assert not wrong.stdout
    assert (found == expected).mean() > 0.999
