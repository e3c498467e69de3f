"""An EfficientNet-Lite through every stage: trained, adapted, resumed, distilled from a ResNet, evaluated."""

import json
import shutil
from pathlib import Path

import pytest

from lsr_train.runs.checkpoint import load_model
from tests.lsr_train.training_runs import losses, run_here, weights, words

pytestmark = pytest.mark.slow  # it cannot be made narrower: minutes beside other work

MOBILE = ["--network.backbone", "efficientnet-lite0", "--network.width", "1", "--network.normalization", "lite-rgb"]


def resumed(run: Path, command: str, *, at: int) -> Path:
    """A copy of a finished run that was stopped after a step, gone on with."""
    copy = run.with_name(f"{run.name}-resumed")
    shutil.copytree(run, copy)
    for step in range(at + 1, 100):
        shutil.rmtree(copy / f"checkpoints/step-{step}", ignore_errors=True)
    for pointer in ("last", "best"):
        (copy / "checkpoints" / pointer).write_text(f"step-{at}\n", encoding="utf-8")
    assert run_here(command, ["--resume", str(copy)]) == 0
    return copy


def test_every_stage_and_its_resumption(tmp_path: Path) -> None:
    keep = ["--train.keep", "9"]
    source, adapted, student = tmp_path / "source", tmp_path / "adapted", tmp_path / "student"
    assert run_here("pretrain", words("toytown_source", source, *MOBILE, *keep)) == 0
    assert run_here("adapt", words("toytown_lsr_st", adapted, *MOBILE, *keep, "--init", str(source))) == 0
    teacher = tmp_path / "teacher"
    assert run_here("pretrain", words("toytown_source", teacher)) == 0
    options = [*MOBILE, *keep, "--size", "96x48"]
    assert run_here("distill", [str(teacher), *words("toytown_distill", student, *options)]) == 0
    for command, run in (("pretrain", source), ("adapt", adapted), ("distill", student)):
        again = resumed(run, command, at=2)
        assert weights(again, 6) == weights(run, 6), command
        assert losses(again) == losses(run), command
        network, _ = load_model(run / "checkpoints/step-6/model.safetensors")
        assert network.spec.backbone == "efficientnet-lite0"
    scored = ["--layout", "toytown-camera", "--split", "val", "--limit", "4", "--out", str(tmp_path / "scores.json")]
    assert run_here("evaluate", [str(adapted), *scored]) == 0
    assert 0 <= json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["miou"] <= 1
