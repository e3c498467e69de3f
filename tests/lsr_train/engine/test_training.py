"""Whole trainings: what they write, how they resume, and how they fail."""

import csv
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lsr_infer.io.digests import BLANK, seal, stated_digest
from lsr_train.config.run import METHOD_SPECS
from lsr_train.data.labels import CITYSCAPES_19
from lsr_train.device import choose_precision
from lsr_train.engine.loop import Engine
from lsr_train.methods.self_training import LSRSelfTraining
from lsr_train.runs.checkpoint import load_model
from tests.lsr_train.training_runs import REPOSITORY, losses, run_here, start, weights, words

RECIPES = {"source-only": "toytown_source", "target-only": "toytown_target_only", "lsr": "toytown_lsr",
           "lsr-em": "toytown_lsr_em", "self-training": "toytown_self_training",
           "lsr-st": "toytown_lsr_st", "distill": "toytown_distill"}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source checkpoint to adapt from."""
    run = tmp_path_factory.mktemp("source") / "run"
    assert run_here("pretrain", words("toytown_source", run)) == 0
    return run


OF_ONE_TERM = ("adaptsegnet-feat", "minent", "sapnet", "maxsquare-iw", "oce")
"""Methods of the paper's table that share the recipe of `lsr` but for their terms."""

EVERY_PART = (
    "--self_training.rectify", "0.1", "--self_training.rectify_from", "2", "--self_training.weighting", "all",
    "--pseudo_labels.confidence", "0", "--weights.masked", "0.5", "--weights.distance", "0.1",
)  # fmt: skip
"""So that the few steps of a test, whose teacher is sure of nothing, have all parts of self-training at work."""

TWO_SOURCES = (
    "--data.more_sources", "[{layout: toytown-game, split: val, limit: 3, weight: 0.5}]",
    "--augment.rare_class_temperature", "0.1",
)  # fmt: skip
"""A second labelled data set, for one sample in three."""


FEW_LABELS = (
    "--data.labelled.layout", "toytown-camera", "--data.labelled.split", "val", "--data.labelled.limit", "3",
)  # fmt: skip
"""Three labelled frames of the target."""


def command_for(method: str, source: Path, out: Path, *more: str) -> tuple[str, list[str]]:
    if method in ("source-only", "target-only"):
        return "pretrain", words(RECIPES[method], out, *more)
    if method == "distill":
        every_term = [f"--weights.{name}=0.1" for name in METHOD_SPECS[method].weights]
        return "distill", [str(source), *words(RECIPES[method], out, *every_term, *more)]
    if method in OF_ONE_TERM:
        none = ("--weights.cluster=0", "--weights.perpendicularity=0", "--weights.norm=0")
        own = (f"--weights.{name}=0.1" for name in METHOD_SPECS[method].weights)
        return "adapt", words("toytown_lsr", out, "--init", str(source), "--method", method, *none, *own, *more)
    at_work = EVERY_PART if method in ("self-training", "lsr-st") else ()
    return "adapt", words(RECIPES[method], out, "--init", str(source), *at_work, *more)


@pytest.mark.parametrize("method", METHOD_SPECS)
def test_every_method_trains_and_writes_a_whole_run(method: str, source: Path, tmp_path: Path) -> None:
    more = ("--selection.signal", "flip", "--log.gradients", "2", *FEW_LABELS)
    assert run_here(*command_for(method, source, tmp_path / "run", *more)) == 0
    run = tmp_path / "run"
    assert load_model(run / "checkpoints/step-6/model.safetensors")[1].labelled == 3
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    assert (status["state"], status["step"]) == ("finished", 6)
    rows = losses(run)
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
    with (run / "gradients.csv").open(encoding="utf-8", newline="") as file:
        norms = list(csv.DictReader(file))
    assert [row["step"] for row in norms] == ["2", "4", "6"]
    assert set(norms[0]) <= set(rows[0])  # a norm for every loss term
    assert all(0 <= float(value) < math.inf for row in norms for value in row.values())
    assert all(float(row[name]) > 0 for row in norms for name in ("cross_entropy", "labelled"))
    assert (run / "checkpoints/last").read_text(encoding="utf-8") == "step-6\n"
    selected = status["selection"]["best_step"]  # none where six steps made a class collapse
    assert (run / "checkpoints/best").is_file() == (selected is not None)
    assert selected is not None or METHOD_SPECS[method].command == "adapt"
    assert (run / "classes.csv").is_file()
    with (run / "classes.csv").open(encoding="utf-8", newline="") as file:
        steps = [row["step"] for row in csv.DictReader(file)]
    start = ["0"] if METHOD_SPECS[method].command == "adapt" else []  # what the watch over classes compares with
    assert list(dict.fromkeys(steps)) == [*start, "3", "6"]
    assert steps.count("6") == 19
    terms = set(rows[0])
    assert ("entropy" in terms) == ("entropy" in METHOD_SPECS[method].weights)
    assert ("adversarial" in terms) == (method in ("adaptsegnet-feat", "sapnet"))
    assert ("cluster_target" in terms) == (method.startswith("lsr") or method == "distill")
    assert ("self_training" in terms) == (method in ("self-training", "lsr-st", "distill"))
    assert ({"distill_source", "distill_target"} <= terms) == (method == "distill")
    if method in ("self-training", "lsr-st"):
        state = load_file(run / "checkpoints/step-6/state.safetensors")
        assert state["method.rectifier.prototypes.seen"].any()
        assert all(float(rows[-1][name]) > 0 for name in ("target_dose", "masked", "self_training", "distance"))


LONGER = pytest.mark.slow
"""Methods whose state is part of another's, which the quick tests hold, or that have hardly any."""
ALIKE = {
    "source-only",
    "minent",
    "maxsquare-iw",
    "lsr",
    "lsr-em",
    "self-training",
    "adaptsegnet-feat",
    "target-only",
    "oce",
    "distill",
}


@pytest.mark.parametrize(
    "method", [pytest.param(method, marks=[LONGER] if method in ALIKE else []) for method in METHOD_SPECS]
)
def test_an_interrupted_run_goes_on_bit_equally(method: str, source: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    more = ["--log.every", "3", "--selection.signal", "flip", "--train.steps", "24"]
    command, arguments = command_for(method, source, whole, *more, *(TWO_SOURCES if method == "lsr-st" else ()))
    assert run_here(command, arguments) == 0
    measuring = ["--log.gradients", "5"]  # and that changes nothing in the run
    process = start(command, [*(str(parts) if word == str(whole) else word for word in arguments), *measuring])
    metrics = parts / "checkpoints"
    until = time.monotonic() + 120
    while not (metrics / "step-2").is_dir() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "--resume" in errors
    assert run_here(command, ["--resume", str(parts)]) == 0
    assert weights(parts, 24) == weights(whole, 24)
    assert losses(parts) == losses(whole)
    with (parts / "gradients.csv").open(encoding="utf-8", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["5", "10", "15", "20"]


def test_the_teacher_is_saved_where_it_is_wanted_and_the_run_goes_on_with_its_student(
    source: Path, tmp_path: Path
) -> None:
    more = ["--train.keep", "9", "--self_training.decay", "0.9"]
    runs = {}
    for keep in ("student", "teacher"):
        runs[keep] = tmp_path / keep
        words_ = command_for("lsr-st", source, runs[keep], *more, "--self_training.keep", keep)
        assert run_here(*words_) == 0
    assert losses(runs["student"]) == losses(runs["teacher"])  # what is kept changes nothing in the training
    student, teacher = (weights(runs[keep], 6) for keep in ("student", "teacher"))
    assert student != teacher
    state = load_file(runs["student"] / "checkpoints/step-6/state.safetensors")
    for name, data in teacher.items():
        assert state[f"method.teacher.network.{name}"].numpy().tobytes() == data, name
    for step in (4, 6):  # as if it had been killed there
        shutil.rmtree(runs["teacher"] / f"checkpoints/step-{step}")
    for pointer in ("last", "best"):
        (runs["teacher"] / "checkpoints" / pointer).write_text("step-2\n", encoding="utf-8")
    assert run_here("adapt", ["--resume", str(runs["teacher"])]) == 0
    assert weights(runs["teacher"], 6) == teacher


def test_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    for workers in (0, 2):
        out = tmp_path / str(workers)
        assert run_here("pretrain", words("toytown_source", out, "--data.workers", str(workers))) == 0
    assert weights(tmp_path / "0", 6) == weights(tmp_path / "2", 6)


def test_the_log_counts_the_steps_that_waited_for_the_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = Engine.train_step
    waits = {1: 0.25, 4: 0.5}
    monkeypatch.setattr(Engine, "train_step", lambda self, batches: take(self, batches) * 0 + waits.get(self.step, 0.0))
    run = tmp_path / "run"
    assert run_here("pretrain", words("toytown_source", run, "--log.every", "3")) == 0
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["steps_that_waited"]) for row in rows] == [pytest.approx(1 / 3, abs=1e-3)] * 2


def test_a_run_is_never_overwritten_and_each_command_has_its_methods(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = weights(source, 6)
    assert run_here("pretrain", words("toytown_source", source)) == 2
    assert "--resume" in capsys.readouterr().err
    assert weights(source, 6) == before
    assert run_here("adapt", words("toytown_source", tmp_path / "run", "--init", str(source))) == 2
    assert run_here("pretrain", words("toytown_lsr", tmp_path / "run")) == 2
    assert not (tmp_path / "run").exists()


def test_a_start_of_another_architecture_is_named(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--init", str(source), "--network.width", "0.25"]
    assert run_here("adapt", words("toytown_lsr", tmp_path / "run", *more)) == 4
    assert "width" in capsys.readouterr().err


def test_a_start_may_be_on_a_finer_grid(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    finer = ["--network.output_stride", "8", "--network.dilations", "[2,4]", "--train.steps", "1"]
    arguments = words("toytown_lsr", tmp_path / "run", "--init", str(source), *finer, "--selection.signal", "none")
    assert run_here("adapt", arguments) == 0
    assert "its output stride 16 made 8" in caplog.text


@pytest.mark.skipif(os.environ.get("CUDA_VISIBLE_DEVICES", "") != "", reason="a CUDA device may be here")
def test_a_missing_device_is_exit_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here("pretrain", words("toytown_source", tmp_path / "run", "--train.device", "cuda:7")) == 3
    assert "cuda:7" in capsys.readouterr().err
    assert run_here("pretrain", words("toytown_source", tmp_path / "run", "--train.precision", "fp16")) == 3
    assert not (tmp_path / "run").exists()


def test_the_run_folder_keeps_the_precision_that_auto_took(tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = ["--train.precision", "auto", "--train.device", "cpu", "--train.steps", "1", "--selection.signal", "none"]
    assert run_here("pretrain", words("toytown_source", run, *more)) == 0
    taken = choose_precision(torch.device("cpu"), "auto")
    assert f"precision: {taken}" in (run / "config.yaml").read_text()
    assert run_here("pretrain", ["--resume", str(run)]) == 0


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    more = [
        "--optim.name",
        "sgd",
        "--optim.lr",
        "10",
        "--optim.momentum",
        "0.99",
        "--train.steps",
        "60",
        "--log.every",
        "7",
    ]
    more += ["--optim.lr_multipliers.head", "1.0e+6"]
    assert run_here("pretrain", words("toytown_source", run, *more)) == 5
    message = capsys.readouterr().err
    assert "cross_entropy" in message or "weights are not finite" in message
    for checkpoint in (run / "checkpoints").glob("step-*"):
        tensors = load_file(checkpoint / "model.safetensors")
        assert all(bool(tensor.isfinite().all()) for tensor in tensors.values()), checkpoint


def kill_series(kills: int, source: Path, tmp_path: Path, *options: str, method: str = "lsr-em") -> None:
    """Kill LSR+EM at random instants until it has died `kills` times, resuming each time; compare with a whole run.

    The instants are uniform from the moment a run holds its folder to the time a whole run took, so that they fall into
    steps, looks and checkpoint writes.
    """
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    more = ["--train.checkpoint_every", "1", "--selection.signal", "flip", "--selection.every", "2", *options]
    command, first = command_for(method, source, killed, *more)
    process = start(command, [str(whole) if word == str(killed) else word for word in first])
    wait_for_lock(process, whole)
    begin = time.monotonic()
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    seconds = time.monotonic() - begin
    generator = random.Random(7)
    died = 0
    for _ in range(kills * 6):
        begun = (killed / "config.yaml").is_file()
        process = start(command, ["--resume", str(killed)] if begun else first)
        try:
            if died < kills:
                wait_for_lock(process, killed)
                process.wait(timeout=generator.uniform(0.0, seconds))
            else:
                process.wait(timeout=600)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            died += 1
        _, errors = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), errors
        for checkpoint in (killed / "checkpoints").glob("step-*"):
            load_file(checkpoint / "model.safetensors")
            load_file(checkpoint / "state.safetensors")
            json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        if process.returncode == 0 and died >= kills:
            break
        if process.returncode == 0:  # finished between two kills: once more from the start
            assert weights(killed, 6) == weights(whole, 6)
            shutil.rmtree(killed)
    assert died >= kills
    assert weights(killed, 6) == weights(whole, 6)
    assert losses(killed) == losses(whole)


def wait_for_lock(process: subprocess.Popen[str], run: Path) -> None:
    """Wait until the process holds the run folder, or has ended."""
    lock, held = run / ".lock", Path("/proc/locks")  # trying to take it would stand in the process's way
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if lock.is_file() and f":{lock.stat().st_ino} " in held.read_text(encoding="ascii"):
            return
        time.sleep(0.02)


@pytest.mark.slow  # as are the series of kills
def test_a_killed_run_is_whole_and_goes_on(source: Path, tmp_path: Path) -> None:
    kill_series(3, source, tmp_path)


@pytest.mark.slow
def test_fifty_kills(source: Path, tmp_path: Path) -> None:
    kill_series(50, source, tmp_path)


@pytest.mark.slow
def test_twenty_kills_with_teacher_mix_and_class_statistics(source: Path, tmp_path: Path) -> None:
    kill_series(20, source, tmp_path, *FEW_LABELS, method="lsr-st")


@pytest.mark.slow
def test_kills_beside_a_loading_process(source: Path, tmp_path: Path) -> None:
    kill_series(10, source, tmp_path, "--data.workers", "1")


@pytest.fixture
def small_disk(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A real file system of a few MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_and_leaves_the_previous_checkpoint(
    small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = small_disk / "run"
    more = ["--train.checkpoint_every", "1", "--train.keep", "9", "--train.steps", "40"]
    assert run_here("pretrain", words("toytown_source", run, *more)) == 4
    assert "disk is full" in capsys.readouterr().err
    last = (run / "checkpoints/last").read_text(encoding="utf-8").strip()
    assert load_file(run / "checkpoints" / last / "model.safetensors")
    load_file(run / "checkpoints" / last / "state.safetensors")


def test_tensorboard_has_every_step_once_although_the_run_was_taken_up_again(source: Path, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "run"
    assert run_here(*command_for("lsr-st", source, run, "--train.keep", "9", "--log.tensorboard", "true")) == 0
    for step in (4, 6):  # as if it had been killed after step 3
        shutil.rmtree(run / f"checkpoints/step-{step}")
    for pointer in ("last", "best"):
        (run / "checkpoints" / pointer).write_text("step-2\n", encoding="utf-8")
    assert run_here("adapt", ["--resume", str(run)]) == 0
    seen = events.EventAccumulator(str(run / "tensorboard"))
    seen.Reload()
    for tag in ("cross_entropy", "self_training", "learning_rate"):
        assert [event.step for event in seen.Scalars(tag)] == [1, 2, 3, 4, 5, 6], tag
    for tag in ("signal/flip", "class_share/road", "class_confidence/road"):
        assert [event.step for event in seen.Scalars(tag)] == [0, 3, 6], tag
    logged = [float(row["cross_entropy"]) for row in losses(run)]
    assert [event.value for event in seen.Scalars("cross_entropy")] == pytest.approx(logged, rel=1e-5)


def test_micro_batches_have_numbers_of_their_own_and_resume(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two micro-batches a step are not one drawn twice, and a run in two parts is the run in one."""
    begun = []
    begin = LSRSelfTraining.begin

    def noted(method: LSRSelfTraining, step: int, sample: int) -> None:
        begun.append((step, sample))
        begin(method, step, sample)

    monkeypatch.setattr(LSRSelfTraining, "begin", noted)
    more = ["--train.accumulate", "2", "--train.checkpoint_every", "2", "--train.keep", "9", *FEW_LABELS]
    assert run_here(*command_for("lsr-st", source, tmp_path / "whole", *more)) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    for name in ("step-4", "step-6"):
        shutil.rmtree(tmp_path / "parts/checkpoints" / name)
    for pointer in ("last", "best"):
        (tmp_path / "parts/checkpoints" / pointer).write_text("step-2\n", encoding="utf-8")
    assert run_here("adapt", ["--resume", str(tmp_path / "parts")]) == 0
    assert weights(tmp_path / "parts", 6) == weights(tmp_path / "whole", 6)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert begun[:4] == [(0, 0), (0, 2), (1, 4), (1, 6)]
    assert begun[12:] == [(step, 4 * step + micro) for step in range(2, 6) for micro in (0, 2)]


@pytest.mark.parametrize(
    "method", ["lsr-st", *(pytest.param(name, marks=LONGER) for name in ("adaptsegnet-feat", "lsr-em", "oce"))]
)
def test_two_processes_equal_one(method: str, source: Path, tmp_path: Path) -> None:
    """Two ranks with one image each give the losses of one rank with two (gloo, real processes)."""
    more = ["--optim.clip_norm", "1", "--train.steps", "4", "--selection.signal", "none", *FEW_LABELS]
    rate = "0.0001" if method == "oce" else "0.01"  # its labels are the network's own: rounding would turn some over
    more += ["--optim.name", "sgd", "--optim.lr", rate]  # AdamW would blow rounding up to whole steps
    more += [*TWO_SOURCES, "--data.labelled.weight", "1.5"]  # as many labelled frames as images of a source
    assert run_here(*command_for(method, source, tmp_path / "one", *more)) == 0
    command, arguments = command_for(method, source, tmp_path / "two", *more)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "lsr_train"]
    done = subprocess.run(
        [*launch, command, *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 4
    for row, other in zip(one, two, strict=True):
        for key in set(row) - {"entropy"}:  # the one term that DDP's mean completes: each rank logs its own half
            assert float(other[key]) == pytest.approx(float(row[key]), rel=2e-4, abs=1e-6), key
    together = load_file(tmp_path / "one/checkpoints/step-4/model.safetensors")
    apart = load_file(tmp_path / "two/checkpoints/step-4/model.safetensors")
    for name, tensor in together.items():
        torch.testing.assert_close(apart[name], tensor, rtol=2e-3, atol=2e-5, msg=name)


@pytest.mark.slow  # two processes that import torch
def test_batch_norm_cannot_be_synchronised_on_the_cpu_and_says_so(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "lsr_train"]
    done = subprocess.run(
        [*launch, "pretrain", *words("toytown_source", tmp_path / "run")], cwd=REPOSITORY, capture_output=True,
        text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode != 0
    assert "error: torch synchronises batch-norm" in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_early_stop_stays_a_stop(source: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = ["--init", str(source), "--selection.patience", "1", "--selection.every", "1", "--train.steps", "40"]
    assert run_here("adapt", words("toytown_lsr", run, *more, "--optim.lr", "1e-9")) == 0
    stopped = json.loads((run / "status.json").read_text(encoding="utf-8"))
    assert stopped["state"] == "finished"
    assert stopped["step"] < 40
    assert run_here("adapt", ["--resume", str(run)]) == 0
    assert json.loads((run / "status.json").read_text(encoding="utf-8"))["step"] == stopped["step"]


def test_a_run_whose_classes_collapsed_from_the_start_says_that_nothing_was_selected(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run = tmp_path / "run"
    assert run_here("adapt", words("toytown_lsr", run, "--init", str(source), "--optim.lr", "0.3")) == 0
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    assert status["selection"]["best_step"] is None, "no class collapsed, so that this test says nothing"
    assert not (run / "checkpoints/best").exists()
    said = [record.message for record in caplog.records if "no checkpoint was selected:" in record.message]
    assert len(said) == 1
    low = [name for name, count in zip(CITYSCAPES_19.names, status["selection"]["watch"]["low"], strict=True) if count]
    assert f"{', '.join(low)} had collapsed; this is the last one" in said[0]
    assert "step 3: class" in caplog.text  # from the first low look on


def test_a_failed_run_says_so_in_its_status(tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = ["--optim.name", "sgd", "--optim.lr", "10", "--optim.lr_multipliers.head", "1.0e+6", "--train.steps", "60"]
    assert run_here("pretrain", words("toytown_source", run, *more)) == 5
    assert json.loads((run / "status.json").read_text(encoding="utf-8"))["state"] == "failed"


def test_the_files_of_a_bad_step_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint with a weight that overflows: the first step's loss is not finite, and its images are named."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    start_run = tmp_path / "start"
    assert run_here("pretrain", words("toytown_source", start_run)) == 0
    model = start_run / "checkpoints/step-6/model.safetensors"
    with safe_open(model, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(model)
    name = next(key for key in tensors if key.startswith("head") and key.endswith("weight"))
    tensors[name] = torch.full_like(tensors[name], 3.0e38)
    digest = stated_digest(model)
    assert digest is not None
    save_file(tensors, model, metadata={key: text.replace(digest, BLANK) for key, text in metadata.items()})
    seal(model)
    run = tmp_path / "run"
    assert run_here("pretrain", words("toytown_source", run, "--init", str(model), "--selection.signal", "none")) == 5
    message = capsys.readouterr().err
    assert "cross_entropy was not finite at step 1 (files: toytown" in message, message
    assert not list((run / "checkpoints").glob("step-*"))
