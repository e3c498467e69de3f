"""The Triton model repository: its config read back by a strict reader and by Triton's own schema."""

import hashlib
import importlib.metadata
import importlib.util
import logging
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsr_infer.backends.model_file import read_model_file
from lsr_infer.backends.triton import EnumName, Serving, model_config, to_pbtxt
from lsr_infer.cli import main
from lsr_infer.errors import InputError, UsageError
from lsr_infer.manifest import Manifest
from lsr_infer.manifest.records import EngineFacts
from tests.lsr_infer.commands.test_info import COMPARED, FACTS, engine
from tests.lsr_infer.onnxfile import colour_model, manifest

# From Triton's model_config.proto: the fields of each message, and what each holds. Only what may be written here.
TEXT, NUMBER, TRUTH = "text", "number", "truth"
DATA_TYPE = (
    "TYPE_UINT8",
    "TYPE_FP32",
    "TYPE_FP16",
    "TYPE_INT8",
    "TYPE_INT32",
    "TYPE_INT64",
    "TYPE_BOOL",
    "TYPE_STRING",
)
SCHEMA: dict[str, dict[str, Any]] = {
    "ModelConfig": {
        "name": TEXT, "platform": TEXT, "backend": TEXT, "max_batch_size": NUMBER,
        "version_policy": "ModelVersionPolicy", "input": "ModelInput", "output": "ModelOutput",
        "instance_group": "ModelInstanceGroup",
        "dynamic_batching": "ModelDynamicBatching", "model_warmup": "ModelWarmup", "parameters": "ParametersEntry",
        "default_model_filename": TEXT,
    },
    "ModelVersionPolicy": {"latest": "Latest", "all": "All", "specific": "Specific"},
    "Latest": {"num_versions": NUMBER},
    "ModelInput": {
        "name": TEXT, "data_type": DATA_TYPE, "format": ("FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW"), "dims": NUMBER,
    },
    "ModelOutput": {"name": TEXT, "data_type": DATA_TYPE, "dims": NUMBER, "label_filename": TEXT},
    "ModelInstanceGroup": {
        "name": TEXT, "kind": ("KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"), "count": NUMBER, "gpus": NUMBER,
    },
    "ModelDynamicBatching": {"preferred_batch_size": NUMBER, "max_queue_delay_microseconds": NUMBER},
    "ModelWarmup": {"name": TEXT, "batch_size": NUMBER, "inputs": "InputsEntry", "count": NUMBER},
    "InputsEntry": {"key": TEXT, "value": "WarmupInput"},
    "WarmupInput": {"data_type": DATA_TYPE, "dims": NUMBER, "zero_data": TRUTH, "random_data": TRUTH},
    "ParametersEntry": {"key": TEXT, "value": "ModelParameter"},
    "ModelParameter": {"string_value": TEXT},
}  # fmt: skip
REPEATED = {"input", "output", "instance_group", "model_warmup", "parameters", "inputs", "dims", "gpus"}
TOKEN = re.compile(r'\s*(?:([A-Za-z_]\w*)|(-?\d+)|"((?:[^"\\\n]|\\.)*)"|([{}\[\]:,]))')


def tokens(text: str) -> list[tuple[str, str]]:
    found, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = TOKEN.match(text, place)
        assert match is not None, f"no token at {text[place : place + 20]!r}"
        kind = ("word", "number", "text", "sign")[(match.lastindex or 1) - 1]
        found.append((kind, match[match.lastindex or 1]))
        place = match.end()
    return found


def read(text: str, name: str = "ModelConfig") -> dict[str, Any]:
    """Read protobuf's text format, raising at every field, type and name that the schema does not have."""
    rest = tokens(text)

    def message(name: str, end: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while rest:
            kind, field = rest.pop(0)
            if end and field == "}" and kind == "sign":
                return found
            assert kind == "word", f"{field!r} is no field"
            expected = SCHEMA[name][field]
            value: Any
            if isinstance(expected, str) and expected in SCHEMA:
                assert rest.pop(0) == ("sign", "{")
                value = message(expected, True)
            else:
                assert rest.pop(0) == ("sign", ":")
                value = scalars(expected)
            if field in REPEATED:
                found.setdefault(field, []).extend(value if isinstance(value, list) else [value])
            else:
                assert field not in found, f"{field} twice"
                assert not isinstance(value, list)
                found[field] = value
        assert not end, "a message does not end"
        return found

    def scalars(expected: Any) -> Any:
        if rest[0] == ("sign", "["):
            rest.pop(0)
            values = [scalar(expected)]
            while rest.pop(0) == ("sign", ","):
                values.append(scalar(expected))
            return values
        return scalar(expected)

    def scalar(expected: Any) -> Any:
        kind, value = rest.pop(0)
        if expected == TEXT:
            assert kind == "text"
            raw = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), value)
            return raw.encode("latin-1").decode("utf-8")
        if expected == NUMBER:
            assert kind == "number"
            return int(value)
        if expected == TRUTH:
            assert value in ("true", "false")
            return value == "true"
        assert kind == "word"
        assert value in expected, f"{value} is none of {expected}"
        return value

    return message(name, False)


def config(path: Path, **options: Any) -> dict[str, Any]:
    serving = Serving(**{"name": "road", **options})
    text = to_pbtxt(model_config(read_model_file(path), serving))
    return read(text)


def triton_schema() -> Any:
    """Load the schema that Triton's own client ships; the rest of that package needs grpc, and is not imported."""
    pytest.importorskip("google.protobuf", reason="protobuf is not installed")
    try:
        files = importlib.metadata.files("tritonclient") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("tritonclient is not installed")
    (place,) = (file.locate() for file in files if file.match("tritonclient/grpc/model_config_pb2.py"))
    if "model_config_pb2" not in sys.modules:  # protobuf takes a schema once
        spec = importlib.util.spec_from_file_location("model_config_pb2", place)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["model_config_pb2"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["model_config_pb2"])
    return sys.modules["model_config_pb2"]


def test_an_onnx_file_of_free_size(model: Path) -> None:
    found = config(model)
    assert (found["name"], found["platform"], found["max_batch_size"]) == ("road", "onnxruntime_onnx", 8)
    assert found["input"] == [{"name": "image", "data_type": "TYPE_UINT8", "dims": [-1, -1, 3]}]
    assert found["output"] == [{"name": "logits", "data_type": "TYPE_FP32", "dims": [3, -1, -1]}]
    assert found["instance_group"] == [{"count": 1, "kind": "KIND_AUTO"}]
    assert found["dynamic_batching"] == {"max_queue_delay_microseconds": 2000}
    (warm,) = found["model_warmup"]
    assert warm["batch_size"] == 1
    assert warm["inputs"][0]["value"]["dims"] == [64, 96, 3]
    parameters = {entry["key"]: entry["value"]["string_value"] for entry in found["parameters"]}
    assert parameters["classes"] == "blue,green,red"
    assert "dynamic_batching" not in config(model, max_batch=1)


def test_fixed_sizes_and_batches(tmp_path: Path) -> None:
    fixed = config(colour_model(tmp_path / "f.onnx", manifest(fixed_size=True)))
    assert fixed["input"][0]["dims"] == [64, 96, 3]
    four = config(colour_model(tmp_path / "b.onnx", manifest(fixed_batch=4), batch="N"))
    assert four["max_batch_size"] == 0
    assert four["input"][0]["dims"] == [-1, -1, -1, 3]  # the graph's own first axis is free
    assert four["model_warmup"][0]["inputs"][0]["value"]["dims"] == [4, 64, 96, 3]
    assert four["model_warmup"][0]["batch_size"] == 1
    assert "dynamic_batching" not in four


def test_an_engine(tmp_path: Path) -> None:
    path = engine(tmp_path / "m.engine", manifest(output="classes", engine=FACTS))
    found = config(path, instances=2)
    assert (found["platform"], found["max_batch_size"]) == ("tensorrt_plan", 4)
    assert found["output"] == [{"name": "classes", "data_type": "TYPE_UINT8", "dims": [-1, -1]}]
    assert found["instance_group"] == [{"count": 2, "kind": "KIND_GPU"}]
    with pytest.raises(UsageError, match="only on a GPU"):
        config(path, kind="cpu")
    rtx = engine(tmp_path / "r.engine", manifest(engine=replace(FACTS, flavour="rtx")))
    with pytest.raises(InputError, match="RTX"):
        config(rtx)


def test_triton_itself_knows_the_fields(model: Path, tmp_path: Path) -> None:
    schema = triton_schema()
    from google.protobuf import text_format

    plan = engine(tmp_path / "m.engine", manifest(output="classes", engine=FACTS))
    four = colour_model(tmp_path / "b.onnx", manifest(fixed_batch=4))
    for path in (model, plan, four):
        text = to_pbtxt(model_config(read_model_file(path), Serving(name="road")))
        parsed = text_format.Parse(text, schema.ModelConfig())
        assert [list(port.dims) for port in parsed.input] == [port["dims"] for port in read(text)["input"]]
        assert parsed.parameters["classes"].string_value == "blue,green,red"
        assert parsed.model_warmup[0].inputs["image"].zero_data
    with pytest.raises(text_format.ParseError):
        text_format.Parse(text + "batching: 3\n", schema.ModelConfig())
    compared = 0
    for name, fields in SCHEMA.items():  # our own table is a part of Triton's
        message = schema.DESCRIPTOR.message_types_by_name.get(name)
        if message is not None:
            assert set(fields) <= set(message.fields_by_name), name
            compared += 1
    assert compared >= 7


@given(st.text())
def test_every_text_is_read_back(text: str) -> None:
    assert read(to_pbtxt({"name": text}))["name"] == text


def test_the_reader_refuses_what_is_not_documented() -> None:
    for document in (
        {"nmae": "x"},
        {"name": 3},
        {"max_batch_size": "3"},
        {"input": [{"data_type": EnumName("TYPE_U8")}]},
    ):
        with pytest.raises((AssertionError, KeyError)):
            read(to_pbtxt(document))
    with pytest.raises(TypeError):
        to_pbtxt({"name": 0.5})


def test_the_command_writes_a_repository(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    repository = tmp_path / "deep" / "repository"
    words = ["serve-config", str(model), "-o", str(repository)]
    assert main(words) == 0
    folder = repository / "model"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "1/model.onnx", "config.pbtxt", "labels.txt", "manifest.json",
    }  # fmt: skip
    assert (folder / "1/model.onnx").read_bytes() == model.read_bytes()
    assert read((folder / "config.pbtxt").read_text(encoding="ascii"))["name"] == "model"
    assert (folder / "labels.txt").read_text(encoding="utf-8").split() == ["blue", "green", "red"]
    assert Manifest.from_json((folder / "manifest.json").read_text(encoding="utf-8")) == manifest()
    assert "--outputs classes" in caplog.text
    before = (folder / "config.pbtxt").read_bytes()
    assert main([*words, "--max-batch", "2"]) == 2
    assert (folder / "config.pbtxt").read_bytes() == before
    assert main([*words, "--max-batch", "2", "--overwrite"]) == 0
    assert read((folder / "config.pbtxt").read_text(encoding="ascii"))["max_batch_size"] == 2
    assert main([*words, "--name", "other"]) == 0
    assert sorted(path.name for path in repository.iterdir()) == ["model", "other"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--name", "../escape"], 2, "../escape"),
        (["--name", ".."], 2, "'..'"),
        (["--name", ""], 2, "a name is empty"),
        (["--max-batch", "0"], 2, "--max-batch"),
        (["--instances", "0"], 2, "--instances"),
        (["--delay", "-1"], 2, "--delay"),
        (["--kind", "tpu"], 2, "tpu"),
    ],
)
def test_mistakes_write_nothing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    repository = tmp_path / "repository"
    assert main(["serve-config", str(model), "-o", str(repository), *words]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not repository.exists()


def test_an_engine_nobody_would_run_is_not_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    repository, path = tmp_path / "repository", tmp_path / "m.engine"
    words = ["serve-config", str(path), "-o", str(repository)]

    def serve(facts: EngineFacts, *more: str, **changes: Any) -> tuple[int, str]:
        document = manifest(**{"output": "classes", "parity": COMPARED, "engine": facts} | changes)
        engine(path, document)
        status = main([*words, *more])
        assert repository.exists() == (status == 0)
        return status, capsys.readouterr().err

    digest = hashlib.sha256(b"not to be deserialised").hexdigest()
    pending = replace(FACTS, sha256=digest)
    proved = replace(pending, parity=COMPARED, proved_on=(8, 6))
    for facts, changes, said in (
        (replace(proved, sha256="0" * 64), {}, "do not belong together"),
        (pending, {}, f"--verify {path}; or pass --allow-unverified"),
        (proved, {"parity": None}, "never compared with the checkpoint"),
        (replace(proved, shapes=((2, 64, 96), (2, 64, 96), (4, 64, 96))), {}, "2 frames at a time at least"),
    ):
        status, error = serve(facts, **changes)
        assert status == 4
        assert said in error
    assert serve(replace(proved, sha256="0" * 64), "--allow-unverified")[0] == 4
    assert serve(proved)[0] == 0
    assert (repository / "m/1/model.plan").read_bytes() == path.read_bytes()
    assert "the server needs TensorRT 11.1.0 and NVIDIA Test" in caplog.text
    assert serve(pending, "--allow-unverified", "--overwrite")[0] == 0


def test_a_place_that_is_none(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert main(["serve-config", str(model), "-o", str(tmp_path / "file")]) == 4
    assert main(["serve-config", str(tmp_path / "file"), "-o", str(tmp_path / "r")]) == 4
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert not (tmp_path / "r").exists()


def test_a_folder_that_appears_meanwhile_is_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, theirs = shutil.copyfile, tmp_path / "r" / "m" / "config.pbtxt"

    def copy_late(source: Path, target: Path) -> Path:
        theirs.parent.mkdir(exist_ok=True)  # another process, while this one copies
        theirs.write_text("theirs", encoding="utf-8")
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy_late)
    words = ["serve-config", str(model), "-o", str(tmp_path / "r"), "--name", "m"]
    assert main(words) == 2
    assert "m appeared while its content was being made" in capsys.readouterr().err
    assert [path.name for path in theirs.parent.iterdir()] == ["config.pbtxt"]
    assert theirs.read_text(encoding="utf-8") == "theirs"
    assert main([*words, "--overwrite"]) == 0
    assert theirs.read_text(encoding="utf-8").startswith('name: "m"')


@pytest.mark.parametrize("name", ["notes.txt", "2/model.onnx", "1/model.savedmodel/weights"])
def test_a_folder_that_holds_more_than_a_model_is_kept(
    model: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["serve-config", str(model), "-o", str(tmp_path / "r"), "--name", "m", "--overwrite"]
    assert main(words) == 0
    assert main(words) == 0  # its own folder is replaced
    mine = tmp_path / "r" / "m" / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine", encoding="utf-8")
    assert main(words) == 2
    assert "not replaced even with --overwrite" in capsys.readouterr().err
    assert mine.read_text(encoding="utf-8") == "mine"
