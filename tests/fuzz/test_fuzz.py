"""Damaged files of every kind: no crash, no hang, nothing lost in silence, and the right exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
@pytest.mark.parametrize("kind", COUNTS)
def test_nothing_is_wrong_with_damaged_files(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", kind, "--count", str(COUNTS[kind]), "--seed", "7"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=3600,
    )  # fmt: skip
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    assert [document[why] for why in ("crash", "hang", "silent", "exit")] == [0, 0, 0, 0], document["odd"][:5]
    assert document["tried"] > 0.8 * COUNTS[kind]
