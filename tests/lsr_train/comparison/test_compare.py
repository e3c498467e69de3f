"""`compare` on a tiny Toytown: everything real, processes and kills included."""

import json
import logging
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from lsr_infer.errors import exit_status
from lsr_train.commands.dispatch import compare
from lsr_train.comparison.schedule import is_locked
from tests.lsr_train.training_runs import TINY, losses, start, weights
from tests.processes import wait_until
from tests.silence import listening

RUNS = {
    "source-only": {"train": False},
    "source-only + AdaBN": {"train": False, "batch_norm": "target"},
    "minent": {"method": "minent", "set": {"weights.entropy": 0.001}},
    "target-only": {"recipe": "toytown_target_only"},
}
OF_STAGES = [
    f"--{stage}.train.{name}" for stage in ("source_stage", "target_only") for name in ("steps", "checkpoint_every")
]
SMALL = [*TINY, *(word for flag in OF_STAGES for word in (flag, "2")), "--source_stage.network.batch_norm_frames", "2"]

OWN = """
from lsr_train.losses.pixel import cross_entropy, upsample
from lsr_train.methods import Method


class Mine(Method):
    def terms(self, network, source, target):
        logits = upsample(network(source.image).logits, source.labels.shape[-2:])
        return {"cross_entropy": cross_entropy(logits, source.labels)}
"""


def comparison(folder: Path, runs: dict[str, Any] = RUNS) -> Path:
    """Write a comparison file."""
    file = folder / "tiny.yaml"
    evaluate = {"layout": "toytown-camera", "split": "val", "limit": 2, "height": 48, "width": 96}
    document = {"source": "toytown_source", "base": "toytown_lsr", "evaluate": evaluate, "runs": runs}
    document["further"] = {"first": {"limit": 1}}
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return file


def argv(folder: Path, out: Path, *more: str) -> list[str]:
    return ["--recipe", str(comparison(folder)), "--out", str(out), *SMALL, *more]


def run(arguments: list[str]) -> int:
    return exit_status(lambda: compare(arguments))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table that an uninterrupted command makes."""
    folder = tmp_path_factory.mktemp("compare")
    with listening() as heard:
        assert run(argv(folder, folder / "table", "--devices", "cpu,cpu")) == 0
    assert heard.found == []
    return folder / "table"


def document(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((out / "table.json").read_text(encoding="utf-8"))
    return loaded


def figures(out: Path) -> dict[str, Any]:
    """Return every row's seeds."""
    return {row["run"]: row["seeds"] for row in document(out)["rows"]}


def copied(table: Path, folder: Path) -> Path:
    """Copy a table, so that a test may spoil it."""
    shutil.copytree(table, folder / "table", symlinks=True)
    return folder / "table"


def test_every_run_is_scored_and_the_table_is_there_in_every_form(table: Path) -> None:
    rows = figures(table)
    assert list(rows) == list(RUNS)
    assert {entry["state"] for seeds in rows.values() for entry in seeds} == {"done"}
    assert rows["source-only"][0]["iou"] != rows["source-only + AdaBN"][0]["iou"]
    assert {name: seeds[0].get("steps") for name, seeds in rows.items()} == {
        "source-only": None, "source-only + AdaBN": None, "minent": 6, "target-only": 2,
    }  # fmt: skip
    assert "masr" in rows["minent"][0]
    assert all(0 < seeds[0]["further"]["first"] < 1 for seeds in rows.values())
    assert "| mIoU first |" in (table / "table.md").read_text(encoding="utf-8")
    assert "mIoU first: the same networks with limit 1." in (table / "table.md").read_text(encoding="utf-8")
    assert {path.suffix for path in table.glob("table.*")} == {".json", ".md", ".tex", ".csv"}
    assert "| minent | 1 |" in (table / "table.md").read_text(encoding="utf-8")
    # the run started from the source stage's last checkpoint
    config = yaml.safe_load((table / "minent/seed-0/config.yaml").read_text(encoding="utf-8"))
    assert config["init"] == str(table / "source-stage/seed-0/checkpoints/last")


def test_a_second_command_does_nothing_again(table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = {
        path: path.stat().st_mtime_ns for path in table.rglob("*") if "table." not in path.name and path.is_file()
    }
    with caplog.at_level(logging.INFO):
        assert run(argv(tmp_path, table)) == 0
    after = {path: path.stat().st_mtime_ns for path in before}
    changed = {path.relative_to(table).as_posix() for path in before if after[path] != before[path]}
    assert changed <= {"comparison.json"}
    assert not any("started" in record.message or "resumed" in record.message for record in caplog.records)
    last = next(record.message for record in caplog.records if "[4/4]" in record.message)
    assert "skipped: scored already, mIoU" in last


@pytest.mark.slow  # half a minute of processes that are killed and started again
def test_killed_twice_and_resumed_it_is_the_same_table(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "table"
    arguments = argv(tmp_path, out, "--methods", "minent")
    for landmark in ("source-stage/seed-0/checkpoints/last", "minent/seed-0/checkpoints/step-2/model.safetensors"):
        process = start("compare", arguments, start_new_session=True)
        deadline = time.monotonic() + 120
        while not (out / landmark).exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    deadline = time.monotonic() + 60
    code = run(arguments)
    while code == 6 and time.monotonic() < deadline:  # the killed one's process still holds its run for an instant
        code = run(arguments)
    assert code == 0
    (again,), expected = figures(out)["minent"], figures(table)["minent"][0]
    assert again == {key: value for key, value in expected.items() if "masr" not in key} | {"subsets": again["subsets"]}
    for row, step in (("source-stage", 2), ("minent", 6)):
        assert weights(out / row / "seed-0", step) == weights(table / row / "seed-0", step)
    assert losses(out / "minent/seed-0") == losses(table / "minent/seed-0")


@pytest.mark.slow  # processes that import torch, and are stopped
def test_ctrl_c_stops_every_process_and_says_130(tmp_path: Path) -> None:
    out = tmp_path / "table"
    default_handler = {
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    }  # a shell's background ignores it
    process = start("compare", [*argv(tmp_path, out), "--source_stage.train.steps=100000"], **default_handler)
    deadline = time.monotonic() + 120
    while not (out / "source-stage/seed-0/checkpoints/last").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    folder = str(out / "source-stage/seed-0/checkpoints/last")  # a child would go on writing
    before = Path(folder).read_text(encoding="utf-8")
    children = [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"lsr_train.commands.child" in _bytes(path)]
    assert [path for path in children if _parent(path.parent) == process.pid] == []
    assert not is_locked(out / "source-stage/seed-0/.lock")
    time.sleep(1)
    assert Path(folder).read_text(encoding="utf-8") == before


@pytest.mark.slow  # Ray nodes on this machine, of which one is killed: a minute and more
def test_on_ray_nodes_of_which_one_dies_in_a_run_it_is_the_same_table(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed (extra ray)")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # its own 15 starves them where other programs run
    small = {"object_store_memory": 80 * 2**20}
    head = {"num_cpus": 0, "include_dashboard": False, **small}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    out = tmp_path / "table"
    try:
        node = cluster.add_node(num_cpus=1, **small)
        process = start("compare", [*argv(tmp_path, out), "--on", "ray", "--address", cluster.address])
        landmark = out / "minent/seed-0/checkpoints/step-2/model.safetensors"
        wait_until(lambda: landmark.exists() or process.poll() is not None, 600)
        assert process.poll() is None, process.communicate()[1]
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        (child,) = [item for item in raylet.children(recursive=True) if "lsr_train.commands.child" in item.cmdline()]
        child.suspend()  # so that the run is not over before the node is
        cluster.add_node(num_cpus=1, **small)
        cluster.remove_node(node, allow_graceful=False)
        child.resume()
        _, stderr = process.communicate(timeout=600)
    finally:
        cluster.shutdown()
    assert process.returncode == 0, stderr
    assert (out / "minent/seed-0.log").read_text(encoding="utf-8").count("$ python -m lsr_train adapt --resume") == 2
    assert figures(out) == figures(table)
    for row, step in (("source-stage", 2), ("minent", 6), ("target-only", 2)):
        assert weights(out / row / "seed-0", step) == weights(table / row / "seed-0", step)


def _parent(process: Path) -> int:
    try:
        return int(re.search(r"^PPid:\s+(\d+)", (process / "status").read_text(), re.MULTILINE)[1])  # type: ignore[index]
    except OSError:
        return 0  # it ended


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it ended


def spoil_config(run_folder: Path) -> None:
    (run_folder / "config.yaml").write_bytes(b"\xff{")


def spoil_kind(run_folder: Path) -> None:
    shutil.rmtree(run_folder)
    run_folder.mkdir()
    (run_folder / "holiday.jpg").touch()


def spoil_checkpoint(run_folder: Path) -> None:
    (run_folder / "checkpoints/step-6/model.safetensors").write_bytes(b"short")
    for name in ("seed-0.json", "seed-0.selected.json"):
        run_folder.with_name(name).unlink(missing_ok=True)


def spoil_other(run_folder: Path) -> None:
    file = run_folder / "config.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("seed: 0", "seed: 5"), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (spoil_config, "config.yaml"),
        (spoil_kind, "this is no run"),
        (spoil_checkpoint, "model.safetensors"),
        (spoil_other, "another run: seed 5 (here 0)"),
    ],
)
def test_a_damaged_or_foreign_folder_is_named_and_left_out(
    table: Path, tmp_path: Path, spoil: Any, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    out = copied(table, tmp_path)
    for file in out.rglob("config.yaml"):  # the copy's runs start where the copy's source stage lies
        file.write_text(file.read_text(encoding="utf-8").replace(str(table), str(out)), encoding="utf-8")
    spoil(out / "minent/seed-0")
    assert run(argv(tmp_path, out)) == 6
    left_out = document(out)["left_out"]
    assert [item["name"] for item in left_out] == ["minent, seed 0"]
    assert text in left_out[0]["why"]
    assert figures(out)["target-only"][0]["state"] == "done"
    assert figures(out)["minent"][0]["state"] == "missing"  # what an earlier command found is not shown as its figure
    assert any("minent, seed 0 is left out" in record.message for record in caplog.records)


def test_a_seed_that_diverges_is_shown_as_diverged(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "table"
    shutil.copytree(table / "source-stage", out / "source-stage")
    arguments = argv(tmp_path, out)
    comparison(tmp_path, {"wild": {"method": "minent", "set": {"weights.entropy": 1e30, "optim.name": "sgd"}}})
    assert run(arguments) == 0
    assert figures(out)["wild"][0]["state"] == "diverged"
    assert document(out)["rows"][0]["mean"] is None
    assert "1 diverged" in (out / "table.md").read_text(encoding="utf-8")


def test_a_run_of_other_settings_is_no_result_of_this_one(table: Path, tmp_path: Path) -> None:
    """Moved away and trained again, a row is scored again; and what diverged is tried again with other settings."""
    out = copied(table, tmp_path)
    arguments = [
        *argv(tmp_path, out),
        "--methods",
        "minent",
        "--init",
        str(table / "source-stage/seed-{seed}/checkpoints/last"),
    ]
    shutil.rmtree(out / "minent/seed-0")
    (out / "minent/seed-0.diverged.json").write_text('{"message": "x", "config": "of another"}', encoding="utf-8")
    before = figures(out)["minent"][0]["iou"]
    comparison(tmp_path, {"minent": {"method": "minent", "set": {"weights.entropy": 0.001, "optim.lr": 0.1}}})
    assert run(arguments) == 0
    assert figures(out)["minent"][0]["state"] == "done"
    assert figures(out)["minent"][0]["iou"] != before


def test_a_method_of_ones_own_is_a_run_and_starts_from_ones_own_checkpoint(table: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN, encoding="utf-8")
    name = f"{tmp_path / 'mine.py'}:Mine"
    init = str(table / "source-stage/seed-{seed}")
    assert run([*argv(tmp_path, tmp_path / "table"), "--methods", name, "--init", init]) == 0
    assert figures(tmp_path / "table")[name][0]["state"] == "done"
    assert not (tmp_path / "table/source-stage").exists()


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--methods", "minnent"], "Did you mean minent"),
        (["--weights.cluster", "1"], "--weights.cluster is each run's own"),
        (["--seed", "3"], "--seed is each run's own"),
        (["--seeds", "0"], "a number such as 3"),
        (["--seeds", "1,1"], "comes twice"),
        (["--devices", "gpu"], "allowed: auto, cpu"),
        (["--init", "nowhere"], "no such checkpoint"),
        (["--devices", ","], "devices is empty"),
        (["--supervised", "nowhere.json"], "nowhere.json"),
        (["--data", "nowhere"], "no such folder of labelled images"),
        (["--print_config"], "a single run"),
        (["--source_stage.seed", "3"], "--source_stage.seed is the table's own"),
        (["--seeds", "00"], "a number such as 3"),
        (["--optim.lrr", "1"], "optim.lrr"),
        (["--source_stage.method", "lsr"], "source-only"),
        (["--on", "ray", "--devices", "cuda:0"], "allowed with --on ray: auto, cpu, cuda"),
        (["--on", "cluster"], "ray"),
        (["--address", "auto"], "Set --on ray"),
        (["--on", "ray", "--cpus", "0"], "at least 1"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    tmp_path: Path, more: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table"
    assert run([*argv(tmp_path, out), *more]) in (2, 4)
    assert text in capsys.readouterr().err
    assert not out.exists()


def test_a_table_that_is_scored_in_another_way_is_not_mixed_with_this_one(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = argv(tmp_path, copied(table, tmp_path))
    file = tmp_path / "tiny.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("limit: 2", "limit: 3"), encoding="utf-8")
    assert run(arguments) == 2
    assert "is a table that is scored with" in capsys.readouterr().err


def test_help_lists_what_runs_take() -> None:
    process = start("compare", ["--help"])
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "--source_stage.SECTION.FIELD" in " ".join(stdout.split())
