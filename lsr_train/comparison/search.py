"""Searches fields of a row for the best label-free signal: proposals by Optuna, trials as runs over devices."""

import json
import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import optuna
import yaml
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from lsr_infer.errors import InputError, LsrError, QualityGateError, UsageError
from lsr_infer.io.atomic import write_json, write_text
from lsr_infer.io.paths import check_place, place_error
from lsr_train.comparison.matrix import Run, TablePlan
from lsr_train.comparison.options import AblateOptions
from lsr_train.comparison.schedule import (
    Busy,
    Children,
    Diverged,
    Job,
    Slot,
    checked_slots,
    claim,
    exclusive,
    run_jobs,
    train_run,
)
from lsr_train.comparison.spec import Row, Span
from lsr_train.config.run import Config
from lsr_train.evaluation.result import Table, comma_separated, markdown, terminal
from lsr_train.evaluation.signals import CollapseWatch
from lsr_train.runs.folder import RunFolder
from lsr_train.runs.matching import effective_fields

__all__ = ["Search", "Trial", "search"]

logger = logging.getLogger(__name__)

STUDY_FILE = "search.db"
"""In the search's folder: Optuna's study."""
_NAME = "search"
_ABOUT = "about"
_TRIALS_BEFORE_MODEL = 5
"""So many are drawn at random before the estimator proposes; the first is what the row has."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of a search.

    Args:
        number: from 0 on.
        values: of the fields, by dotted name.
        state: `done`, `failed` (it diverged, a class died, or the run broke), or `open`.
        signal: what the search maximises; None unless done.
        more: further figures of it, and why it failed.
    """

    number: int
    values: Mapping[str, int | float]
    state: str
    signal: float | None
    more: Mapping[str, Any]


def _distribution(span: Span) -> BaseDistribution:
    if isinstance(span.low, int) and isinstance(span.high, int):
        return IntDistribution(span.low, span.high, log=span.log)
    return FloatDistribution(span.low, span.high, log=span.log)


class Search:
    """A search that may be shared with other processes.

    Args:
        folder: its place; it is there.
        spans: the fields.
        about: plain data that every process that shares it must have the same, such as the row.
        seed: of the proposals.
        stopping: whether this process should begin nothing any more.

    Raises:
        UsageError: the search that is there is another.
        InputError: its file is damaged or cannot be written.
    """

    def __init__(
        self, folder: Path, spans: Sequence[Span], about: Mapping[str, Any], seed: int, stopping: Callable[[], bool]
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder = folder
        self.space = {span.field: _distribution(span) for span in spans}
        self.seed = seed
        self.stopping = stopping
        wanted = {**about, "space": {span.field: span.to_dict() for span in spans}}
        with self._alone():
            try:
                self.study = optuna.create_study(
                    storage=f"sqlite:///{folder / STUDY_FILE}", study_name=_NAME, direction="maximize",
                    load_if_exists=True,
                )  # fmt: skip
                if _ABOUT not in self.study.user_attrs:
                    if all(span.low <= span.now <= span.high for span in spans):
                        self.study.enqueue_trial({span.field: span.now for span in spans})
                    self.study.set_user_attr(_ABOUT, json.loads(json.dumps(wanted, default=str)))
                there = self.study.user_attrs[_ABOUT]
            except Exception as error:  # whatever SQLAlchemy makes of a file that is no database
                raise InputError(
                    f"{folder / STUDY_FILE}: cannot be used ({' '.join(str(error).split())[:200]}). Move it away."
                ) from error
        wanted = json.loads(json.dumps(wanted, default=str))
        if there != wanted:
            names = ", ".join(sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name)))
            raise UsageError(f"{folder} is another search: {names} differ. Choose another --out.")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes and threads from choosing at the same time."""
        with exclusive(self.folder / ".search.lock", self.stopping, lambda: None):
            yield

    def lock_of(self, number: int) -> Path:
        """Return the file that whoever works on a trial holds."""
        return self.folder / f".trial-{number:04}.lock"

    def take(self, trials: int) -> tuple[Trial, IO[str]] | None:
        """Take up a trial that was left behind, or a new one.

        Args:
            trials: how many the search has in all.

        Returns:
            The trial and its lock, to be closed once it is told; None where none is left to begin.
        """
        with self._alone():
            if self.stopping():
                return None
            known = self.study.get_trials(deepcopy=False)
            for left in known:
                if left.state == TrialState.RUNNING and (lock := claim(self.lock_of(left.number))) is not None:
                    return _plain(left, {}), lock
            begun = [trial for trial in known if trial.state != TrialState.WAITING]
            if len(begun) >= trials:
                return None
            number = len(begun)
            # a seed of its own for each trial: an interrupted search proposes what an uninterrupted one does
            self.study.sampler = optuna.samplers.TPESampler(
                seed=self.seed * 100_003 + number, n_startup_trials=_TRIALS_BEFORE_MODEL, constant_liar=True
            )
            trial = self.study.ask(self.space)
            taken = claim(self.lock_of(trial.number))
            assert taken is not None  # nobody knows of it yet
            return Trial(number=trial.number, values=dict(trial.params), state="open", signal=None, more={}), taken

    def tell(self, trial: Trial, signal: float | None, more: Mapping[str, Any]) -> None:
        """Say what came of a trial.

        Args:
            trial: as `take` returned it.
            signal: what is maximised; None where it failed, which counts as worse than anything.
            more: further figures, and why it failed.
        """
        with self._alone():
            self.study.set_user_attr(_more(trial.number), dict(more))
            state = TrialState.PRUNED if signal is None else TrialState.COMPLETE
            self.study.tell(trial.number, signal, state=state)

    def trials(self) -> list[Trial]:
        """Return all trials that were begun, by number."""
        more = self.study.user_attrs
        begun = (item for item in self.study.get_trials(deepcopy=False) if item.state != TrialState.WAITING)
        return [_plain(item, more.get(_more(item.number), {})) for item in begun]


def _more(number: int) -> str:
    """Return under which name the study keeps further figures of a trial."""
    return f"trial {number}"


def _plain(trial: FrozenTrial, more: Mapping[str, Any]) -> Trial:
    state = {TrialState.COMPLETE: "done", TrialState.RUNNING: "open"}.get(trial.state, "failed")
    return Trial(
        number=trial.number,
        values=dict(trial.params),
        state=state,
        signal=trial.value if state == "done" else None,
        more=dict(more),
    )


_ELSEWHERE = frozenset({"init", "seed", "train.device", "train.precision", "train.threads"})
"""Fields that may differ between processes that share a search, or that it names in other words."""


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A search that is being made.

    Args:
        plan: what its runs have in common.
        row: whose fields are searched.
        spans: the fields.
        seeds: each trial is run with all of them; its signal is their mean.
        trials: how many there are to be.
        config: what the row trains with.
        children: the processes.
    """

    plan: TablePlan
    row: Row
    spans: tuple[Span, ...]
    seeds: tuple[int, ...]
    trials: int
    config: Config
    children: Children


def search(plan: TablePlan, row: Row, spans: tuple[Span, ...], options: AblateOptions) -> int:
    """Run what is left of a search, and write what it found.

    Args:
        plan: what its runs have in common.
        row: whose fields are searched.
        spans: the fields.
        options: the command's own.

    Returns:
        0; 6 where the run of a trial broke.

    Raises:
        QualityGateError: every trial diverged or lost a class; the table is written all the same.
        LsrError: with the exit code of what else went wrong.
    """
    seeds = options.seed_list
    starts = {seed: plan.start(seed) for seed in seeds}
    config = plan.run(row, starts[seeds[0]].model, seeds[0]).config
    if config.selection.signal in ("none", "source"):
        raise UsageError(
            f"row {row.name} selects by {config.selection.signal}, and a search needs a signal of unlabelled frames. "
            "Set --selection.signal flip."
        )
    for span in spans:
        for value in (span.low, span.high):
            plan.run(replace(row, set={**row.set, span.field: value}), starts[seeds[0]].model, seeds[0])
    slots = checked_slots(options)
    check_place(plan.out)
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise place_error(plan.out, error) from error
    children = Children()
    work = _Work(plan=plan, row=row, spans=spans, seeds=seeds, trials=options.trials, config=config, children=children)
    about = {
        "row": row.name,
        "seeds": list(seeds),
        "start": [str(start.model) for start in starts.values()],
        **{name: value for name, value in effective_fields(config).items() if name not in _ELSEWHERE},
    }
    for span in spans:
        if not span.low <= span.now <= span.high:
            logger.info(
                "%s is %g in row %s, outside the search: no trial is the row's own",
                span.field,
                span.now,
                row.name,
            )
    study = Search(plan.out, spans, about, seeds[0], lambda: children.stopping)
    logger.info("%d trials of %d steps, %d at a time, in %s", work.trials, config.train.steps, len(slots), plan.out)
    failures: list[str] = []
    _run_jobs(work, [start.stage for start in starts.values() if start.stage is not None], study, slots, failures)
    trials = study.trials()
    _write(work, trials, failures, as_json=options.json)
    if not failures and all(trial.state == "failed" for trial in trials):
        raise QualityGateError(f"every one of {len(trials)} trials failed, so there is no best; {plan.out} says why.")
    return 6 if failures else 0


def _run_jobs(work: _Work, stages: Sequence[Run], study: Search, slots: Sequence[Slot], failures: list[str]) -> None:
    """Train the source stages, then trials at every place until there are enough.

    Raises:
        InputError: a source stage failed.
        KeyboardInterrupt: on Ctrl-C, after every process has stopped.
    """

    def failed(job: Job, error: Exception | None) -> None:
        if work.children.stopping or error is None:
            return
        if not isinstance(error, LsrError | Diverged):
            logger.error("%s", job.name, exc_info=error)
        failures.append(f"{job.name}: {error}")
        logger.error("%s failed: %s", job.name, error)

    def trial_after_trial(slot: Slot) -> None:
        while (taken := study.take(work.trials)) is not None:
            trial, lock = taken
            with lock:
                _work_on(work, study, trial, slot, failures)

    sources = [Job(name=stage.name, work=partial(train_run, stage, children=work.children)) for stage in stages]
    run_jobs(sources, slots, work.children, failed)
    if failures:
        raise InputError(f"there is nothing to start from: {failures[0]}")
    places = [Job(name=f"place {index}", work=trial_after_trial) for index in range(len(slots))]
    run_jobs(places, slots, work.children, failed)


def _work_on(work: _Work, study: Search, trial: Trial, slot: Slot, failures: list[str]) -> None:
    """Train a trial with every seed and say what came of it; nothing is said where this was interrupted."""
    shown = _values(trial.values)
    try:
        looks = [_look(work, trial, seed, slot) for seed in work.seeds]
    except _Stopped:
        return
    except (Diverged, _Collapsed) as error:
        study.tell(trial, None, {"why": str(error)})
        logger.info("[trial %d/%d] %s: %s", trial.number + 1, work.trials, shown, error)
        return
    except LsrError as error:
        study.tell(trial, None, {"why": str(error)})
        failures.append(f"trial {trial.number}: {error}")
        logger.error("[trial %d/%d] %s failed: %s", trial.number + 1, work.trials, shown, error)
        return
    means = {name: statistics.fmean(look[name] for look in looks) for name in looks[0]}
    name = work.config.selection.signal
    signal = means[name]
    study.tell(trial, signal, {"signals": means, "seeds": [look[name] for look in looks]})
    logger.info("[trial %d/%d] %s: %s %.4f", trial.number + 1, work.trials, shown, name, signal)


class _Stopped(Exception):  # noqa: N818 - no error: somebody asked for it
    """The work was interrupted."""


class _Collapsed(Exception):  # noqa: N818 - an outcome of a trial
    """A class died, so that agreement says nothing."""


def _look(work: _Work, trial: Trial, seed: int, slot: Slot) -> dict[str, float]:
    """Train a trial with one seed and return what its last look at the unlabelled frames saw."""
    row = replace(work.row, name=f"trial-{trial.number:04}", set={**work.row.set, **trial.values})
    run = work.plan.run(row, work.plan.start(seed).model, seed)
    while not work.children.stopping:
        try:
            train_run(run, slot, work.children)
            break
        except Busy:
            time.sleep(0.2)  # the process of a command that was killed ends in an instant
    if work.children.stopping:
        raise _Stopped
    folder = RunFolder(run.folder)
    state = folder.status()["selection"]["watch"]
    if state is not None:
        watch = CollapseWatch(tuple(dict.fromkeys(row["class"] for row in folder.classes.read())))
        watch.load_state(state)
        if watch.low:
            raise _Collapsed(f"at the last look class {', '.join(watch.low)} had died")
    rows = folder.signals.read()
    try:
        last = {name: float(value) for name, value in rows[-1].items() if name != "step"}
    except (IndexError, ValueError, TypeError) as error:
        raise InputError(f"{folder.signals.path}: no signal can be read in it. Move {run.folder} away.") from error
    return {name: value for name, value in last.items() if math.isfinite(value)}


def _values(values: Mapping[str, int | float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _write(work: _Work, trials: Sequence[Trial], failures: Sequence[str], *, as_json: bool) -> None:
    """Write the trials, best first, and the best values as what a row sets."""
    done = sorted((trial for trial in trials if trial.signal is not None), key=_rank)
    others = [trial for trial in trials if trial.signal is None]
    document = {
        "kind": "search",
        "format": 1,
        "row": work.row.name,
        "signal": work.config.selection.signal,
        "steps": work.config.train.steps,
        "seeds": list(work.seeds),
        "space": {span.field: span.to_dict() for span in work.spans},
        "trials": [
            {
                "number": item.number,
                "values": dict(item.values),
                "state": item.state,
                "signal": item.signal,
                **item.more,
            }
            for item in (*done, *others)
        ],
        "failures": list(failures),
    }
    out: Path = work.plan.out
    shown = _table(work, [*done, *others])
    write_json(out / "search.json", document)
    for name, form in (("search.md", markdown), ("search.csv", comma_separated)):
        write_text(out / name, form(shown))
    print(json.dumps(document, allow_nan=False) if as_json else terminal(shown), end="\n" if as_json else "")  # noqa: T201 - the result
    if done:
        text = "# Found on unlabelled frames alone; goes under a row of a comparison file.\n"
        write_text(out / "best.yaml", text + yaml.safe_dump({"set": dict(done[0].values)}, sort_keys=False))
        logger.info("best.yaml, search.json, search.md and search.csv are in %s", out)


def _rank(trial: Trial) -> tuple[float, int]:
    assert trial.signal is not None
    return -trial.signal, trial.number


def _table(work: _Work, trials: Sequence[Trial]) -> Table:
    """Return the trials as a table, in the order they are given."""
    signal = work.config.selection.signal
    names = sorted({name for trial in trials for name in trial.more.get("signals", {})} - {signal})
    rows = []
    for trial in trials:
        signals = trial.more.get("signals", {})
        figures = [f"{signals[name]:.4f}" if name in signals else "-" for name in (signal, *names)]
        rows.append((str(trial.number), *(f"{trial.values[span.field]:.4g}" for span in work.spans), *figures))
    notes = [
        f"{signal}: of {work.config.selection.frames} unlabelled target frames after {work.config.train.steps} steps, "
        f"mean over {len(work.seeds)} seed{'s' * (len(work.seeds) > 1)}; higher is better. No label was read."
    ]
    notes += [f"trial {trial.number}: {trial.more.get('why', trial.state)}" for trial in trials if trial.signal is None]
    best = frozenset({(0, 1 + len(work.spans))}) if trials and trials[0].signal is not None else frozenset()
    return Table(
        header=("trial", *(span.field for span in work.spans), signal, *names), rows=tuple(rows),
        title=f"search of {work.row.name}", notes=tuple(notes), best=best,
    )  # fmt: skip
