"""Derives the trainings that a comparison needs: one configuration and one folder for each run and seed."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.stores import is_url
from lsr_train.comparison.options import TableArguments, TableOptions
from lsr_train.comparison.spec import ComparisonSpec, RunSpec
from lsr_train.config.command_line import Request, resolve
from lsr_train.config.data import check_named
from lsr_train.config.fields import field_of, with_fields
from lsr_train.config.run import Config, command_of, is_about_terms, is_foreign, is_of_all_stages, with_method
from lsr_train.methods import method_class

__all__ = [
    "SOURCE_STAGE", "Overrides", "ScoredRun", "TablePlan", "Training", "adapting_run", "check_folders", "folder_name",
    "last_checkpoint", "plan_table", "source_run", "supervised_run",
]  # fmt: skip

SOURCE_STAGE = "source-stage"  # the folder of the trainings that all others start from
_OF_TABLE = frozenset({"method", "seed", "init", "out", "resume"})  # fields that the table sets itself for each run


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """A configuration, and the dotted names of the fields that a command line sets in it."""

    config: Config
    names: frozenset[str]

    def shared(self, own: Collection[str] = ()) -> dict[str, Any]:
        """Return what is set of the fields that even runs of other stages share, but for those in `own`."""
        names = (name for name in self.names if is_of_all_stages(name) and name not in own)
        return {name: field_of(self.config, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training: its name for people, such as `lsr, seed 0`, its run folder, and its complete configuration."""

    name: str
    folder: Path
    config: Config

    @property
    def command(self) -> str:
        """The command that trains it."""
        return command_of(self.config.method)


@dataclass(frozen=True, kw_only=True)
class ScoredRun:
    """One run for one seed: what is trained for it, and where its result lies."""

    run: RunSpec
    seed: int
    training: Training | None  # None where a network that is there is scored
    start: Training | None  # the training that has to be finished before
    model: Path  # what is scored: a checkpoint, or the pointer to one
    result: Path  # the document that `evaluate` writes

    @property
    def name(self) -> str:
        """Run and seed for people."""
        return f"{self.run.name}, seed {self.seed}"

    @property
    def selected(self) -> Path:
        """The result of the checkpoint that was selected without labels."""
        return self.result.with_name(f"seed-{self.seed}.selected.json")

    def further(self, name: str) -> Path:
        """The result of a further scoring of the last checkpoint."""
        return self.result.with_name(f"seed-{self.seed}.{folder_name(name)}.json")

    @property
    def diverged(self) -> Path:
        """The record that the training diverged, and at which step."""
        return self.result.with_name(f"seed-{self.seed}.diverged.json")


def folder_name(name: str) -> str:
    """Return a run's name as that of a folder."""
    folder = re.sub(r"[^\w.-]+", "-", name.replace("+", "plus")).strip("-.")
    if not folder:
        raise UsageError(f"a run is called {name!r}; a letter or digit is needed in its name.")
    return folder


def check_folders(runs: Iterable[RunSpec]) -> None:
    """Raise `UsageError` unless every run has a folder of its own."""
    taken: dict[str, str] = {SOURCE_STAGE: "the source stage"}
    for run in runs:
        folder = folder_name(run.name)
        if folder in taken:
            raise UsageError(f"runs {taken[folder]} and {run.name} would share the folder {folder}. Rename one.")
        taken[folder] = run.name


def last_checkpoint(folder: Path) -> Path:
    """Return the pointer to a run's last checkpoint."""
    return folder / "checkpoints" / "last"


def source_run(own: Overrides, given: Overrides, seed: int, out: Path) -> Training:
    """Return the source stage of a seed: its own recipe and options, which go before what is given for all runs."""
    config = with_fields(own.config, {**given.shared(own.names), "seed": seed})
    if config.method != "source-only":
        raise UsageError(f"the source stage is {config.method}; it must be source-only.")
    return Training(name=f"source stage, seed {seed}", folder=out / SOURCE_STAGE / f"seed-{seed}", config=config)


def adapting_run(run: RunSpec, recipe: Config, start: str, seed: int, out: Path) -> Training:
    """Return the training of a run that starts from the source stage."""
    values = {**run.set, "seed": seed, "init": start, "network.weights": "none"}
    try:
        config = with_method(recipe, run.method, values) if run.method else with_fields(recipe, values)
    except UsageError as error:
        raise UsageError(f"run {run.name}: {error}") from error
    return Training(name=f"{run.name}, seed {seed}", folder=out / folder_name(run.name) / f"seed-{seed}", config=config)


def supervised_run(run: RunSpec, own: Overrides, given: Overrides, seed: int, out: Path) -> Training:
    """Return the training of a run on the target's own labels; the target of what is given for all is its source.

    Its own recipe and options go before what is given for all runs.
    """
    shared = given.shared()
    target = {
        name.replace("data.target.", "data.source."): value
        for name, value in shared.items()
        if name in {f"data.target.{part}" for part in ("root", "height", "width", "limit")}
    }
    of_source = ("data.source.", "data.more_sources")
    others = {name: value for name, value in shared.items() if not name.startswith(of_source)}
    values = {"data.more_sources": (), **others, **target, **run.set}
    values = {name: value for name, value in values.items() if name not in own.names}
    method = {"method": run.method} if run.method else {}
    config = with_fields(own.config, {**method, **values, "seed": seed})
    return Training(name=f"{run.name}, seed {seed}", folder=out / folder_name(run.name) / f"seed-{seed}", config=config)


@dataclass(frozen=True, kw_only=True)
class TablePlan:
    """What all runs of a table have in common."""

    comparison: ComparisonSpec
    out: Path
    init: str  # source checkpoint to start from; {seed} stands for the seed. Empty trains one
    arguments: TableArguments
    given: Overrides  # what the command line sets for all runs
    source: Overrides  # the source stage, but for what is given for all

    def start(self, seed: int) -> tuple[Training | None, Path]:
        """Return what the runs of a seed start from: the training that makes it, if any, and a checkpoint."""
        if not self.init:
            stage = source_run(self.source, self.given, seed, self.out)
            return stage, last_checkpoint(stage.folder)
        model = Path(self.init.replace("{seed}", str(seed)))
        if not model.exists():
            raise InputError(f"{model}: there is no such checkpoint. Set --init.")
        return None, model

    def training(self, run: RunSpec, start: Path, seed: int) -> Training:
        """Return what is trained for a run; raises `LsrError` where a method of the user's own cannot be loaded."""
        own = _resolved(run.recipe, ()).config if run.recipe else self.given.config
        if (run.method or own.method) == "target-only":
            supervised = _of_stage(run.recipe or self.comparison.base, self.arguments.target_only, "target_only")
            return supervised_run(run, supervised, self.given, seed, self.out)
        recipe = _resolved(run.recipe, tuple(self.arguments.runs)).config if run.recipe else self.given.config
        training = adapting_run(run, recipe, str(start), seed, self.out)
        if is_foreign(training.config.method):
            method_class(training.config.method)  # so that a mistake in it shows before anything is trained
        return training


@cache
def _resolved(recipe: str, arguments: tuple[str, ...]) -> Request:
    """Read a recipe and arguments once: it takes a quarter of a second, and a table has many runs and seeds."""
    return resolve("pretrain", ["--recipe", recipe, *arguments], None)


def _of_stage(recipe: str, arguments: Sequence[str], stage: str) -> Overrides:
    """Return a recipe with the options for one stage."""
    request = _resolved(recipe, tuple(arguments))
    if wrong := sorted(request.flags & (_OF_TABLE - {"method"})):
        raise UsageError(f"--{stage}.{wrong[0]} is the table's own. Leave it out.")
    return Overrides(config=request.config, names=request.flags)


def plan_table(comparison: ComparisonSpec, options: TableOptions, arguments: TableArguments, out: Path) -> TablePlan:
    """Return what all runs of a table have in common; every input is looked for."""
    values = [word for name, value in comparison.set.items() for word in (f"--{name}", str(value))]
    arguments = replace(arguments, runs=[*values, *arguments.runs])
    base = _resolved(comparison.base, tuple(arguments.runs))
    own = sorted(name for name in base.flags if is_about_terms(name) or name in _OF_TABLE)
    if own:
        raise UsageError(f"--{own[0]} is each run's own. Set it in a comparison file, under the run's set.")
    if base.print_config:
        raise UsageError("--print_config is for a single run; a table's runs keep theirs in folders. Leave it out.")
    data = base.config.data
    if not data.target.given:
        raise UsageError("no target is named. Set --target.")
    check_named(data)
    named = [(source.root, "source") for source in data.sources]
    for root, flag in (*named, (data.target.root, "target"), (data.labelled.root, "labelled")):
        if root and not is_url(root) and not any(letter in root for letter in "*?[") and not Path(root).exists():
            raise InputError(f"{root}: there is no such file or folder. Set --{flag}.")
    return TablePlan(
        comparison=comparison, out=out, init=options.init, arguments=arguments,
        given=Overrides(config=base.config, names=base.flags),
        source=_of_stage(comparison.source, arguments.source_stage, "source_stage"),
    )  # fmt: skip
