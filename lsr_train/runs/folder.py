"""Keeps the folder of a run: its configuration, tables, status, environment and checkpoints.

Everything in it appears whole or not at all, so that a kill at any instant leaves the previous checkpoint readable. It
knows nothing of networks or tensors: a checkpoint is a folder that a callback fills.
"""

import contextlib
import csv
import io
import json
import logging
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch
from filelock import FileLock, Timeout

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.addresses import without_secrets
from lsr_infer.io.files import output_path_error, sync_folder, sync_tree, write_json, write_text, writing
from lsr_infer.io.store_cache import fetch, local_path
from lsr_infer.io.stores import is_url, status, stored
from lsr_infer.io.temporary import sweep
from lsr_infer.system.process import usable_cores
from lsr_infer.text import csv_cell, from_csv_cell

__all__ = [
    "CHECKPOINT_FILES", "ENVIRONMENT_FILE", "MODEL_FILE", "STAGES_FILE", "RunFolder", "StepTable",
    "describe_environment", "resolve_model",
]  # fmt: skip

logger = logging.getLogger(__name__)

MODEL_FILE = "model.safetensors"
"""The network inside a checkpoint folder."""
CHECKPOINT_FILES = (MODEL_FILE, "state.safetensors", "state.json")
"""All of a checkpoint: the network, the tensors of the state, and the rest of it."""
STAGES_FILE = "stages.json"
"""Beside the configuration of an adaptation that has a source stage, and there before it."""
ENVIRONMENT_FILE = "environment.json"
"""What the run was computed with, one entry for each start; the first one tells runs apart."""
_LAST_BYTES = 4096
"""Of a table: a row is far shorter."""
_PACKAGES = ("torch", "accelerate", "numpy", "opencv-python", "av")
_POINTERS = ("best", "last")
"""Small files beside the checkpoint folders that hold the name of one."""


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Return what this process computes with as plain data, so that a figure can be made again; names no path here."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "version": _version("lsr-road"),
        "commit": _commit(),
    }


def _processor() -> str:
    """Return the processor's name, where the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name[^:\n]*:(.*)", text, re.MULTILINE)
    return name[1].strip() if name else platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the checkout that this package lies in, with `+` where files differ; None outside one."""

    def git(*argv: str) -> str:
        line = ["git", "-C", str(Path(__file__).resolve().parent), *argv]
        return subprocess.run(line, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # else the checkout is somebody else's
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def resolve_model(place: Path | str) -> Path:
    """Find the network a user means by a file, a checkpoint folder or a run folder.

    Args:
        place: a file (returned as it is), `RUN/checkpoints/step-N`, `RUN/checkpoints/last` or `best`, or `RUN` (its
            selected checkpoint, else its last, which is logged); or the address of one, of which a copy is returned.

    Raises:
        InputError: there is no such path, or no checkpoint in it.
    """
    if is_url(place):
        return _stored_model(str(place))
    path = Path(place)
    if path.is_file() and path.name in _POINTERS and path.parent.name == "checkpoints":
        step = RunFolder(path.parent.parent).pointer(path.name)
        return path.with_name(f"step-{step}") / MODEL_FILE
    if path.is_file():
        return path
    if (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    for pointer in _POINTERS:
        step = RunFolder(path).pointer(pointer)
        if step is not None:
            if pointer == "last":
                logger.info("%s: no checkpoint was selected in it; the last one is taken, step-%d", path, step)
            return RunFolder(path).checkpoint(step) / MODEL_FILE
    if path.exists():
        raise InputError(
            f"{path}: no checkpoint in it. Name a .safetensors or .pth file, or a run folder with checkpoints."
        )
    raise InputError(f"{path}: there is no such file or folder.")


def _stored_model(url: str) -> Path:
    """Return a copy of the network behind an address; see `resolve_model`."""
    top, _, name = url.rstrip("/").rpartition("/")
    is_pointer = name in _POINTERS and top.endswith("/checkpoints")
    if status(url) is not None and not is_pointer:
        return local_path(url)
    run, pointers = (top.removesuffix("/checkpoints"), (name,)) if is_pointer else (url.rstrip("/"), _POINTERS)
    if stored(f"{run}/{MODEL_FILE}"):
        return local_path(f"{run}/{MODEL_FILE}")
    for pointer in pointers:
        if stored(f"{run}/checkpoints/{pointer}"):
            folder = fetch(f"{run}/checkpoints/{pointer}").read_text(encoding="utf-8", errors="replace").strip()
            if pointer == "last" and len(pointers) > 1:
                logger.info("%s: no checkpoint was selected in it; the last one is taken, %s", run, folder)
            return local_path(f"{run}/checkpoints/{folder}/{MODEL_FILE}")
    raise InputError(f"{without_secrets(url)}: no checkpoint in it. Name a .safetensors file, or a run folder.")


class StepTable:
    """A CSV file that grows by whole rows and can be cut back to a step; its first column is `step`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] | None = None
        self._resumed = False  # the columns are those of a file that was there

    def cut(self, step: int) -> None:
        """Drop rows after `step`, and a last row that a kill left unfinished; `InputError` where one is damaged."""
        if not self.path.is_file():
            return
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.path}: it is damaged, no UTF-8 text. Remove it; the rows in it are lost."
            ) from error
        rows = [line for line in lines if line.endswith("\n")]
        if not rows:
            write_text(self.path, "")
            return
        self.columns, self._resumed = next(csv.reader([rows[0]])), True
        try:
            kept = [row for row in rows[1:] if int(row.split(",", 1)[0]) <= step]
        except ValueError as error:
            raise InputError(f"{self.path}: a row of it has no step ({error}). Remove the row, or the file.") from error
        write_text(self.path, rows[0] + "".join(kept))

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row, whose columns are the table's; the first one writes the header."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = [csv_cell(name) for name in row]
        if self.columns is None:
            self.columns = names
            writer.writerow(names)
        if names != self.columns and self._resumed:
            raise InputError(f"{self.path}: its columns are not those of this run. Move it away; the run needs none.")
        if names != self.columns:
            raise ValueError(f"{self.path.name} has columns {self.columns}, the row {names}")
        writer.writerow(map(csv_cell, row.values()))
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(text.getvalue())

    def last_step(self) -> int:
        """Return the step of the last whole row without reading the others; 0 where there is none."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, self.path.stat().st_size - _LAST_BYTES))
                lines = file.read().split(b"\n")[:-1]
            return int(lines[-1].split(b",", 1)[0]) if lines else 0
        except (OSError, ValueError):
            return 0

    def read(self) -> list[dict[str, str]]:
        """Return all rows as text by column."""
        if not self.path.is_file():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [{from_csv_cell(name): from_csv_cell(cell) for name, cell in row.items()} for row in rows]


class RunFolder:
    """One run on disk, held by one process.

    Use `create` or `open`; `close` (or a `with` block) lets go of the lock. A killed process lets go by itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = StepTable(path / "metrics.csv")
        self.signals = StepTable(path / "signals.csv")
        self.classes = StepTable(path / "classes.csv")
        self.gradients = StepTable(path / "gradients.csv")
        self.saved: Callable[[], None] = lambda: None
        """Called after each checkpoint."""
        self._lock = FileLock(path / ".lock", thread_local=False)  # let go of when this process ends, whoever it forked

    @staticmethod
    def check_free(path: Path, config_text: str = "") -> None:
        """Raise `UsageError` unless `path` is free for a new run; `config_text` tells whether one there is the same."""
        if (path / "config.yaml").is_file():
            same = (path / "config.yaml").read_text(encoding="utf-8") == config_text
            what = "this very configuration" if same else "another configuration"
            what = f"{path} is a run of {what}" if config_text else f"{path} is a run already"
            raise UsageError(f"{what}. Continue it with --resume {path}, or choose another --out.")
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file. Choose another --out.")
        if path.is_dir() and any(not item.name.startswith(".") for item in path.iterdir() if item.name != STAGES_FILE):
            raise UsageError(f"{path} is not empty and no run. Choose another --out.")

    @classmethod
    def create(cls, path: Path, config_text: str, stages: Mapping[str, Any] | None = None) -> "RunFolder":
        """Start a new run; what `stages` states of one with a source stage is there whenever the configuration is.

        Raises:
            UsageError: there is a run, or anything else, at `path`, or another process is starting one there.
            InputError: the place cannot be written.
        """
        cls.check_free(path, config_text)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        run = cls(path)
        run._acquire()
        try:
            cls.check_free(path, config_text)  # again: another process may have started a run meanwhile
            sweep(path)
            if stages is not None:
                write_json(path / STAGES_FILE, stages)
            else:
                (path / STAGES_FILE).unlink(missing_ok=True)  # of a start that was killed before it had a configuration
            write_text(path / "config.yaml", config_text)  # from here on the folder can be resumed
            run._make_checkpoints()
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def open(cls, path: Path, patience_seconds: float = 0.0) -> "RunFolder":
        """Open an existing run and remove what an interrupted write left behind; wait so long where another holds it.

        Raises:
            InputError: there is no run at `path`, or its pointer `last` is damaged or missing; nothing was removed.
            UsageError: another process holds it.
        """
        if not (path / "config.yaml").is_file():
            raise InputError(f"{path}: no run to resume (no config.yaml in it). Start one with --out.")
        run = cls(path)
        run._acquire(patience_seconds)
        run._make_checkpoints()
        last = run.pointer("last")
        newer = [step for step in run.steps() if last is None or step > last]
        if len(newer) > 1 or (newer and last is None and run.pointer("best") is not None):
            run.close()
            state = "it is missing" if last is None else f"it points to step-{last}"
            there = ", ".join(f"step-{step}" for step in newer)
            raise InputError(
                f"{path / 'checkpoints' / 'last'}: {state}, and there are {there}, more than a kill leaves behind. "
                "Write the name of the one to go on from into it."
            )
        for leftover in (path / "checkpoints").glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        sweep(path)
        for step in newer:  # renamed, but the kill came before `last` pointed at it
            run._remove(step)
        run._forget_newer_best(last)
        return run

    def _forget_newer_best(self, last: int | None) -> None:
        """Remove the pointer `best` where it leads to a checkpoint that is gone, which was newer than the last one.

        The engine points it at the best of the older ones.
        """
        file = self.path / "checkpoints" / "best"
        match = re.fullmatch(r"step-(\d+)\s*", file.read_text(errors="replace")) if file.is_file() else None
        if match and last is not None and int(match[1]) > last and not self.checkpoint(int(match[1])).exists():
            file.unlink()

    def _make_checkpoints(self) -> None:
        with writing(self.path / "checkpoints"):
            (self.path / "checkpoints").mkdir(exist_ok=True)

    def _acquire(self, patience_seconds: float = 0.0) -> None:
        try:
            self._lock.acquire(timeout=patience_seconds)
        except Timeout as error:
            raise UsageError(
                f"{self.path}: another process is working in this run. Wait for it, or stop it."
            ) from error
        except OSError as error:
            raise output_path_error(self.path / ".lock", error) from error

    def close(self) -> None:
        """Let go of the folder."""
        self._lock.release(force=True)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write_status(self, **values: Any) -> None:
        """Replace status.json."""
        write_json(self.path / "status.json", values)

    def status(self) -> dict[str, Any]:
        """Return status.json; raises `InputError` where it is not there, or damaged."""
        file = self.path / "status.json"
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise InputError(f"{file}: it cannot be read ({error}). --resume {self.path} writes it again.") from error

    def stages(self) -> dict[str, Any]:
        """Return what `create` was given of a run with a source stage; empty where there is none, or it is damaged."""
        try:
            return dict(json.loads((self.path / STAGES_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError):
            return {}

    def seconds(self) -> float:
        """Return how long the run has trained so far, in all calls; 0 where that is not known."""
        try:
            return float(self.status()["seconds"])
        except (InputError, KeyError, TypeError, ValueError):
            return 0.0

    def environments(self) -> list[dict[str, Any]]:
        """Return what the run was computed with, one entry each time it was started or resumed; empty if unknown."""
        try:
            found = json.loads((self.path / ENVIRONMENT_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return []
        entries = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
        return [{"started" if key == "begun" else key: value for key, value in entry.items()} for entry in entries]

    def note_environment(self, entry: Mapping[str, Any]) -> None:
        """Add what the run is computed with from here on."""
        write_json(self.path / ENVIRONMENT_FILE, [*self.environments(), dict(entry)])

    def checkpoint(self, step: int) -> Path:
        """Return where the checkpoint of `step` lies or would lie."""
        return self.path / "checkpoints" / f"step-{step}"

    def steps(self) -> list[int]:
        """Return the steps of all whole checkpoints, ascending."""
        folder = self.path / "checkpoints"
        found = (re.fullmatch(r"step-(\d+)", item.name) for item in folder.glob("step-*") if item.is_dir())
        return sorted(int(match[1]) for match in found if match is not None)

    def pointer(self, name: str) -> int | None:
        """Return the step that `last` or `best` points to, None where there is no such pointer.

        Raises:
            InputError: what it points to is no checkpoint.
        """
        file = self.path / "checkpoints" / name
        if not file.is_file():
            return None
        text = file.read_text(encoding="utf-8", errors="replace").strip()
        match = re.fullmatch(r"step-(\d+)", text)
        if match is None or not self.checkpoint(int(match[1])).is_dir():
            there = ", ".join(f"step-{step}" for step in self.steps()) or "none"
            raise InputError(
                f"{file}: points to {text!r}, which is no checkpoint (there are: {there}). Write the name of one of "
                "them into it, or start a new run."
            )
        return int(match[1])

    def point(self, name: str, step: int) -> None:
        """Let `last` or `best` point to the checkpoint of `step`."""
        write_text(self.path / "checkpoints" / name, f"step-{step}\n")

    def save(self, step: int, fill: Callable[[Path], None], *, best: bool, keep: int) -> None:
        """Write a checkpoint, point `last` (and `best`) at it, and remove what is no longer kept.

        It is filled under a temporary name, flushed, and renamed in one step; the newest `keep` stay besides the
        selected one.

        Raises:
            InputError: the disk is full or the place not writable; the previous checkpoint is whole.
        """
        final = self.checkpoint(step)
        temporary = final.with_name(f".{final.name}.part")
        try:
            with writing(final):
                shutil.rmtree(temporary, ignore_errors=True)
                if not final.exists():  # it exists where a run is resumed and stopped again before its next step
                    temporary.mkdir()
                    fill(temporary)
                    sync_tree(temporary)
                    temporary.rename(final)
                sync_folder(final.parent)
        except InputError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self.point("last", step)  # a kill from here to `best` is made good by the engine on resumption
        if best:
            self.point("best", step)
        self.prune(keep)
        self.saved()

    def prune(self, keep: int) -> None:
        """Remove all checkpoints but the newest `keep`, the selected and the last one."""
        for old in {*self.steps()[:-keep]} - {self.pointer("best"), self.pointer("last")}:
            self._remove(old)

    def _remove(self, step: int) -> None:
        """Take a checkpoint away in one rename, so that nobody finds half of it."""
        retired = self.checkpoint(step).with_name(f".step-{step}.old")
        with contextlib.suppress(OSError):
            os.rename(self.checkpoint(step), retired)
            shutil.rmtree(retired, ignore_errors=True)
