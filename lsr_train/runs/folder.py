"""Keeps the folder of a run: its configuration, tables, status and checkpoints.

Everything in it appears whole or not at all, so that a kill at any instant leaves the previous checkpoint readable. It
knows nothing of networks or tensors: a checkpoint is a folder that a callback fills.
"""

import contextlib
import csv
import io
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.files import output_path_error, sync_folder, sync_tree, write_json, write_text

__all__ = ["MODEL_FILE", "RunFolder", "StepTable", "resolve_model"]

logger = logging.getLogger(__name__)

ENVIRONMENT_FILE = "environment.json"
"""What a run was computed with: one entry for each time it was started or resumed."""
MODEL_FILE = "model.safetensors"
"""The network inside a checkpoint folder."""
POINTERS = ("best", "last")
"""Small files beside the checkpoint folders that hold the name of one."""


def resolve_model(path: Path) -> Path:
    """Find the network a user means by a file, a checkpoint folder or a run folder.

    Args:
        path: a file (returned as it is), `RUN/checkpoints/step-N`, `RUN/checkpoints/last` or `best`, or `RUN` (its
            selected checkpoint, else its last, which is logged).

    Raises:
        InputError: there is no such path, or no checkpoint in it.
    """
    if path.is_file() and path.name in POINTERS and path.parent.name == "checkpoints":
        step = RunFolder(path.parent.parent).pointer(path.name)
        return path.with_name(f"step-{step}") / MODEL_FILE
    if path.is_file():
        return path
    if (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    for pointer in POINTERS:
        file = path / "checkpoints" / pointer
        if file.is_file():
            model = path / "checkpoints" / file.read_text(encoding="utf-8").strip() / MODEL_FILE
            if model.is_file():
                if pointer == "last":
                    logger.info(
                        "%s: no checkpoint was selected in it; the last one is taken, %s", path, model.parent.name
                    )
                return model
    if path.exists():
        raise InputError(
            f"{path}: no checkpoint in it. Name a .safetensors or .pth file, or a run folder with checkpoints."
        )
    raise InputError(f"{path}: there is no such file or folder.")


class StepTable:
    """A CSV file that grows by whole rows and can be cut back to a step.

    Args:
        path: the file; its first column is `step`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] | None = None

    def cut(self, step: int) -> None:
        """Drop rows after `step`, and a last row that a kill left unfinished.

        Raises:
            InputError: the table is damaged.
        """
        if not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        rows = [line for line in lines if line.endswith("\n")]
        if not rows:
            write_text(self.path, "")
            return
        self.columns = next(csv.reader([rows[0]]))
        try:
            kept = [row for row in rows[1:] if int(row.split(",", 1)[0]) <= step]
        except ValueError as error:
            raise InputError(f"{self.path}: a row of it has no step ({error}). Remove the row, or the file.") from error
        write_text(self.path, rows[0] + "".join(kept))

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; the first one writes the header.

        Raises:
            InputError: the disk is full or the place is not writable.
            ValueError: the columns differ from the table's.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if self.columns is None:
            self.columns = list(row)
            writer.writerow(self.columns)
        if list(row) != self.columns:
            raise ValueError(f"{self.path.name} has columns {self.columns}, the row {list(row)}")
        writer.writerow(row.values())
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text.getvalue())
        except OSError as error:
            raise output_path_error(self.path, error) from error

    def read(self) -> list[dict[str, str]]:
        """Return all rows as text by column."""
        if not self.path.is_file():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


class RunFolder:
    """One run on disk, held by one process.

    Args:
        path: the folder.

    Use `create` or `open`; `close` (or a `with` block) lets go of the lock. A killed process lets go by itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = StepTable(path / "metrics.csv")
        self.signals = StepTable(path / "signals.csv")
        self.classes = StepTable(path / "classes.csv")
        self.gradients = StepTable(path / "gradients.csv")
        self._lock = FileLock(path / ".lock", thread_local=False)  # let go of when this process ends, whoever it forked

    @staticmethod
    def check_free(path: Path, config_text: str = "") -> None:
        """Raise unless a new run can be started at a path.

        Args:
            path: a folder that is not there yet or is empty.
            config_text: the run's configuration, to say whether a run that is there is the same.

        Raises:
            UsageError: there is a run, or anything else.
        """
        if (path / "config.yaml").is_file():
            same = (path / "config.yaml").read_text(encoding="utf-8") == config_text
            what = "this very configuration" if same else "another configuration"
            what = f"{path} is a run of {what}" if config_text else f"{path} is a run already"
            raise UsageError(f"{what}. Continue it with --resume {path}, or choose another --out.")
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file. Choose another --out.")
        if path.is_dir() and any(not item.name.startswith(".") for item in path.iterdir()):
            raise UsageError(f"{path} is not empty and no run. Choose another --out.")

    @classmethod
    def create(cls, path: Path, config_text: str, record: Mapping[str, Any] | None = None) -> "RunFolder":
        """Start a new run.

        Args:
            path: a folder that is not there yet or is empty.
            config_text: the resolved configuration as YAML.
            record: JSON documents by file name that are there whenever the configuration is.

        Raises:
            UsageError: there is a run, or anything else, at `path`.
            InputError: the place cannot be written.
        """
        cls.check_free(path, config_text)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_path_error(path, error) from error
        run = cls(path)
        run._acquire()
        for name, document in (record or {}).items():
            write_json(path / name, document)
        write_text(path / "config.yaml", config_text)  # from here on the folder can be resumed
        run._make_checkpoints()
        return run

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open an existing run and remove what an interrupted write left behind.

        Raises:
            InputError: there is no run at `path`, or its pointer `last` is damaged or missing; nothing was removed.
            UsageError: another process holds it.
        """
        if not (path / "config.yaml").is_file():
            raise InputError(f"{path}: no run to resume (no config.yaml in it). Start one with --out.")
        run = cls(path)
        run._acquire()
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
        for leftover in path.glob(".*.part*"):
            leftover.unlink(missing_ok=True)
        for step in newer:  # renamed, but the kill came before `last` pointed at it
            run._remove(step)
        return run

    def _make_checkpoints(self) -> None:
        try:
            (self.path / "checkpoints").mkdir(exist_ok=True)
        except OSError as error:
            raise output_path_error(self.path / "checkpoints", error) from error

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
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

    def config_text(self) -> str:
        """Return config.yaml."""
        return (self.path / "config.yaml").read_text(encoding="utf-8")

    def write_status(self, **values: Any) -> None:
        """Replace status.json."""
        write_json(self.path / "status.json", values)

    def status(self) -> dict[str, Any]:
        """Return status.json.

        Raises:
            InputError: it is not there, or damaged.
        """
        file = self.path / "status.json"
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{file}: it cannot be read ({error}). --resume {self.path} writes it anew.") from error

    def environments(self) -> list[dict[str, Any]]:
        """Return what the run was computed with, one entry each time it was started or resumed; empty if unknown."""
        try:
            found = json.loads((self.path / ENVIRONMENT_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
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
            InputError: the pointer is unreadable, or what it points to is gone.
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

    def save(self, step: int, fill: Callable[[Path], None], *, best: bool, keep: int) -> Path:
        """Write a checkpoint, point `last` (and `best`) at it, and remove what is no longer kept.

        The checkpoint is filled under a temporary name, flushed, and renamed in one step.

        Args:
            step: finished steps.
            fill: writes the files into the folder it is given.
            best: whether it is the selected one so far.
            keep: how many of the newest stay besides the selected one.

        Returns:
            The checkpoint's folder.

        Raises:
            InputError: the disk is full or the place not writable; the previous checkpoint is whole.
        """
        final = self.checkpoint(step)
        temporary = final.with_name(f".{final.name}.part")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            if not final.exists():  # it exists where a run is resumed and stopped again before its next step
                temporary.mkdir()
                fill(temporary)
                sync_tree(temporary)
                temporary.rename(final)
            sync_folder(final.parent)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise output_path_error(final, error) from error
        except InputError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self.point("last", step)  # a kill from here to `best` is made good by the engine on resumption
        if best:
            self.point("best", step)
        self._prune(keep)
        return final

    def _prune(self, keep: int) -> None:
        """Remove all but the newest `keep` checkpoints and the selected one."""
        steps = self.steps()
        stays = {*steps[-keep:], self.pointer("best"), self.pointer("last")}
        for step in steps:
            if step not in stays:
                self._remove(step)

    def _remove(self, step: int) -> None:
        """Take a checkpoint away in one rename, so that nobody finds half of it."""
        retired = self.checkpoint(step).with_name(f".step-{step}.old")
        with contextlib.suppress(OSError):
            os.rename(self.checkpoint(step), retired)
            shutil.rmtree(retired, ignore_errors=True)
