"""Loads TensorRT 10, TensorRT 11 or TensorRT for RTX, and settles in what they differ.

That is how a network becomes strongly typed, and which options there are.
"""

import functools
import importlib
import logging
import platform
import re
import sys
from dataclasses import dataclass
from typing import Any

from lsr_infer.errors import DeviceError, UsageError, extra
from lsr_infer.system.cuda import CudaProbe

__all__ = ["BACKEND_NAMES", "TITLES", "Library", "load_library", "make_logger", "platform_name", "resolve_flavour"]

logger = logging.getLogger(__name__)

_MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
_EXTRAS = {"tensorrt": "trt", "rtx": "trt-rtx"}
TITLES = {"tensorrt": "TensorRT", "rtx": "TensorRT for RTX"}
"""Names of the flavours, for messages."""

BACKEND_NAMES = {"tensorrt": "tensorrt", "rtx": "tensorrt-rtx"}
"""The backend that runs an engine, by flavour."""

_OLDEST = {"tensorrt": 10, "rtx": 1}
_NOT_AMONG_DEFAULTS = "75"  # Turing makes an engine for several GPUs slower on the others, so it has to be named


@dataclass(frozen=True, kw_only=True)
class Library:
    """An installed library: its flavour, the imported module and its whole version."""

    flavour: str
    module: Any
    version: str

    @property
    def title(self) -> str:
        """Its name and version, for messages."""
        return f"{TITLES[self.flavour]} {self.version}"

    @property
    def major(self) -> int:
        """First number of the version."""
        return int(self.version.partition(".")[0])

    def network_flags(self) -> int:
        """Return the flags that make a new network strongly typed: TensorRT 10 has to be told."""
        if self.flavour == "tensorrt" and self.major == 10:
            return 1 << int(self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return 0

    def check_strongly_typed(self, network: Any) -> None:
        """Raise `DeviceError` unless a network takes its types from the ONNX file alone."""
        flag = getattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        if flag is not None and not network.get_flag(flag):
            raise DeviceError(f"{self.title} made a network that is not strongly typed. Use TensorRT 10 or newer.")

    def all_targets(self) -> tuple[str, ...]:
        """Return the compute capabilities that can be built for ahead of time, such as ("75", "80")."""
        members = getattr(getattr(self.module, "ComputeCapability", None), "__members__", {})
        return tuple(sorted((name[2:] for name in members if re.fullmatch(r"SM\d+", name)), key=int))

    def targets(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        """Return the compute capabilities to build for ahead of time: those asked for, else all but Turing's."""
        if self.flavour != "rtx":
            if asked:
                raise UsageError("--targets is for --flavour rtx; TensorRT builds for the GPU that is there.")
            return ()
        known = self.all_targets()
        unknown = [target for target in asked if target not in known]
        if unknown:
            names = ", ".join(unknown)
            raise UsageError(f"--targets: {self.title} does not build for {names}; known: {', '.join(known)}.")
        return tuple(sorted(set(asked), key=int)) or tuple(one for one in known if one != _NOT_AMONG_DEFAULTS)

    def check_options(self, *, hardware_compatible: str, version_compatible: bool, timing_cache: bool) -> None:
        """Raise where an option is asked for that this flavour (`UsageError`) or version (`DeviceError`) has not."""
        if self.flavour == "rtx":
            for asked, flag, instead in (
                (hardware_compatible, "--hardware-compatible", "its engines run on every GPU named by --targets"),
                (version_compatible, "--version-compatible", "its engines run on the release that built them alone"),
                (timing_cache, "--timing-cache", "it times nothing while it builds; kernels are compiled on the GPU"),
            ):
                if asked:
                    raise UsageError(f"{flag} is not for TensorRT for RTX: {instead}. Leave it out.")
        if hardware_compatible and not hasattr(self.module.HardwareCompatibilityLevel, hardware_compatible.upper()):
            raise DeviceError(
                f"{self.title} has no hardware compatibility level {hardware_compatible}. Choose another."
            )


def load_library(flavour: str) -> Library:
    """Import a flavour's library; `DeviceError` where it is not installed, cannot be loaded, or is too old."""
    try:
        module = importlib.import_module(_MODULES[flavour])
        version = str(module.__version__)
    except (ImportError, OSError, AttributeError) as error:
        raise DeviceError(f"{TITLES[flavour]} cannot be loaded ({error}). {extra(_EXTRAS[flavour])}") from error
    library = Library(flavour=flavour, module=module, version=version)
    oldest = _OLDEST[flavour]
    if library.major < oldest:
        raise DeviceError(f"{library.title} is too old; needed: {oldest} or newer. {extra(_EXTRAS[flavour])}")
    return library


def resolve_flavour(asked: str, probe: CudaProbe) -> Library:
    """Return the library to build with; `auto` takes TensorRT where it and a GPU are there, else TensorRT for RTX."""
    if asked != "auto":
        library = load_library(asked)
        if asked == "tensorrt" and not probe.devices:
            raise DeviceError(
                f"{library.title} builds for the GPU it runs on, and {probe.reason}. Build on the target, or ahead of "
                "time with --flavour rtx."
            )
        return library
    reason = probe.reason
    if probe.devices:
        try:
            library = load_library("tensorrt")
            logger.info("--flavour auto takes %s: it is installed, and there is %s", library.title, probe.devices[0])
            return library
        except DeviceError as error:
            reason = str(error).rstrip(".")
    try:
        library = load_library("rtx")
    except DeviceError as error:
        raise DeviceError(f"{reason}; {error}") from error
    logger.info("--flavour auto takes %s: %s", library.title, reason)
    return library


def platform_name() -> str:
    """Name the operating system and the processor, such as `linux_x86_64`."""
    machine = platform.machine().lower()
    system = "windows" if sys.platform == "win32" else sys.platform
    return f"{system}_{ {'amd64': 'x86_64', 'arm64': 'aarch64'}.get(machine, machine) }"


def make_logger(module: Any) -> Any:
    """Return the ILogger of a library, which passes its messages to `logging` and remembers the last error.

    A process has one: the library keeps the first that it is given, and ignores the others. Its warnings are shown once
    each; the rest is kept for `logging.DEBUG`.
    """
    log = _logger_of(module.ILogger)
    log.last_error = ""
    return log


@functools.cache
def _logger_of(base: Any) -> Any:
    severity = base.Severity
    seen: set[str] = set()

    def initialise(self: Any) -> None:
        base.__init__(self)
        self.last_error = ""

    def log(self: Any, level: Any, message: str) -> None:
        text = " ".join(str(message).split())
        if level in (severity.INTERNAL_ERROR, severity.ERROR):
            self.last_error = text[:400].rstrip(".")
        if level == severity.WARNING and text not in seen:
            seen.add(text)
            logger.warning("%s", text[:400])
        else:
            logger.debug("%s", text)

    return type("Logger", (base,), {"__init__": initialise, "log": log})()
