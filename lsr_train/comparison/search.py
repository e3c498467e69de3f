"""A search over fields on a label-free signal: which values are tried next, by whom, and what came of them.

Optuna's tree-structured Parzen estimator proposes; its study lies in SQLite, so that the search goes on where it was
interrupted, and several processes share it. Who works on a trial holds its lock: a trial that is neither finished nor
held was left behind by a killed process, and is taken up again by the next one, from its run's last checkpoint.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from lsr_infer.errors import InputError, UsageError
from lsr_train.comparison.locks import claim, exclusive
from lsr_train.comparison.variants import Span

__all__ = ["Search", "Trial"]

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
