"""`ablate` on a tiny Toytown: everything real, processes and a kill included."""

import csv
import json
import os
import signal
import time
from pathlib import Path

import pytest
import yaml

from lsr_infer.errors import exit_status
from lsr_train.commands.dispatch import ablate
from lsr_train.comparison.options import AblateOptions, read_options
from lsr_train.config.renamed import current_argv
from tests.lsr_train.training_runs import TINY, run_here, start, words
from tests.silence import listening

RUNS = {
    "source-only": {"train": False},
    "minent": {"method": "minent", "set": {"weights.entropy": 0.001}},
    "lsr-em": {"recipe": "toytown_lsr_em"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a comparison file and a source checkpoint."""
    folder = tmp_path_factory.mktemp("ablate")
    evaluate = {"layout": "toytown-camera", "split": "val", "limit": 2, "height": 48, "width": 96}
    document = {"source": "toytown_source", "base": "toytown_lsr", "evaluate": evaluate, "runs": RUNS}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    assert run_here("pretrain", words("toytown_source", folder / "source", "--train.steps", "2")) == 0
    return folder


def arguments(folder: Path, out: Path, *more: str) -> list[str]:
    """Return arguments for a run whose learning rate is so small that no class dies."""
    recipe = ["--recipe", str(folder / "tiny.yaml"), "--init", str(folder / "source"), "--out", str(out)]
    return [*recipe, *TINY, "--optim.lr", "1e-7", "--train.steps", "2", *more]


def run(argv: list[str]) -> int:
    return exit_status(lambda: ablate(argv))


@pytest.mark.slow
def test_a_sweep_is_a_table(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "table"
    with listening() as heard:
        assert run(arguments(folder, out, "--run", "minent", "--sweep", "weights.entropy=0.001,0.5")) == 0
    assert heard.found == []
    document = json.loads((out / "table.json").read_text(encoding="utf-8"))
    names = ["minent, weights.entropy=0.001", "minent, weights.entropy=0.5"]
    assert [row["run"] for row in document["rows"]] == names
    assert [row["seeds"][0]["state"] for row in document["rows"]] == ["done", "done"]
    found = sorted(out.glob("minent*/seed-0/config.yaml"))
    weights = [yaml.safe_load(file.read_text(encoding="utf-8"))["weights"]["entropy"] for file in found]
    assert weights == [0.001, 0.5]


@pytest.mark.slow  # half a minute of processes that are killed and started again
def test_a_search_that_is_killed_is_resumed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "search"
    search = arguments(
        folder, out, "--run", "minent", "--search", "weights.entropy=1e-4..1e-1", "--trials", "3",
        "--train.checkpoint_every", "1",
    )  # fmt: skip
    process = start("ablate", search)
    deadline = time.monotonic() + 120
    while not (out / "trial-0000/seed-0/checkpoints/step-1").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert run([*search, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    trials = document["trials"]
    assert sorted(trial["number"] for trial in trials) == [0, 1, 2]
    assert {trial["state"] for trial in trials} == {"done"}
    signals = [trial["signal"] for trial in trials]
    assert signals == sorted(signals, reverse=True)
    own = next(trial for trial in trials if trial["number"] == 0)
    assert own["values"] == {"weights.entropy": 0.001}
    assert yaml.safe_load((out / "best.yaml").read_text(encoding="utf-8")) == {"set": trials[0]["values"]}
    # the figure is that of the run's last evaluation, which saw no label
    with (out / "trial-0000/seed-0/signals.csv").open(encoding="utf-8", newline="") as file:
        assert own["signal"] == pytest.approx(float(list(csv.DictReader(file))[-1]["flip"]))
    assert (out / "search.csv").read_text(encoding="utf-8").startswith("trial,weights.entropy,flip")


@pytest.mark.slow  # Ray is started on this machine: a minute
def test_a_search_on_ray_is_that_of_local_processes(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
    found = {}
    for on in ("local", "ray"):
        out = tmp_path / on
        search = arguments(folder, out, "--run", "minent", "--search", "weights.entropy=1e-4..1e-1", "--trials", "1")
        process = start("ablate", [*search, "--devices", "cpu", "--on", on])
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        found[on] = json.loads((out / "search.json").read_text(encoding="utf-8"))["trials"]
    assert found["ray"] == found["local"]


def test_the_option_row_of_version_0_1_is_read() -> None:
    for argv in (["--row", "minent"], ["--row=minent"]):
        options, _ = read_options("ablate", current_argv("ablate", ["--recipe", "toytown", *argv]), AblateOptions)
        assert options.run == "minent"


def test_a_search_in_which_every_trial_loses_a_class_finds_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "search"
    search = arguments(folder, out, "--run", "minent", "--search", "weights.entropy=1..2", "--trials", "1")
    with listening() as heard:
        assert run([*search, "--optim.lr", "0.5"]) == 5
    assert heard.found == []
    assert not (out / "best.yaml").exists()
    (trial,) = json.loads((out / "search.json").read_text(encoding="utf-8"))["trials"]
    assert trial["state"] == "failed"
    assert "had died" in trial["why"]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--run", "source-only"], "is not trained"),
        (["--run", "minnent"], "Did you mean minent"),
        (["--sweep", "weights.entropy"], "FIELD=…"),
        (["--run", "minent", "--search", "weights.cluster=0.1..1"], "weights.cluster"),
        (["--search", "weights.norm=0..1", "--data", "labels"], "a search reads none"),
        (["--search", "weights.norm=0..1", "--sweep", "weights.norm=1"], "Leave one out"),
        (["--search", "weights.norm=0..1", "--trials", "0"], "Set --trials"),
        (["--search", "weights.norm=0..1", "--selection.signal", "none"], "needs a signal"),
        (["--search", "optim.lr=1..100"], "optim.lr"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    folder: Path, tmp_path: Path, more: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(folder, tmp_path / "table", *more)) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "table").exists()
