"""Damaged files of every kind: no crash, no hang, nothing lost in silence, and the right exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import Ending, wrong
from tests.fuzz.kinds import KINDS
from tests.fuzz.mutations import mutants

ROOT = Path(__file__).resolve().parents[2]
COUNTS = dict.fromkeys(("recipe", "config", "classes", "comparison", "manifest", "png", "onnx"), 300) | dict.fromkeys(
    ("jpeg", "mp4", "mkv", "avi", "flv", "ts", "safetensors", "run", "report"), 100
)
"""How many `make test-all` tries of each kind; `python -m tests.fuzz KIND --count N --seed S` tries others."""


def test_damage_is_the_same_for_the_same_seed() -> None:
    data = bytes(range(256)) * 4
    first, again, other = (list(mutants(data, 40, seed, (b"word",))) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(set(first)) > 30
    assert sum(len(one) < len(data) for one in first) > 5
    assert sum(len(one) > len(data) for one in first) > 5
    assert len(list(mutants(b"", 10, 1))) == 10


def test_a_text_is_judged_where_it_says_the_same_alone(tmp_path: Path) -> None:
    kind = KINDS["classes"](tmp_path)
    text = kind.parts[""]
    code, whole = kind.work("", text)
    assert code == 0
    quoted = text.replace(b"my simulator", b"'my simulator'")
    for same in (*kind.relaid(text), text.replace(b", ids", b",   ids"), quoted):
        code, observed = kind.work("", same)
        assert (code, kind.silent("", whole, observed)) == (0, False), same
        assert kind.silent("", whole, [observed[0], ["another result"]])
    code, observed = kind.work("", text.replace(b"24", b"25"))
    assert (code, kind.silent("", whole, observed)) == (0, None)


def test_what_cannot_be_judged_is_not_measured(tmp_path: Path) -> None:
    kind = KINDS["classes"](tmp_path)
    accepted = [Ending(0, 0, observed, "") for observed in (["a", ["b"]], ["other", ["c"]], ["a", ["c"]])]
    assert [wrong(kind, "", b"", ending, accepted[0]) for ending in accepted] == ["", None, "silent"]
    refused = Ending(4, 0, None, "error: no")
    assert wrong(kind, "", b"", refused, accepted[0]) == ""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "classes", "--count", "12", "--seed", "3"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert (document["silent"], document["odd"]) == (0, [])
    assert 4 <= document["judged"] <= document["codes"]["0"], "at least the texts in other layouts"


@pytest.mark.slow
@pytest.mark.parametrize("kind", COUNTS)
def test_nothing_is_wrong_with_damaged_files(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", kind, "--count", str(COUNTS[kind]), "--seed", "7"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=3600,
    )  # fmt: skip
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    assert not document["odd"], document["odd"][:5]
    assert document["silent"] == (None if kind == "report" else 0)
    assert document["tried"] > 0.8 * COUNTS[kind]
