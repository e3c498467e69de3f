"""Which runs a table needs: every configuration is built before anything runs, so what is wrong is said at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lsr_infer.errors import InputError, UsageError
from lsr_train.commands.configuration import Request, resolve
from lsr_train.commands.table_options import TableOptions, Words
from lsr_train.comparison.matrix import Given, Run, adapting_run, last_checkpoint, source_run, supervised_run
from lsr_train.comparison.plan import Comparison, Row
from lsr_train.config import Config
from lsr_train.config_fields import is_about_terms

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
        source: configuration of the source stage, but for what is given for all.
    """

    comparison: Comparison
    out: Path
    init: str
    words: Words
    given: Given
    source: Config

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
        """
        own = _request(row.recipe, []).config if row.recipe else self.given.config
        if (row.method or own.method) == "target-only":
            own = _request(row.recipe or self.comparison.base, self.words.target_only).config
            return supervised_run(row, own, self.given, seed, self.out)
        recipe = _request(row.recipe, self.words.runs).config if row.recipe else self.given.config
        return adapting_run(row, recipe, str(start), seed, self.out)


def _request(recipe: str, words: Sequence[str]) -> Request:
    return _resolved(recipe, tuple(words))


@cache
def _resolved(recipe: str, words: tuple[str, ...]) -> Request:
    """Read a recipe and words once: it takes a quarter of a second, and a table has many rows and seeds."""
    return resolve("pretrain", ["--recipe", recipe, *words], None)


def plan_table(comparison: Comparison, options: TableOptions, words: Words, out: Path) -> TablePlan:
    """Return what all runs of a table have in common.

    Args:
        comparison: its rows, and what they share.
        options: the command's own.
        words: those for the runs.
        out: the table's folder.

    Raises:
        UsageError: a word is not allowed, or no target is named.
    """
    base = _request(comparison.base, words.runs)
    own = sorted(name for name in base.flags if is_about_terms(name) or name in _OF_ROWS)
    if own:
        raise UsageError(f"--{own[0]} is each row's own. Set it in a comparison file, under the row's set.")
    if not base.config.data.target.given:
        raise UsageError("no target is named. Set --target.")
    source = _request(comparison.source, words.source_stage).config
    given = Given(config=base.config, names=base.flags)
    return TablePlan(comparison=comparison, out=out, init=options.init, words=words, given=given, source=source)
