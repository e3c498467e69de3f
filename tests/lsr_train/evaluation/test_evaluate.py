import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lsr_infer.errors import UsageError, exit_status
from lsr_infer.labelspace import LabelSpace
from lsr_infer.shipped import model_path
from lsr_train.commands.dispatch import evaluate
from lsr_train.config.data import SourceConfig
from lsr_train.data.labelled import open_labelled
from lsr_train.data.labels import CITYSCAPES_19, SYNTHIA_13
from lsr_train.evaluation.options import EvaluateOptions
from lsr_train.evaluation.scores import score_frames
from lsr_train.network import DeepLabV2, NetworkSpec
from lsr_train.runs.checkpoint import ModelInfo, model_hash, save_model
from tests.lsr_train.network.test_weights import adaptsegnet_weights

TOYTOWN = ["--layout", "toytown-camera", "--split", "val", "--limit", "3", "--device", "cpu"]


def tiny(num_classes: int = 19, seed: int = 0) -> DeepLabV2:
    torch.manual_seed(seed)
    spec = NetworkSpec(backbone="resnet18", width=0.125, output_stride=16, dilations=(1, 2), num_classes=num_classes)
    network = DeepLabV2(spec)
    with torch.no_grad():  # logits of a fresh head differ too little for different views to disagree
        for parameter in network.parameter_groups()["head"]:
            parameter.mul_(50)
    return network


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(path, tiny(), ModelInfo(label_space=CITYSCAPES_19, method="lsr", step=7, height=48, width=96))
    return path


def run(arguments: list[str]) -> int:
    return exit_status(lambda: evaluate(arguments))


def test_a_size_an_exported_file_does_not_take_is_the_users_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([str(model_path(None)), *TOYTOWN, "--height", "257", "--width", "512"]) == 2
    captured = capsys.readouterr()
    assert "street.onnx: the size 512x257 was asked for; sides are multiples of" in captured.err
    assert captured.out == ""


def labelled_folder(root: Path, count: int = 2) -> Path:
    """Write a folder whose label files hold the 19 classes' own numbers."""
    generator = np.random.default_rng(0)
    for side in ("images", "labels"):
        (root / side).mkdir(parents=True)
    for index in range(count):
        frame = generator.integers(0, 256, (40, 60, 3)).astype(np.uint8)
        labels = generator.integers(0, 19, (40, 60)).astype(np.uint8)
        cv2.imwrite(str(root / "images" / f"{index}.png"), frame)
        cv2.imwrite(str(root / "labels" / f"{index}.png"), labels)
    return root


def test_result_table_pictures_and_json(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, pictures = tmp_path / "new" / "a.json", tmp_path / "worst"
    more = ["--out", str(out), "--overlays", "2", "--overlay_dir", str(pictures)]
    assert run([str(model), *TOYTOWN, *more]) == 0
    table = capsys.readouterr().out
    document = json.loads(out.read_text())
    frames = open_labelled(
        SourceConfig(layout="toytown-camera", split="val", height=48, width=96, limit=3), CITYSCAPES_19
    )
    assert document["miou"] == score_frames(tiny(), frames, (48, 96), 19)
    assert document["model"]["sha256"] == model_hash(model)
    assert document["data"]["frames"] == 3
    assert set(document["subsets"]) == {"16", "13"}
    assert f"{100 * document['miou']:.1f}" in table
    assert document["protocol"]["text"] in table
    assert len(list(pictures.iterdir())) == 2
    assert str(tmp_path) not in out.read_text()
    assert run([str(model), *TOYTOWN, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["miou"] == document["miou"]


def test_supervised_result_gives_masr(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "sup.json"
    assert run([str(model), *TOYTOWN, "--out", str(out)]) == 0
    assert run([str(model), *TOYTOWN, "--supervised", str(out), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out.splitlines()[-1])["supervised"]
    assert compared["masr"] == pytest.approx(1)
    assert "made differently" not in caplog.text
    assert run([str(model), *TOYTOWN, "--supervised", str(out), "--protocol", "resized"]) == 0
    assert "mASR (Eq. 9)" in capsys.readouterr().out
    assert "kind native there and resized here" in caplog.text


def result_of(model: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run([str(model), *TOYTOWN, "--json", *more]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_every_way_of_looking_is_its_own_figure(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = result_of(model, capsys)
    ways = {
        "flip": ["--flip"], "scales": ["--scales", "0.75,1.25"], "size": ["--height", "64", "--width", "128"],
        "statistics": ["--batch_norm", "target", "--target_layout", "toytown-camera", "--batch_norm_frames", "3"],
        "bf16": ["--precision", "bf16"],
    }  # fmt: skip
    found = {name: result_of(model, capsys, *words) for name, words in ways.items()}
    matrices = [json.dumps(document["confusion"]) for document in (plain, *found.values())]
    assert len(set(matrices)) == len(matrices)
    assert "each also mirrored" in found["flip"]["protocol"]["text"]
    assert "3 unlabelled target frames" in found["statistics"]["protocol"]["text"]
    assert result_of(model, capsys) == plain


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and the file exported from it."""
    to_onnx = pytest.importorskip("export.to_onnx", reason="the extra export is not installed")
    folder = tmp_path_factory.mktemp("pair")
    checkpoint = folder / "model.safetensors"
    save_model(checkpoint, tiny(), ModelInfo(label_space=CITYSCAPES_19, method="lsr", step=7, height=48, width=96))
    assert exit_status(lambda: to_onnx.main([str(checkpoint), "-o", str(folder / "model.onnx")])) == 0
    return checkpoint, folder / "model.onnx"


def test_an_exported_file_is_scored_by_the_runtime(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, exported = pair
    expected, found = result_of(checkpoint, capsys), result_of(exported, capsys)
    moved = np.abs(np.array(expected["confusion"]) - np.array(found["confusion"])).sum()
    assert moved <= 1e-3 * expected["data"]["labelled_pixels"]
    assert found["miou"] == pytest.approx(expected["miou"], abs=1e-3)
    assert found["model"]["checkpoint"] == expected["model"]["sha256"]
    assert (found["model"]["precision"], found["model"]["backend"]) == ("fp32", "onnxruntime")
    assert "exported file in onnxruntime" in found["protocol"]["text"]
    out = tmp_path / "sup.json"
    assert run([str(checkpoint), *TOYTOWN, "--out", str(out)]) == 0
    assert result_of(exported, capsys, "--supervised", str(out))["supervised"]["masr"] == pytest.approx(1, abs=0.01)
    larger = result_of(exported, capsys, "--height", "64", "--width", "128")
    assert larger["confusion"] != found["confusion"]
    assert larger["miou"] == pytest.approx(
        result_of(checkpoint, capsys, "--height", "64", "--width", "128")["miou"], abs=1e-3
    )


@pytest.mark.parametrize(
    "words", [["--flip"], ["--scales", "0.5,1"], ["--precision", "bf16"], ["--batch_norm", "target", "--target", "x"]]
)
def test_an_exported_file_is_scored_as_it_is(
    pair: tuple[Path, Path], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(pair[1]), *TOYTOWN, *words]) == 2
    assert "is scored as it is" in capsys.readouterr().err


def test_scoring_in_other_classes(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    merged = result_of(model, capsys, "--label_space", "camvid11")
    assert list(merged["iou"])[:3] == ["road", "sidewalk", "building"]
    assert len(merged["iou"]) == 11
    assert run([str(model), *TOYTOWN, "--label_space", "synthia13"]) == 2
    assert "also predicts wall, fence, pole" in capsys.readouterr().err


def test_a_model_without_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for classes, code in ((13, 0), (7, 2)):
        path = tmp_path / f"{classes}.safetensors"
        save_model(path, tiny(classes), ModelInfo(label_space=None, height=48, width=96))
        assert run([str(path), *TOYTOWN, "--json"]) == code
    captured = capsys.readouterr()
    assert list(json.loads(captured.out)["iou"]) == list(SYNTHIA_13.names)
    assert "has 7 classes and no names" in captured.err


def test_a_users_folder_and_what_is_left_out(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = labelled_folder(tmp_path / "mine", 3)
    words = [str(model), "--data", str(root), "--layout", "folder", "--ids", "cityscapes-trainid", "--json"]
    assert run(words) == 0
    assert json.loads(capsys.readouterr().out)["data"]["frames"] == 3
    (root / "images" / "1.png").write_bytes(b"no picture")
    assert run(words) == 4
    assert "1.png" in capsys.readouterr().err
    assert run([*words, "--on_bad", "skip"]) == 6
    data = json.loads(capsys.readouterr().out)["data"]
    assert (data["frames"], data["left_out"]) == (2, 1)


def test_the_dilations_of_a_published_file_are_stated_or_warned_of(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    weights, _ = adaptsegnet_weights("layer6")  # of five classes
    path = tmp_path / "published.pth"
    torch.save(weights, path)
    space = tmp_path / "five.yaml"
    names = "".join(f"  - {{name: c{index}, color: [0, 0, {index}]}}\n" for index in range(5))
    space.write_text(f"classes:\n{names}ignore: [{', '.join(map(str, range(5, 19)))}]\n", encoding="utf-8")
    root = labelled_folder(tmp_path / "mine", 1)
    words = [str(path), "--data", str(root), "--label_space", str(space), "--height", "64", "--width", "96", "--json"]
    results = []
    for more, read in (
        ([], [6, 12]),
        (["--dilations", "6,12"], [6, 12]),
        (["--dilations=[6,12,18,24]"], [6, 12, 18, 24]),
    ):
        caplog.clear()
        assert run([*words, *more]) == 0
        assert ("Set --dilations '[6, 12, 18, 24]' or '[6, 12]'" in caplog.text) == (not more)
        results.append(json.loads(capsys.readouterr().out))
        assert results[-1]["model"]["network"]["dilations"] == read
    assert results[0]["iou"] == results[1]["iou"] != results[2]["iou"]
    for wrong in ("6,x", "0", "6,,12"):
        assert run([*words, "--dilations", wrong]) == 2
    assert run([str(model), *TOYTOWN, "--dilations", "6,12"]) == 2
    assert "Leave --dilations out" in capsys.readouterr().err
    assert run([str(model_path(None)), *TOYTOWN, "--dilations", "6,12"]) == 2


def test_labels_with_a_suffix_are_named_with_the_options_of_this_command(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = labelled_folder(tmp_path / "mine", 25)
    for path in sorted((root / "labels").iterdir()):
        path.rename(path.with_stem(f"{path.stem}_trainIds"))
    words = [str(model), "--data", str(root), "--ids", "cityscapes-trainid", "--json"]
    assert run(words) == 4
    said = capsys.readouterr().err
    assert "Set --label_suffix _trainIds to pair such names." in said
    assert (said.count("has no label file"), "and 5 more" in said, "data." in said) == (20, True, False)
    assert run([*words, "--label_suffix", "_trainIds", "--limit", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["frames"] == 3


def test_existing_outputs_are_refused_before_any_work(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.json"
    out.write_text("mine")
    (tmp_path / "worst").mkdir()
    (tmp_path / "worst" / "mine").touch()
    for more in (["--out", str(out)], ["--overlays", "1", "--overlay_dir", str(tmp_path / "worst")]):
        assert run([str(model), *TOYTOWN, *more]) == 2
        assert "--overwrite" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert run([str(model), *TOYTOWN, "--out", str(out), "--overwrite"]) == 0
    assert json.loads(out.read_text())["kind"] == "evaluation"


def test_unusable_inputs_have_their_code_and_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(model.read_bytes()[:5000])
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "a.onnx").write_text("hello")
    (tmp_path / "file").write_text("[1]")
    (tmp_path / "empty").mkdir()
    cases: list[tuple[list[str], int]] = [
        ([str(tmp_path / "none.safetensors"), *TOYTOWN], 4),
        ([str(tmp_path / "empty"), *TOYTOWN], 4),
        ([str(cut), *TOYTOWN], 4),
        ([str(tmp_path / "text.pth"), *TOYTOWN], 4),
        ([str(tmp_path / "a.onnx"), *TOYTOWN], 4),
        ([str(model), "--layout", "camvid", "--data", str(tmp_path / "none")], 4),
        ([str(model), *TOYTOWN, "--supervised", str(tmp_path / "file")], 4),
        ([str(model), *TOYTOWN, "--out", str(tmp_path / "file" / "a.json")], 4),
        ([str(model), *TOYTOWN, "--overlays", "1", "--overlay_dir", str(tmp_path / "file")], 4),
        ([str(model), *TOYTOWN, "--label_space", "nothing"], 2),
        ([str(model), *TOYTOWN, "--device", "cuda:99"], 3),
        ([str(model), *TOYTOWN, "--precision", "fp16"], 3),
        ([str(model), *TOYTOWN, "--batch_norm", "target", "--target", str(tmp_path / "none")], 4),
    ]
    for words, code in cases:
        assert run(words) == code, words
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: "), words
        assert captured.err.count("\n") == 1, words


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"model": ""}, "no model"),
        ({"layout": "camvid"}, "Set --data"),
        ({"layout": "x"}, "layout is 'x'"),
        ({"height": 64}, "width is 0"),
        ({"scales": "a"}, "scales is 'a'"),
        ({"scales": "0"}, "0.1 to 8"),
        ({"scales": ""}, "scales is ''"),
        ({"overlays": 3}, "overlay_dir"),
        ({"overlay_dir": "x"}, "overlays"),
        ({"limit": -1}, "limit is -1"),
        ({"batch_norm": "target"}, "Set --target"),
        ({"protocol": "both"}, "protocol is 'both'"),
        ({"precision": "int8"}, "precision is 'int8'"),
    ],
)
def test_options_check_themselves(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        EvaluateOptions(**({"model": "m", "layout": "toytown-game"} | options))


def test_unknown_flag_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["m", "--laoyut", "camvid"]) == 2
    assert "Did you mean --layout?" in capsys.readouterr().err


def test_usage_errors_and_help_need_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from lsr_infer.errors import exit_status\n"
        "from lsr_train.commands.dispatch import evaluate\n"
        "assert exit_status(lambda: evaluate(['m', '--layuot', 'x'])) == 2\n"
        "evaluate(['--help'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--supervised" in done.stdout


def test_a_users_own_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = LabelSpace(name="mine", names=("ground", "thing"), colors=((1, 2, 3), (4, 5, 6)))
    root = labelled_folder(tmp_path / "mine", 1)
    cv2.imwrite(str(root / "labels" / "0.png"), np.full((40, 60), 9, np.uint8))
    (root / "classes.yaml").write_text(
        "name: mine\nclasses:\n"
        "- {name: ground, color: [1, 2, 3], ids: [9]}\n- {name: thing, color: [4, 5, 6], ids: [1]}\n"
    )
    path = tmp_path / "m.safetensors"
    save_model(path, tiny(2), ModelInfo(label_space=space, height=48, width=96))
    assert run([str(path), "--data", str(root), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["iou"]) == ["ground", "thing"]
