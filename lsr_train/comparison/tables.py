"""Makes tables of runs for `compare` and `ablate`: all are trained and scored alike, over devices, and written out."""

import itertools
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.files import check_output_folder, output_path_error, write_json, write_text
from lsr_infer.system.progress import Progress
from lsr_infer.text import printable_json
from lsr_train.comparison import schedule
from lsr_train.comparison.activity import Activity, TableWatch
from lsr_train.comparison.document import LeftOut, comparison_document, comparison_table
from lsr_train.comparison.matrix import ScoredRun, TablePlan, check_folders, folder_name, last_checkpoint, plan_table
from lsr_train.comparison.options import AblateOptions, CompareOptions, TableArguments, TableOptions
from lsr_train.comparison.remote import workers_of
from lsr_train.comparison.schedule import Diverged, Processes, ScheduledTask, Slot, Workers
from lsr_train.comparison.spec import ComparisonSpec, read_comparison, search_ranges, select_runs, sweeps, without_each
from lsr_train.config.recipes import to_yaml
from lsr_train.evaluation.options import EvaluateOptions, evaluate_options
from lsr_train.evaluation.result import read_result
from lsr_train.evaluation.text_table import comma_separated, latex, markdown, terminal
from lsr_train.runs.checkpoint import model_hash
from lsr_train.runs.folder import RunFolder, resolve_model

__all__ = ["ablate", "compare", "table_scoring"]

logger = logging.getLogger(__name__)

_SCORING_FILE = "comparison.json"
"""How a table is scored, which all of its results have in common."""


@dataclass(frozen=True, kw_only=True)
class _Scorings:
    """Arguments of `evaluate`, by which all runs of a table are scored alike."""

    evaluate: tuple[str, ...]
    further: Mapping[str, tuple[str, ...]]  # the same for further scorings, by their names
    target: tuple[str, ...]  # for runs that are scored with the target's batch-norm statistics

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        document: dict[str, Any] = {"evaluate": list(self.evaluate), "target": list(self.target)}
        if self.further:
            document["further"] = {name: list(flags) for name, flags in self.further.items()}
        return document


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """How a run and its scores ended: words for the log, and whether unusable files were left out."""

    text: str
    diverged: str | None = None  # the message of a training that did
    partial: bool = False


@dataclass(frozen=True, kw_only=True)
class _TableRuns:
    """The runs of a table while they are trained and scored; what is left out or has diverged is added on the way."""

    comparison: ComparisonSpec  # with the runs that were asked for
    out: Path
    scored: tuple[ScoredRun, ...]
    scorings: _Scorings
    left_out: list[LeftOut] = field(default_factory=list)
    diverged: dict[str, str] = field(default_factory=dict)  # messages, by the name of an entry
    partial: list[str] = field(default_factory=list)  # entries whose runs or scores left unusable files out
    count: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    ended: list[str] = field(default_factory=list)  # entries that are through

    def complete(self, item: ScoredRun, workers: Workers) -> None:
        """Have an entry trained and scored, note how it ended, and log it with how many there are."""
        scoring = Activity(name=f"scoring {item.name}", log=item.result.with_suffix(".score.log"))
        activity = scoring if item.training is None else schedule.activity_of(item.training)
        outcome = workers.do(partial(_complete, self.scorings, item), activity)
        if outcome.diverged is not None:
            self.diverged[item.name] = outcome.diverged
        if outcome.partial:
            self.partial.append(item.name)
        self.ended.append(item.name)
        logger.info("[%d/%d] %s: %s", next(self.count), len(self.scored), item.name, outcome.text)

    def watch(self, workers: Workers) -> TableWatch:
        """Return what follows the runs."""
        trainings = (training for item in self.scored for training in (item.start, item.training) if training)
        steps = {training.folder: training.config.train.steps for training in trainings}
        return TableWatch(workers.activities, steps, len(self.scored), lambda: len(self.ended))


def compare(options: CompareOptions, arguments: TableArguments) -> int:
    """Train and score the methods of a table that are not there yet, and write it.

    Returns:
        0; 6 where a run failed or its folder is damaged or another's: it is named, and not in the table.
    """
    comparison = read_comparison(options.recipe)
    if options.names:
        comparison = replace(comparison, runs=select_runs(comparison, options.names))
    return _make_table(comparison, options, arguments, Path(options.out or f"runs/{comparison.name}"))


def ablate(options: AblateOptions, arguments: TableArguments) -> int:
    """Train and score variants of a run that are not there yet, and write the table as `compare`; or search fields."""
    comparison = read_comparison(options.recipe)
    (run,) = select_runs(comparison, [options.run], "run")
    if not run.train:
        raise UsageError(f"run {run.name} is not trained, so there is nothing to vary. Set --run.")
    what = "search" if options.search else "ablation"
    out = Path(options.out or f"runs/{comparison.name}-{folder_name(run.name)}-{what}")
    plan = plan_table(replace(comparison, runs=(run,)), options, arguments, out)
    seed = options.seed_list[0]
    config = plan.training(run, plan.start(seed)[1], seed).config
    if options.search:
        from lsr_train.comparison.search import search  # needs Optuna

        return search(plan, run, search_ranges(config, options.search), options)
    runs = sweeps(run, config, options.sweep) if options.sweep else without_each(run, config)
    name = re.sub(r"\s+", " ", f"{comparison.name}: {run.name}")
    return _make_table(replace(comparison, name=name, runs=runs), options, arguments, out)


def _make_table(comparison: ComparisonSpec, options: TableOptions, arguments: TableArguments, out: Path) -> int:
    """Train and score what is not there yet, and write the table; returns and raises as `compare`."""
    check_folders(comparison.runs)
    table = _table_runs(plan_table(comparison, options, arguments, out), options)
    with workers_of(options) as workers:
        check_output_folder(out)
        _record_scoring(table)
        tasks = _tasks(table, workers)
        logger.info(
            "%d runs, %d seeds, %d source stages; %d at a time, in %s",
            len(comparison.runs), len(options.seed_list), len(tasks) - len(table.scored), workers.count, out,
        )  # fmt: skip
        watch = table.watch(workers)
        with Progress(comparison.name, 100, unit="%", done=watch.look()[0], look=watch.look):
            schedule.run_tasks(tasks, workers, partial(_failed, table))
    return _write(table, options)


def _table_runs(plan: TablePlan, options: TableOptions) -> _TableRuns:
    """Return what is to be scored, and how; every run and option is checked."""
    target = plan.given.config.data.target
    values = {"data": options.data or target.root, "layout": target.layout, **plan.comparison.evaluate}
    further = {name: _flags({**values, **differing}) for name, differing in plan.comparison.further.items()}
    for flags in (_flags(values), *further.values()):
        evaluate_options(["-", *flags])
    if values["data"] and not Path(values["data"]).exists():
        raise InputError(f"{values['data']}: there is no such folder of labelled images. Set --data.")
    if options.supervised:
        read_result(Path(options.supervised))
    statistics = {"target": target.root, "target_layout": target.layout, "target_split": target.split}
    return _TableRuns(
        comparison=plan.comparison, out=plan.out,
        scorings=_Scorings(evaluate=_flags(values), further=further, target=_flags(statistics)),
        scored=tuple(item for seed in options.seed_list for item in _of_seed(plan, seed)),
    )  # fmt: skip


def _of_seed(plan: TablePlan, seed: int) -> Iterator[ScoredRun]:
    """Yield every run for one seed."""
    stage, source = plan.start(seed)
    for run in plan.comparison.runs:
        training = plan.training(run, source, seed) if run.train else None
        start = None if training is not None and training.config.method == "target-only" else stage
        model = source if training is None else last_checkpoint(training.folder)
        result = plan.out / folder_name(run.name) / f"seed-{seed}.json"
        yield ScoredRun(run=run, seed=seed, training=training, start=start, model=model, result=result)


def _flags(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return options of `evaluate` as arguments."""
    arguments: list[str] = []
    for name, value in values.items():
        if value is not False and value != "":
            arguments += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return tuple(arguments)


def _record_scoring(table: _TableRuns) -> None:
    """Write down how the table is scored; raises `UsageError` where one that is there is scored in another way."""
    file = table.out / _SCORING_FILE
    document = table.scorings.to_dict()
    try:
        table.out.mkdir(parents=True, exist_ok=True)
        existing = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else document
    except OSError as error:
        raise output_path_error(table.out, error) from error
    except ValueError as error:
        raise InputError(f"{file}: it is damaged. Remove it if the results beside it are scored alike.") from error
    if existing != document:
        raise UsageError(
            f"{table.out} is a table that is scored with {' '.join(existing.get('evaluate', []))}; this one with "
            f"{' '.join(table.scorings.evaluate)}. Choose another --out."
        )
    write_json(file, document)


def table_scoring(folder: Path) -> EvaluateOptions:
    """Return the options that the networks of a table were scored with; `InputError` where they cannot be read."""
    file = folder / _SCORING_FILE
    try:
        words = json.loads(file.read_text(encoding="utf-8"))["evaluate"]
        return evaluate_options(["-", *words])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file}: how the table was scored cannot be read. Name labelled images with --data."
        ) from error


def _tasks(table: _TableRuns, workers: Workers) -> list[ScheduledTask]:
    """Return what is to be done; source stages first, since others wait for them."""
    stages = {item.start.folder: item.start for item in table.scored if item.start is not None}
    first = {
        folder: ScheduledTask(name=stage.name, work=partial(schedule.train_on, workers, stage))
        for folder, stage in stages.items()
    }
    others = []
    for item in table.scored:
        after = None if item.start is None else first[item.start.folder]
        others.append(ScheduledTask(name=item.name, work=partial(table.complete, item, workers), after=after))
    return [*first.values(), *others]


def _complete(scorings: _Scorings, item: ScoredRun, slot: Slot, processes: Processes) -> _Outcome:
    """Train a run and score it: the last checkpoint, and the selected one where it is another."""
    item.result.parent.mkdir(parents=True, exist_ok=True)
    with schedule.acquire(item.result.with_name(f".{item.result.name}.lock")):
        message = _known_to_diverge(item)
        if message is not None:
            return _Outcome(text="skipped: diverged in an earlier command", diverged=message)
        code = 0
        if item.training is not None:
            try:
                code = schedule.train_run(item.training, slot, processes)
            except Diverged as error:
                write_json(item.diverged, {"message": str(error), "config": to_yaml(item.training.config)})
                return _Outcome(text=f"diverged: {error}", diverged=str(error))
        missing = [one for one in _to_score(scorings, item) if not _is_result_of(one.file, one.model)]
        if missing:
            log = item.result.with_suffix(".score.log")
            logger.info("%s: scoring, its log is %s", item.name, log)
            activity = Activity(name=f"scoring {item.name}", log=log)
            result = processes.run([_scoring(scorings, item, one, slot) for one in missing], slot, activity)
            if result.code not in schedule.SUCCESS:
                raise InputError(f"{result.error} (exit {result.code}; {log})")
            code = max(code, result.code)
        miou = 100 * json.loads(item.result.read_text(encoding="utf-8"))["miou"]
        text = f"mIoU {miou:.1f} %" if missing else f"skipped: scored already, mIoU {miou:.1f} %"
        return _Outcome(text=text, partial=bool(code))


def _known_to_diverge(item: ScoredRun) -> str | None:
    """Return the message of an earlier command in which this very run diverged; a record of other settings goes."""
    if item.training is None or not item.diverged.is_file():
        return None
    try:
        record = json.loads(item.diverged.read_text(encoding="utf-8"))
        if record["config"] == to_yaml(item.training.config):
            return str(record["message"])
    except (OSError, ValueError, KeyError, TypeError):
        logger.warning("%s: it is damaged, so %s is trained again", item.diverged, item.name)
    item.diverged.unlink(missing_ok=True)
    return None


def _is_result_of(file: Path, model: Path) -> bool:
    """Whether a result is there, and of the checkpoint that is there now."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["model"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(found == model_hash(resolve_model(model)))


class _Scoring(NamedTuple):
    """A checkpoint that is scored, where its result goes, and the options of `evaluate`."""

    model: Path
    file: Path
    options: tuple[str, ...]


def _to_score(scorings: _Scorings, item: ScoredRun) -> list[_Scoring]:
    """Return the scorings of a run: of its last checkpoint, and of the selected one where it is another."""
    found = [_Scoring(item.model, item.result, scorings.evaluate)]
    found += [_Scoring(item.model, item.further(name), options) for name, options in scorings.further.items()]
    if item.training is not None:
        run = RunFolder(item.training.folder)
        best = run.pointer("best")
        if best is not None and best != run.pointer("last"):
            found.append(_Scoring(run.checkpoint(best), item.selected, scorings.evaluate))
    return found


def _scoring(scorings: _Scorings, item: ScoredRun, one: _Scoring, slot: Slot) -> list[str]:
    """Return the arguments that score a checkpoint."""
    more = ["--batch_norm", "target", *scorings.target] if item.run.batch_norm == "target" else []
    place = ["--device", slot.device, "--out", str(one.file), "--overwrite"]
    return ["evaluate", str(one.model), *one.options, *more, *place]


def _failed(table: _TableRuns, task: ScheduledTask, error: Exception | None) -> None:
    """Note and log that a task failed."""
    why = "what it starts from failed" if error is None else str(error)
    table.left_out.append(LeftOut(name=task.name, why=why))
    logger.error("%s is left out: %s", task.name, why)


def _write(table: _TableRuns, options: TableOptions) -> int:
    """Write the table in every form and print it."""
    supervised = Path(options.supervised) if options.supervised else None
    document = comparison_document(table.comparison, table.scored, table.left_out, table.diverged, supervised)
    shown = comparison_table(document)
    write_json(table.out / "table.json", document)
    write_text(table.out / "table.md", markdown(shown))
    write_text(table.out / "table.tex", latex(shown))
    write_text(table.out / "table.csv", comma_separated(comparison_table(document, numbers=True)))
    parts = (comparison_table(document, "figures"), comparison_table(document, "classes"))
    text = printable_json(document, allow_nan=False) + "\n" if options.json else "\n".join(map(terminal, parts))
    print(text, end="")  # noqa: T201 - the result
    logger.info("table.md, table.tex, table.csv and table.json are in %s", table.out)
    for name in table.partial:
        logger.warning("%s: unusable files were left out, see the logs in %s", name, table.out)
    if table.left_out and not any(entry["state"] != "missing" for row in document["rows"] for entry in row["seeds"]):
        raise InputError(f"there is nothing to show: {table.left_out[0].why}")
    return 6 if table.left_out or table.partial else 0
