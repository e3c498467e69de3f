"""Every engine that may not be opened here is refused before a byte of it is deserialised, with what rebuilds it."""

import hashlib
import json
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lsr_infer.backends import BackendOptions
from lsr_infer.errors import DeviceError, InputError, LsrError, UsageError
from lsr_infer.manifest import Manifest
from lsr_infer.manifest.records import EngineFacts, Parity
from lsr_infer.segmenter import Segmenter, open_backend
from lsr_infer.system.cuda import CudaDevice, CudaProbe
from lsr_infer.tensorrt.admission import Host, check_host
from lsr_infer.tensorrt.flavour import Library
from tests.lsr_infer.onnxfile import manifest
from tests.lsr_infer.tensorrt.fakegpu import FakeCuda

ORIN = CudaDevice(index=0, name="Orin", compute_capability=(8, 7))
ADA = CudaDevice(index=0, name="NVIDIA RTX 4090", compute_capability=(8, 9))
OTHER_ADA = CudaDevice(index=0, name="NVIDIA L4", compute_capability=(8, 9))
TURING = CudaDevice(index=0, name="NVIDIA T4", compute_capability=(7, 5))
PARITY = Parity(
    reference="onnx",
    frames_from="8 shipped Toytown frames",
    frames=8,
    pixels=100,
    agreement=1.0,
    clear_agreement=1.0,
    max_logit_difference=0.0,
    mean_logit_difference=0.0,
)
PLAN = b"an engine"
SHAPES = ((1, 64, 96), (1, 64, 96), (2, 64, 96))
CLASSIC = EngineFacts(
    flavour="tensorrt",
    version="11.1.0.106",
    gpu=ADA.name,
    compute_capability=ADA.compute_capability,
    platform="linux_x86_64",
    shapes=SHAPES,
    types={"half": 3},
    types_checked="engine",
    sha256=hashlib.sha256(PLAN).hexdigest(),
    onnx_sha256="b" * 64,
    parity=PARITY,
    proved_on=ADA.compute_capability,
)
RTX = replace(
    CLASSIC,
    flavour="rtx",
    version="1.7.1.116",
    gpu="",
    compute_capability=None,
    targets=("86", "89"),
    parity=None,
    proved_on=None,
)


def write(folder: Path, facts: EngineFacts | None, **changes: Any) -> Path:
    path = folder / "model.engine"
    path.write_bytes(PLAN)
    document: Manifest = manifest(**{"engine": facts, "runtime": "tensorrt", "parity": PARITY} | changes)
    path.with_name("model.engine.json").write_text(document.to_json(), encoding="utf-8")
    return path


class NeverOpened:
    """A library whose runtime must not be asked for anything."""

    def __getattr__(self, name: str) -> Any:
        pytest.fail(f"{name} was asked for, so the engine was about to be opened")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine with a GPU and both libraries, of which nothing may be used."""
    here = SimpleNamespace(
        gpus=(ADA,), versions={"tensorrt": "11.1.0.106", "rtx": "1.7.1.116"}, platform="linux_x86_64"
    )

    def load(flavour: str) -> Library:
        return Library(flavour=flavour, module=NeverOpened(), version=here.versions[flavour])

    monkeypatch.setattr("lsr_infer.backends.tensorrt.probe_cuda", lambda: CudaProbe(devices=here.gpus, reason="no GPU"))
    monkeypatch.setattr("lsr_infer.backends.tensorrt.load_library", load)
    monkeypatch.setattr("lsr_infer.backends.tensorrt.platform_name", lambda: here.platform)
    return here


def refused(path: Path, kind: type[LsrError], **options: Any) -> str:
    with pytest.raises(kind) as caught:
        open_backend(path, BackendOptions(**options))
    return str(caught.value)


def rebuilt(message: str) -> list[str]:
    """The words of the command a message names, which to_trt.py must take as they are."""
    words = shlex.split(message.partition("build it again: ")[2].rstrip("."))
    assert words[:2] == ["python", "export/to_trt.py"]
    try:
        from export.to_trt import build_parser, parse_shapes
    except ImportError:
        return words  # the package by itself, without the scripts of the checkout
    options = build_parser().parse_args(words[2:])
    assert (options.model.name, options.output.name, options.overwrite) == ("model.onnx", "model.engine", True)
    assert not options.shapes or parse_shapes(options.shapes) == SHAPES
    return words


def test_the_document_beside_an_engine_round_trips(tmp_path: Path) -> None:
    for facts in (CLASSIC, RTX):
        path = write(tmp_path, facts)
        read = Manifest.from_json(path.with_name("model.engine.json").read_text(encoding="utf-8"))
        assert read.engine == facts
        assert read == manifest(engine=facts, runtime="tensorrt", parity=PARITY)


def test_an_engine_without_a_document(tmp_path: Path) -> None:
    path = write(tmp_path, CLASSIC)
    path.with_name("model.engine.json").unlink()
    message = refused(path, InputError)
    assert "model.engine.json is not beside it" in message
    rebuilt(message)


@pytest.mark.parametrize(
    "text", ["", "no json", "{}", "[]", '{"format": 99}', "\udcff", "null", '{"format": 2, "engine": 5}']
)
def test_a_broken_document(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, CLASSIC)
    path.with_name("model.engine.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    rebuilt(refused(path, InputError))


def test_a_document_too_large_to_be_one(tmp_path: Path) -> None:
    path = write(tmp_path, CLASSIC)
    with path.with_name("model.engine.json").open("wb") as file:
        file.truncate(1 << 40)  # sparse: reading it whole would take all memory
    rebuilt(refused(path, InputError))


def test_a_document_whose_fields_are_wrong(tmp_path: Path) -> None:
    path = write(tmp_path, CLASSIC)
    beside = path.with_name("model.engine.json")
    good = json.loads(beside.read_text(encoding="utf-8"))
    for key, value in (("flavour", "onnx"), ("shapes", {}), ("targets", 5), ("parity", "fine"), ("sha256", None)):
        beside.write_text(json.dumps(good | {"engine": good["engine"] | {key: value}}), encoding="utf-8")
        assert key in refused(path, InputError)


def test_the_document_of_an_onnx_file(tmp_path: Path) -> None:
    assert "Manifest of no engine" in refused(write(tmp_path, None), InputError)


def test_another_file_than_the_document_names(tmp_path: Path) -> None:
    path = write(tmp_path, CLASSIC)
    path.write_bytes(PLAN + b"!")
    message = refused(path, InputError)
    assert "do not belong together" in message
    rebuilt(message)


def test_another_flavour(tmp_path: Path) -> None:
    path = write(tmp_path, RTX)
    with pytest.raises(DeviceError, match="built by TensorRT for RTX, which TensorRT does not open") as caught:
        Segmenter(path, backend="tensorrt")
    words = rebuilt(str(caught.value))
    assert words[words.index("--flavour") + 1] == "tensorrt"
    assert "--targets" not in words
    with pytest.raises(DeviceError, match="built by TensorRT, which TensorRT for RTX does not open"):
        Segmenter(write(tmp_path, CLASSIC), backend="tensorrt-rtx")


def test_another_version(tmp_path: Path, machine: SimpleNamespace) -> None:
    machine.versions = {"tensorrt": "11.1.0.107", "rtx": "1.8.0.1"}
    for facts in (CLASSIC, RTX):
        message = refused(write(tmp_path, facts), DeviceError)
        assert f"{facts.version}, and for that release alone; here is {machine.versions[facts.flavour]}" in message
        assert f"Install {facts.version}, or" in message
        rebuilt(message)


def test_another_platform(tmp_path: Path, machine: SimpleNamespace) -> None:
    machine.platform = "linux_aarch64"
    for facts in (CLASSIC, RTX):
        message = refused(write(tmp_path, facts), DeviceError)
        assert "built for linux_x86_64, this is linux_aarch64" in message
        rebuilt(message)
    machine.platform = "windows_x86_64"
    assert "this is windows_x86_64" in refused(write(tmp_path, CLASSIC), DeviceError)
    assert "nothing proves yet" in refused(write(tmp_path, RTX), InputError)  # one for RTX runs on Windows too


def test_another_gpu(tmp_path: Path, machine: SimpleNamespace) -> None:
    for gpu in (OTHER_ADA, ORIN):
        machine.gpus = (gpu,)
        message = refused(write(tmp_path, CLASSIC), DeviceError)
        assert f"built for {ADA.name} (compute capability 8.9) alone; here is cuda:0 ({gpu.name}" in message
        rebuilt(message)
    machine.gpus = (ADA, OTHER_ADA)
    assert "here is cuda:1" not in refused(write(tmp_path, CLASSIC), DeviceError, device="cuda:2")


def test_a_gpu_that_is_no_target(tmp_path: Path, machine: SimpleNamespace) -> None:
    machine.gpus = (TURING,)
    message = refused(write(tmp_path, RTX), DeviceError, allow_unverified=True)
    assert "built for compute capability 86, 89, and cuda:0 (NVIDIA T4, compute capability 7.5)" in message
    words = rebuilt(message)
    assert words[words.index("--targets") + 1] == "75,86,89"


def test_no_gpu_and_the_wrong_words_for_one(tmp_path: Path, machine: SimpleNamespace) -> None:
    path = write(tmp_path, CLASSIC)
    assert "only on an NVIDIA GPU" in refused(path, DeviceError, device="cpu")
    assert "there is no device gpu" in refused(path, UsageError, device="gpu")
    assert "bf16 is not available" in refused(path, UsageError, precision="bf16")
    machine.gpus = ()
    assert "needs a CUDA device, and no GPU" in refused(path, DeviceError)


def test_one_that_nobody_has_proved(tmp_path: Path) -> None:
    message = refused(write(tmp_path, RTX), InputError)
    assert f"python export/to_trt.py {tmp_path / 'model.onnx'} --verify {tmp_path / 'model.engine'}" in message
    assert "--allow-unverified" in message


def test_a_proof_is_of_its_own_kind_of_gpu(tmp_path: Path, machine: SimpleNamespace) -> None:
    proved = replace(RTX, parity=PARITY, proved_on=(8, 6))
    assert "was compared on compute capability 8.6 alone" in refused(write(tmp_path, proved), InputError)
    carried = replace(CLASSIC, hardware_compatible="ampere_plus")
    machine.gpus = (ORIN,)
    assert "was compared on compute capability 8.9 alone" in refused(write(tmp_path, carried), InputError)


def test_a_chain_that_does_not_reach_the_checkpoint(tmp_path: Path) -> None:
    assert "never compared with the checkpoint" in refused(write(tmp_path, CLASSIC, parity=None), InputError)


@pytest.mark.parametrize(("facts", "options"), [(CLASSIC, {}), (RTX, {"allow_unverified": True})])
def test_what_passes_is_opened(
    tmp_path: Path, facts: EngineFacts, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsr_infer.tensorrt.runner._cudart", FakeCuda)
    with pytest.raises(pytest.fail.Exception, match="about to be opened"):
        open_backend(write(tmp_path, facts), BackendOptions(**options))


@pytest.mark.parametrize(
    ("version", "here", "runs"),
    [
        ("11.1.0.106", "11.1.0.106", True),
        ("11.1.0.106", "11.4.0.1", True),
        ("11.4.0.1", "11.1.0.106", False),
        ("10.3.0", "11.1.0.106", True),
        ("11.1.0.106", "10.16.1", False),
        ("8.6.1", "10.3.0", True),
        ("8.6.1", "11.1.0", False),
        ("11.1.0", "12.0.0", False),
        ("unknown", "11.1.0", False),
        ("11.1.0", "unknown", False),
    ],
)
def test_versions_that_a_compatible_engine_takes(version: str, here: str, runs: bool) -> None:
    facts = replace(CLASSIC, version=version, version_compatible=True)
    assert admitted(facts, Host(flavour="tensorrt", version=here, platform="linux_x86_64", gpu=ADA)) == runs
    rtx = replace(RTX, version=version, version_compatible=True)  # NVIDIA promises none for RTX, whatever a file says
    assert admitted(rtx, Host(flavour="rtx", version=here, platform="linux_x86_64", gpu=ADA)) == (version == here)


@pytest.mark.parametrize(
    ("level", "gpus"),
    [
        ("", [ADA]),
        ("no_such_level", [ADA]),
        ("same_compute_capability", [ADA, OTHER_ADA]),
        ("ampere_plus", [ADA, OTHER_ADA, ORIN]),
    ],
)
def test_gpus_that_a_compatible_engine_takes(level: str, gpus: list[CudaDevice]) -> None:
    facts = replace(CLASSIC, hardware_compatible=level)
    for gpu in (ADA, OTHER_ADA, ORIN, TURING):
        host = Host(flavour="tensorrt", version=facts.version, platform="linux_x86_64", gpu=gpu)
        assert admitted(facts, host) == (gpu in gpus), gpu


def admitted(facts: EngineFacts, host: Host) -> bool:
    try:
        check_host(Path("model.engine"), facts, host)
    except DeviceError as error:
        if "build it again" in str(error):
            rebuilt(str(error))
        return False
    return True
