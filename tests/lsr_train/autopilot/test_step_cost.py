"""What a step takes, as predicted and as measured, and what there is to take."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from lsr_train.autopilot.memory import TOLERANCE, available_bytes, evaluation_bytes, step_bytes
from lsr_train.config.data import AugmentConfig, DataConfig, SourceConfig, TargetConfig
from lsr_train.config.run import Config
from lsr_train.config.training import BACKBONE_NAMES, NetworkConfig, WeightsConfig
from tests.lsr_train.training_runs import REPOSITORY

CPU = torch.device("cpu")
SMALLEST = DataConfig(target=TargetConfig(height=32, width=32))
GROUP = {"proc/self/cgroup": "0::/box/inner\n"}
MACHINE = 4000 * 1024
"""Bytes that the machine has available."""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="resident memory is read from Linux's /proc")
@pytest.mark.parametrize(
    "method", [*(pytest.param(method, marks=pytest.mark.slow) for method in ("source-only", "lsr-em")), "lsr-st"]
)
def test_a_step_takes_what_is_predicted(method: str) -> None:
    argv = ["--one", "--backbones", "resnet18", "--strides", "16", "--sizes", "512x256", "--methods", method]
    command = [sys.executable, "-m", "tests.benchmarks.step_memory", *argv]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["bytes"] == pytest.approx(found["predicted"], rel=TOLERANCE)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="resident memory is read from Linux's /proc")
def test_an_evaluation_takes_no_more_than_is_predicted() -> None:
    argv = ["--one", "--evaluation", "--backbones", "resnet50", "--strides", "16", "--sizes", "384x192"]
    command = [sys.executable, "-m", "tests.benchmarks.step_memory", *argv]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    state = evaluation_bytes(Config(network=NetworkConfig(backbone="resnet50", output_stride=16), data=SMALLEST), 19)
    frames = found["predicted"] - state  # without weights and optimiser, which this one has not beside it
    assert frames / 4 < found["bytes"] < frames


def test_more_of_anything_takes_more() -> None:
    network = NetworkConfig(backbone="resnet50", output_stride=16)
    base = Config(network=network, data=DataConfig(batch_size=2, source=SourceConfig(height=256, width=512)))
    least = step_bytes(base, 19)
    larger = [
        replace(base, network=replace(network, output_stride=8)),
        replace(base, network=replace(network, backbone="resnet101")),
        replace(base, data=replace(base.data, batch_size=3)),
        replace(base, data=replace(base.data, source=SourceConfig(height=288, width=512))),
    ]
    smaller = [
        replace(base, network=replace(network, width=0.5)),
        replace(base, augment=AugmentConfig(crop_height=128, crop_width=128)),
        replace(base, train=replace(base.train, precision="bf16")),
    ]
    assert all(step_bytes(config, 19) > least for config in larger)
    assert all(step_bytes(config, 19) < least for config in smaller)


def test_the_starting_network_of_the_feature_distance_is_counted() -> None:
    network = NetworkConfig(backbone="resnet50", output_stride=16, batch_norm="frozen")
    sizes = [DataConfig(source=SourceConfig(height=256, width=512), batch_size=batch) for batch in (1, 2)]
    more = []
    for data in sizes:
        without, beside = (
            Config(
                method="lsr-st", network=network, data=data, weights=WeightsConfig(self_training=1.0, distance=weight)
            )
            for weight in (0.0, 0.1)
        )
        more.append(step_bytes(beside, 19) - step_bytes(without, 19))
        assert evaluation_bytes(beside, 19) - evaluation_bytes(without, 19) > 4 * 23_500_000
    assert more[0] > 4 * 23_500_000  # the weights of a second ResNet-50
    assert more[1] > more[0]  # and its forward


def test_predicting_draws_no_random_number() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    step_bytes(Config(), 19)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, MACHINE),
        ({"sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "5\n"}, MACHINE),
        ({"sys/fs/cgroup/memory.max": "900\n", "sys/fs/cgroup/memory.current": "500\n"}, 400),
        (
            {
                "sys/fs/cgroup/memory.max": "900\n",
                "sys/fs/cgroup/memory.current": "500\n",
                "sys/fs/cgroup/memory.stat": "anon 200\ninactive_file 250\n",
            },
            650,
        ),
        (
            GROUP
            | {"sys/fs/cgroup/box/memory.max": "700", "sys/fs/cgroup/box/memory.current": "100"}
            | {"sys/fs/cgroup/box/inner/memory.max": "500", "sys/fs/cgroup/box/inner/memory.current": "499"},
            1,
        ),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "50", "sys/fs/cgroup/memory/memory.usage_in_bytes": "60"}, 0),
    ],
)
def test_the_tightest_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=MACHINE))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert available_bytes(CPU, tmp_path) == expected


def test_this_machine_has_memory() -> None:
    assert available_bytes(CPU) > 1 << 20


@pytest.mark.parametrize("backbone", BACKBONE_NAMES)
def test_every_backbone_has_a_prediction_at_both_strides(backbone: str) -> None:
    coarse, fine = (
        step_bytes(Config(network=NetworkConfig(backbone=backbone, output_stride=stride)), 19)  # type: ignore[arg-type]  # the literal's values
        for stride in (16, 8)
    )
    assert coarse < fine
