"""Searches fields of a run for the best label-free signal: proposals by Optuna, trials as runs over devices.

Who works on a trial holds its lock: one that is neither finished nor held was left by a killed process, and is resumed.
"""

import itertools
import json
import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import yaml
from filelock import AcquireReturnProxy
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from lsr_infer.errors import InputError, LsrError, QualityGateError, UsageError
from lsr_infer.io.files import check_output_folder, whole_file, write_json, write_text
from lsr_infer.system.progress import Progress
from lsr_infer.text import printable_json
from lsr_train.comparison import schedule
from lsr_train.comparison.activity import TableWatch
from lsr_train.comparison.matrix import TablePlan, Training, folder_name
from lsr_train.comparison.options import AblateOptions
from lsr_train.comparison.remote import workers_of
from lsr_train.comparison.schedule import Diverged, ScheduledTask, Workers
from lsr_train.comparison.spec import RunSpec, SearchRange
from lsr_train.config.run import Config
from lsr_train.evaluation.signals import CollapseWatch
from lsr_train.evaluation.text_table import TextTable, comma_separated, markdown, terminal
from lsr_train.runs.folder import RunFolder
from lsr_train.runs.matching import effective_fields

__all__ = ["STUDY_FILE", "SharedStudy", "Trial", "search"]

logger = logging.getLogger(__name__)

STUDY_FILE = "search.db"
"""In the search's folder: Optuna's study."""
_NAME = "search"
_ABOUT = "about"
_TRIALS_BEFORE_MODEL = 5  # drawn at random before the estimator proposes; the first has the run's own values
_NOT_COMPARED = frozenset({"init", "seed", "train.device", "train.precision", "train.threads"})
"""Fields that may differ between processes that share a search, or that it has under other names."""


# -- the study ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of a search."""

    number: int
    values: Mapping[str, int | float]  # by dotted name of the field
    state: str = "open"  # or `done`, or `failed`: it diverged or a class died
    signal: float | None = None  # what the search maximises; None unless done
    more: Mapping[str, Any] = field(default_factory=dict)  # further figures, and why it failed


class SharedStudy:
    """A study in SQLite that an interrupted search resumes and several processes share.

    Optuna's heartbeats are not used: they never find a trial whose process was killed before its first beat, find
    others only after a grace period, and run a trial twice whose process was merely suspended. A lock does none of it.

    Args:
        about: plain data in which all processes that share it must agree, such as the run.
        stopping: whether this process should start nothing any more.

    Raises:
        UsageError: the search that is there is another.
        InputError: its file is damaged or cannot be written.
    """

    def __init__(
        self, folder: Path, ranges: Sequence[SearchRange], about: Mapping[str, Any], seed: int,
        stopping: Callable[[], bool],
    ) -> None:  # fmt: skip
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder = folder
        self.space = {item.field: _distribution(item) for item in ranges}
        inside = all(item.low <= item.current <= item.high for item in ranges)
        self.own = {item.field: item.current for item in ranges} if inside else None
        self.seed = seed
        self.stopping = stopping
        self._broken: dict[int, str] = {}  # trials whose run broke in this process, and why
        document = {**about, "space": {item.field: item.to_dict() for item in ranges}}
        wanted = json.loads(json.dumps(document, default=str))
        with self._exclusive():
            if not (folder / STUDY_FILE).exists():
                _create_study(folder / STUDY_FILE, wanted)
            try:
                self.study = optuna.load_study(study_name=_NAME, storage=f"sqlite:///{folder / STUDY_FILE}")
                about = self.study.user_attrs[_ABOUT]
                existing = {"run" if name == "row" else name: value for name, value in about.items()}  # 0.1.0: row
            except Exception as error:  # whatever is made of a file that is no database
                raise InputError(
                    f"{folder / STUDY_FILE}: cannot be used ({' '.join(str(error).split())[:200]}). Move it away."
                ) from error
        if existing != wanted:
            names = ", ".join(sorted(name for name in {*wanted, *existing} if wanted.get(name) != existing.get(name)))
            raise UsageError(f"{folder} is another search: {names} differ. Choose another --out.")

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Keep other processes and threads from choosing at the same time; `InputError` where the study fails."""
        file = self.folder / STUDY_FILE
        with schedule.acquire(self.folder / ".search.lock", blocking=True):
            try:
                yield
            except (StorageInternalError, SQLAlchemyError) as error:
                reason = " ".join(str(error.__cause__ or error).split())[:200]
                raise InputError(f"{file}: cannot be used ({reason}). Free space, or move it away.") from error

    def lock_file(self, number: int) -> Path:
        """Return the file that is locked while somebody works on a trial."""
        return self.folder / f".trial-{number:04}.lock"

    def take(self, trials: int) -> tuple[Trial, AcquireReturnProxy[Any]] | None:
        """Take up a trial that was left, or a new one of so many `trials`.

        Returns:
            The trial and its lock, to be released once it is told; None where none is left to start.
        """
        with self._exclusive():
            if self.stopping():
                return None
            started = self._started()
            for left in started:
                if left.state == TrialState.RUNNING and left.number not in self._broken:
                    try:
                        return _plain(left, {}), schedule.acquire(self.lock_file(left.number))
                    except schedule.Busy:
                        continue
            if len(started) >= trials:
                return None
            self.study.add_trial(self._proposal(started))  # in one transaction: a kill leaves all of it or nothing
            new = _plain(self._started()[-1], {})
            return new, schedule.acquire(self.lock_file(new.number))

    def _proposal(self, started: Sequence[FrozenTrial]) -> FrozenTrial:
        """Return the next trial: the run's own values first, where they lie in the ranges, then what Optuna proposes.

        It is asked of a copy in memory, since the study itself would store one value after the other.
        """
        # a seed of its own for each trial: an interrupted search proposes what an uninterrupted one does
        sampler = optuna.samplers.TPESampler(
            seed=self.seed * 100_003 + len(started), n_startup_trials=_TRIALS_BEFORE_MODEL, constant_liar=True
        )
        copy = optuna.create_study(sampler=sampler, direction="maximize")
        copy.add_trials(started)
        own = None if started else self.own
        values = copy.ask(self.space).params if own is None else own
        return optuna.trial.create_trial(state=TrialState.RUNNING, params=values, distributions=self.space)

    def tell(self, trial: Trial, signal: float | None, more: Mapping[str, Any]) -> None:
        """Record the result of a trial; `signal` is None where it failed, which counts as worse than anything."""
        with self._exclusive():
            self.study.set_user_attr(f"trial {trial.number}", dict(more))
            state = TrialState.PRUNED if signal is None else TrialState.COMPLETE
            self.study.tell(trial.number, signal, state=state)

    def leave(self, trial: Trial, why: str) -> None:
        """Let a trial whose run broke, such as by a kill or a full disk, be taken up by the next command."""
        self._broken[trial.number] = why

    def trials(self) -> list[Trial]:
        """Return all trials that were started, by number."""
        more = {f"trial {number}": {"why": why} for number, why in self._broken.items()} | self.study.user_attrs
        return [_plain(item, more.get(f"trial {item.number}", {})) for item in self._started()]

    def _started(self) -> list[FrozenTrial]:
        return [item for item in self.study.get_trials(deepcopy=False) if item.state != TrialState.WAITING]


def _create_study(path: Path, about: Mapping[str, Any]) -> None:
    """Write an empty study, whole or not at all: a half-made one lacks indices that nothing would make later."""
    with whole_file(path, overwrite=False) as temporary:
        storage = optuna.storages.RDBStorage(f"sqlite:///{temporary}")
        optuna.create_study(storage=storage, study_name=_NAME, direction="maximize").set_user_attr(_ABOUT, about)
        storage.engine.dispose()


def _distribution(item: SearchRange) -> BaseDistribution:
    if isinstance(item.low, int) and isinstance(item.high, int):
        return IntDistribution(item.low, item.high, log=item.log)
    return FloatDistribution(item.low, item.high, log=item.log)


def _plain(trial: FrozenTrial, more: Mapping[str, Any]) -> Trial:
    state = {TrialState.COMPLETE: "done", TrialState.RUNNING: "open"}.get(trial.state, "failed")
    signal = trial.value if state == "done" else None
    return Trial(number=trial.number, values=dict(trial.params), state=state, signal=signal, more=dict(more))


# -- the runs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _SearchRuns:
    """The runs of a search."""

    plan: TablePlan
    run: RunSpec
    ranges: tuple[SearchRange, ...]
    seeds: tuple[int, ...]  # each trial is run with all of them; its signal is their mean
    trials: int  # how many there are to be
    config: Config
    workers: Workers
    failures: list[str] = field(default_factory=list)  # runs that broke; grows


class _Stopped(Exception):  # noqa: N818 - no error: somebody asked for it
    """The work was interrupted."""


class _Collapsed(Diverged):
    """A class died, so that agreement says nothing."""


def search(plan: TablePlan, run: RunSpec, ranges: tuple[SearchRange, ...], options: AblateOptions) -> int:
    """Run what is left of a search, and write what it found.

    Returns:
        0; 6 where the run of a trial broke.

    Raises:
        QualityGateError: every trial diverged or lost a class; the table is written all the same.
    """
    seeds = options.seed_list
    starts = [plan.start(seed) for seed in seeds]
    first = starts[0][1]
    config = plan.training(run, first, seeds[0]).config
    if config.selection.signal in ("none", "source"):
        raise UsageError(
            f"run {run.name} selects by {config.selection.signal}, and a search needs a signal of unlabelled frames. "
            "Set --selection.signal flip."
        )
    for item in ranges:
        for value in (item.low, item.high):
            plan.training(replace(run, set={**run.set, item.field: value}), first, seeds[0])
        if not item.low <= item.current <= item.high:
            logger.info("%s is %g in %s, outside the search: no trial has it", item.field, item.current, run.name)
    with workers_of(options) as workers:
        check_output_folder(plan.out)
        runs = _SearchRuns(
            plan=plan, run=run, ranges=ranges, seeds=seeds, trials=options.trials, config=config, workers=workers
        )
        about = {
            "run": run.name, "seeds": list(seeds), "start": [str(model) for _, model in starts],
            **{name: value for name, value in effective_fields(config).items() if name not in _NOT_COMPARED},
        }  # fmt: skip
        study = SharedStudy(plan.out, ranges, about, seeds[0], lambda: workers.stopping)
        shown = runs.trials, config.train.steps, workers.count, plan.out
        logger.info("%d trials of %d steps, %d at a time, in %s", *shown)
        _train_all(runs, [stage for stage, _ in starts if stage is not None], study)
    trials = study.trials()
    _write(runs, trials, as_json=options.json)
    if not runs.failures and all(trial.state == "failed" for trial in trials):
        raise QualityGateError(f"every one of {len(trials)} trials failed, so there is no best; {plan.out} says why.")
    return 6 if runs.failures else 0


def _train_all(runs: _SearchRuns, stages: Sequence[Training], study: SharedStudy) -> None:
    """Train the source stages, then trials on every worker until there are enough."""

    def failed(task: ScheduledTask, error: Exception | None) -> None:
        runs.failures.append(f"{task.name}: {error}")
        logger.error("%s failed: %s", task.name, error)

    def trial_after_trial() -> None:
        while (taken := study.take(runs.trials)) is not None:
            trial, lock = taken
            with lock:
                _run_trial(runs, study, trial)

    sources = [ScheduledTask(name=stage.name, work=partial(schedule.train_on, runs.workers, stage)) for stage in stages]
    watch = _watch(runs, stages)
    with Progress(f"search of {runs.run.name}", 100, unit="%", done=watch.look()[0], look=watch.look):
        schedule.run_tasks(sources, runs.workers, failed)
        if runs.failures:
            raise InputError(f"there is nothing to start from: {runs.failures[0]}")
        loops = [ScheduledTask(name=f"worker {index}", work=trial_after_trial) for index in range(runs.workers.count)]
        schedule.run_tasks(loops, runs.workers, failed)


def _watch(runs: _SearchRuns, stages: Sequence[Training]) -> TableWatch:
    """Return what follows the source stages and all trials, those too that nobody has proposed yet."""
    steps = {stage.folder: stage.config.train.steps for stage in stages}
    for number, seed in itertools.product(range(runs.trials), runs.seeds):
        folder = runs.plan.out / folder_name(_trial_name(number)) / f"seed-{seed}"
        steps[folder] = runs.config.train.steps
    return TableWatch(runs.workers.activities, steps)


def _trial_name(number: int) -> str:
    return f"trial-{number:04}"


def _run_trial(runs: _SearchRuns, study: SharedStudy, trial: Trial) -> None:
    """Train a trial with every seed and record its result; none where this was interrupted."""
    values = ", ".join(f"{name} {value:.4g}" for name, value in trial.values.items())
    shown = f"[trial {trial.number + 1}/{runs.trials}] {values}"
    try:
        signals = [_train_trial(runs, trial, seed) for seed in runs.seeds]
    except _Stopped:
        return
    except Diverged as error:
        study.tell(trial, None, {"why": str(error)})
        logger.info("%s: %s", shown, error)
        return
    except LsrError as error:
        study.leave(trial, str(error))
        runs.failures.append(f"trial {trial.number}: {error}")
        logger.error("%s failed: %s", shown, error)
        return
    means = {name: statistics.fmean(item[name] for item in signals) for name in signals[0]}
    name = runs.config.selection.signal
    study.tell(trial, means[name], {"signals": means, "seeds": [item[name] for item in signals]})
    logger.info("%s: %s %.4f", shown, name, means[name])


def _train_trial(runs: _SearchRuns, trial: Trial, seed: int) -> dict[str, float]:
    """Train a trial with one seed and return the signals of its last evaluation on the unlabelled frames."""
    run = replace(runs.run, name=_trial_name(trial.number), set={**runs.run.set, **trial.values})
    training = runs.plan.training(run, runs.plan.start(seed)[1], seed)
    while not runs.workers.stopping:
        try:
            schedule.train_on(runs.workers, training)
            break
        except schedule.Busy:
            time.sleep(0.2)  # the process of a command that was killed ends in an instant
    if runs.workers.stopping:
        raise _Stopped
    folder = RunFolder(training.folder)
    state = folder.status()["selection"]["watch"]
    if state is not None:
        watch = CollapseWatch(tuple(dict.fromkeys(row["class"] for row in folder.classes.read())))
        watch.load_state(state)
        if watch.low:
            raise _Collapsed(f"class {', '.join(watch.low)} had died at the last evaluation")
    rows = folder.signals.read()
    try:
        last = {name: float(value) for name, value in rows[-1].items() if name != "step"}
    except (IndexError, ValueError, TypeError) as error:
        raise InputError(f"{folder.signals.path}: no signal can be read in it. Move {training.folder} away.") from error
    return {name: value for name, value in last.items() if math.isfinite(value)}


# -- the result -----------------------------------------------------------------------------------------------------


def _write(runs: _SearchRuns, trials: Sequence[Trial], *, as_json: bool) -> None:
    """Write the trials, best first, and the best values as what a run sets."""
    ordered = sorted(trials, key=lambda item: (item.signal is None, -(item.signal or 0), item.number))
    document = {
        "kind": "search",
        "format": 1,
        "run": runs.run.name,
        "signal": runs.config.selection.signal,
        "steps": runs.config.train.steps,
        "seeds": list(runs.seeds),
        "space": {item.field: item.to_dict() for item in runs.ranges},
        "trials": [
            {"number": t.number, "values": dict(t.values), "state": t.state, "signal": t.signal, **t.more}
            for t in ordered
        ],
        "failures": list(runs.failures),
    }
    out = runs.plan.out
    shown = _table(runs, ordered)
    write_json(out / "search.json", document)
    write_text(out / "search.md", markdown(shown))
    write_text(out / "search.csv", comma_separated(shown))
    print(printable_json(document, allow_nan=False) if as_json else terminal(shown), end="\n" if as_json else "")  # noqa: T201 - the result
    if ordered and ordered[0].signal is not None:
        text = "# Found on unlabelled frames alone; goes under a run of a comparison file.\n"
        write_text(out / "best.yaml", text + yaml.safe_dump({"set": dict(ordered[0].values)}, sort_keys=False))
        logger.info("best.yaml, search.json, search.md and search.csv are in %s", out)


def _table(runs: _SearchRuns, trials: Sequence[Trial]) -> TextTable:
    """Return the trials as a table, in the order they are given."""
    signal = runs.config.selection.signal
    names = (signal, *sorted({name for trial in trials for name in trial.more.get("signals", {})} - {signal}))
    rows = []
    for trial in trials:
        signals = trial.more.get("signals", {})
        figures = [f"{signals[name]:.4f}" if name in signals else "-" for name in names]
        rows.append((str(trial.number), *(f"{trial.values[item.field]:.4g}" for item in runs.ranges), *figures))
    notes = [
        f"{signal}: of {runs.config.selection.frames} unlabelled target frames after {runs.config.train.steps} steps, "
        f"mean over {len(runs.seeds)} seed{'s' * (len(runs.seeds) > 1)}; higher is better. No label was read."
    ]
    notes += [f"trial {trial.number}: {trial.more.get('why', trial.state)}" for trial in trials if trial.signal is None]
    best = frozenset({(0, 1 + len(runs.ranges))}) if trials and trials[0].signal is not None else frozenset()
    return TextTable(
        header=("trial", *(item.field for item in runs.ranges), *names), rows=tuple(rows),
        title=f"search of {runs.run.name}", notes=tuple(notes), best=best,
    )  # fmt: skip
