"""What is read out of an ONNX file without an engine, and every file that is refused before one sees it."""

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsr_infer.backends.model_file import LARGEST_FILE, TensorPort, read_model_file, read_onnx
from lsr_infer.errors import InputError
from lsr_infer.io.digests import BLANK, seal
from lsr_infer.manifest import METADATA_KEY
from lsr_infer.segmenter import Segmenter
from tests.lsr_infer.onnxfile import block, colour_model, manifest, node, number, tensor
from tests.lsr_infer.onnxfile import model as encode

EYE, ZERO = np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
ROOT = Path(__file__).resolve().parents[3]


def test_what_a_file_holds(model: Path, tmp_path: Path) -> None:
    found = read_onnx(model)
    assert found.size == model.stat().st_size
    assert found.metadata == {METADATA_KEY: manifest().to_json()}
    assert found.inputs == (TensorPort(name="image", type="uint8", shape=(None, None, None, 3)),)
    assert found.outputs == (TensorPort(name="logits", type="float32", shape=(None, 3, None, None)),)
    assert found.weights == 9 + 3
    fixed = read_onnx(colour_model(tmp_path / "fixed.onnx", manifest(fixed_size=True)))
    assert fixed.inputs[0].shape == (None, 64, 96, 3)


def test_a_byte_that_changed_is_noticed_in_weights_graph_and_manifest(tmp_path: Path) -> None:
    path = colour_model(tmp_path / "m.onnx", manifest(digest=BLANK))
    digest = seal(path)
    data = path.read_bytes()
    assert digest in read_onnx(path).metadata[METADATA_KEY]
    weights = data.index(EYE.tobytes())
    for place in (weights, weights + 3, weights + 20, data.index(b"Conv"), data.index(b"green"), len(data) - 2):
        for bit in (1, 64):
            changed = bytearray(data)
            changed[place] ^= bit
            path.write_bytes(changed)
            with pytest.raises(InputError, match=r"m\.onnx"):
                read_onnx(path)
    changed = bytearray(data)
    changed[weights + 2] ^= 4
    path.write_bytes(changed)
    with pytest.raises(InputError, match="is damaged, its content is not what the digest"):
        Segmenter(path, device="cpu")
    path.write_bytes(data)
    Segmenter(path, device="cpu").close()


@pytest.mark.parametrize("name", ["toytown", "toytown-source"])
def test_damage_to_the_name_of_the_digest_is_no_way_past_it(name: str, tmp_path: Path) -> None:
    data = (ROOT / "lsr_infer" / "models" / f"{name}.onnx").read_bytes()
    path = tmp_path / "m.onnx"
    start = data.rindex(b'"digest": "sha256:')
    for place in (*range(start - 2, start + 20), data.rindex(b'"format": 3') + 10):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            changed[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
            path.write_bytes(changed)
            with pytest.raises(InputError, match=r"m\.onnx"):
                read_model_file(path)
    path.write_bytes(data)
    assert read_model_file(path).manifest.digest


def test_it_reads_what_the_onnx_package_writes(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the onnx package is not installed: no second writer to compare with")
    values = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2, 3], list(range(6)))
    inner = onnx.helper.make_node("Constant", [], ["c"], value=onnx.helper.make_tensor("c", 1, [5], [0.0] * 5))
    graph = onnx.helper.make_graph(
        [inner, onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT16, [None, 3])],
        [values],
    )
    model = onnx.helper.make_model(graph)
    model.metadata_props.add(key="ä", value="ö" * 300)
    onnx.save(model, str(tmp_path / "m.onnx"))
    found = read_onnx(tmp_path / "m.onnx")
    assert found.metadata == {"ä": "ö" * 300}
    assert found.inputs == (TensorPort(name="x", type="float32", shape=(None, 2)),)
    assert found.outputs == (TensorPort(name="y", type="float16", shape=(None, 3)),)
    assert found.weights == 6


def elsewhere(location: str) -> bytes:
    """A TensorProto whose values lie in another place, without its outer tag."""
    whole = tensor("w", EYE, location)
    return whole[2:]  # the tag and a length below 128


def within(*path: int, content: bytes) -> bytes:
    """A model that holds something at a path of field numbers, beside an ordinary graph."""
    for field in reversed(path):
        content = block(field, content)
    return encode(EYE, ZERO, {METADATA_KEY: manifest().to_json()}) + content


HIDDEN = {
    "the values of a Constant": (20, 1, 1, 5, 5),
    "a list of tensors": (20, 1, 1, 5, 10),
    "a branch": (20, 2, 1, 5, 6, 5),
    "a list of branches": (20, 2, 1, 5, 11, 5),
    "a sparse weight": (20, 1, 15, 1),
    "the places of a sparse weight": (20, 1, 15, 2),
    "a sparse attribute": (20, 1, 1, 5, 22, 2),
    "a list of sparse attributes": (20, 1, 1, 5, 23, 1),
    "a function": (25, 7, 5, 5),
    "a default of a function": (25, 11, 5),
    "a list of functions and branches": (25, 7, 5, 11, 1, 5, 6, 5),
}


@pytest.mark.parametrize("place", HIDDEN.values(), ids=HIDDEN.keys())
def test_weights_elsewhere_are_found_wherever_they_hide(tmp_path: Path, place: tuple[int, ...]) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(within(*place, content=elsewhere("weights.bin")))
    with pytest.raises(InputError, match=r"outside itself \(location weights\.bin\)"):
        read_onnx(path)
    path.write_bytes(within(*place, content=number(1, 3) + number(14, 1)))  # a location that is named nowhere
    with pytest.raises(InputError, match="outside itself"):
        read_onnx(path)
    path.write_bytes(within(*place, content=number(1, 3)))
    assert read_onnx(path).weights == 12


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "weights.bin", "link.bin", "*/_ORT_MEM_ADDR_/*"])
def test_weights_elsewhere_are_never_followed(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(b"\0" * 36)
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"\0" * 36)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = folder / "m.onnx"
    path.write_bytes(encode(EYE, ZERO, {METADATA_KEY: manifest().to_json()}, location=location))
    with pytest.raises(InputError, match="outside itself") as caught:
        read_onnx(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)  # a hole: it takes no room
    with pytest.raises(InputError, match="2 GB"):
        read_onnx(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\x00\x01", "without a number"),
        (b"\x0b", "no known kind"),
        (b"\x3a\x05ab", "breaks off"),
        (b"\x3a", "breaks off"),
        (b"\xff" * 12, "breaks off"),
        (number(1, 8), "no graphs"),
        (encode(EYE, ZERO, {}) + block(7, b""), "2 graphs"),
        (block(7, node("A", [], "a")) + block(14, block(1, b"\xff\xfe")), "UTF-8"),
        (block(7, b"") + block(14, number(1, 5)), "text"),
    ],
)
def test_what_is_no_model(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        read_onnx(path)
    assert "m.onnx" in str(caught.value)


def test_nesting_has_an_end(tmp_path: Path) -> None:
    content = b""
    for _ in range(400):
        content = block(6, block(1, block(5, content)))
    path = tmp_path / "m.onnx"
    path.write_bytes(encode(EYE, ZERO, {}) + block(20, block(1, block(1, block(5, content)))))
    with pytest.raises(InputError, match="too deeply"):
        read_onnx(path)


GOOD = encode(EYE, ZERO, {METADATA_KEY: manifest().to_json()})


@settings(max_examples=300)
@given(
    st.binary(max_size=200)
    | st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=4)).map(
        lambda change: GOOD[: change[0]] + change[1] + GOOD[change[0] + len(change[1]) :]
    )
    | st.integers(0, len(GOOD)).map(lambda end: GOOD[:end])
)
def test_noise_is_read_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.onnx"
    path.write_bytes(content)
    with contextlib.suppress(InputError):  # and nothing else
        read_onnx(path)


NOISE = """
import sys, numpy as np
from pathlib import Path
from lsr_infer.errors import LsrError
from lsr_infer.segmenter import Segmenter
folder, backend = Path(sys.argv[1]), sys.argv[2]
good = (folder / "good.onnx").read_bytes()
rng = np.random.default_rng(0)
ends = {"ran": 0, "refused": 0}
for n in range(int(sys.argv[3])):
    content = bytearray(good)
    for _ in range(int(rng.integers(1, 4))):
        content[int(rng.integers(len(content)))] = int(rng.integers(256))
    (folder / "bad.onnx").write_bytes(content)
    try:
        Segmenter(folder / "bad.onnx", "cpu", backend, threads=1)(np.zeros((16, 16, 3), np.uint8))
        ends["ran"] += 1
    except LsrError as error:
        assert error.exit_code in (2, 4), error
        ends["refused"] += 1
print(ends)
assert ends["refused"] > 50 and ends["ran"] > 5, ends
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_damaged_model_ends_no_process(tmp_path: Path, backend: str) -> None:
    """Changed bytes reach the engines: they must refuse them, in a process of its own in case one crashes."""
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    colour_model(tmp_path / "good.onnx")
    done = subprocess.run(
        [sys.executable, "-c", NOISE, str(tmp_path), backend, "300"], cwd=ROOT, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
