"""Decides from the Manifest beside an engine whether it may be opened here, before a byte of it is deserialised.

Deserialising an engine runs what is in it, and one of another version or GPU may crash the process instead of failing.
None of this makes a hostile engine safe, because whoever can change the engine can change the file beside it.
"""

import hashlib
import shlex
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from lsr_infer.errors import DeviceError, InputError
from lsr_infer.manifest import Manifest
from lsr_infer.manifest.records import HARDWARE_LEVELS, EngineFacts
from lsr_infer.system.cuda import CudaDevice
from lsr_infer.tensorrt.flavour import TITLES

__all__ = ["Host", "check_bytes", "check_flavour", "check_host", "check_parity", "engine_manifest", "manifest_path",
           "rebuild_command", "sha256_of"]  # fmt: skip

_LARGEST = 16 * 2**20
"""Bytes of a Manifest at most; the largest real ones hold a few thousand."""


def manifest_path(engine: Path) -> Path:
    """Return where the Manifest of an engine stands: `MODEL.engine.json` beside `MODEL.engine`."""
    return engine.with_name(f"{engine.name}.json")


def engine_manifest(engine: Path) -> tuple[str, Manifest, EngineFacts]:
    """Return the Manifest beside an engine, as text and read, and its facts; nothing of the engine itself is opened."""
    path = manifest_path(engine)
    again = f"Copy it from where the engine was built, or {build_command(engine)}"
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        text = data.decode("utf-8") if len(data) <= _LARGEST else ""
    except FileNotFoundError as error:
        raise InputError(f"{engine}: its Manifest {path.name} is not beside it. {again}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}). {again}.") from error
    try:
        manifest = Manifest.from_json(text)
    except InputError as error:
        raise InputError(f"{path}: {error} {again}.") from error
    if manifest.engine is None:
        raise InputError(f"{path}: is the Manifest of no engine. {again}.")
    return text, manifest, manifest.engine


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def build_command(engine: Path, *options: str) -> str:
    """Return "build it again: COMMAND" for an engine."""
    argv = ["python", "export/to_trt.py", engine.with_suffix(".onnx").name, "-o", engine.name, *options, "--overwrite"]
    return f"build it again: {shlex.join(argv)}"


def rebuild_command(engine: Path, facts: EngineFacts, *, flavour: str | None = None, add_target: str = "") -> str:
    """Return "build it again: COMMAND" with the options that make the same engine for this machine.

    Another `flavour` may be named, and a compute capability to build for too.
    """
    flavour = flavour or facts.flavour
    shapes = [f"{batch}x{width}x{height}" for batch, height, width in facts.shapes]
    options = ["--flavour", flavour, "--shapes", shapes[0] if len(set(shapes)) == 1 else ",".join(shapes)]
    if flavour == "rtx" and facts.flavour == "rtx":
        targets = {*facts.targets, *([add_target] if add_target else [])}
        ordered = sorted(targets, key=lambda target: int(target) if target.isdigit() else 0)
        options += ["--targets", ",".join(ordered)] if ordered else []
    elif flavour == facts.flavour:
        known = facts.hardware_compatible in HARDWARE_LEVELS
        options += ["--hardware-compatible", facts.hardware_compatible] if known else []
        options += ["--version-compatible"] if facts.version_compatible else []
    return build_command(engine, *options)


_AMPERE = (8, 0)
_READS_OLDER = {11: (10, 11), 10: (8, 10)}
"""Major versions of version-compatible engines that a major version of TensorRT takes."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """Where an engine is to run: flavour and version of the library, operating system and processor, GPU."""

    flavour: str
    version: str
    platform: str
    gpu: CudaDevice


def check_bytes(path: Path, facts: EngineFacts, sha256: str) -> None:
    """Raise `InputError` unless the engine is the file its Manifest was written for."""
    if sha256 != facts.sha256:
        raise InputError(
            f"{path}: its SHA-256 is {sha256[:12]}…, its Manifest was written for {facts.sha256[:12] or 'none'}…: the "
            f"two files do not belong together, or one was changed. Copy both again, or {build_command(path)}."
        )


def check_flavour(path: Path, facts: EngineFacts, flavour: str) -> None:
    """Raise `DeviceError` unless the engine is of a flavour."""
    if facts.flavour != flavour:
        raise DeviceError(
            f"{path}: was built by {TITLES[facts.flavour]}, which {TITLES[flavour]} does not open. Leave --backend "
            f"out, or {rebuild_command(path, facts, flavour=flavour)}."
        )


def check_parity(path: Path, manifest: Manifest, gpu: CudaDevice | None, *, allow_unverified: bool) -> None:
    """Raise `InputError` for an engine whose chain back to the checkpoint is not proved on a GPU like this.

    Without a GPU it runs elsewhere, and must be proved on some; `allow_unverified` lets it pass all the same.
    """
    facts = manifest.engine
    assert facts is not None
    if allow_unverified:
        return
    if facts.parity is None or (gpu is not None and facts.proved_on != gpu.compute_capability):
        where = (
            "an unknown GPU" if facts.proved_on is None else "compute capability {}.{} alone".format(*facts.proved_on)
        )
        lacking = "was built without a GPU" if facts.parity is None else f"was compared on {where}"
        proof = f"python export/to_trt.py {path.with_suffix('.onnx')} --verify {path}"
        raise InputError(
            f"{path}: {lacking}, and nothing proves yet that it computes here what its ONNX file does. Prove it: "
            f"{proof}; or pass --allow-unverified."
        )
    if manifest.parity is None:
        raise InputError(
            f"{path}: its ONNX file was never compared with the checkpoint. Export that again with export/to_onnx.py "
            "and build from it; or pass --allow-unverified."
        )


def check_host(path: Path, facts: EngineFacts, host: Host) -> None:
    """Raise `DeviceError` unless the engine runs on this library, platform and GPU."""
    check_flavour(path, facts, host.flavour)
    _check_version(path, facts, host)
    built, here = facts.platform, host.platform
    if facts.flavour == "rtx":  # its engines run on Windows and Linux alike
        built, here = built.partition("_")[2], here.partition("_")[2]
    if built != here:
        raise DeviceError(
            f"{path}: was built for {facts.platform or 'an unknown platform'}, this is {host.platform}. Here, "
            f"{rebuild_command(path, facts)}."
        )
    _check_gpu(path, facts, host.gpu)


def _check_version(path: Path, facts: EngineFacts, host: Host) -> None:
    """An engine is for the very release that built it, or a later one where it was built for that."""
    if facts.version == host.version:
        return
    built, here = (
        tuple(map(int, takewhile(str.isdigit, version.split(".")))) for version in (facts.version, host.version)
    )
    title = TITLES[facts.flavour]
    if facts.flavour == "tensorrt" and facts.version_compatible:
        if built and here and here >= built and built[0] in _READS_OLDER.get(here[0], (here[0],)):
            return
        kind = f"{title} {facts.version} for later releases of {built[0] if built else 'it'}"
    else:
        kind = f"{title} {facts.version}, and for that release alone"
    raise DeviceError(
        f"{path}: was built by {kind}; here is {host.version}. Install {facts.version}, or "
        f"{rebuild_command(path, facts)}."
    )


def _check_gpu(path: Path, facts: EngineFacts, gpu: CudaDevice) -> None:
    """An engine for RTX runs on its targets, a classic one on the GPU model that built it or as far as it was to."""
    here = "{}{}".format(*gpu.compute_capability)
    if facts.flavour == "rtx":
        if here not in facts.targets:
            raise DeviceError(
                f"{path}: was built for compute capability {', '.join(facts.targets) or 'none'}, and {gpu} is none of "
                f"them. With this GPU among the targets, {rebuild_command(path, facts, add_target=here)}."
            )
        return
    built = "another" if facts.compute_capability is None else "{}.{}".format(*facts.compute_capability)
    if facts.hardware_compatible == "ampere_plus":
        fits, reach = gpu.compute_capability >= _AMPERE, "GPUs from Ampere on (compute capability 8.0)"
    elif facts.hardware_compatible == "same_compute_capability":
        fits, reach = gpu.compute_capability == facts.compute_capability, f"compute capability {built}"
    else:
        fits = (gpu.name, gpu.compute_capability) == (facts.gpu, facts.compute_capability)
        reach = f"{facts.gpu or 'an unnamed GPU'} (compute capability {built}) alone"
    if not fits:
        raise DeviceError(f"{path}: was built for {reach}; here is {gpu}. Here, {rebuild_command(path, facts)}.")
