"""Copies of run folders in a store."""

from pathlib import Path

from lsr_infer.io.stores import listing
from lsr_train.runs.copies import copy_run, fetch_run
from lsr_train.runs.folder import RunFolder, resolve_model
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
