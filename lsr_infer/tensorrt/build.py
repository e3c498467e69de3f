"""Builds engines from ONNX files: one strongly typed build that shows its progress and can be stopped.

Precision is the ONNX file's: no builder flag asks for any. The build runs on a thread of its own, so that Ctrl-C
reaches the main one, which then has the builder stop at its next step.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from lsr_infer.errors import DeviceError, InputError
from lsr_infer.io.files import write_bytes
from lsr_infer.system.cuda import CudaDevice
from lsr_infer.system.progress import Progress
from lsr_infer.tensorrt.flavour import Library, make_logger
from lsr_infer.tensorrt.runner import use_device
from lsr_infer.tensorrt.types import network_types, working_types

__all__ = ["BuildOptions", "BuildProgress", "Builder", "Built", "Shapes", "build_engine", "terminal_progress"]

logger = logging.getLogger(__name__)

Show = Callable[[float, str], None]


@dataclass
class _Phase:
    name: str
    parent: str | None
    steps: int
    done: int = 0


class BuildProgress:
    """The phases of one build; every method may be called from any thread.

    `show` is called with the share done, 0..1 and never falling, and the name of the innermost phase. No exception may
    pass through the builder, so one of its own stops the build.
    """

    def __init__(self, show: Show | None = None) -> None:
        self._show = show or (lambda share, name: None)
        self._lock = threading.Lock()
        self._phases: list[_Phase] = []
        self._share = 0.0
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether the build was asked to stop."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask the builder to stop at its next step."""
        self._cancelled.set()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Note that a phase starts."""
        with self._lock:
            self._phases.append(_Phase(name, parent, max(1, steps)))
            self._tell()

    def step(self, name: str) -> bool:
        """Note that a step of a phase is done; return whether to continue."""
        with self._lock:
            phase = self._phase(name)
            if phase is not None:
                phase.done = min(phase.done + 1, phase.steps)
            self._tell()
        return not self.cancelled

    def finish(self, name: str) -> None:
        """Note that a phase has ended."""
        with self._lock:
            phase = self._phase(name)
            if phase is not None:
                self._phases.remove(phase)
                if phase.parent is None and not self.cancelled:
                    self._share = 1.0
            self._tell()

    def _phase(self, name: str) -> _Phase | None:
        return next((phase for phase in reversed(self._phases) if phase.name == name), None)

    def _tell(self) -> None:
        roots = [phase for phase in self._phases if phase.parent is None]
        self._share = max(self._share, *(self._of(phase) for phase in roots), 0.0)
        try:
            self._show(self._share, self._phases[-1].name if self._phases else "")
        except Exception:
            if not self.cancelled:
                logger.exception("the progress of the build cannot be shown, so it stops")
            self.cancel()

    def _of(self, phase: _Phase) -> float:
        """Return the share of a phase that is done, its inner phases included."""
        inner = max((self._of(one) for one in self._phases if one.parent == phase.name and one is not phase), default=0)
        return min(1.0, (phase.done + min(inner, 0.999)) / phase.steps)


def monitor(module: Any, progress: BuildProgress) -> Any:
    """Return an IProgressMonitor of a library that reports to `progress`; it has to outlive the build."""
    members = {
        "__init__": lambda self: module.IProgressMonitor.__init__(self),
        "phase_start": lambda self, name, parent, steps: progress.start(name, parent, steps),
        "phase_finish": lambda self, name: progress.finish(name),
        "step_complete": lambda self, name, step: progress.step(name),
    }
    return type("Monitor", (module.IProgressMonitor,), members)()


@contextmanager
def terminal_progress() -> Iterator[BuildProgress]:
    """Give a `BuildProgress` that is shown while it lasts."""
    newest = (0.0, "")

    def show(share: float, name: str) -> None:
        nonlocal newest
        newest = 100 * share, name

    with Progress("building", 100, unit="%", look=lambda: newest):
        yield BuildProgress(show)


Shapes = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]
"""(batch, height, width) at least, at best and at most."""

Check = Callable[[Mapping[str, int]], None]

_POLL_SECONDS = 0.1
_INPUT = "image"


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How an engine is built; `to_trt.py --help all` says what each option means.

    Shapes are (batch, height, width) at least, at best and at most; None leaves a choice to the library.
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
    """What builds engines: the library, its options, and the GPU to build and run on; None builds ahead of time."""

    library: Library
    options: BuildOptions
    gpu: CudaDevice | None = None


@dataclass(frozen=True, kw_only=True)
class Built:
    """An engine's bytes, layers of its network by type of their outputs, and what its convolutions work in."""

    plan: bytes
    types: dict[str, int]
    working: dict[str, int]


def build_engine(
    builder: Builder, model: bytes, *, progress: BuildProgress | None = None, check: Check | None = None
) -> Built:
    """Build an engine from an ONNX file's bytes, weights included.

    `check` is called with the types the parsed network works in, before the work, and may raise. Raises `InputError`
    where the library cannot read the model, `DeviceError` where the build failed, `KeyboardInterrupt` where it was
    stopped.
    """
    progress = progress or BuildProgress()
    outcome: list[Built | BaseException] = []

    def work() -> None:
        try:
            if builder.gpu is not None:
                use_device(builder.gpu)
            outcome.append(_build(builder, model, progress, check))
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            outcome.append(error)

    thread = threading.Thread(target=work, name="engine build")
    with _signals_cancel(progress):
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
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
    config.progress_monitor = watching = monitor(trt, progress)
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
    """Attach a timing cache; one of another GPU or version is replaced, with a warning."""
    stored = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(stored)
    if cache is not None and config.set_timing_cache(cache, False):
        return cache
    logger.warning("%s: is the timing cache of another GPU or version and starts empty", path)
    cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, False)
    return cache


def _parser_errors(parser: Any) -> str:
    """Return the first error of a parser and how many there are."""
    count = parser.num_errors
    if not count:
        return "it gives no reason."
    first = parser.get_error(0)
    node = first.node_name()
    if hasattr(first, "node_operator"):
        node = f"{node or '?'} ({first.node_operator()})"
    more = f" ({count - 1} more)" if count > 1 else ""
    return f"{' '.join(first.desc().split())[:300].rstrip('.')}, at node {node}{more}."
