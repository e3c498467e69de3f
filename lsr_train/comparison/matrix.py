"""From the rows of a comparison to the runs that it needs: one configuration and one folder for each row and seed."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsr_infer.errors import UsageError
from lsr_train.comparison.plan import Row
from lsr_train.config.fields import field_of, with_fields, with_method
from lsr_train.config.run import COMMAND_METHODS, Config

__all__ = [
    "SOURCE_STAGE",
    "Given",
    "Run",
    "Score",
    "adapting_run",
    "check_folders",
    "folder_name",
    "last_checkpoint",
    "source_run",
    "supervised_run",
]

SOURCE_STAGE = "source-stage"
"""The folder of the runs that all others start from."""

_SHARED = (
    "label_space", "network.backbone", "network.width", "network.output_stride", "network.stem", "network.dilations",
    "network.normalization", "network.weights", "data.", "augment.crop_height", "augment.crop_width", "train.device",
    "train.precision", "train.threads", "train.channels_last", "train.compile", "log.",
)  # fmt: skip
"""Fields, and with a dot at the end sections, that a word on the command line sets for every run of a table."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a command line sets for all runs.

    Args:
        config: a configuration in which it is set.
        names: the fields it sets, by dotted name.
    """

    config: Config
    names: frozenset[str]

    def shared(self, own: Collection[str] = ()) -> dict[str, Any]:
        """Return what is set of the fields that even runs of other stages share, but for those that are set for one."""
        sections = tuple(name for name in _SHARED if name.endswith("."))
        names = (name for name in self.names if name in _SHARED or name.startswith(sections))
        return {name: field_of(self.config, name) for name in names if name not in own}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training.

    Args:
        name: for people, such as `lsr, seed 0`.
        folder: its run folder.
        config: complete.
    """

    name: str
    folder: Path
    config: Config

    @property
    def command(self) -> str:
        """The command that trains it."""
        return next((name for name, methods in COMMAND_METHODS.items() if self.config.method in methods), "adapt")


@dataclass(frozen=True, kw_only=True)
class Score:
    """One row for one seed: what is trained for it, and where its result lies.

    Args:
        row: of the table.
        seed: of the run.
        run: what is trained; None where a network that is there is scored.
        start: the run that has to be finished before; None where there is none.
        model: what is scored: a checkpoint, or the pointer to one.
        result: the document that `evaluate` writes.
    """

    row: Row
    seed: int
    run: Run | None
    start: Run | None
    model: Path
    result: Path

    @property
    def name(self) -> str:
        """Row and seed for people."""
        return f"{self.row.name}, seed {self.seed}"

    @property
    def selected(self) -> Path:
        """The result of the checkpoint that was selected without labels."""
        return self.result.with_name(f"seed-{self.seed}.selected.json")

    @property
    def diverged(self) -> Path:
        """What says that the training diverged, and at which step."""
        return self.result.with_name(f"seed-{self.seed}.diverged.json")


def folder_name(name: str) -> str:
    """Return a row's name as that of a folder.

    Raises:
        UsageError: there is no letter or digit in it.
    """
    folder = re.sub(r"[^\w.-]+", "-", name.replace("+", "plus")).strip("-.")
    if not folder:
        raise UsageError(f"a row is called {name!r}; a letter or digit is needed in its name.")
    return folder


def last_checkpoint(folder: Path) -> Path:
    """Return the pointer to a run's last checkpoint."""
    return folder / "checkpoints" / "last"


def source_run(own: Given, given: Given, seed: int, out: Path) -> Run:
    """Return the source stage of a seed.

    Args:
        own: as its recipe and the words about it have it; those words go before the ones for all runs.
        given: what the command line sets for all runs.
        seed: of the run.
        out: the table's folder.
    """
    config = with_fields(own.config, {**given.shared(own.names), "seed": seed})
    if config.method != "source-only":
        raise UsageError(f"the source stage is {config.method}; it must be source-only.")
    return Run(name=f"source stage, seed {seed}", folder=out / SOURCE_STAGE / f"seed-{seed}", config=config)


def adapting_run(row: Row, recipe: Config, start: str, seed: int, out: Path) -> Run:
    """Return the run of a row that starts from the source stage.

    Args:
        row: of the table.
        recipe: the one it follows, with what the command line sets.
        start: checkpoint to start from.
        seed: of the run.
        out: the table's folder.

    Raises:
        UsageError: the row sets what its method does not read.
    """
    settled = {**row.set, "seed": seed, "init": start, "network.weights": "none"}
    try:
        config = with_method(recipe, row.method, settled) if row.method else with_fields(recipe, settled)
    except UsageError as error:
        raise UsageError(f"row {row.name}: {error}") from error
    return Run(name=f"{row.name}, seed {seed}", folder=out / folder_name(row.name) / f"seed-{seed}", config=config)


def supervised_run(row: Row, own: Given, given: Given, seed: int, out: Path) -> Run:
    """Return the run of a row that is trained on the target's own labels.

    Args:
        row: of the table.
        own: as its recipe and the words about it have it; those words go before the ones for all runs.
        given: what the command line sets for all runs, whose target is this one's source.
        seed: of the run.
        out: the table's folder.
    """
    shared = given.shared()
    target = {
        name.replace("data.target.", "data.source."): value
        for name, value in shared.items()
        if name in {f"data.target.{part}" for part in ("root", "height", "width", "limit")}
    }
    others = {name: value for name, value in shared.items() if not name.startswith("data.source.")}
    taken = {name: value for name, value in {**others, **target}.items() if name not in own.names}
    method = {"method": row.method} if row.method else {}
    set_by_row = {name: value for name, value in row.set.items() if name not in own.names}
    config = with_fields(own.config, {**taken, **method, **set_by_row, "seed": seed})
    return Run(name=f"{row.name}, seed {seed}", folder=out / folder_name(row.name) / f"seed-{seed}", config=config)


def check_folders(rows: Iterable[Row]) -> None:
    """Raise unless every row has a folder of its own.

    Raises:
        UsageError: two rows share one.
    """
    taken: dict[str, str] = {SOURCE_STAGE: "the source stage"}
    for row in rows:
        folder = folder_name(row.name)
        if folder in taken:
            raise UsageError(f"rows {taken[folder]} and {row.name} would share the folder {folder}. Rename one.")
        taken[folder] = row.name
