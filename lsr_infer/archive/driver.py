"""Drives an archive to its end: hands units to workers, joins ranges, tries failed ones again.

It knows no scheduling: an `UnitRunner` runs units wherever it likes, and tells how each ended.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

import msgspec

from lsr_infer.archive.clip_work import Unit
from lsr_infer.archive.ledger import ClipRecord

__all__ = ["Driver", "UnitRunner"]


class UnitRunner(Protocol):
    """Runs units on workers; see `lsr_infer.archive.clip_work.ClipWorker` for what is done with each."""

    def outcomes(self, units: Iterable[Unit], *, cut: bool) -> Iterator[tuple[Unit, ClipRecord]]:
        """Yield each unit with its record when it has ended, in any order; with `cut`, long clips by their ranges."""
        ...

    def start_join(self, unit: Unit) -> None:
        """Begin to join the ranges of a clip."""
        ...

    def joined(self, *, wait: bool) -> Iterator[tuple[Unit, ClipRecord]]:
        """Yield the clips whose ranges have been joined; with `wait`, until none is left."""
        ...


@dataclass
class Driver:
    """Takes care that every clip ends once.

    A unit that failed is tried again when all others have been tried, until its record says that it is set aside. A
    clip of which a range breaks or is set aside is done in one piece, as `lsr-infer` would do it.
    """

    runner: UnitRunner
    _done: dict[str, set[int]] = field(default_factory=dict)
    _again: list[Unit] = field(default_factory=list)
    _whole: set[str] = field(default_factory=set)

    def records(self, units: Iterable[Unit]) -> Iterator[tuple[Unit, ClipRecord]]:
        """Yield every clip with its record when nothing is left to be done for it, and each range when it has ended."""
        pending, cut = units, True
        while True:
            for unit, record in self.runner.outcomes(pending, cut=cut):
                for ended in chain([(unit, record)], self.runner.joined(wait=False)):
                    yield from self._settled(*ended)
            for ended in self.runner.joined(wait=True):
                yield from self._settled(*ended)
            if not self._again:
                return
            pending, cut, self._again = self._again, False, []

    def _settled(self, unit: Unit, record: ClipRecord) -> Iterator[tuple[Unit, ClipRecord]]:
        """Decide what follows from how a unit, or the joining of a clip's ranges, ended."""
        is_clip = record.name == unit.name
        if record.status == "failed" and not (is_clip and unit.is_range):
            self._again.append(unit)
        elif is_clip and record.status != "failed":
            yield unit, record
        elif record.status == "done":
            yield unit, record
            done = self._done.setdefault(unit.name, set())
            done.add(unit.index)
            if len(done) == len(unit.starts):
                del self._done[unit.name]
                self.runner.start_join(unit)
        elif unit.name not in self._whole:
            self._whole.add(unit.name)
            self._again.append(msgspec.structs.replace(unit, starts=(0.0,), index=0))
