"""Finds a finished source stage that may stand for another: one of the same configuration, on the very same files.

Files are told apart by path, size and time of change, as the scan's cache does: hashing a simulator's tens of gigabytes
would take longer than many a training.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsr_infer.errors import InputError
from lsr_infer.io.files import write_json
from lsr_infer.io.store_cache import local_path
from lsr_train.config.fields import plain_fields
from lsr_train.config.recipes import config_from_text
from lsr_train.config.run import Config
from lsr_train.data.footage import footage_files
from lsr_train.data.layouts import source_pairs
from lsr_train.runs.folder import RunFolder

__all__ = [
    "Match", "data_fingerprint", "differing", "effective_fields", "find_match", "is_finished", "note_data",
    "source_name",
]  # fmt: skip

_DATA_FILE = "data.json"
_PREFIX = "source-"
_LENGTH = (
    "train.steps", "train.checkpoint_every", "selection.every", "selection.frames", "optim.warmup_steps",
    "optim.poly_steps",
)  # fmt: skip
"""What only follows from how long a stage is."""
_WITHOUT_EFFECT = ("data.workers", "log.every", "log.gradients", "log.tensorboard", "train.keep")
"""What no weight depends on."""


def data_fingerprint(config: Config) -> str:
    """Return 64 hexadecimal digits that change with any file the source stage reads, and with the list of them.

    Raises:
        UsageError: layout and ids do not fit together.
        InputError: a folder or file is missing or cannot be read.
    """
    few, target = config.data.labelled_frames, config.data.target
    sources = (*config.data.sources, few) if few is not None else config.data.sources
    files: list[Path] = []
    for source in sources:
        if source.layout.startswith("toytown"):
            continue
        found = source_pairs(source)
        files += [path for pair in found.pairs for path in (pair.image, pair.labels)]
        files += [found.classes] if found.classes is not None else []
    if target.given:
        files += footage_files(target)
    masks = [source.ignore_mask for source in sources]
    named = (*masks, config.data.ignore_mask, config.label_space, config.network.weights)
    files += [local_path(name) for name in named if name and local_path(name).is_file()]
    digest = hashlib.sha256()
    for path in files:
        try:
            stat = path.stat()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
        line = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def effective_fields(config: Config, *, with_length: bool = True) -> dict[str, Any]:
    """Return every field that a weight depends on, by dotted name; without those that only state the length."""
    left_out = {*_WITHOUT_EFFECT, *(() if with_length else _LENGTH)}
    return {name: value for name, value in plain_fields(config).items() if name not in left_out}


def differing(wanted: Config, other: Config, *, with_length: bool = True) -> list[str]:
    """Return, as text, the `effective_fields` in which another run is not the wanted one."""
    mine, theirs = (effective_fields(config, with_length=with_length) for config in (wanted, other))
    return [f"{name} {theirs[name]} (here {value})" for name, value in mine.items() if value != theirs[name]]


def source_name(config: Config, data: str) -> str:
    """Return the name of a source stage's run folder: the same for the same configuration, length and data."""
    document = json.dumps([effective_fields(config), data], sort_keys=True)
    return f"{_PREFIX}{hashlib.sha256(document.encode()).hexdigest()[:12]}"


def is_finished(run: Path) -> bool:
    """Whether a run folder holds a training that came to its end, and its last checkpoint."""
    try:
        status = json.loads((run / "status.json").read_text(encoding="utf-8"))
        return bool(status["state"] == "finished" and status["step"] == RunFolder(run).pointer("last"))
    except (InputError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


@dataclass(frozen=True, kw_only=True)
class Match:
    """A finished source stage of so many steps (None where none matches), and a line on why it is used or none is."""

    run: Path | None
    steps: int
    line: str


def find_match(folder: Path, wanted: Config, data: str, *, any_length: bool) -> Match:
    """Look for a finished source stage that matches, or for the reason against the one that differs least.

    Args:
        folder: it holds run folders.
        wanted: the source stage.
        data: its `data_fingerprint`.
        any_length: leave the length out of the comparison, as where a budget sets it; the longest is taken.
    """
    reasons: list[tuple[int, str]] = []
    ready: list[tuple[int, Path]] = []
    for run in sorted(folder.glob(f"{_PREFIX}*")):
        if not re.fullmatch(rf"{_PREFIX}[0-9a-f]{{12}}", run.name) or not (run / "config.yaml").is_file():
            continue
        try:
            config = config_from_text((run / "config.yaml").read_text(encoding="utf-8"), str(run / "config.yaml"))
            theirs = json.loads((run / _DATA_FILE).read_text(encoding="utf-8"))["data"]
        except (InputError, OSError, ValueError, KeyError, TypeError, RecursionError):
            reasons.append((1000, f"{run} is of another version or damaged"))
            continue
        others = differing(wanted, config, with_length=not any_length)
        if others:
            shown = ", ".join(others[:3])
            reasons.append((10 * len(others), f"{run} has {shown}{' and more' if len(others) > 3 else ''}"))
        elif theirs != data:
            reasons.append((5, f"{run} was trained on other files, or they have changed since"))
        elif not is_finished(run):
            reasons.append((1, f"{run} is not finished"))
        else:
            ready.append((config.train.steps, run))
    if ready:
        steps, run = max(ready)
        return Match(run=run, steps=steps, line=f"the source stage {run} is used again: same configuration, same files")
    why = min(reasons)[1] if reasons else f"none is in {folder}"
    return Match(run=None, steps=0, line=f"the source stage is trained: {why}")


def note_data(run: Path, data: str) -> None:
    """Write down what the data of a source stage are."""
    write_json(run / _DATA_FILE, {"data": data})
