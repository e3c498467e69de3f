"""Every benchmark starts as its own first lines say, and `make bench` names only what is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
BENCHMARKS = sorted(path.stem for path in (REPOSITORY / "tests/benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_starts_with_the_words_of_its_docstring(name: str) -> None:
    text = (REPOSITORY / f"tests/benchmarks/{name}.py").read_text(encoding="utf-8")
    said = re.search(rf"python (-m tests\.benchmarks\.{name}|tests/benchmarks/{name}\.py)", text)
    assert said is not None, "the docstring does not say how to run it"
    done = subprocess.run(
        [sys.executable, *said[1].split(), "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_make_bench_names_benchmarks_that_exist() -> None:
    listed = re.search(r"^BENCHMARKS := (.+)$", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed is not None
    assert set(listed[1].split()) <= set(BENCHMARKS)
