"""Makes tables of runs: every row is trained and scored alike, over devices, and written in every form."""

import itertools
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from lsr_infer.errors import InputError, LsrError, UsageError
from lsr_infer.io.atomic import write_json, write_text
from lsr_infer.io.paths import check_place, place_error
from lsr_train.comparison.document import LeftOut, comparison_document, comparison_table
from lsr_train.comparison.matrix import Score, TablePlan, check_folders, folder_name, last_checkpoint, plan_table
from lsr_train.comparison.options import AblateOptions, CompareOptions, TableOptions, Words
from lsr_train.comparison.schedule import (
    GOOD,
    Busy,
    Children,
    Diverged,
    Job,
    Slot,
    checked_slots,
    claim,
    last_error,
    run_jobs,
    said_so_far,
    train_run,
)
from lsr_train.comparison.search import search
from lsr_train.comparison.spec import Comparison, chosen_rows, read_comparison, spans_of, sweeps, without_each
from lsr_train.config.recipes import to_yaml
from lsr_train.evaluation.options import evaluate_options
from lsr_train.evaluation.result import comma_separated, latex, markdown, read_supervised, terminal
from lsr_train.runs.checkpoint import model_hash
from lsr_train.runs.folder import RunFolder, resolve_model

__all__ = ["ablate", "compare", "make_table"]

logger = logging.getLogger(__name__)

RECORD = "comparison.json"
"""In the table's folder: how it is scored, which all of its results have in common."""


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
        diverged: what was said of the entries that diverged, by name; grows.
        partial: entries whose runs or scores left unusable files out; grows.
        children: the processes.
        count: of entries that are through, for messages.
    """

    comparison: Comparison
    out: Path
    scores: tuple[Score, ...]
    evaluate: tuple[str, ...]
    target: tuple[str, ...]
    left_out: list[LeftOut] = field(default_factory=list)
    diverged: dict[str, str] = field(default_factory=dict)
    partial: list[str] = field(default_factory=list)
    children: Children = field(default_factory=Children)
    count: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def through(self, name: str, text: str) -> None:
        """Say what became of an entry, and how many there are."""
        logger.info("[%d/%d] %s: %s", next(self.count), len(self.scores), name, text)


def make_table(comparison: Comparison, options: TableOptions, words: Words, out: Path) -> int:
    """Train and score what is not there yet, and write the table.

    Args:
        comparison: its rows, and what they share.
        options: the command's own.
        words: those for the runs.
        out: the table's folder.

    Returns:
        0; 6 where a run failed or its folder is damaged or another's: it is named, and not in the table. Also 6 where
        unusable files were left out.

    Raises:
        InputError: nothing is left to be shown; the table is written all the same.
        LsrError: with the exit code of what went wrong.
    """
    slots = checked_slots(options)
    check_folders(comparison.rows)
    table = _table(plan_table(comparison, options, words, out), options)
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


def _table(plan: TablePlan, options: TableOptions) -> _Table:
    """Return what is to be scored, and how.

    Raises:
        UsageError: a row or an option of the scoring is not allowed.
        InputError: a checkpoint is named that is not there.
    """
    target = plan.given.config.data.target
    values = {"data": options.data or target.root, "layout": target.layout, **plan.comparison.evaluate}
    evaluate_options(["-", *_flags(values)])
    if values["data"] and not Path(values["data"]).exists():
        raise InputError(f"{values['data']}: there is no such folder of labelled images. Set --data.")
    if options.supervised:
        read_supervised(Path(options.supervised))
    statistics = {"target": target.root, "target_layout": target.layout, "target_split": target.split}
    return _Table(
        comparison=plan.comparison,
        out=plan.out,
        scores=tuple(score for seed in options.seed_list for score in _of_seed(plan, seed)),
        evaluate=_flags(values),
        target=_flags(statistics),
    )


def _of_seed(plan: TablePlan, seed: int) -> Iterator[Score]:
    """Yield every row for one seed."""
    start = plan.start(seed)
    for row in plan.comparison.rows:
        run, stage, model = None, start.stage, start.model
        if row.train:
            run = plan.run(row, start.model, seed)
            stage = None if run.config.method == "target-only" else stage
            model = last_checkpoint(run.folder)
        result = plan.out / folder_name(row.name) / f"seed-{seed}.json"
        yield Score(row=row, seed=seed, run=run, start=stage, model=model, result=result)


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
    document = {"evaluate": list(table.evaluate), "target": list(table.target)}
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
            stages[stage.folder] = Job(name=stage.name, work=partial(train_run, stage, children=table.children))
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


def _complete(table: _Table, score: Score, slot: Slot) -> None:
    """Train what a row needs, and score it.

    Raises:
        Busy: another process is at it.
        InputError: it failed, or its folder is damaged or another run's.
    """
    score.result.parent.mkdir(parents=True, exist_ok=True)
    lock = claim(score.result.with_name(f".{score.result.name}.lock"))
    if lock is None:
        raise Busy
    with lock:
        _train_and_score(table, score, slot)


def _train_and_score(table: _Table, score: Score, slot: Slot) -> None:
    """Train what a row needs, and score it: the last checkpoint, and the selected one where it is another."""
    said = _known_to_diverge(score)
    if said is not None:
        table.diverged[score.name] = said
        table.through(score.name, "diverged, as an earlier command saw")
        return
    codes = [0]
    if score.run is not None:
        try:
            codes.append(train_run(score.run, slot, table.children))
        except Diverged as error:
            write_json(score.diverged, {"message": str(error), "config": to_yaml(score.run.config)})
            table.diverged[score.name] = str(error)
            table.through(score.name, f"diverged: {error}")
            return
    missing = [(model, file) for model, file in _to_score(score) if not _is_result_of(file, model)]
    if missing:
        log = score.result.with_suffix(".score.log")
        before = said_so_far(log)
        words = [_scoring(table, score, model, file, slot) for model, file in missing]
        codes.append(table.children.run(words, slot, log))
        if codes[-1] not in GOOD:
            raise InputError(f"{last_error(log, before)} (exit {codes[-1]}; {log})")
    if max(codes):
        table.partial.append(score.name)
    miou = json.loads(score.result.read_text(encoding="utf-8"))["miou"]
    table.through(score.name, f"mIoU {100 * miou:.1f}" if missing else f"is there, mIoU {100 * miou:.1f}")


def _known_to_diverge(score: Score) -> str | None:
    """Return what an earlier command said of this very run where it diverged; a record of other settings is removed."""
    if score.run is None or not score.diverged.is_file():
        return None
    try:
        record = json.loads(score.diverged.read_text(encoding="utf-8"))
        if record["config"] == to_yaml(score.run.config):
            return str(record["message"])
    except (OSError, ValueError, KeyError, TypeError):
        logger.warning("%s: it is damaged, so %s is trained again", score.diverged, score.name)
    score.diverged.unlink(missing_ok=True)
    return None


def _is_result_of(file: Path, model: Path) -> bool:
    """Whether a result is there, and of the checkpoint that is there now."""
    if not file.is_file():
        return False
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["model"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(found == model_hash(resolve_model(model)))


def _to_score(score: Score) -> list[tuple[Path, Path]]:
    """Return checkpoints and where their results go."""
    found = [(score.model, score.result)]
    if score.run is not None:
        run = RunFolder(score.run.folder)
        best = run.pointer("best")
        if best is not None and best != run.pointer("last"):
            found.append((run.checkpoint(best), score.selected))
    return found


def _scoring(table: _Table, score: Score, model: Path, file: Path, slot: Slot) -> list[str]:
    """Return the words that score a checkpoint."""
    more = ["--batch_norm", "target", *table.target] if score.row.batch_norm == "target" else []
    return ["evaluate", str(model), *table.evaluate, *more, "--device", slot.device, "--out", str(file), "--overwrite"]


def _failed(table: _Table, job: Job, error: Exception | None) -> None:
    """Note that a piece of work failed, and say so."""
    if table.children.stopping:
        return
    if error is not None and not isinstance(error, LsrError | Diverged):
        logger.error("%s", job.name, exc_info=error)
    why = "what it starts from failed" if error is None else str(error)
    table.left_out.append(LeftOut(name=job.name, why=why))
    logger.error("%s is left out: %s", job.name, why)


# -- the table ------------------------------------------------------------------------------------------------------


def _write(table: _Table, options: TableOptions) -> int:
    """Write the table in every form and print it."""
    supervised = Path(options.supervised) if options.supervised else None
    document = comparison_document(table.comparison, table.scores, table.left_out, table.diverged, supervised)
    shown = comparison_table(document)
    parts = (comparison_table(document, "figures"), comparison_table(document, "classes"))
    write_json(table.out / "table.json", document)
    for name, text in (
        ("table.md", markdown(shown)), ("table.tex", latex(shown)),
        ("table.csv", comma_separated(comparison_table(document, numbers=True))),
    ):  # fmt: skip
        write_text(table.out / name, text)
    text = json.dumps(document, allow_nan=False) + "\n" if options.json else "\n".join(map(terminal, parts))
    print(text, end="")  # noqa: T201 - the result
    logger.info("table.md, table.tex, table.csv and table.json are in %s", table.out)
    for name in table.partial:
        logger.warning("%s: unusable files were left out, as %s says", name, table.out)
    if table.left_out and not any(entry["state"] != "missing" for row in document["rows"] for entry in row["seeds"]):
        raise InputError(f"nothing is left to be shown: {table.left_out[0].why}")
    return 6 if table.left_out or table.partial else 0


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
    return make_table(comparison, options, words, Path(options.out or f"runs/{comparison.name}"))


def ablate(options: AblateOptions, words: Words) -> int:
    """Train and score what is not there yet, and write the table; or search.

    Args:
        options: the command's own.
        words: those for the runs.

    Returns:
        0; 6 where a run failed or its folder is damaged or another's: it is named.

    Raises:
        LsrError: with the exit code of what went wrong.
    """
    comparison = read_comparison(options.recipe)
    (row,) = chosen_rows(comparison, [options.row], "row")
    if not row.train:
        raise UsageError(f"row {row.name} is not trained, so there is nothing to vary. Set --row.")
    what = "search" if options.search else "ablation"
    out = Path(options.out or f"runs/{comparison.name}-{folder_name(row.name)}-{what}")
    plan = plan_table(replace(comparison, rows=(row,)), options, words, out)
    config = plan.run(row, plan.start(options.seed_list[0]).model, options.seed_list[0]).config
    if options.search:
        return search(plan, row, spans_of(config, options.search), options)
    rows = sweeps(row, config, options.sweep) if options.sweep else without_each(row, config)
    name = re.sub(r"\s+", " ", f"{comparison.name}: {row.name}")
    return make_table(replace(comparison, name=name, rows=rows), options, words, out)
