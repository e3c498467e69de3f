"""Every clip of an archive ends once, whatever fails on the way."""

from collections import Counter
from collections.abc import Iterable, Iterator
from random import Random

import msgspec
import pytest

from lsr_infer.archive.clip_work import Unit
from lsr_infer.archive.driver import Driver
from lsr_infer.archive.ledger import MOST_TRIES, ClipRecord


class UnitRunner:
    """Runs units in a random order, and lets tries fail by chance; every fifth clip is long, every seventh broken."""

    def __init__(self, seed: int, failing: float) -> None:
        self.draw, self.failing = Random(seed), failing
        self.tries: Counter[str] = Counter()
        self.joining: list[Unit] = []
        self.ranges_done: dict[str, set[int]] = {}

    def outcomes(self, units: Iterable[Unit], *, cut: bool) -> Iterator[tuple[Unit, ClipRecord]]:
        waiting = []
        for unit in units:
            long = cut and int(unit.name) % 5 == 0
            parts = [msgspec.structs.replace(unit, starts=(0.0, 1.0, 2.0), index=n) for n in range(3)]
            waiting += parts if long else [unit]
        self.draw.shuffle(waiting)
        for unit in waiting:
            record = self.record(unit, unit.result_name)
            if unit.is_range and record.status == "done":
                self.ranges_done.setdefault(unit.name, set()).add(unit.index)
            yield unit, record

    def record(self, unit: Unit, name: str) -> ClipRecord:
        status = "done"
        if self.draw.random() < self.failing:
            self.tries[name] += 1
            status = "failed" if self.tries[name] < MOST_TRIES else "aside"
        elif int(unit.name) % 7 == 0:
            status = "partial"
        return ClipRecord(name=name, source=unit.place, recipe="", run="", status=status)

    def start_join(self, unit: Unit) -> None:
        assert self.ranges_done[unit.name] == {0, 1, 2}
        self.joining.append(unit)

    def joined(self, *, wait: bool) -> Iterator[tuple[Unit, ClipRecord]]:
        while self.joining and (wait or self.draw.random() < 0.5):
            unit = self.joining.pop()
            yield unit, self.record(unit, unit.name)


@pytest.mark.parametrize("failing", [0.0, 0.2, 0.7])
@pytest.mark.parametrize("seed", range(5))
def test_every_clip_ends_once(seed: int, failing: float) -> None:
    runner = UnitRunner(seed, failing)
    units = [Unit(place=f"{n}.mp4", name=str(n)) for n in range(100)]
    ended = [record for unit, record in Driver(runner).records(units) if record.name == unit.name]
    assert sorted(int(record.name) for record in ended) == list(range(100))
    assert all(record.ended for record in ended)
    if not failing:
        assert Counter(record.status for record in ended) == {"done": 85, "partial": 15}


def test_no_clip_is_no_work() -> None:
    assert list(Driver(UnitRunner(0, 0.0)).records([])) == []
