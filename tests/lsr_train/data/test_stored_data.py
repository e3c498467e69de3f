"""Trainings whose folders, frames and starting weights lie in a store."""

from pathlib import Path

import pytest

from lsr_infer.errors import InputError
from lsr_infer.io.stores import put_folder, put_whole
from lsr_train.config.recipes import read_config
from lsr_train.runs.folder import resolve_model
from tests.lsr_train.training_runs import TINY, run_here, weights
from tests.object_store import FaultyProxy

FIELDS = [
    "--data.source.limit", "0", "--train.steps", "2", "--network.weights", "none", "--data.source.layout", "folder",
    "--data.source.ids", "cityscapes-trainid", "--data.source.split", "train",
]  # fmt: skip


def pretrain(source: str, out: Path | str, *more: str) -> int:
    places = ["--source", source, "--out", str(out)]
    return run_here("pretrain", ["--recipe", "toytown_source", *TINY, *FIELDS, *places, *more])


def adapt(source: str, target: str, init: str, out: Path) -> int:
    places = ["--source", source, "--target", target, "--init", init, "--out", str(out)]
    target_fields = ["--data.target.limit", "0", "--data.target.layout", "frames"]
    return run_here("adapt", ["--recipe", "toytown_lsr_em", *TINY, *FIELDS, *target_fields, *places])


def test_a_training_from_a_store_is_that_from_folders(
    place: str, proxy: FaultyProxy, labelled_folder: Path, frames_folder: Path, tmp_path: Path
) -> None:
    put_folder(labelled_folder, f"{place}/labelled")
    put_folder(frames_folder, f"{place}/frames")
    assert pretrain(str(labelled_folder), tmp_path / "start") == 0
    assert adapt(str(labelled_folder), str(frames_folder), str(tmp_path / "start"), tmp_path / "here") == 0
    put_folder(tmp_path / "start", f"{place}/runs/start")
    proxy.rate = 0.1
    assert adapt(f"{place}/labelled", f"{place}/frames/", f"{place}/runs/start", tmp_path / "there") == 0
    assert weights(tmp_path / "here", 2) == weights(tmp_path / "there", 2)
    config = read_config(tmp_path / "there" / "config.yaml")
    assert (config.data.source.root, config.data.target.root) == (f"{place}/labelled", f"{place}/frames/")
    assert str(tmp_path / "cache") not in (tmp_path / "there" / "config.yaml").read_text()


def test_a_network_is_found_in_a_stored_run(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    for step in ("step-2", "step-4"):
        (folder / step).mkdir(parents=True)
        (folder / step / "model.safetensors").write_text(step)
    (folder / "best").write_text("step-2\n")
    (folder / "last").write_text("step-4\n")
    put_folder(tmp_path / "run", f"{place}/run")
    put_whole(folder / "last", f"{place}/last/checkpoints/last")
    put_whole(folder / "step-4" / "model.safetensors", f"{place}/last/checkpoints/step-4/model.safetensors")
    run = f"{place}/run"
    for named, step in (
        (run, "step-2"), (f"{run}/", "step-2"), (f"{run}/checkpoints/last", "step-4"), (f"{place}/last", "step-4"),
        (f"{run}/checkpoints/step-4", "step-4"), (f"{run}/checkpoints/step-2/model.safetensors", "step-2"),
    ):  # fmt: skip
        assert resolve_model(named).read_text() == step
    put_whole(folder / "last", f"{place}/none/config.yaml")
    with pytest.raises(InputError, match="none: no checkpoint in it"):
        resolve_model(f"{place}/none")


def test_an_address_with_a_secret_is_refused_before_it_stands_in_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for secret in ("https://me:passw0rd@host/labelled", "https://host/a?sig=passw0rd", "s3://AK:passw0rd@bucket/a"):
        assert pretrain(secret, tmp_path / "out") == 2
        text = "".join(capsys.readouterr())
        assert "data.source.root carries a password or a signature" in text
        assert "passw0rd" not in text
        assert pretrain("https://host/a", tmp_path / "out", "--source", secret) == 2
        assert "data.more_sources.0.root carries" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_folder_is_no_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain("data", "s3://runs/a") == 2
    assert "--out is an address, and this command writes to disks alone" in capsys.readouterr().err
    assert run_here("pretrain", ["--resume", "s3://runs/a"]) == 2
    assert run_here("evaluate", ["a.onnx", "--data", "data", "--out", "s3://results/a.json"]) == 2
