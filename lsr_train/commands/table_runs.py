"""One training of a table: begun, gone on with, or left alone, in a process of its own, by one command at a time."""

import logging
import time
from pathlib import Path

from lsr_infer.errors import InputError
from lsr_infer.places import place_error
from lsr_train.commands.configuration import config_from_text
from lsr_train.comparison.jobs import Children, Slot
from lsr_train.comparison.locks import exclusive, is_held
from lsr_train.comparison.matrix import Run
from lsr_train.config import Config
from lsr_train.config_fields import with_fields
from lsr_train.config_file import to_yaml
from lsr_train.device import choose_device, choose_precision
from lsr_train.reuse import differing, is_finished
from lsr_train.run_folder import RunFolder

__all__ = ["GOOD", "Diverged", "last_error", "train_run"]

logger = logging.getLogger(__name__)

_DIVERGED = 5
GOOD = (0, 6)
"""Exit codes of a command that did its work."""


class Diverged(Exception):  # noqa: N818 - an outcome of a run, which a table shows
    """A loss was not finite."""


def train_run(run: Run, slot: Slot, children: Children) -> None:
    """Train a run, or go on with it; nothing where it is finished. Another process that is at it is waited for.

    Args:
        run: what is trained.
        slot: where.
        children: the processes.

    Raises:
        InputError: its folder is damaged or another run's, or the training failed.
        Diverged: a loss was not finite.
    """
    try:
        run.folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise place_error(run.folder.parent, error) from error
    lock = run.folder.with_name(f".{run.folder.name}.lock")
    with exclusive(lock, lambda: children.stopping, lambda: logger.info("%s: another process is at it", run.name)):
        while is_held(run.folder / ".lock") and not children.stopping:
            time.sleep(0.1)  # the process of a command that was killed ends in an instant, or somebody resumed it
        if not children.stopping:
            _train(run, slot, children)


def _train(run: Run, slot: Slot, children: Children) -> None:
    """Begin or go on with a run that nobody else is at."""
    if run.folder.exists():
        _check(run)
        if is_finished(run.folder):
            return
        logger.info("%s goes on", run.name)
    else:
        wanted = _at(run, slot)
        RunFolder.create(run.folder, to_yaml(wanted)).close()
        logger.info("%s begins: %s, %d steps", run.name, wanted.method, wanted.train.steps)
    log = run.folder.with_name(f"{run.folder.name}.log")
    code = children.run([[run.command, "--resume", str(run.folder)]], slot, log)
    if code == _DIVERGED:
        raise Diverged(last_error(log))
    if code not in GOOD:
        raise InputError(f"{last_error(log)} (exit {code}; {log})")


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
    others = differing(with_fields(run.config, place), theirs)
    if others:
        shown = ", ".join(others[:3])
        raise InputError(f"{run.folder} is another run: {shown}. Move it away, or choose another --out.")


def last_error(log: Path) -> str:
    """Return what a command said last that is an error; its last line where it named none.

    Args:
        log: takes what it said.
    """
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1].removeprefix("error: ") if errors else (lines[-1] if lines else "nothing was said")
