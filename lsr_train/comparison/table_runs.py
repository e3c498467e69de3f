"""One training of a table: begun, gone on with, or left alone, in a process of its own, by one command at a time."""

import logging
import os
import shutil
from pathlib import Path

from lsr_infer.errors import InputError
from lsr_infer.io.paths import place_error
from lsr_train.comparison.jobs import Busy, Children, Slot, slots_of
from lsr_train.comparison.locks import claim, is_held
from lsr_train.comparison.matrix import Run
from lsr_train.comparison.options import TableOptions
from lsr_train.config.command_line import config_from_text
from lsr_train.config.fields import field_of, with_fields
from lsr_train.config.recipes import to_yaml
from lsr_train.config.run import Config
from lsr_train.device import choose_device, choose_precision
from lsr_train.runs.folder import RunFolder
from lsr_train.runs.matching import differing, is_finished

__all__ = ["GOOD", "Diverged", "checked_slots", "last_error", "said_so_far", "train_run"]

logger = logging.getLogger(__name__)

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
