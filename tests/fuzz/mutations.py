"""Damages bytes in seeded ways: flipped, cut, dropped, inserted, repeated, moved, overwritten by words of a format."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import hypothesis
from hypothesis import strategies as st

__all__ = ["Step", "mutants"]

KINDS = ("flip", "byte", "cut", "drop", "insert", "repeat", "move", "zero", "word")


@dataclass(frozen=True)
class Step:
    """One damage: its kind, where it happens and whence it takes bytes as shares of the file, its length, its bytes."""

    kind: str
    at: float
    source: float
    length: int
    content: bytes

    def __call__(self, data: bytes) -> bytes:
        at, source = int(self.at * len(data)), int(self.source * len(data))
        head, tail, length = data[:at], data[at:], self.length
        if self.kind == "flip":
            return head + bytes([tail[0] ^ 1 << length % 8]) + tail[1:] if tail else data
        return {
            "byte": lambda: head + self.content[:1] + tail[1:],
            "cut": lambda: head,
            "drop": lambda: head + tail[length:],
            "insert": lambda: head + self.content + tail,
            "repeat": lambda: head + data[source : source + length] + tail,
            "move": lambda: head + data[source : source + length] + tail[length:],
            "zero": lambda: head + bytes(min(length, len(tail))) + tail[length:],
            "word": lambda: head + self.content + tail[len(self.content) :],
        }[self.kind]()


def _drawn(chance: random.Random, words: tuple[bytes, ...]) -> Step:
    kind = chance.choice(KINDS)
    content = chance.choice(words) if kind == "word" and words else chance.randbytes(1 << chance.randrange(7))
    return Step(kind, chance.random(), chance.random(), 1 << chance.randrange(9), content)


def _steps(words: tuple[bytes, ...]) -> st.SearchStrategy[list[Step]]:
    share = st.floats(0, 1, exclude_max=True)
    content = st.one_of(st.binary(min_size=1, max_size=40), *([st.sampled_from(words)] if words else []))
    step = st.builds(Step, st.sampled_from(KINDS), share, share, st.integers(1, 600), content)
    return st.lists(step, min_size=1, max_size=4)


def mutants(data: bytes, count: int, seed: int, words: tuple[bytes, ...] = ()) -> Iterator[bytes]:
    """Yield so many damaged copies, the same for the same seed: half drawn at random, half found by hypothesis."""
    chance = random.Random(seed)
    found: list[list[Step]] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=max(1, count // 2), database=None, phases=[hypothesis.Phase.generate], deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(_steps(words))
    def collect(steps: list[Step]) -> None:
        found.append(steps)

    collect()
    for number in range(count):
        steps = (
            found[number // 2 % len(found)]
            if number % 2
            else [_drawn(chance, words) for _ in "x" * chance.choice((1, 1, 2, 4))]
        )
        damaged = data
        for step in steps:
            damaged = step(damaged)
        yield damaged
