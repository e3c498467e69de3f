"""Runs trainings in processes of their own over devices, each as soon as what it waits for is done.

Whatever a run ends in, the others go on; an interruption asks every process to stop and waits for it.
"""

import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.paths import place_error
from lsr_train.comparison.matrix import Run
from lsr_train.comparison.options import TableOptions
from lsr_train.config.command_line import config_from_text
from lsr_train.config.fields import field_of, with_fields
from lsr_train.config.recipes import to_yaml
from lsr_train.config.run import Config
from lsr_train.device import choose_device, choose_precision
from lsr_train.runs.environment import available_cores
from lsr_train.runs.folder import RunFolder
from lsr_train.runs.matching import differing, is_finished

__all__ = [
    "GOOD",
    "Busy",
    "Children",
    "Diverged",
    "Job",
    "Slot",
    "checked_slots",
    "claim",
    "exclusive",
    "is_held",
    "last_error",
    "run_jobs",
    "said_so_far",
    "slots_of",
    "train_run",
]

logger = logging.getLogger(__name__)

_EVERY = 0.2
"""Seconds between two tries."""


def claim(path: Path) -> IO[str] | None:
    """Hold a file; the lock ends when what is returned is closed.

    Args:
        path: of the lock; its folder is there.

    Returns:
        None where another process, or another claim of this one, holds it.

    Raises:
        InputError: it cannot be written, or its file system has no locks.
    """
    try:
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise place_error(path, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        file.close()
        raise place_error(path, error) from error
    return file


def is_held(path: Path) -> bool:
    """Whether another process holds a lock; False where there is no such file."""
    if not path.is_file():
        return False
    file = claim(path)
    if file is not None:
        file.close()
    return file is None


@contextmanager
def exclusive(path: Path, give_up: Callable[[], bool], waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a file for a block, and wait for it.

    Args:
        path: of the lock; its folder is there.
        give_up: whether to wait no longer; then the block is entered without it.
        waiting: called once where it has to be waited for.

    Raises:
        InputError: it cannot be written.
    """
    file = claim(path)
    if file is None:
        waiting()
    while file is None and not give_up():
        time.sleep(_EVERY)
        file = claim(path)
    try:
        yield
    finally:
        if file is not None:
            file.close()


INTERRUPTED = 130
_RETRY = 1.0
"""Seconds after which a piece that another process is at is looked at again."""


class Busy(Exception):  # noqa: N818 - no error: the piece is in good hands
    """Another process is at a piece of work."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A place where one piece of work runs at a time.

    Args:
        device: `auto`, `cpu` or `cuda`, as `train.device` calls it.
        environment: of the processes that run there.
    """

    device: str
    environment: Mapping[str, str] = field(default_factory=dict)


def slots_of(devices: Sequence[str], environment: Mapping[str, str]) -> list[Slot]:
    """Turn names of devices into places to run at.

    Args:
        devices: `auto`, `cpu`, `cuda` or `cuda:N` each; a name that comes twice takes two pieces at a time.
        environment: of this process: which GPUs it sees, and how many threads it is told to use.

    Returns:
        As many places. Several on the CPU divide its cores among themselves.

    Raises:
        UsageError: a name is none of these, or there is none.
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
        own: dict[str, str] = {}
        if colon:
            own["CUDA_VISIBLE_DEVICES"] = visible[int(number)] if visible else number
        elif kind == "cpu" and cpus > 1:
            threads = str(max(1, available_cores() // cpus))
            own = {name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name not in environment}
        slots.append(Slot(device=kind, environment=own))
    return slots


class Children:
    """The processes that are running, so that all of them can be asked to stop."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.stopping = False

    def run(self, commands: Sequence[Sequence[str]], slot: Slot, log: Path) -> int:
        """Run commands of `lsr_train` one after the other in one process.

        Args:
            commands: words of each, from the command's name on.
            slot: where.
            log: takes what they say, after what is there.

        Returns:
            The exit code of the first that failed, or of all.

        Raises:
            InputError: the log cannot be written.
        """
        try:
            file = log.open("a", encoding="utf-8")
        except OSError as error:
            raise place_error(log, error) from error
        with file:
            for words in commands:
                file.write(f"$ python -m lsr_train {' '.join(words)}\n")
            file.flush()
            with self._lock:
                if self.stopping:
                    return INTERRUPTED
                # in a group of its own: Ctrl-C reaches this process, which asks once; a second signal would kill it
                process = subprocess.Popen(
                    [sys.executable, "-m", "lsr_train.commands.child"],
                    stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True,
                    env={**os.environ, **slot.environment},
                )  # fmt: skip
                self._running.add(process)
            assert process.stdin is not None
            try:
                with suppress(BrokenPipeError):  # it ended at once; its code says why
                    process.stdin.write(json.dumps([list(words) for words in commands]).encode() + b"\n")
                    process.stdin.flush()
                return process.wait()
            finally:
                with self._lock:
                    self._running.discard(process)
                with suppress(BrokenPipeError):
                    process.stdin.close()

    def stop(self) -> None:
        """Ask every process to stop after its step, and let none begin."""
        with self._lock:
            self.stopping = True
            for process in self._running:
                process.terminate()  # SIGINT may be one that this process was told to ignore, and its children with it


@dataclass(eq=False, kw_only=True)
class Job:
    """A piece of work.

    Args:
        name: for people.
        work: does it at a slot; what it raises is its failure, but for `Busy`, after which it is tried again.
        after: what has to be done before, None for nothing.
        state: what became of it.
        not_before: on the monotonic clock; set where another process was at it.
    """

    name: str
    work: Callable[[Slot], object]
    after: "Job | None" = None
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    not_before: float = 0.0

    @property
    def hopeless(self) -> bool:
        """Whether what it waits for has failed."""
        return self.after is not None and self.after.state == "failed"

    @property
    def ready(self) -> bool:
        """Whether it can begin."""
        return self.state == "waiting" and (self.after is None or self.after.state == "done")


def run_jobs(
    jobs: Sequence[Job], slots: Sequence[Slot], children: Children, failed: Callable[[Job, Exception | None], None]
) -> None:
    """Do all work, in its order where nothing has to wait.

    Args:
        jobs: what is to be done.
        slots: where; one piece at a time each.
        children: asked to stop where this is interrupted.
        failed: told of every piece that failed, with what it raised; None where what it waits for has failed.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after every process has stopped.
    """
    changed = threading.Condition()

    def settle(job: Job, error: Exception | None) -> None:
        job.state = "failed"
        failed(job, error)

    def take() -> Job | None:
        """Wait for a piece that can begin; None where there will be none any more."""
        with changed:
            while True:
                for job in jobs:
                    if job.state == "waiting" and job.hopeless:
                        settle(job, None)
                now = time.monotonic()
                found = next((job for job in jobs if job.ready and job.not_before <= now), None)
                if children.stopping or (found is None and all(job.state != "waiting" for job in jobs)):
                    return None
                if found is not None:
                    found.state = "running"
                    return found
                changed.wait(_RETRY if any(job.ready for job in jobs) else None)

    def serve(slot: Slot) -> None:
        """Do one piece after the other at a place."""
        while (job := take()) is not None:
            error: Exception | None = None
            try:
                job.work(slot)
            except Busy:
                with changed:
                    if not job.not_before:
                        logger.info("%s: another process is at it", job.name)
                    job.state, job.not_before = "waiting", time.monotonic() + _RETRY
                    changed.notify_all()
                continue
            except Exception as caught:  # noqa: BLE001 - whatever a piece raises is its own failure, and is reported
                error = caught
            with changed:
                if error is None:
                    job.state = "done"
                else:
                    settle(job, error)
                changed.notify_all()

    threads = [threading.Thread(target=serve, args=(slot,), daemon=True) for slot in slots]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(timeout=0.5)  # a join without end would not be woken by a signal
    except KeyboardInterrupt:
        children.stop()
        with changed:
            changed.notify_all()
        for thread in threads:
            thread.join()
        raise


_DIVERGED = 5
_PATHS = ("init", "data.source.root", "data.target.root", "network.weights", "label_space")
GOOD = (0, 6)
"""Exit codes of a command that did its work."""


class Diverged(Exception):  # noqa: N818 - an outcome of a run, which a table shows
    """A loss was not finite."""


def checked_slots(options: TableOptions) -> list[Slot]:
    """Return the places to run at.

    Raises:
        UsageError: a device is none, or there is none.
        DeviceError: a device is not there.
    """
    slots = slots_of(options.device_list, os.environ)
    for name in options.device_list:
        choose_device(name, "auto")
    return slots


def train_run(run: Run, slot: Slot, children: Children) -> int:
    """Train a run, or go on with it; nothing where it is finished.

    Args:
        run: what is trained.
        slot: where.
        children: the processes.

    Returns:
        0; 6 where unusable files were left out.

    Raises:
        Busy: another process is at it.
        InputError: its folder is damaged or another run's, or the training failed.
        Diverged: a loss was not finite.
    """
    try:
        run.folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise place_error(run.folder.parent, error) from error
    lock = claim(run.folder.with_name(f".{run.folder.name}.lock"))
    if lock is None:
        raise Busy
    with lock:
        if is_held(run.folder / ".lock"):  # the process of a killed command, for an instant, or who resumed it by hand
            raise Busy
        return _train(run, slot, children)


def _train(run: Run, slot: Slot, children: Children) -> int:
    """Begin or go on with a run that nobody else is at."""
    if _has_begun(run.folder) and _is_without_checkpoint(run):
        shutil.rmtree(run.folder)  # of other settings, and nothing in it that could be missed
    if _has_begun(run.folder):
        _check(run)
        if is_finished(run.folder):
            return 0
        logger.info("%s goes on", run.name)
    else:
        wanted = _at(run, slot)
        RunFolder.create(run.folder, to_yaml(wanted)).close()
        logger.info("%s begins: %s, %d steps", run.name, wanted.method, wanted.train.steps)
    log = run.folder.with_name(f"{run.folder.name}.log")
    before = said_so_far(log)
    code = children.run([[run.command, "--resume", str(run.folder)]], slot, log)
    if code == _DIVERGED:
        raise Diverged(last_error(log, before))
    if code not in GOOD:
        raise InputError(f"{last_error(log, before)} (exit {code}; {log})")
    return code


def _has_begun(folder: Path) -> bool:
    """Whether there is anything in a folder; one with nothing but its lock is what a kill left at once."""
    return folder.exists() and (not folder.is_dir() or any(not item.name.startswith(".") for item in folder.iterdir()))


def _is_without_checkpoint(run: Run) -> bool:
    """Whether a run folder is one of other settings in which no step was ever kept."""
    if not (run.folder / "config.yaml").is_file() or any((run.folder / "checkpoints").glob("step-*")):
        return False
    try:
        _check(run)
    except InputError:
        return True
    return False


def _at(run: Run, slot: Slot) -> Config:
    """Return a run's configuration at a place: its device, and the precision that `auto` is there."""
    train = run.config.train
    name = slot.device if slot.device != "auto" else train.device
    device = choose_device(name, train.precision, prefix="train.")
    precision = choose_precision(device, train.precision)
    return with_fields(run.config, {"train.device": device.type, "train.precision": precision})


def _check(run: Run) -> None:
    """Raise unless a folder that is there holds this very run, at whatever place it was begun."""
    file = run.folder / "config.yaml"
    if not file.is_file():
        raise InputError(f"{run.folder}: this is no run (no config.yaml in it). Move it away.")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read. Move {run.folder} away.") from error
    theirs = config_from_text(text, str(file))
    place = {"train.device": theirs.train.device}
    if run.config.train.precision == "auto":
        place["train.precision"] = theirs.train.precision
    others = differing(_with_whole_paths(with_fields(run.config, place)), _with_whole_paths(theirs))
    if others:
        shown = ", ".join(others[:3])
        raise InputError(f"{run.folder} is another run: {shown}. Move it away, or choose another --out.")


def _with_whole_paths(config: Config) -> Config:
    """Return a configuration in which one file or folder is named in one way."""
    named = {name: str(field_of(config, name)) for name in _PATHS}
    return with_fields(config, {name: str(Path(text).resolve()) for name, text in named.items() if Path(text).exists()})


def said_so_far(log: Path) -> int:
    """Return how many bytes a log has; 0 where there is none."""
    return log.stat().st_size if log.is_file() else 0


def last_error(log: Path, since: int = 0) -> str:
    """Return what a command said last that is an error; its last line where it named none.

    Args:
        log: takes what it said.
        since: how many bytes of it are from before.
    """
    lines = log.read_bytes()[since:].decode("utf-8", "replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1].removeprefix("error: ") if errors else (lines[-1] if lines else "nothing was said")
