"""Derives the runs that a comparison needs: one configuration and one folder for each row and seed.

Every configuration is built before anything runs, so that what is wrong is said at once.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lsr_infer.errors import InputError, UsageError
from lsr_train.comparison.options import TableOptions, Words
from lsr_train.comparison.spec import Comparison, Row
from lsr_train.config.command_line import Request, resolve
from lsr_train.config.fields import field_of, is_about_terms, with_fields, with_method
from lsr_train.config.run import COMMAND_METHODS, Config, is_foreign
from lsr_train.methods import method_class

__all__ = [
    "SOURCE_STAGE",
    "Given",
    "Run",
    "Score",
    "Start",
    "TablePlan",
    "adapting_run",
    "check_folders",
    "folder_name",
    "last_checkpoint",
    "plan_table",
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


_OF_ROWS = frozenset({"method", "seed", "init", "out", "resume"})


@dataclass(frozen=True, kw_only=True)
class Start:
    """What the rows of a seed start from.

    Args:
        stage: the run that trains it; None where it is there.
        model: the checkpoint, or the pointer to one.
    """

    stage: Run | None
    model: Path


@dataclass(frozen=True, kw_only=True)
class TablePlan:
    """What all runs of a table have in common.

    Args:
        comparison: its rows, and what they share.
        out: its folder.
        init: source checkpoint to start from; {seed} stands for the seed. Empty trains one.
        words: of the command line, by what they are about.
        given: what they set for all runs.
        source: the source stage, but for what is given for all.
    """

    comparison: Comparison
    out: Path
    init: str
    words: Words
    given: Given
    source: Given

    def start(self, seed: int) -> Start:
        """Return what the rows of a seed start from.

        Raises:
            InputError: a checkpoint is named that is not there.
            UsageError: the source stage is not one.
        """
        if not self.init:
            stage = source_run(self.source, self.given, seed, self.out)
            return Start(stage=stage, model=last_checkpoint(stage.folder))
        model = Path(self.init.replace("{seed}", str(seed)))
        if not model.exists():
            raise InputError(f"{model}: there is no such checkpoint. Set --init.")
        return Start(stage=None, model=model)

    def run(self, row: Row, start: Path, seed: int) -> Run:
        """Return what is trained for a row.

        Raises:
            UsageError: the row sets what its method does not read.
            LsrError: a method of the user's own cannot be loaded.
        """
        own = _request(row.recipe, []).config if row.recipe else self.given.config
        if (row.method or own.method) == "target-only":
            supervised = _of_stage(row.recipe or self.comparison.base, self.words.target_only, "target_only")
            return supervised_run(row, supervised, self.given, seed, self.out)
        recipe = _request(row.recipe, self.words.runs).config if row.recipe else self.given.config
        run = adapting_run(row, recipe, str(start), seed, self.out)
        if is_foreign(run.config.method):
            method_class(run.config.method)  # so that a mistake in it shows before anything is trained
        return run


def _request(recipe: str, words: Sequence[str]) -> Request:
    return _resolved(recipe, tuple(words))


@cache
def _resolved(recipe: str, words: tuple[str, ...]) -> Request:
    """Read a recipe and words once: it takes a quarter of a second, and a table has many rows and seeds."""
    return resolve("pretrain", ["--recipe", recipe, *words], None)


def _of_stage(recipe: str, words: Sequence[str], stage: str) -> Given:
    """Return what a recipe and the words about one stage make of it.

    Raises:
        UsageError: a word is not allowed for it.
    """
    request = _request(recipe, words)
    if wrong := sorted(request.flags & (_OF_ROWS - {"method"})):
        raise UsageError(f"--{stage}.{wrong[0]} is the table's own. Leave it out.")
    return Given(config=request.config, names=request.flags)


def plan_table(comparison: Comparison, options: TableOptions, words: Words, out: Path) -> TablePlan:
    """Return what all runs of a table have in common.

    Args:
        comparison: its rows, and what they share.
        options: the command's own.
        words: those for the runs.
        out: the table's folder.

    Raises:
        UsageError: a word is not allowed, or no source or target is named.
        InputError: one of them is not there.
    """
    base = _request(comparison.base, words.runs)
    own = sorted(name for name in base.flags if is_about_terms(name) or name in _OF_ROWS)
    if own:
        raise UsageError(f"--{own[0]} is each row's own. Set it in a comparison file, under the row's set.")
    if base.print_config:
        raise UsageError(
            "--print_config is for a single run; a table's runs keep theirs in their folders. Leave it out."
        )
    data = base.config.data
    if not data.target.given:
        raise UsageError("no target is named. Set --target.")
    if not data.source.root and not data.source.layout.startswith("toytown"):
        raise UsageError("no labelled source is named. Set --source.")
    for root, flag in ((data.source.root, "source"), (data.target.root, "target")):
        if root and not any(letter in root for letter in "*?[") and not Path(root).exists():
            raise InputError(f"{root}: there is no such file or folder. Set --{flag}.")
    source = _of_stage(comparison.source, words.source_stage, "source_stage")
    given = Given(config=base.config, names=base.flags)
    return TablePlan(comparison=comparison, out=out, init=options.init, words=words, given=given, source=source)
