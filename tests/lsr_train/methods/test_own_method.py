"""A method of 25 lines from outside the package is trained, killed, resumed and exported."""

import subprocess
import sys
from pathlib import Path

import pytest

from lsr_infer.errors import InputError, UsageError
from lsr_train import methods
from lsr_train.config.run import METHOD_SPECS, Config
from lsr_train.methods import method_class
from lsr_train.methods.entropy import MinEnt
from tests.lsr_train.training_runs import REPOSITORY, losses, run_here, start, weights, words

OWN = '''
import torch
from lsr_train.losses.pixel import cross_entropy, upsample
from lsr_train.methods import Method


class Centred(Method):
    """Cross-entropy, and target features drawn to a running mean of the source's."""

    uses_target = True

    def __init__(self, config, num_classes, channels):
        super().__init__(config, num_classes, channels)
        self.register_buffer("mean", torch.zeros(channels))

    def terms(self, network, source, target):
        one, other = network(source.image), network(target.image)
        self.mean = 0.9 * self.mean + 0.1 * one.features.detach().float().mean((0, 2, 3))
        pull = (other.features.float().mean((0, 2, 3)) - self.mean).square().mean()
        logits = upsample(one.logits, source.labels.shape[-2:])
        return {"cross_entropy": cross_entropy(logits, source.labels), "centre": pull}

    def term_weights(self):
        return {"centre": 0.1}
'''


@pytest.fixture
def own(tmp_path: Path) -> str:
    file = tmp_path / "own.py"
    file.write_text(OWN, encoding="utf-8")
    assert len(OWN.strip().splitlines()) <= 25
    return f"{file}:Centred"


@pytest.mark.slow
def test_it_trains_is_killed_resumed_and_exported(own: str, tmp_path: Path) -> None:
    assert run_here("pretrain", words("toytown_source", tmp_path / "source")) == 0
    more = ["--method", own, "--weights.cluster=0", "--weights.perpendicularity=0", "--weights.norm=0"]
    more += ["--init", str(tmp_path / "source")]
    assert run_here("adapt", words("toytown_lsr", tmp_path / "whole", *more)) == 0
    assert {"cross_entropy", "centre"} <= set(losses(tmp_path / "whole")[0])
    process = start("adapt", words("toytown_lsr", tmp_path / "parts", *more))
    while not (tmp_path / "parts/checkpoints/step-2").is_dir() and process.poll() is None:
        pass
    process.kill()
    process.communicate()
    assert run_here("adapt", ["--resume", str(tmp_path / "parts")]) == 0
    assert weights(tmp_path / "parts", 6) == weights(tmp_path / "whole", 6)
    exported = subprocess.run(
        [sys.executable, "export/to_onnx.py", str(tmp_path / "whole"), "-o", str(tmp_path / "own.onnx")],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert exported.returncode in (0, 5), exported.stderr  # six steps decide little: the gate may close


def test_what_cannot_be_loaded_is_said(own: str, tmp_path: Path) -> None:
    assert method_class("minent") is MinEnt
    assert method_class(own).__name__ == "Centred"
    with pytest.raises(UsageError, match=r"holds no method Centrd. Did you mean Centred\? Classes in it: Centred"):
        Config(method=own.replace("Centred", "Centrd"))
    with pytest.raises(UsageError, match=r"Did you mean lsr-st\?"):
        Config(method="lsr-sst")
    for name, message in (
        (own.replace("Centred", "Other"), "has no attribute 'Other'"),
        (own.replace("Centred", "torch"), "needed: a subclass"),
    ):
        with pytest.raises(InputError, match=message):
            method_class(name)
    (tmp_path / "own.py").write_text("1 +", encoding="utf-8")
    with pytest.raises(InputError, match="SyntaxError"):
        method_class(own)
    for name, message in ((f"{tmp_path}/none.py:Centred", "there is no file"), ("minnet", "FILE.py:CLASS")):
        with pytest.raises(UsageError, match=message):
            Config(method=name)


def test_an_installed_package_brings_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real distribution on the path: its metadata names the entry point."""
    (tmp_path / "their_methods.py").write_text(OWN, encoding="utf-8")
    info = tmp_path / "their_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-methods\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[lsr_train.methods]\ncentred = their_methods:Centred\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Config(method="centred").method == "centred"
    assert method_class("centred").__name__ == "Centred"


def test_the_table_of_methods_of_0_1_0_still_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match=r"METHODS is now method_class"):
        table = methods.METHODS
    assert table == {name: method_class(name) for name in METHOD_SPECS}
    with pytest.raises(AttributeError, match="has no attribute 'METHOD'"):
        _ = methods.METHOD
