"""`analyze` on a tiny Toytown run: every figure in every format, and the numbers behind them."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from lsr_infer.errors import exit_status
from lsr_train.analysis.options import FIGURES
from lsr_train.commands.dispatch import analyze
from tests.lsr_train.training_runs import REPOSITORY, run_here, words
from tests.silence import listening

DATA = ["--layout", "toytown-camera", "--split", "val", "--frames", "4", "--threads", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source run, and a run that adapted it and kept every checkpoint and its gradients."""
    folder = tmp_path_factory.mktemp("analyze")
    assert run_here("pretrain", words("toytown_source", folder / "source")) == 0
    more = ["--init", str(folder / "source"), "--train.keep", "9", "--log.gradients", "2"]
    assert run_here("adapt", words("toytown_lsr_em", folder / "adapted", *more)) == 0
    return folder


def run(arguments: list[str]) -> int:
    return exit_status(lambda: analyze(arguments))


def test_every_figure_of_two_networks_and_the_numbers_behind_them(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures"
    networks = [f"before={runs / 'source'}", f"after={runs / 'adapted/checkpoints/last'}"]
    more = ["--formats", "pdf,svg,png", "--confidence", "0.05", "--out", str(out)]
    with listening() as heard:
        assert run([*networks, *DATA, *more]) == 0
    assert heard.found == []
    expected = {FIGURES[name] for name in FIGURES if name != "gradients"}  # the pointer is no run folder
    for kind in ("pdf", "svg", "png"):
        assert {path.stem for path in out.glob(f"*.{kind}")} == expected
    for name in expected:
        picture = cv2.imread(str(out / f"{name}.png"))
        assert picture is not None
        assert picture.std() > 5, name  # something is drawn
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert "<svg" in (out / f"{name}.svg").read_text(encoding="utf-8")
    captions = (out / "captions.md").read_text(encoding="utf-8")
    assert all(f"**{name}**" in captions for name in expected)
    document = json.loads((out / "analysis.json").read_text(encoding="utf-8"))
    assert list(document["networks"]) == ["before", "after"]
    after = document["networks"]["after"]
    assert (after["method"], after["step"], after["frames"]) == ("lsr-em", 6, 4)
    assert str(tmp_path) not in json.dumps(document)


def test_curves_gradients_and_pseudo_labels_over_training(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures"
    chosen = ["--figures", "curves,gradients,pseudo_labels", "--over_training", "--formats", "svg"]
    assert run([str(runs / "adapted"), *DATA, *chosen, "--out", str(out)]) == 0
    assert {path.stem for path in out.glob("*.svg")} == {"training_curves", "gradient_norms", "pseudo_labels"}
    assert "perpendicularity" in (out / "gradient_norms.svg").read_text(encoding="utf-8")
    document = json.loads((out / "analysis.json").read_text(encoding="utf-8"))
    assert list(document["networks"]["adapted"]["over_training"]) == ["2", "3", "4", "6"]


def test_evaluate_and_analyze_agree(runs: Path, tmp_path: Path) -> None:
    """The same network on the same frames: one mean IoU."""
    file = str(runs / "adapted/checkpoints/step-6")
    common = ["--layout", "toytown-camera", "--split", "val"]
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "lsr_train", "evaluate", file, *common, "--limit", "4", "--out", str(result)]
    subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True)
    names = [item["file"] for item in json.loads(result.read_text(encoding="utf-8"))["worst"]]
    assert len(names) == 4
    out = tmp_path / "figures"
    assert run([file, *common, "--frames", "0", "--figures", "angles", "--limit", "4", "--out", str(out)]) == 0
    ours = json.loads((out / "analysis.json").read_text(encoding="utf-8"))["networks"]["step-6"]["miou"]
    assert ours == pytest.approx(json.loads(result.read_text(encoding="utf-8"))["miou"], abs=1e-6)


def test_the_same_command_writes_the_same_files(runs: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        chosen = ["--figures", "norms,tsne,reliability", "--formats", "pdf,svg,png", "--out", str(tmp_path / name)]
        assert run([str(runs / "adapted"), *DATA, *chosen]) == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("more", "text", "code"),
    [
        (["--figures", "tsnee"], "figures has tsnee", 2),
        (["--formats", "jpg"], "formats has jpg", 2),
        (["--formats", ","], "formats has empty", 2),
        (["--per_class", "0"], "Set --per_class", 2),
        (["--label_space", "nowhere.yaml", "--layout", "nothing"], "layout", 2),
        (["--label_space", "camvid11"], "camvid11", 2),
    ],
)
def test_what_is_wrong_is_named(
    runs: Path, tmp_path: Path, more: list[str], text: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(runs / "source"), *DATA, "--out", str(tmp_path / "figures"), *more]) == code
    assert text in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


def test_names_and_places(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(DATA) == 2
    assert "no checkpoint is named" in capsys.readouterr().err
    assert run([str(runs / "source"), str(runs / "source"), *DATA]) == 2
    assert "one name" in capsys.readouterr().err
    assert run([str(tmp_path / "nowhere"), *DATA, "--out", str(tmp_path / "figures")]) == 4
    assert not (tmp_path / "figures").exists()
    few = ["--figures", "gradients,angles", "--formats", "svg", "--out", str(tmp_path / "few")]
    assert run([str(runs / "source"), *DATA, *few]) == 6  # the run measured no gradients
    assert {path.name for path in (tmp_path / "few").glob("*.svg")} == {"fig6_prototype_angles.svg"}
    capsys.readouterr()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    assert run([str(runs / "source"), *DATA, "--out", str(tmp_path / "full")]) == 2
    assert "is not empty" in capsys.readouterr().err
    (tmp_path / "model.onnx").touch()
    assert run([str(tmp_path / "model.onnx"), *DATA, "--out", str(tmp_path / "other")]) == 2
    assert "exported file" in capsys.readouterr().err
