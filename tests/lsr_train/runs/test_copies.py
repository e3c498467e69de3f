"""Copies of run folders in a store."""

from pathlib import Path

import pytest
import torch

from lsr_infer.errors import UsageError
from lsr_infer.io.stores import listing, put_whole
from lsr_train.config.command_line import Request
from lsr_train.config.recipes import to_yaml
from lsr_train.config.run import Config
from lsr_train.engine.train import _taken_up
from lsr_train.runs.copies import copy_run, fetch_run
from lsr_train.runs.folder import RunFolder, resolve_model
from tests.lsr_train.training_runs import TINY, run_here, weights
from tests.object_store import FaultyProxy


def test_a_copy_holds_what_the_run_holds_and_becomes_a_run_again(
    place: str, proxy: FaultyProxy, tmp_path: Path
) -> None:
    fetch_run(f"{place}/run", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    proxy.rate = 0.1
    with RunFolder.create(tmp_path / "run", "config: 1\n") as run:
        run.saved = lambda: copy_run(run, f"{place}/run/")
        for step in (2, 4, 6):
            run.metrics.append({"step": step})
            content = f"step {step}"
            run.save(step, lambda folder, text=content: (folder / "model.safetensors").write_text(text), best=step == 2,
                     keep=1)  # fmt: skip
            assert resolve_model(f"{place}/run/checkpoints/step-{step}").read_text() == content
        there = {found.url.removeprefix(f"{place}/run/") for found in listing(f"{place}/run")}
        assert there == {
            "config.yaml", "metrics.csv", "checkpoints/best", "checkpoints/last",
            "checkpoints/step-2/model.safetensors", "checkpoints/step-6/model.safetensors",
        }  # fmt: skip
        before = len([line for line in proxy.requests if line.startswith("PUT")])
        proxy.rate = 0.0
        run.saved()
        sent = [line for line in proxy.requests if line.startswith("PUT")][before:]
        assert not [line for line in sent if "step-" in line]
    fetch_run(f"{place}/run", tmp_path / "again")
    with RunFolder.open(tmp_path / "again") as run:
        assert (run.pointer("best"), run.pointer("last"), run.steps()) == (2, 6, [2, 6])
        assert run.metrics.read()[-1] == {"step": "6"}


def saved(tmp_path: Path, name: str, steps: tuple[int, ...], url: str, config: str = "config: 1\n") -> RunFolder:
    """Return a run of so many checkpoints, each of which was sent to a store."""
    with RunFolder.create(tmp_path / name, config) as run:
        run.note_environment({"started": name})
        run.saved = lambda: copy_run(run, url)
        for step in steps:
            content = f"{name} {step}"
            run.save(step, lambda folder, text=content: (folder / "model.safetensors").write_text(text), best=False,
                     keep=9)  # fmt: skip
    return run


def test_a_run_replaces_no_copy_of_another(place: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    saved(tmp_path, "one", (2, 4), f"{place}/run")
    with pytest.raises(UsageError, match=r"/run: holds the copy of another run than .*two\. Choose another --copy_to"):
        saved(tmp_path, "two", (2,), f"{place}/run")
    for step in (2, 4):
        assert resolve_model(f"{place}/run/checkpoints/step-{step}").read_text() == f"one {step}"


def test_what_a_run_left_without_a_whole_checkpoint_is_replaced(place: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("half")
    for name in ("checkpoints/step-2/model.safetensors", "checkpoints/step-3/model.safetensors", "environment.json"):
        put_whole(tmp_path / "old", f"{place}/run/{name}")
    saved(tmp_path, "one", (2,), f"{place}/run")
    assert resolve_model(f"{place}/run").read_text() == "one 2"
    assert not [found for found in listing(f"{place}/run") if "step-3" in found.url]


def test_a_run_is_fetched_into_a_folder_that_is_there_already(place: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    saved(tmp_path, "one", (2,), f"{place}/run")
    again = tmp_path / "again"
    again.mkdir()
    (again / ".lock").touch()
    inode = again.stat().st_ino
    fetch_run(f"{place}/run", again)
    assert again.stat().st_ino == inode  # a disk may be mounted there
    assert {item.name for item in again.iterdir()} == {".lock", "checkpoints", "config.yaml", "environment.json"}
    with RunFolder.open(again) as run:
        assert run.steps() == [2]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.jpg").touch()
    with pytest.raises(UsageError, match="is not empty and no run"):
        fetch_run(f"{place}/run", tmp_path / "other")


def test_the_run_of_an_empty_folder_is_taken_up_from_its_copy(place: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    config = Config(method="source-only")
    saved(tmp_path, "one", (2,), f"{place}/run", to_yaml(config))
    (tmp_path / "empty").mkdir()
    asked = Request(config=config, out=tmp_path / "empty", resume=None, print_config=False, or_resume=True,
                    copy_to=f"{place}/run")  # fmt: skip
    assert _taken_up(asked, torch.device("cpu")).resume == tmp_path / "empty"


@pytest.mark.slow  # a training
def test_a_training_fetches_its_run_where_only_an_empty_folder_is(
    place: str, proxy: FaultyProxy, tmp_path: Path
) -> None:
    words = ["--recipe", "toytown_source", *TINY, "--network.weights", "none", "--copy_to", f"{place}/run"]
    words += ["--out", str(tmp_path / "run")]
    assert run_here("pretrain", words) == 0
    whole = (tmp_path / "run").rename(tmp_path / "lost")
    (tmp_path / "run").mkdir()
    assert run_here("pretrain", [*words, "--or_resume"]) == 0
    assert weights(tmp_path / "run", 6) == weights(whole, 6)
    assert len(RunFolder(tmp_path / "run").environments()) == 2  # one start of old, and one that found all done
    assert run_here("pretrain", [*words[:-1], str(tmp_path / "new")]) == 2
    assert not RunFolder(tmp_path / "new").steps()  # refused before the first step
