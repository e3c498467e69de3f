"""From an ONNX file's bytes to an engine's: one strongly typed build that shows where it stands and can be stopped.

Precision is the ONNX file's: no builder flag asks for any. The build runs on a thread of its own, so that Ctrl-C
reaches the main one, which then has the builder stop at its next step.
"""

import functools
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from lsr_infer.errors import DeviceError, InputError
from lsr_infer.io.atomic import write_bytes
from lsr_infer.system.cuda import CudaDevice
from lsr_infer.tensorrt.flavour import Library
from lsr_infer.tensorrt.progress import BuildProgress, monitor
from lsr_infer.tensorrt.types import network_types, working_types

__all__ = ["BuildOptions", "Builder", "Built", "Shapes", "build_engine", "make_logger"]

logger = logging.getLogger(__name__)

Shapes = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]
"""(batch, height, width) at least, at best and at most."""

Check = Callable[[Mapping[str, int]], None]

_POLL_SECONDS = 0.1
_INPUT = "image"


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How an engine is built.

    Args:
        shapes: the shapes it takes; it is fastest at the best.
        workspace_mb: scratch memory a layer may use, in MiB; None leaves it to the library.
        hardware_compatible: one of `lsr_infer.engine_record.HARDWARE_LEVELS`, or empty: for the GPU at hand alone.
        version_compatible: later releases shall open it too.
        timing_cache: file of measured times, read where it is there and written afterwards; None: no such file.
        targets: compute capabilities to build for ahead of time.
        optimization_level: 0..5, how long to look for faster kernels; None leaves it to the library.
        tf32: float32 convolutions may round their factors to 10 bits.
    """

    shapes: Shapes
    workspace_mb: int | None = None
    hardware_compatible: str = ""
    version_compatible: bool = False
    timing_cache: Path | None = None
    targets: tuple[str, ...] = ()
    optimization_level: int | None = None
    tf32: bool = False


@dataclass(frozen=True, kw_only=True)
class Builder:
    """What builds engines.

    Args:
        library: the installed library.
        options: how it is told to build.
        gpu: the GPU to build and run on; None builds ahead of time.
    """

    library: Library
    options: BuildOptions
    gpu: CudaDevice | None = None


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a build gave.

    Args:
        plan: the engine's bytes.
        types: layers of the parsed network by the type of their outputs.
        working: its convolutions and products by the type they compute in.
    """

    plan: bytes
    types: dict[str, int] = field(default_factory=dict)
    working: dict[str, int] = field(default_factory=dict)


def build_engine(
    builder: Builder, model: bytes, *, progress: BuildProgress | None = None, check: Check | None = None
) -> Built:
    """Build an engine.

    Args:
        builder: what to build with.
        model: the ONNX file's bytes, weights included.
        progress: told where the build stands; cancelling it stops the build.
        check: called with the types the parsed network works in, before the work; may raise.

    Raises:
        InputError: the library cannot read the model.
        DeviceError: the build failed.
        KeyboardInterrupt: it was stopped, by Ctrl-C or through `progress`.
    """
    progress = progress or BuildProgress()
    outcome: list[Built | BaseException] = []

    def work() -> None:
        try:
            if builder.gpu is not None:
                from lsr_infer.tensorrt.runner import use_device

                use_device(builder.gpu)
            outcome.append(_build(builder, model, progress, check))
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            outcome.append(error)

    thread = threading.Thread(target=work, name="engine build")
    with _signals_cancel(progress):
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            progress.again()
    (result,) = outcome
    if progress.cancelled:
        raise KeyboardInterrupt
    if isinstance(result, BaseException):
        raise result
    return result


@contextmanager
def _signals_cancel(progress: BuildProgress) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM cancel a build instead of raising in the midst of it; other threads hear no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def cancel(number: int, frame: FrameType | None) -> None:
        if not progress.cancelled:
            logger.info("interrupted: the builder stops at its next step")
        progress.cancel()

    before = {number: signal.signal(number, cancel) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _build(builder: Builder, model: bytes, progress: BuildProgress, check: Check | None) -> Built:
    """Parse and build on this thread."""
    library, options = builder.library, builder.options
    trt = library.module
    log = make_logger(trt)
    maker = trt.Builder(log)
    network = maker.create_network(library.network_flags())
    library.check_strongly_typed(network)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        raise InputError(f"{library.title} cannot read the ONNX file: {_parser_errors(parser)}")
    working = working_types(network)
    if check is not None:
        check(working)
    config, kept = _configure(library, maker, options, progress)
    types = network_types(network)
    plan = maker.build_serialized_network(network, config)
    if plan is None:
        if progress.cancelled:
            raise KeyboardInterrupt
        raise DeviceError(f"{library.title} could not build the engine: {log.last_error or 'it gives no reason'}.")
    if options.timing_cache is not None:
        try:
            write_bytes(options.timing_cache, bytes(config.get_timing_cache().serialize()))
        except InputError as error:  # it only makes the next build faster
            logger.warning("the timing cache is not kept: %s", error)
    del kept  # a builder does not keep what its configuration points to
    return Built(plan=bytes(plan), types=types, working=working)


def _configure(library: Library, maker: Any, options: BuildOptions, progress: BuildProgress) -> tuple[Any, list[Any]]:
    """Return a builder's configuration, and the objects that have to live as long as it."""
    trt = library.module
    config = maker.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # without it the built types cannot be read back
    watching = monitor(trt, progress)
    config.progress_monitor = watching
    profile = maker.create_optimization_profile()
    profile.set_shape(_INPUT, *((batch, height, width, 3) for batch, height, width in options.shapes))
    if config.add_optimization_profile(profile) < 0:
        raise InputError(f"{library.title} takes no shapes {options.shapes} for {_INPUT!r}. Choose other --shapes.")
    kept: list[Any] = [watching, profile]
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if hasattr(trt.BuilderFlag, "TF32") and not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        level = getattr(trt.HardwareCompatibilityLevel, options.hardware_compatible.upper())
        config.hardware_compatibility_level = level
    if options.targets:
        config.num_compute_capabilities = len(options.targets)
        for index, target in enumerate(options.targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{target}"), index)
    if options.timing_cache is not None:
        kept.append(_load_timing_cache(config, options.timing_cache))
    return config, kept


def _load_timing_cache(config: Any, path: Path) -> Any:
    """Attach a timing cache; one of another GPU or version is left aside with a word."""
    stored = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(stored)
    if cache is not None and config.set_timing_cache(cache, False):
        return cache
    logger.warning("%s: is the timing cache of another GPU or version and starts anew", path)
    cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, False)
    return cache


def _parser_errors(parser: Any) -> str:
    """Return the first error of a parser and how many there are."""
    count = parser.num_errors
    if not count:
        return "it gives no reason."
    first = parser.get_error(0)
    node = (
        f"{first.node_name() or '?'} ({first.node_operator()})"
        if hasattr(first, "node_operator")
        else first.node_name()
    )
    more = f" ({count - 1} more)" if count > 1 else ""
    return f"{' '.join(first.desc().split())[:300].rstrip('.')}, at node {node}{more}."


def make_logger(module: Any) -> Any:
    """Return the ILogger of a library, which hands its words to `logging` and remembers the last error.

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
