"""What `compare` does once its command line is understood: plan every run, share them out, and write the table."""

import itertools
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from lsr_infer.errors import InputError, LsrError, UsageError
from lsr_infer.files import write_json, write_text
from lsr_infer.places import check_place, place_error
from lsr_train.commands.compare import CompareOptions, Words
from lsr_train.commands.configuration import Request, config_from_text, resolve
from lsr_train.commands.evaluate import EvaluateOptions
from lsr_train.comparison.jobs import Children, Job, Slot, run_jobs, slots_of
from lsr_train.comparison.matrix import (
    Given,
    Run,
    Score,
    adapting_run,
    check_folders,
    folder_name,
    last_checkpoint,
    source_run,
    supervised_run,
)
from lsr_train.comparison.outcome import LeftOut, comparison_document
from lsr_train.comparison.plan import Comparison, Row, chosen_rows, read_comparison
from lsr_train.config import Config
from lsr_train.config_fields import is_about_terms, with_fields
from lsr_train.config_file import to_yaml
from lsr_train.device import choose_device, choose_precision
from lsr_train.report.comparison import comparison_table
from lsr_train.report.table import comma_separated, latex, markdown, terminal
from lsr_train.reuse import differing, is_finished
from lsr_train.run_folder import RunFolder

__all__ = ["compare"]

logger = logging.getLogger(__name__)

RECORD = "comparison.json"
"""In the table's folder: how it is scored, which all of its results have in common."""
_DIVERGED = 5
_GOOD = (0, 6)


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A table that is being made.

    Args:
        comparison: what it is of, with the rows that were asked for.
        out: its folder.
        scores: one entry a row and seed.
        evaluate: words of `evaluate`, the same for all.
        target: words of `evaluate` for rows that are scored with the target's batch-norm statistics.
        left_out: what is not in the table, and why; grows.
        children: the processes.
        count: of entries that are through, for messages.
    """

    comparison: Comparison
    out: Path
    scores: tuple[Score, ...]
    evaluate: tuple[str, ...]
    target: tuple[str, ...]
    left_out: list[LeftOut] = field(default_factory=list)
    children: Children = field(default_factory=Children)
    count: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def through(self, name: str, text: str) -> None:
        """Say what became of an entry, and how many there are."""
        logger.info("[%d/%d] %s: %s", next(self.count), len(self.scores), name, text)


def compare(options: CompareOptions, words: Words) -> int:
    """Train and score what is not there yet, and write the table.

    Args:
        options: the command's own.
        words: those for the runs.

    Returns:
        0; 6 where a run failed or its folder is damaged or another's: it is named, and not in the table.

    Raises:
        LsrError: with the exit code of what went wrong.
    """
    comparison = read_comparison(options.recipe)
    if options.names:
        comparison = replace(comparison, rows=chosen_rows(comparison, options.names))
    slots = slots_of(options.device_list, os.environ)
    out = Path(options.out or f"runs/{comparison.name}")
    table = _plan(options, comparison, out, words)
    check_place(out)
    _record(table)
    jobs = _jobs(table)
    stages = len(jobs) - len(table.scores)
    logger.info(
        "%d rows, %d seeds, %d source stages; %d at a time, in %s",
        len(comparison.rows), len(options.seed_list), stages, len(slots), out,
    )  # fmt: skip
    run_jobs(jobs, slots, table.children, partial(_failed, table))
    return _write(table, options)


# -- the plan -------------------------------------------------------------------------------------------------------


def _request(recipe: str, words: Sequence[str]) -> Request:
    return resolve("pretrain", ["--recipe", recipe, *words], None)


def _plan(options: CompareOptions, comparison: Comparison, out: Path, words: Words) -> _Table:
    """Build every configuration, so that whatever is wrong is said before anything runs.

    Raises:
        UsageError: a word, a row or a combination is not allowed.
    """
    check_folders(comparison.rows)
    base = _request(comparison.base, words.runs)
    about_terms = sorted(name for name in base.flags if is_about_terms(name))
    if about_terms or base.flags & {"method", "seed", "init", "out", "resume"}:
        name = (about_terms or sorted(base.flags & {"method", "seed", "init", "out", "resume"}))[0]
        raise UsageError(f"--{name} is each row's own. Set it in a comparison file, under the row's set.")
    given = Given(config=base.config, names=base.flags)
    source = _request(comparison.source, words.source_stage)
    target = base.config.data.target
    if not target.given:
        raise UsageError("no target is named. Set --target.")
    scored_on = options.data or target.root
    values = {"data": scored_on, "layout": target.layout, **comparison.evaluate}
    EvaluateOptions(model="-", **values)
    statistics = {"target": target.root, "target_layout": target.layout, "target_split": target.split}
    scores = [
        score
        for seed in options.seed_list
        for score in _of_seed(options, comparison, out, given, source.config, words, seed)
    ]
    return _Table(
        comparison=comparison, out=out, scores=tuple(scores), evaluate=_flags(values), target=_flags(statistics)
    )


def _of_seed(
    options: CompareOptions,
    comparison: Comparison,
    out: Path,
    given: Given,
    source: Config,
    words: Words,
    seed: int,
) -> list[Score]:
    """Return every row for one seed."""
    stage = None if options.init else source_run(source, given, seed, out)
    start = Path(options.init.replace("{seed}", str(seed))) if stage is None else last_checkpoint(stage.folder)
    if stage is None and not start.exists():
        raise InputError(f"{start}: there is no such checkpoint. Set --init.")
    scores = []
    for row in comparison.rows:
        run, after, model = None, stage, start
        if row.train:
            run, after = _run_of(row, comparison, out, given, words, str(start), seed), stage
            if run.config.method == "target-only":
                after = None
            model = last_checkpoint(run.folder)
        result = out / folder_name(row.name) / f"seed-{seed}.json"
        scores.append(Score(row=row, seed=seed, run=run, start=after, model=model, result=result))
    return scores


def _run_of(row: Row, comparison: Comparison, out: Path, given: Given, words: Words, start: str, seed: int) -> Run:
    """Return what is trained for a row."""
    own = _request(row.recipe, []).config if row.recipe else given.config
    if (row.method or own.method) == "target-only":
        own = _request(row.recipe or comparison.base, words.target_only).config
        return supervised_run(row, own, given, seed, out)
    recipe = _request(row.recipe, words.runs).config if row.recipe else given.config
    return adapting_run(row, recipe, start, seed, out)


def _flags(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return options of `evaluate` as words."""
    words: list[str] = []
    for name, value in values.items():
        if isinstance(value, bool):
            words += [f"--{name}"] if value else []
        elif value != "":
            words += [f"--{name}", str(value)]
    return tuple(words)


def _record(table: _Table) -> None:
    """Write down how the table is scored; one that is there must be scored alike.

    Raises:
        UsageError: it is scored in another way.
        InputError: the place cannot be written.
    """
    file = table.out / RECORD
    document = {"evaluate": list(table.evaluate)}
    try:
        table.out.mkdir(parents=True, exist_ok=True)
        there = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else document
    except OSError as error:
        raise place_error(table.out, error) from error
    except ValueError as error:
        raise InputError(f"{file}: it is damaged. Remove it if the results beside it are scored alike.") from error
    if there != document:
        raise UsageError(
            f"{table.out} is a table that is scored with {' '.join(there.get('evaluate', []))}; this one with "
            f"{' '.join(table.evaluate)}. Choose another --out."
        )
    write_json(file, document)


# -- the work -------------------------------------------------------------------------------------------------------


def _jobs(table: _Table) -> list[Job]:
    """Return what is left to do; source stages first, since others wait for them."""
    jobs: list[Job] = []
    stages: dict[Path, Job] = {}
    for score in table.scores:
        stage = score.start
        if stage is not None and stage.folder not in stages:
            stages[stage.folder] = Job(name=stage.name, work=partial(_train, table, stage))
            jobs.append(stages[stage.folder])
    jobs += [
        Job(
            name=score.name,
            work=partial(_complete, table, score),
            after=None if score.start is None else stages[score.start.folder],
        )
        for score in table.scores
    ]
    return jobs


def _train(table: _Table, run: Run, slot: Slot) -> None:
    """Train a run, or go on with it; nothing where it is finished.

    Raises:
        InputError: its folder is damaged or another run's, or the training failed.
        _Diverged: a loss was not finite.
    """
    if run.folder.exists():
        _check_run(run)
        if is_finished(run.folder):
            return
        logger.info("%s goes on", run.name)
    else:
        wanted = _at(run, slot)
        RunFolder.create(run.folder, to_yaml(wanted)).close()
        logger.info("%s begins: %s, %d steps", run.name, wanted.method, wanted.train.steps)
    log = run.folder.with_name(f"{run.folder.name}.log")
    code = table.children.run([[run.command, "--resume", str(run.folder)]], slot, log)
    if code == _DIVERGED:
        raise _Diverged(_last_error(log))
    if code not in _GOOD:
        raise InputError(f"{_last_error(log)} (exit {code}; {log})")


class _Diverged(Exception):  # noqa: N818 - an outcome of a run, which the table shows
    """A loss was not finite."""


def _at(run: Run, slot: Slot) -> Config:
    """Return a run's configuration at a place: its device, and the precision that `auto` is there."""
    train = run.config.train
    name = slot.device if slot.device != "auto" else train.device
    device = choose_device(name, train.precision, prefix="train.")
    precision = choose_precision(device, train.precision)
    return with_fields(run.config, {"train.device": device.type, "train.precision": precision})


def _check_run(run: Run) -> None:
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


def _last_error(log: Path) -> str:
    """Return what a command said last that is an error."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1].removeprefix("error: ") if errors else (lines[-1] if lines else "nothing was said")


def _complete(table: _Table, score: Score, slot: Slot) -> None:
    """Train what a row needs, and score it: the last checkpoint, and the selected one where it is another."""
    if score.diverged.is_file():
        table.through(score.name, "diverged, as an earlier command saw")
        return
    score.result.parent.mkdir(parents=True, exist_ok=True)
    if score.run is not None:
        try:
            _train(table, score.run, slot)
        except _Diverged as error:
            write_json(score.diverged, {"message": str(error)})
            table.through(score.name, f"diverged: {error}")
            return
    commands = [_scoring(table, score, model, file) for model, file in _to_score(score) if not file.is_file()]
    log = score.result.with_suffix(".score.log")
    code = table.children.run(commands, slot, log) if commands else 0
    if code not in _GOOD:
        raise InputError(f"{_last_error(log)} (exit {code}; {log})")
    if not commands:
        table.through(score.name, "is there")
        return
    miou = json.loads(score.result.read_text(encoding="utf-8"))["miou"]
    table.through(score.name, f"mIoU {100 * miou:.1f}")


def _to_score(score: Score) -> list[tuple[Path, Path]]:
    """Return checkpoints and where their results go."""
    found = [(score.model, score.result)]
    if score.run is not None:
        run = RunFolder(score.run.folder)
        best = run.pointer("best")
        if best is not None and best != run.pointer("last"):
            found.append((run.checkpoint(best), score.selected))
    return found


def _scoring(table: _Table, score: Score, model: Path, file: Path) -> list[str]:
    """Return the words that score a checkpoint."""
    more = ["--batch_norm", "target", *table.target] if score.row.batch_norm == "target" else []
    return ["evaluate", str(model), *table.evaluate, *more, "--out", str(file)]


def _failed(table: _Table, job: Job, error: Exception | None) -> None:
    """Note that a piece of work failed, and say so."""
    if table.children.stopping:
        return
    if error is not None and not isinstance(error, LsrError):
        logger.error("%s", job.name, exc_info=error)
    why = "what it starts from failed" if error is None else str(error)
    table.left_out.append(LeftOut(name=job.name, why=why))
    logger.error("%s is left out: %s", job.name, why)


# -- the table ------------------------------------------------------------------------------------------------------


def _write(table: _Table, options: CompareOptions) -> int:
    """Write the table in every form and print it."""
    supervised = Path(options.supervised) if options.supervised else None
    document = comparison_document(table.comparison, table.scores, table.left_out, supervised)
    shown = comparison_table(document)
    parts = (comparison_table(document, "figures"), comparison_table(document, "classes"))
    write_json(table.out / "table.json", document)
    for name, form in (("table.md", markdown), ("table.tex", latex), ("table.csv", comma_separated)):
        write_text(table.out / name, form(shown))
    text = json.dumps(document, allow_nan=False) + "\n" if options.json else "\n".join(map(terminal, parts))
    print(text, end="")  # noqa: T201 - the result
    logger.info("table.md, table.tex, table.csv and table.json are in %s", table.out)
    return 6 if table.left_out else 0
