"""Two real gloo processes with half a batch each equal one process with the whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lsr_train.distributed import all_reduce_sum, world_size


def test_identity_in_one_process() -> None:
    tensor = torch.ones(3, requires_grad=True)
    assert world_size() == 1
    assert all_reduce_sum(tensor) is tensor


@pytest.fixture(scope="module")
def runs(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """Run two ranks and one, and read what they saved."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
    workers = [
        subprocess.Popen(
            [sys.executable, str(repository / "tests/lsr_train/rank_worker.py"), str(rank), str(ranks),
             str(folder / "meeting"), str(folder / f"{ranks}-{rank}.pt")],
            env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank, ranks in ((0, 2), (1, 2), (0, 1))
    ]  # fmt: skip
    for worker in workers:
        _, errors = worker.communicate(timeout=240)
        assert worker.returncode == 0, errors
    return {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in ("2-0", "2-1", "1-0")}


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("part", ["terms", "gradients", "state", "diagnostics", "figures"])
def test_two_ranks_equal_one(runs: dict[str, list], step: int, part: str) -> None:
    whole = runs["1-0"][step][part]
    for rank in ("2-0", "2-1"):
        found = runs[rank][step][part]
        assert set(found) == set(whole)
        for name in whole:
            if name == "max_square":  # each rank says its own; their mean is the batch's
                mean = (runs["2-0"][step][part][name] + runs["2-1"][step][part][name]) / 2
                torch.testing.assert_close(mean, whole[name], rtol=1e-9, atol=1e-12)
            else:
                torch.testing.assert_close(found[name], whole[name], rtol=1e-9, atol=1e-12, msg=f"{rank} {name}")


def test_the_case_is_not_trivial(runs: dict[str, list]) -> None:
    terms = runs["1-0"][1]["terms"]
    assert all(value != 0 for value in terms.values()), terms
    assert 0 < runs["1-0"][1]["diagnostics"]["target_labelled"] < 1
    assert len(runs["1-0"][1]["figures"]) == 5
    assert all(0 < value < 1 for value in runs["1-0"][1]["figures"].values())
