"""Which runs a table needs: every configuration is built before anything runs, so what is wrong is said at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lsr_infer.errors import InputError, UsageError
from lsr_train.comparison.matrix import Given, Run, adapting_run, last_checkpoint, source_run, supervised_run
from lsr_train.comparison.options import TableOptions, Words
from lsr_train.comparison.plan import Comparison, Row
from lsr_train.config.command_line import Request, resolve
from lsr_train.config.fields import is_about_terms
from lsr_train.config.run import is_foreign
from lsr_train.methods import method_class

__all__ = ["Start", "TablePlan", "plan_table"]

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
