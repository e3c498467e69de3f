"""`adapt` from a labelled folder and a clip alone: everything real, on Toytown as files, in seconds."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import yaml

from lsr_infer.io.images import read_image
from lsr_infer.video.writer import VideoWriter
from lsr_train.autopilot import budget, two_stages
from lsr_train.autopilot import choices as automatic
from lsr_train.autopilot.budget import StageCost
from lsr_train.autopilot.choices import source_stage
from lsr_train.config.command_line import resolve
from lsr_train.config.recipes import config_from_text, to_yaml
from lsr_train.data.labels import CITYSCAPES_19
from lsr_train.data.loading import Batches
from lsr_train.engine.deadline import Deadline
from lsr_train.engine.loop import Engine
from lsr_train.engine.setup import RunInputs
from lsr_train.network import DeepLabV2, NetworkSpec
from lsr_train.runs.folder import RunFolder
from lsr_train.toytown import render
from tests.lsr_train.training_runs import REPOSITORY, losses, run_here, start, weights

HEIGHT, WIDTH = 64, 96
STEPS = 12
TINY = [
    "--network.weights", "none", "--network.backbone", "resnet18", "--network.width", "0.125",
    "--data.workers", "0", "--data.batch_size", "2", "--data.target.static", "0", "--data.target.seconds", "0",
    "--train.threads", "1", "--train.precision", "fp32", "--train.checkpoint_every", "1", "--log.every", "1",
    "--log.tensorboard", "false", "--selection.frames", "2", "--network.batch_norm_frames", "4",
    "--source_stage.train.checkpoint_every=1", "--source_stage.optim.lr", "0.001",
]  # fmt: skip
LENGTHS = ["--train.steps", str(STEPS), "--source_stage.train.steps", str(STEPS)]


def labelled_folder(root: Path) -> None:
    """Write images, labels with ids of their own and classes.yaml."""
    for index in range(5):
        frame, labels = render("game", index, height=HEIGHT, width=WIDTH)
        for side, picture in (("images", frame), ("labels", labels + 1)):
            (root / side).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(root / side / f"{index}.png"), picture)
    classes = [
        {"name": name, "color": list(color), "ids": [index + 1]}
        for index, (name, color) in enumerate(zip(CITYSCAPES_19.names, CITYSCAPES_19.colors, strict=True))
    ]
    (root / "classes.yaml").write_text(yaml.safe_dump({"classes": classes, "ignore": [0]}), encoding="utf-8")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled folder `game` and a clip `camera.mp4`."""
    root = tmp_path_factory.mktemp("data")
    labelled_folder(root / "game")
    with VideoWriter(root / "camera.mp4", width=WIDTH, height=HEIGHT, fps=Fraction(10)) as writer:
        for index in range(6):
            writer.write(render("camera", index, height=HEIGHT, width=WIDTH)[0])
    return root


def words(data: Path, out: Path, *more: str) -> list[str]:
    """Return what a person would write, and what makes it small."""
    named = ["--source", str(data / "game"), "--target", str(data / "camera.mp4"), "--out", str(out)]
    return [*named, *TINY, *more]


def source_of(out: Path) -> Path:
    """Return the source stage's run folder of an adaptation."""
    return Path(yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))["init"])


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished adaptation with its source stage."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert run_here("adapt", words(data, out, *LENGTHS)) == 0
    return out


def test_a_folder_and_a_clip_give_two_finished_runs(whole: Path) -> None:
    source = source_of(whole)
    assert source.parent == whole.parent
    for run, method in ((source, "source-only"), (whole, "lsr-st")):
        status = json.loads((run / "status.json").read_text(encoding="utf-8"))
        assert (status["state"], status["step"]) == ("finished", STEPS)
        config = config_from_text((run / "config.yaml").read_text(encoding="utf-8"), "config.yaml")
        assert config_from_text(to_yaml(config), "again") == config
        assert config.method == method
        assert (config.data.source.height, config.data.source.width) == (HEIGHT, WIDTH)
        assert (config.data.target.height, config.data.target.width) == (HEIGHT, WIDTH)
        assert config.augment.crop_height == 0
    assert config_from_text((source / "config.yaml").read_text(encoding="utf-8"), "").optim.lr == 0.001


def test_labels_of_the_target_are_for_the_adaptation_alone(whole: Path, data: Path, tmp_path: Path) -> None:
    """So the source stage of the adaptation without them serves again."""
    labelled_folder(tmp_path / "few")
    out = whole.parent / "labelled"
    assert run_here("adapt", words(data, out, *LENGTHS, "--labelled", f"{tmp_path / 'few'}:0.5")) == 0
    assert source_of(out) == source_of(whole)
    assert "labelled" not in losses(source_of(out))[0]
    assert float(losses(out)[0]["labelled"]) > 0
    summary = (out / "summary.txt").read_text(encoding="utf-8")
    assert f"trained with 5 labelled frames of the target: {tmp_path / 'few'}" in summary


def test_every_choice_is_written_down(whole: Path) -> None:
    choices = json.loads((whole / "stages.json").read_text(encoding="utf-8"))["choices"]
    for beginning in ("device cpu", "network resnet18", "size 96x64", "classes: the 19 of game", "batch of 2", "steps"):
        assert sum(line.startswith(beginning) for line in choices) == 1, beginning


def test_the_summary_names_files_that_are_there(whole: Path) -> None:
    summary = (whole / "summary.txt").read_text(encoding="utf-8")
    pictures = re.findall(r"\S+\.png", summary)
    assert len(pictures) == 6
    for picture in pictures:
        height, width, _ = read_image(Path(picture)).shape
        assert (height > HEIGHT, width) == (True, 2 * WIDTH + 4)  # the classes' names are below
    for model in re.findall(r"\S+\.safetensors", summary):
        assert Path(model).is_file()
    assert f"python export/to_onnx.py {source_of(whole)} -o {whole}_source.onnx --frames " in summary
    assert f"--model {whole}.onnx --side-by-side {whole}_source.onnx" in summary
    assert f"lsr_train suggest {whole} --target " in summary
    assert "collapsed" in summary
    assert "agreement with the mirrored frame" in summary


def test_the_summary_begins_with_a_verdict_and_names_what_is_never_predicted(whole: Path) -> None:
    lines = (whole / "summary.txt").read_text(encoding="utf-8").splitlines()
    assert re.match(rf"verdict: too short to tell, a stage had {STEPS} steps; agreement .* [+-]0\.\d+, over", lines[0])
    never = [line for line in lines if line.startswith("never predicted")]
    for line, word in zip(never, ("before", "after"), strict=True):
        found = re.fullmatch(rf"never predicted {word}: (\d+) of 19 classes(?:: (.+))?", line)
        assert found is not None
        assert len(found[2].split(", ") if found[2] else []) == int(found[1])


@pytest.mark.slow
def test_the_commands_that_the_summary_names_run(whole: Path) -> None:
    summary = (whole / "summary.txt").read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in summary.splitlines() if line.startswith("  ")]
    assert [command[0] for command in commands] == ["python", "python", "lsr-infer", "python", "python"]
    for first, *rest in commands:
        command = rest if first == "python" else ["-c", "from lsr_infer.cli import main; main()", *rest]
        done = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode in ((0, 5) if "int8" in rest else (0,)), done.stderr  # 5: twelve steps are no network
    assert (whole.parent / f"{whole.name}_to_label" / "classes.yaml").is_file()
    assert any((whole.parent / f"{whole.name}_segmented").rglob("*_side_by_side.mp4"))


def test_what_was_chosen_can_be_repeated_by_hand(whole: Path, tmp_path: Path) -> None:
    """`pretrain` with the source stage's configuration, then `adapt --init` with the adaptation's."""
    source, again = tmp_path / "source", tmp_path / "adapted"
    recipe = str(source_of(whole) / "config.yaml")
    assert run_here("pretrain", ["--recipe", recipe, "--out", str(source)]) == 0
    assert weights(source, STEPS) == weights(source_of(whole), STEPS)
    assert run_here("adapt", ["--recipe", str(whole / "config.yaml"), "--init", str(source), "--out", str(again)]) == 0
    assert weights(again, STEPS) == weights(whole, STEPS)
    assert losses(again) == losses(whole)


@pytest.fixture
def beside(whole: Path, tmp_path: Path) -> Path:
    """A folder with a copy of the finished source stage."""
    runs = tmp_path / "runs"
    shutil.copytree(source_of(whole), runs / source_of(whole).name)
    return runs


@pytest.mark.parametrize(("rate", "selected"), [("1.0", False), ("1.0e-9", True)])
def test_the_summary_tells_whether_nothing_was_selected(data: Path, beside: Path, rate: str, selected: bool) -> None:
    out = beside / "second"
    assert run_here("adapt", words(data, out, *LENGTHS, "--optim.lr", rate, "--optim.warmup_steps", "0")) == 0
    assert (out / "checkpoints/best").exists() == selected, "the rate did not do what this test needs"
    summary = (out / "summary.txt").read_text(encoding="utf-8")
    assert bool(re.search("no checkpoint was selected: .+ had collapsed; this is the last one", summary)) != selected


def test_a_finished_source_stage_is_used_again(
    data: Path, whole: Path, beside: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    source = beside / source_of(whole).name
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*") if path.name != ".lock"}
    assert run_here("adapt", words(data, beside / "second", *LENGTHS, "--optim.lr", "0.0002")) == 0, capsys.readouterr()
    assert f"the source stage {source} is used again" in caplog.text
    assert source_of(beside / "second") == source
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*") if path.name != ".lock"} == before
    assert sorted(path.name for path in beside.iterdir()) == sorted(["second", source.name])


def test_another_seed_and_another_source_train_another_source_stage(
    data: Path, whole: Path, beside: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    labelled_folder(tmp_path / "more")
    more = ["--seed", "1", "--source", f"{tmp_path / 'more'}:0.5"]
    assert run_here("adapt", words(data, beside / "second", *LENGTHS, *more)) == 0
    assert "the source stage is trained" in caplog.text
    assert f"has seed 0 (here 1), data.more_sources () (here root {tmp_path / 'more'}, weight 0.5)" in caplog.text
    assert source_of(beside / "second").name != source_of(whole).name
    assert caplog.text.count("10 source images") == 2, "both stages have both"


def test_a_changed_label_file_trains_another_source_stage(
    data: Path, whole: Path, beside: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    file = data / "game/labels/0.png"
    kept, times = file.read_bytes(), file.stat()
    try:
        assert cv2.imwrite(str(file), render("game", 0, height=HEIGHT, width=WIDTH)[1] * 0 + 1)
        assert run_here("adapt", words(data, beside / "second", *LENGTHS)) == 0
    finally:
        file.write_bytes(kept)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "was trained on other files, or they have changed since" in caplog.text
    assert source_of(beside / "second").name != source_of(whole).name


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["source", "adapted"])
def test_a_kill_in_either_stage_is_made_good(data: Path, whole: Path, tmp_path: Path, stage: str) -> None:
    out = tmp_path / "runs/killed"
    process = start("adapt", words(data, out, *LENGTHS))
    run = out if stage == "adapted" else out.parent / source_of(whole).name
    kill_after(process, run / "checkpoints/step-1")
    state = json.loads((run / "status.json").read_text(encoding="utf-8"))
    assert state["step"] < STEPS, "the kill came too late to say anything"
    assert (out / "summary.txt").exists() is False
    assert run_here("adapt", ["--resume", str(out)]) == 0
    for ours, theirs in ((out, whole), (source_of(out), source_of(whole))):
        assert weights(ours, STEPS) == weights(theirs, STEPS)
        assert losses(ours) == losses(theirs)
    assert (out / "summary.txt").is_file()


def kill_after(process: "subprocess.Popen[str]", checkpoint: Path) -> None:
    """Kill a process as soon as a checkpoint is there."""
    until = time.monotonic() + 240
    while not checkpoint.is_dir() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors


def test_an_interruption_in_the_source_stage_names_the_folder_of_both(data: Path, tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "runs/stopped"
    process = start("adapt", words(data, out, *LENGTHS))
    checkpoint = out.parent / source_of(whole).name / "checkpoints/step-1"
    until = time.monotonic() + 240
    while not checkpoint.is_dir() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 130, errors
    assert f"adapt --resume {out}" in errors
    assert not list((out / "checkpoints").glob("step-*"))


def test_a_source_stage_that_is_gone_is_an_input_error(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(whole, out)
    config = (out / "config.yaml").read_text(encoding="utf-8").replace(str(source_of(whole)), str(tmp_path / "gone"))
    (out / "config.yaml").write_text(config, encoding="utf-8")
    assert run_here("adapt", ["--resume", str(out)]) == 4
    assert "gone is not there" in capsys.readouterr().err


RARE = ["--train.checkpoint_every", "1000", "--source_stage.train.checkpoint_every", "1000"]
"""A checkpoint at the end alone."""


def small_recipes(folder: Path, steps: int = 0) -> list[str]:
    """Write recipes of a few steps, or of so many, and return the arguments that name them."""
    sizes = {"height": HEIGHT, "width": WIDTH}
    data = {"source": {"layout": "folder", **sizes}, "target": sizes}
    adapted = {"method": "self-training", "data": data, "weights": {"self_training": 1.0}, "selection": {"every": 4},
               "train": {"steps": steps or 8}, "optim": {"warmup_steps": 4}}  # fmt: skip
    source = {"method": "source-only", "train": {"steps": steps or 10}, "selection": {"every": 5}}
    for name, document in (("adapted", adapted), ("source", source)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return ["--recipe", str(folder / "adapted.yaml"), "--source_stage.recipe", str(folder / "source.yaml")]


def steps_of(out: Path) -> tuple[int, int]:
    """Return the steps that the source stage and the adaptation have done."""
    source, adapted = (RunFolder(run).status() for run in (source_of(out), out))
    assert (source["state"], adapted["state"]) == ("finished", "finished")
    return source["step"], adapted["step"]


@pytest.mark.slow
def test_a_budget_that_is_large_enough_gives_four_times_the_recipes_steps(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs/budget"
    assert run_here("adapt", words(data, out, *small_recipes(tmp_path), *RARE, "--budget", "2h")) == 0
    assert steps_of(out) == (40, 32)
    choices = RunFolder(out).stages()["choices"]
    assert any("a source step and" in line and line.startswith("steps 40 and 32: measured") for line in choices)


@pytest.mark.slow(reason="keeps to a real clock, for which the machine has to be quiet")
def test_a_budget_ends_on_its_clock_though_steps_get_slower(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step takes many times what is said to have been measured."""
    out, recipes, real = tmp_path / "runs/run", small_recipes(tmp_path, steps=4000), Engine.train_step

    def slow(self: Engine, batches: Batches) -> float:
        time.sleep(0.05)
        return real(self, batches)

    monkeypatch.setattr(Engine, "train_step", slow)
    monkeypatch.setattr(two_stages, "measure_cost", lambda *_: StageCost(step=0.002, frame=0.001))
    assert run_here("adapt", words(data, out, *recipes, "--budget", "10s", *RARE)) == 0
    planned = yaml.safe_load((source_of(out) / "config.yaml").read_text(encoding="utf-8"))["train"]["steps"]
    assert steps_of(out)[0] < planned
    rates = [float(row["learning_rate"]) for row in csv.DictReader((out / "metrics.csv").open())]
    assert rates[-1] < 0.5 * max(rates)
    assert min(rates) >= 0


@pytest.mark.slow
def test_a_ready_source_stage_gives_its_time_to_the_other(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_stages, "measure_cost", lambda *_: StageCost(step=0.02))
    out, second = tmp_path / "runs/first", tmp_path / "runs/second"
    assert run_here("adapt", words(data, out, *small_recipes(tmp_path), *RARE, "--budget", "2h")) == 0
    assert run_here("adapt", words(data, second, *small_recipes(tmp_path), *RARE, "--budget", "1h")) == 0
    assert source_of(second) == source_of(out)
    assert "source stage" not in RunFolder(second).stages()["times"]["stages"]


def test_damaged_times_are_a_sentence_and_a_resumed_budget_has_what_is_left(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(two_stages, "measure_cost", lambda *_: StageCost(step=0.02))
    out = tmp_path / "runs/first"
    assert run_here("adapt", words(data, out, *small_recipes(tmp_path), *RARE, "--budget", "100s")) == 0
    document = RunFolder(out).stages()
    given: list[Deadline] = []
    monkeypatch.setattr(two_stages, "train", lambda _, deadline: given.append(deadline) or 0)
    monkeypatch.setattr(two_stages, "write_summary", lambda *_: None)
    start = time.monotonic()
    assert run_here("adapt", ["--resume", str(out)]) == 0
    spent = sum(RunFolder(run).seconds() for run in (source_of(out), out))
    assert given[0].ends - start == pytest.approx(100 - spent - document["times"]["summary"], abs=20)
    for damage in ({"budget": "soon"}, {"stages": {"adaptation": {}}}, {"summary": None}):
        broken = document | {"times": document["times"] | damage}
        (out / "stages.json").write_text(json.dumps(broken), encoding="utf-8")
        assert run_here("adapt", ["--resume", str(out)]) == 4
        assert "its times are damaged" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "width"), [(0.001, 96), (0.4, 64), (10.0, 64), (1000.0, None)])
def test_a_budget_takes_the_largest_images_that_there_are_steps_enough_for(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, width: int | None
) -> None:
    """The cost is given: a step of a 96x64 image takes `seconds`, one of 64x64 half of it."""
    tried = []

    def cost(prepared: RunInputs, *_: Any) -> StageCost:
        tried.append(prepared.config.data.target.width)
        return StageCost(step=seconds * (tried[-1] - 32) / (WIDTH - 32))

    monkeypatch.setattr(two_stages, "measure_cost", cost)
    monkeypatch.setattr(two_stages, "train", lambda *_: 0)
    monkeypatch.setattr(two_stages, "write_summary", lambda *_: None)
    monkeypatch.setattr(automatic, "_WIDTHS", (64,))
    out = tmp_path / "runs/run"
    code = run_here("adapt", words(data, out, "--budget", "500s"))
    if width is None:
        assert code == 2
        assert set(tried) == {64}  # refused by what was measured at the smallest size
        return
    assert code == 0
    sizes = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))["data"]
    assert (sizes["source"]["width"], sizes["target"]["width"]) == (width, width)
    assert yaml.safe_load((source_of(out) / "config.yaml").read_text(encoding="utf-8"))["data"] == sizes


@pytest.mark.parametrize(
    ("seconds", "more", "backbone"),
    [
        (0.1, (), "resnet50"),  # there is time for it
        (10.0, (), "efficientnet-lite0"),
        (10.0, ("--network.backbone", "resnet50"), "resnet50"),  # stated
    ],
)
def test_a_budget_without_time_for_the_recipes_network_takes_a_lighter_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, more: tuple[str, ...], backbone: str
) -> None:
    """The cost is given: a step of the recipe's takes `seconds`, one of the light network a twentieth of it."""

    def cost(prepared: RunInputs, *_: Any) -> StageCost:
        return StageCost(step=seconds if prepared.config.network.backbone == "resnet50" else seconds / 20)

    for name, value in (("measure_cost", cost), ("train", lambda *_: 0), ("write_summary", lambda *_: None)):
        monkeypatch.setattr(two_stages, name, value)
    monkeypatch.setattr(two_stages, "load_backbone_weights", lambda *_: "")
    out = tmp_path / "runs/run"
    named = ["--source", str(data / "game"), "--target", str(data / "camera.mp4"), "--out", str(out)]
    assert run_here("adapt", [*named, *TINY[6:], *more, "--budget", "1000s"]) == 0
    adapted, source = (
        yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["network"] for run in (out, source_of(out))
    )
    assert adapted["backbone"] == source["backbone"] == backbone
    assert (adapted["normalization"] == "lite-rgb") == (backbone != "resnet50")
    written = " ".join(json.loads((out / "stages.json").read_text(encoding="utf-8"))["choices"])
    assert ("too few steps of resnet50" in written) == (backbone != "resnet50")


def test_a_budget_keeps_the_network_of_a_weights_file_at_every_size(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("measure_cost", lambda *_: StageCost(step=10.0)), ("train", lambda *_: 0), ("write_summary", lambda *_: None),
        ("backbone_of", lambda _: ("resnet18", 0.125, ("caffe", "caffe-bgr"))),
        ("load_backbone_weights", lambda *_: ""),
    ):  # fmt: skip
        monkeypatch.setattr(two_stages, name, value)
    monkeypatch.setattr(automatic, "_WIDTHS", (64,))
    out, named = tmp_path / "runs/run", ["--source", str(data / "game"), "--target", str(data / "camera.mp4")]
    own = ["--out", str(out), *TINY[6:], "--network.weights", "encoder.pth", "--budget", "1000s"]
    assert run_here("adapt", [*named, *own]) == 0
    config = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    assert config["data"]["target"]["width"] == 64  # a smaller size was opened
    assert config["network"]["backbone"] == "resnet18"
    assert "efficientnet" not in (out / "stages.json").read_text(encoding="utf-8")


def test_a_budget_that_is_too_small_says_what_is_needed_and_that_is_enough(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(budget, "_CHECKPOINT_SECONDS", 0.2)  # of this network, whose evaluation takes no second either
    out = tmp_path / "runs/small"
    assert run_here("adapt", words(data, out, "--budget", "1s")) == 2
    found = re.search(
        r"too small.*20 of \S+ s for the source stage and 20 of .*Set --budget (\d+\w)", capsys.readouterr().err
    )
    assert found is not None
    assert not out.parent.exists()
    with caplog.at_level("WARNING"):
        assert run_here("adapt", words(data, out, "--budget", found[1])) == 0
    assert min(steps_of(out)) >= 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--budget", "soon"], "such as 90s"),
        (["--budget", "0m"], "such as 90s"),
        (["--budget", "5m", "--train.steps", "5"], "Take one of them"),
        (["--budget", "5m", "--source_stage.train.steps", "5"], "Take one of them"),
        (["--budget", "5m", "--init", "x"], "--init leaves one"),
        (["--source_stage.train.steps", "5", "--init", "x"], "--init replaces"),
        (["--source_stage.train.step", "5"], "train.steps"),
        (["--source_stage.method", "lsr"], "must be source-only"),
        (["--source_stage.train.steps"], "needs a value"),
        (["--source_stage.init", "x"], "use --init"),
        (["--source_stage.train.precision", "bf16"], "Set --train.precision for both"),
        (["--source_stage.train.device", "cuda"], "Set --train.device for both"),
        (["--source_stage.train", "{steps: 5, device: cuda}"], "Set --train.device for both"),
    ],
)
def test_words_that_do_not_fit_are_usage_errors(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert run_here("adapt", words(data, tmp_path / "run", *more)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "recipe", ["toytown_lsr", "toytown_lsr_st", "streets_camvid_self_training", "streets_camvid_lsr_st"]
)
def test_a_forgotten_init_does_not_start_from_random_weights(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    where = [] if recipe.startswith("toytown") else ["--source", str(data / "game"), "--target", str(data)]
    arguments = ["--recipe", recipe, *where, "--out", str(tmp_path / "runs/run")]
    assert run_here("adapt", arguments) == 2
    message = capsys.readouterr().err
    assert "--init" in message
    assert "--network.weights" in message
    assert not (tmp_path / "runs").exists()


def test_random_weights_of_a_recipe_can_be_asked_for() -> None:
    named = ["--recipe", "toytown_lsr_st"]
    for more in (["--network.weights", "none"], ["--source_stage.network.weights", "imagenet"]):
        request = resolve("adapt", [*named, *more], "selftraining")
        assert source_stage(request).beside(request.config).network.weights == more[1]


def test_inputs_that_are_not_there_are_exit_4_and_an_output_that_is_there_2(
    data: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, game = str(data / "camera.mp4"), str(data / "game")
    for source, target, culprit in (
        (game, str(tmp_path / "no.mp4"), "no.mp4"),
        (str(tmp_path / "nowhere"), clip, "nowhere"),
        (clip, clip, "is not a folder"),
    ):
        arguments = ["--source", source, "--target", target, "--out", str(tmp_path / "runs/run"), *TINY]
        assert run_here("adapt", arguments) == 4
        assert culprit in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert run_here("adapt", words(data, whole, *LENGTHS)) == 2
    assert f"--resume {whole}" in capsys.readouterr().err


def test_weights_that_do_not_fit_are_said_before_a_folder_is_made(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "encoder.pth"
    torch.save(DeepLabV2(NetworkSpec(backbone="resnet34", width=0.25)).backbone.state_dict(), file)
    out = tmp_path / "runs/run"
    assert run_here("adapt", words(data, out, "--network.weights", str(file))) == 4
    assert "a resnet34 of width 0.25" in capsys.readouterr().err
    assert not out.parent.exists()


def test_a_source_stage_that_was_started_is_resumed(
    data: Path, whole: Path, beside: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a kill leaves it: some checkpoints, and no word that it is finished."""
    caplog.set_level("INFO")
    source = beside / source_of(whole).name
    shutil.rmtree(source / f"checkpoints/step-{STEPS}")
    for pointer in ("last", "best"):
        (source / "checkpoints" / pointer).unlink()
    (source / "checkpoints/last").write_text(f"step-{STEPS - 1}\n", encoding="utf-8")
    (source / "status.json").write_text(json.dumps({"state": "running"}), encoding="utf-8")
    assert run_here("adapt", words(data, beside / "second", *LENGTHS)) == 0
    assert f"{source} resumed" in caplog.text
    assert f"steps {STEPS - 1} to {STEPS}" in caplog.text
    assert weights(source, STEPS) == weights(source_of(whole), STEPS)
    assert weights(beside / "second", STEPS) == weights(whole, STEPS)


@pytest.mark.slow  # two processes that import torch
def test_several_processes_are_told_to_take_the_stages_one_by_one(data: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "lsr_train"]
    done = subprocess.run(
        [*launch, "adapt", *words(data, tmp_path / "run")], cwd=REPOSITORY, capture_output=True, text=True,
        timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "need a single process" in done.stderr
    assert not (tmp_path / "run").exists()


def test_help_and_mistakes_load_no_torch(data: Path, tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None; from lsr_train.commands.dispatch import adapt\n"
        "from lsr_infer.errors import exit_status\n"
        "sys.exit(exit_status(lambda: adapt(sys.argv[1:])))"
    )
    for more, code in ((["--help"], 0), (words(data, tmp_path / "run", "--budget", "soon"), 2)):
        done = subprocess.run([sys.executable, "-c", script, *more], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert "torch" not in done.stderr
