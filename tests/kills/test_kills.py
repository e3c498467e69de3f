"""Kills at file-system calls: what the supervisor does, and a short series of every command."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lsr_infer.io.digests import BLANK, seal
from tests.kills.supervisor import available, run

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("pretrain", "adapt", "distill", "compare", "search", "export", "lsr-infer")

pytestmark = pytest.mark.skipif(not available(), reason="no seccomp notifications here")


def write_three_and_rename(folder: Path) -> int:
    for name in "abc":
        (folder / name).write_text(name, encoding="utf-8")
    os.rename(folder / "a", folder / "d")
    code = "import sys; open(sys.argv[1], 'w').write('e')"
    subprocess.run([sys.executable, "-S", "-c", code, str(folder / "e")], check=False)
    return 3


def test_it_ends_before_the_call_that_was_chosen(tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "whole").mkdir()
    whole = run(lambda: write_three_and_rename(tmp_path / "whole"), log)
    assert whole.code == 3
    states = []
    for call in range(1, whole.calls + 1):
        folder = tmp_path / str(call)
        folder.mkdir()
        ended = run(lambda folder=folder: write_three_and_rename(folder), log, kill_at=call, kill_all=True)
        assert ended.code == -9
        assert ended.calls >= call
        states.append("".join(sorted(path.name for path in folder.iterdir() if path.stat().st_size)))
    assert states[:3] == ["", "", "a"]
    assert "abc" in states  # right before the rename
    assert states == sorted(states, key=len)


def test_it_waits_for_what_it_started_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        ended = run(lambda: subprocess.Popen(["sleep", "0.2"]).poll() or 5, tmp_path / "log")
        assert ended.code == 5
        assert other.poll() is None
        other.kill()


def test_last_and_best_checkpoints_are_looked_after(tmp_path: Path) -> None:
    from tests.kills.__main__ import Trial

    checkpoints = tmp_path / "trial/run/checkpoints"
    trial = Trial("trial", lambda folder: 0, tmp_path, Counter())
    for step in (2, 3):
        (checkpoints / f"step-{step}").mkdir(parents=True)
        for name in ("model.safetensors", "state.safetensors", "state.json"):
            (checkpoints / f"step-{step}" / name).write_text(f'{{"digest": "{BLANK}"}}', encoding="utf-8")
            seal(checkpoints / f"step-{step}" / name)
    for pointer, step in (("best", 2), ("last", 3)):
        (checkpoints / pointer).write_text(f"step-{step}\n", encoding="utf-8")
    trial.check_known()
    assert trial.known == {checkpoints / "best": 2, checkpoints / "last": 3}
    assert trial.counts["lost checkpoints"] == 0
    (checkpoints / "step-2/state.json").write_text(f'{{"digest": "{BLANK}" }}', encoding="utf-8")
    trial.check_known()
    assert trial.counts["lost checkpoints"] == 1, "the best one is damaged"
    (checkpoints / "best").unlink()
    trial.check_known()
    assert trial.counts["lost checkpoints"] == 2, "the pointer is gone"


@pytest.mark.slow  # minutes of trainings that are killed and resumed
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_lost_by_kills(tmp_path: Path, command: str) -> None:
    argv = [sys.executable, "-m", "tests.kills", "--kills", "12", "--only", command, "--out", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    counts = json.loads(done.stdout)[command]
    assert counts.pop("kills") >= 12
    assert set(counts.values()) == {0}, counts
    assert done.returncode == 0
