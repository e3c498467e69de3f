"""Runs trainings in separate processes over devices, each as soon as what it waits for is done.

Whatever a task ends in, the others continue; an interruption asks every process to stop and waits for it.
"""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from filelock import AcquireReturnProxy, FileLock, Timeout

from lsr_infer.errors import InputError, LsrError, UsageError
from lsr_infer.io.files import check_output_folder, output_path_error, writing
from lsr_infer.io.temporary import discard
from lsr_infer.system.process import usable_cores
from lsr_train.comparison.activity import Activity
from lsr_train.comparison.matrix import Training
from lsr_train.config.fields import field_of, with_fields
from lsr_train.config.recipes import read_config, to_yaml
from lsr_train.config.run import Config
from lsr_train.device import choose_device, choose_precision
from lsr_train.runs.folder import RunFolder
from lsr_train.runs.matching import differing, is_finished

__all__ = [
    "SUCCESS", "Busy", "Diverged", "LocalWorkers", "Processes", "ScheduledTask", "Slot", "Workers", "acquire",
    "activity_of", "available_slots", "device_slots", "is_locked", "run_tasks", "train_on", "train_run",
]  # fmt: skip

logger = logging.getLogger(__name__)

SUCCESS = (0, 6)
"""Exit codes of a command that did its work."""
_DIVERGED = 5
_INTERRUPTED = 130
_RETRY_SECONDS = 1.0  # after which a task is tried again that another process is working on
_PATHS = ("init", "data.source.root", "data.target.root", "data.labelled.root", "network.weights", "label_space")


class Busy(Exception):  # noqa: N818 - no error: another process does it
    """Another process is working on a task."""


class Diverged(Exception):  # noqa: N818 - a result of a run, which a table shows
    """A loss was not finite."""


# -- locks ----------------------------------------------------------------------------------------------------------


def acquire(path: Path, *, blocking: bool = False) -> AcquireReturnProxy[Any]:
    """Hold a lock file for a `with` block; the system lets go of it however a process ends.

    Raises:
        Busy: another process, or another lock of this one, holds it.
        InputError: it cannot be written, or its file system has no locks.
    """
    try:
        return FileLock(path, thread_local=False).acquire(blocking=blocking)
    except Timeout as error:
        raise Busy from error
    except (OSError, NotImplementedError) as error:
        raise output_path_error(path, error if isinstance(error, OSError) else OSError(str(error))) from error


def is_locked(path: Path) -> bool:
    """Whether another process holds a lock; False where there is no such file."""
    if not path.is_file():
        return False
    try:
        acquire(path).lock.release()
    except Busy:
        return True
    return False


# -- devices and processes ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A device (as `train.device` calls it) that runs one task at a time, and variables of the processes there."""

    device: str
    environment: Mapping[str, str] = field(default_factory=dict)


def device_slots(devices: Sequence[str], environment: Mapping[str, str]) -> list[Slot]:
    """Turn names of devices into as many slots; several on the CPU divide its cores among themselves.

    Args:
        devices: `auto`, `cpu`, `cuda` or `cuda:N` each; a name that comes twice runs two tasks at a time.
        environment: of this process: which GPUs it sees, and how many threads it is told to use.
    """
    if not devices:
        raise UsageError("devices is empty; allowed: auto, cpu, cuda, cuda:N. Set --devices.")
    cpus = sum(name == "cpu" for name in devices)
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    slots = []
    for name in devices:
        kind, colon, number = name.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and number.isdecimal())):
            raise UsageError(f"devices has {name!r}; allowed: auto, cpu, cuda, cuda:N. Set --devices.")
        if colon and visible and int(number) >= len(visible):
            raise UsageError(f"devices has {name}, and CUDA_VISIBLE_DEVICES shows {len(visible)}. Set --devices.")
        variables: dict[str, str] = {}
        if colon:
            variables["CUDA_VISIBLE_DEVICES"] = visible[int(number)] if visible else number
        elif kind == "cpu" and cpus > 1:
            threads = str(max(1, usable_cores() // cpus))
            variables = {name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name not in environment}
        slots.append(Slot(device=kind, environment=variables))
    return slots


def available_slots(devices: Sequence[str]) -> list[Slot]:
    """Return the slots of devices; raises `DeviceError` where one is not there."""
    slots = device_slots(devices, os.environ)
    for name in devices:
        choose_device(name, "auto")
    return slots


@dataclass(frozen=True, kw_only=True)
class ProcessResult:
    """Exit code of the first command that failed, or of all, and the last error message, else the last line."""

    code: int
    error: str


class Processes:
    """The processes that are running and what they do, so that all of them can be followed, and asked to stop."""

    def __init__(self) -> None:
        self._running: dict[subprocess.Popen[bytes], Activity] = {}
        self._lock = threading.Lock()
        self.stopping = False

    def activities(self) -> list[Activity]:
        """Return what is done at the moment."""
        with self._lock:
            return list(self._running.values())

    def run(self, commands: Sequence[Sequence[str]], slot: Slot, activity: Activity) -> ProcessResult:
        """Run commands of `lsr_train`, lists of arguments, one after the other in one process; appends to the log."""
        log = activity.log
        with writing(log):
            file = log.open("a", encoding="utf-8")
        with file:
            start = file.tell()
            file.writelines(f"$ python -m lsr_train {' '.join(arguments)}\n" for arguments in commands)
            file.flush()
            with self._lock:
                if self.stopping:
                    return ProcessResult(code=_INTERRUPTED, error="interrupted")
                # in a group of its own: Ctrl-C reaches this process, which asks once; a second signal would kill it
                process = subprocess.Popen(
                    [sys.executable, "-m", "lsr_train.commands.child"],
                    stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True,
                    env={**os.environ, **slot.environment},
                )  # fmt: skip
                self._running[process] = activity
            assert process.stdin is not None
            try:
                with suppress(BrokenPipeError):  # it ended at once; its code says why
                    process.stdin.write(json.dumps([list(arguments) for arguments in commands]).encode() + b"\n")
                    process.stdin.flush()
                code = process.wait()
            finally:
                with self._lock:
                    self._running.pop(process)
                with suppress(BrokenPipeError):
                    process.stdin.close()
        return ProcessResult(code=code, error=_last_error(log.read_bytes()[start:]))

    def stop(self) -> None:
        """Ask every process to stop after its step, and let none start."""
        with self._lock:
            self.stopping = True
            for process in self._running:
                process.terminate()  # SIGINT may be one that this process was told to ignore, and its children with it


def _last_error(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1].removeprefix("error: ") if errors else (lines[-1] if lines else "no output")


# -- tasks ----------------------------------------------------------------------------------------------------------

T = TypeVar("T")


class Workers(Protocol):
    """Does work on devices; threads may call `do` at once, and the work waits for a device."""

    count: int  # how much is done at a time

    @property
    def stopping(self) -> bool:
        """Whether nothing shall start any more."""

    def activities(self) -> Collection[Activity]:
        """Return what is done at the moment."""

    def do(self, work: Callable[[Slot, Processes], T], activity: Activity) -> T:
        """Return the result of work in a slot, which starts its processes with those it is handed, or raise as it."""

    def stop(self) -> None:
        """Ask all work that is done to end, and let none start."""


class LocalWorkers:
    """Does work in the slots of this machine."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.count = len(slots)
        self._processes = Processes()
        self._idle = SimpleQueue[Slot]()
        for slot in slots:
            self._idle.put(slot)

    @property
    def stopping(self) -> bool:
        """See `Workers`."""
        return self._processes.stopping

    def activities(self) -> Collection[Activity]:
        """See `Workers`."""
        return self._processes.activities()

    def do(self, work: Callable[[Slot, Processes], T], activity: Activity) -> T:
        """See `Workers`; its processes say by themselves what they do."""
        slot = self._idle.get()
        try:
            return work(slot, self._processes)
        finally:
            self._idle.put(slot)

    def stop(self) -> None:
        """See `Workers`; trainings end after their step."""
        self._processes.stop()


@dataclass(frozen=True, eq=False, kw_only=True)
class ScheduledTask:
    """Something to be done; what `work` raises is its failure, but for `Busy`: it is tried again behind the others."""

    name: str
    work: Callable[[], object]
    after: "ScheduledTask | None" = None  # what has to be done before


def run_tasks(
    tasks: Sequence[ScheduledTask], workers: Workers, failed: Callable[[ScheduledTask, Exception | None], None]
) -> None:
    """Do all tasks, those that wait for another as soon as it is done, and the others in their order.

    Args:
        tasks: what is to be done; each waits for a worker by itself.
        workers: asked to stop where this is interrupted.
        failed: called for every task that failed, with what it raised; None where what it waits for has failed.
    """
    running: dict[Future[object], ScheduledTask] = {}
    busy: set[ScheduledTask] = set()

    def start(after: ScheduledTask | None) -> None:
        running.update({pool.submit(_attempt, task): task for task in tasks if task.after is after})

    def fail(task: ScheduledTask, error: Exception | None) -> None:
        if error is not None and not isinstance(error, LsrError | Diverged):
            logger.error("%s", task.name, exc_info=error)
        failed(task, error)
        for other in tasks:
            if other.after is task:
                fail(other, None)

    with ThreadPoolExecutor(workers.count) as pool:
        try:
            start(None)
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    task, error = running.pop(future), future.exception()
                    if error is None:
                        start(task)
                    elif isinstance(error, Busy):
                        if task not in busy:
                            logger.info("%s: another process is working on it", task.name)
                        busy.add(task)
                        running[pool.submit(_attempt, task)] = task
                    elif isinstance(error, Exception):
                        fail(task, error)
                    else:
                        raise error
        except KeyboardInterrupt:
            workers.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _attempt(task: ScheduledTask) -> object:
    """Do a task; where another process is working on it, say so after a while."""
    try:
        return task.work()
    except Busy:
        time.sleep(_RETRY_SECONDS)
        raise


# -- one training ---------------------------------------------------------------------------------------------------


def activity_of(training: Training) -> Activity:
    """Return what a process does that trains."""
    log = training.folder.with_name(f"{training.folder.name}.log")
    return Activity(name=training.name, log=log, folder=training.folder, steps=training.config.train.steps)


def train_on(workers: Workers, training: Training) -> int:
    """Have workers start or resume a training; returns and raises as `train_run`."""
    return workers.do(partial(train_run, training), activity_of(training))


def train_run(training: Training, slot: Slot, processes: Processes) -> int:
    """Start or resume a training, skip a finished one; returns 0, or 6 where unusable files were left out.

    Raises:
        Busy: another process is working on it.
        InputError: its folder is damaged or another run's, or the training failed.
        Diverged: a loss was not finite.
    """
    folder = training.folder
    check_output_folder(folder.parent)
    with acquire(folder.with_name(f".{folder.name}.lock")):
        if is_locked(folder / ".lock"):  # the process of a killed command, for an instant, or who resumed it by hand
            raise Busy
        activity = activity_of(training)
        if _has_content(folder) and _is_without_checkpoint(training):
            discard(folder)  # of other settings, and nothing in it that could be missed
        if _has_content(folder):
            _check(training)
            if is_finished(folder):
                return 0
            logger.info("%s resumed, its log is %s", training.name, activity.log)
        else:
            config = _on_device(training, slot)
            RunFolder.create(folder, to_yaml(config)).close()
            shown = training.name, config.method, activity.steps, activity.log
            logger.info("%s started: %s, %d steps, its log is %s", *shown)
        result = processes.run([[training.command, "--resume", str(folder)]], slot, activity)
    if result.code == _DIVERGED:
        raise Diverged(result.error)
    if result.code not in SUCCESS:
        raise InputError(f"{result.error} (exit {result.code}; {activity.log})")
    return result.code


def _has_content(folder: Path) -> bool:
    """Whether there is more in a folder than the lock that an early kill left."""
    return folder.exists() and (not folder.is_dir() or any(not item.name.startswith(".") for item in folder.iterdir()))


def _is_without_checkpoint(training: Training) -> bool:
    """Whether a run folder is one of other settings in which no step was ever kept."""
    folder = training.folder
    if not (folder / "config.yaml").is_file() or any((folder / "checkpoints").glob("step-*")):
        return False
    try:
        _check(training)
    except InputError:
        return True
    return False


def _on_device(training: Training, slot: Slot) -> Config:
    """Return a configuration with the slot's device, and the precision that `auto` is there."""
    train = training.config.train
    name = slot.device if slot.device != "auto" else train.device
    device = choose_device(name, train.precision, prefix="train.")
    precision = choose_precision(device, train.precision)
    return with_fields(training.config, {"train.device": device.type, "train.precision": precision})


def _check(training: Training) -> None:
    """Raise `InputError` unless a folder holds this very run, on whatever device it was started."""
    file = training.folder / "config.yaml"
    if not file.is_file():
        raise InputError(f"{training.folder}: this is no run (no config.yaml in it). Move it away.")
    theirs = read_config(file)
    device = {"train.device": theirs.train.device}
    if training.config.train.precision == "auto":
        device["train.precision"] = theirs.train.precision
    others = differing(_resolved(with_fields(training.config, device)), _resolved(theirs))
    if others:
        shown = ", ".join(others[:3])
        raise InputError(f"{training.folder} is another run: {shown}. Move it away, or choose another --out.")


def _resolved(config: Config) -> Config:
    """Return a configuration with whole paths."""

    def whole(text: str) -> str:
        return str(Path(text).resolve()) if text and Path(text).exists() else text

    more = tuple(replace(source, root=whole(source.root)) for source in config.data.more_sources)
    return with_fields(
        config, {"data.more_sources": more, **{name: whole(str(field_of(config, name))) for name in _PATHS}}
    )
