"""Which frames are suggested, and that what is written is read back as it is."""

import csv
import json
import logging
import math
import zipfile
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lsr_infer.errors import exit_status
from lsr_infer.io.digests import BLANK
from lsr_infer.io.images import read_image, read_label
from lsr_infer.labelspace import LabelSpace
from lsr_infer.video.reader import read_frames
from lsr_infer.video.writer import VideoWriter
from lsr_train.commands.dispatch import run
from lsr_train.config.data import DataConfig, SourceConfig
from lsr_train.config.run import Config
from lsr_train.data.classes_file import classes_text, load_classes
from lsr_train.data.labelled import LabelledImages, choose_label_space, open_labelled
from lsr_train.runs.checkpoint import ModelInfo, save_model, save_tensors
from lsr_train.runs.folder import MODEL_FILE
from lsr_train.runs.state import other_network
from lsr_train.suggestion.label_folder import with_distinct_colors
from lsr_train.suggestion.spread import SAME_SCENE, choose_spread
from lsr_train.suggestion.views import FootageViews, disagreement
from tests.lsr_train.network.small import small_network

SPACE = LabelSpace(
    name="yes", names=("road", "no", "1e-4", "wall: grey", "étang"), subsets={"ground": (0, 4)},
    colors=((128, 64, 128), (1, 2, 3), (0, 0, 0), (1, 2, 3), (70, 70, 70)),
)  # fmt: skip
PLAIN = LabelSpace(name="five", names=("a", "b", "c", "d", "e"), colors=SPACE.colors)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network = small_network()
    with torch.no_grad():  # logits of a fresh head differ too little for views to disagree
        for parameter in network.parameter_groups()["head"]:
            parameter.mul_(50)
    path = tmp_path / "model.safetensors"
    save_model(path, network, ModelInfo(label_space=PLAIN, height=48, width=64))
    return path


def picture(seed: int, height: int = 72, width: int = 100) -> np.ndarray:
    """A picture with a tone of its own; features of plain noise have one mean."""
    rng = np.random.default_rng(seed)
    coarse = (rng.integers(0, 256, (6, 8, 3)) // 4 + rng.integers(0, 192, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """A folder of six pictures, of which the last two are nearly equal."""
    root = tmp_path / "drive"
    root.mkdir()
    for index in range(6):
        frame = picture(min(index, 4))
        frame[:2, :2] = 10 * index
        cv2.imwrite(str(root / f"f{index}.png"), frame)
    return root


def suggest(*words: object) -> int:
    argv = ["suggest", *map(str, words), "--device", "cpu", "--threads", "1"]
    return exit_status(lambda: run(argv), argv=argv)


def table(out: Path) -> list[dict[str, str]]:
    with (out / "frames.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def as_source(root: Path) -> tuple[LabelledImages, LabelSpace]:
    source = SourceConfig(root=str(root))
    space = choose_label_space(Config(data=DataConfig(source=source)))
    return open_labelled(source, space), space


def content(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_disagreement_is_the_divergence_of_the_views() -> None:
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(2, 4, 3, 5, generator=generator) * 3 for _ in range(3)]
    probabilities = [view.double().softmax(dim=1) for view in views]
    mean = sum(probabilities) / 3

    def entropy(p: torch.Tensor) -> float:
        return -sum(float(v) * math.log(float(v)) for v in p)

    found = disagreement(views)
    for b, y, x in ((0, 0, 0), (1, 2, 4), (0, 1, 3)):
        expected = entropy(mean[b, :, y, x]) - sum(entropy(p[b, :, y, x]) for p in probabilities) / 3
        assert found[b, y, x] == pytest.approx(expected / math.log(3), abs=1e-5)
    sure = torch.full((1, 2, 1, 1), -1e4)
    one, other = sure.clone(), sure.clone()
    one[:, 0], other[:, 1] = 0, 0
    assert disagreement([one, one]).item() == 0
    assert disagreement([one, other]).item() == pytest.approx(1)
    assert disagreement([torch.zeros(1, 2, 1, 1)] * 2).item() == pytest.approx(0, abs=1e-6)  # unsure, but consistent


def test_classes_count_alike_in_a_score() -> None:
    doubt = np.array([[8.0, 0, 0], [0, 2, 0]])
    cells = np.array([[80.0, 0, 0], [76, 4, 0]])
    views = FootageViews(doubt=doubt, cells=cells, features=np.zeros((2, 3), np.float32))
    assert views.disagreement.tolist() == pytest.approx([0.1, 0.025])
    shares = (156 / 160, 4 / 160)
    assert views.scores.tolist() == pytest.approx([8 / 80 / shares[0] / 2, 2 / 80 / shares[1] / 2])


def test_frames_are_chosen_far_apart_and_never_twice_from_a_scene() -> None:
    rng = np.random.default_rng(1)
    features = np.abs(rng.normal(size=(40, 6))).astype(np.float32) + 1
    features[7] = features[3] + 1e-3
    scores = rng.random(40)
    scores[[3, 7]] = 5

    def near(index: int) -> np.ndarray:
        return abs(np.arange(40) - index) < 2

    chosen = choose_spread(scores, features, 10, near=near)
    taken: list[int] = []
    for _ in range(10):  # the same one by one, pair by pair
        best, best_weight = -1, -1.0
        for index in range(40):
            away = [float(np.linalg.norm(features[index] - features[other])) for other in taken]
            if any(d < SAME_SCENE for d in away) or any(abs(index - other) < 2 for other in taken):
                continue
            weight = scores[index] * min(away, default=1.0)
            if weight > best_weight:
                best, best_weight = index, weight
        taken.append(best)
    assert chosen == taken
    assert chosen[0] == 3
    assert 7 not in chosen
    assert len(choose_spread(scores, features, 40, near=near)) <= 20
    assert choose_spread(np.zeros(3), np.eye(3, dtype=np.float32), 2, near=lambda _: np.zeros(3, bool)) == [0, 1]


def test_what_is_written_is_read_back_as_it_is(
    model: Path, drive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    out = tmp_path / "out"
    more = ("--target_ignore_bottom", "0.25", "--target", drive)
    assert suggest(model, "-n", 3, "--out", out, *more) == 0
    rows = table(out)
    assert [row["frame"] for row in rows] == [f"f{index}.png" for index in range(6)]
    chosen = sorted((row for row in rows if row["rank"]), key=lambda row: int(row["rank"]))
    assert [row["rank"] for row in chosen] == ["1", "2", "3"]
    assert float(chosen[0]["score"]) == max(float(row["score"]) for row in rows) > 0
    images, space = as_source(out)
    assert space == PLAIN
    assert len(images) == 3
    for row, sample in zip(chosen, images, strict=True):
        assert Path(sample.file).name == row["image"]
        assert np.array_equal(sample.frame, read_image(drive / row["frame"]))
        assert sample.labels.shape == (72, 100)
        assert set(np.unique(sample.labels[:54])) <= set(range(5))
        assert (sample.labels[54:] == 255).all()
    assert len(list((out / "preview").iterdir())) == 3
    again = tmp_path / "again"
    again.mkdir()
    assert suggest(model, "-n", 3, "--out", again, *more) == 0
    assert content(again) == content(out)
    assert suggest(model, "-n", 3, "--out", out, *more) == 2  # never over what a person has corrected
    assert f"3 frames with pre-filled labels are in {out}" in caplog.text


def test_frames_of_a_video_have_their_size_and_lie_apart(model: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    with VideoWriter(clip, width=128, height=96, fps=Fraction(10)) as writer:
        for index in range(40):
            writer.write(picture(index, 96, 128))
    out = tmp_path / "out"
    assert suggest(model, "--target", clip, "-n", 9, "--apart", 1.5, "--out", out) == 0
    rows = [row for row in table(out) if row["rank"]]
    moments = sorted(float(row["seconds"]) for row in rows)
    assert 2 <= len(moments) <= 3
    assert all(later - earlier >= 1.5 for earlier, later in pairwise(moments))
    frames = {f"{item.time:.3f}": item.frame for item in read_frames(clip)}
    for row in rows:
        assert np.array_equal(read_image(out / "images" / row["image"]), frames[row["seconds"]])
        assert read_label(out / "labels" / row["image"]).shape == (96, 128)


def test_footage_that_gives_fewer_frames_is_said(
    model: Path, drive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert suggest(model, "--target", drive, "-n", 7, "--out", tmp_path / "few") == 0
    assert "5 frames are suggested, not 7: every other of 6 frames is of a scene" in caplog.text
    caplog.clear()
    assert suggest(model, "--target", f"{drive}/f[04].png", "-n", 3, "--out", tmp_path / "one") == 0
    assert "2 frames are suggested, not 3: there are no more than 2 frames" in caplog.text


def test_what_cannot_be_done_is_refused(
    model: Path, drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suggest(model, "--target", drive) == 2
    assert suggest("--target", drive, "--out", tmp_path / "x") == 2
    assert suggest(model, "--out", tmp_path / "x") == 2
    assert suggest(model, "--target", drive, "-n", 0, "--out", tmp_path / "x") == 2
    assert suggest(model, "--target", tmp_path / "nowhere", "--out", tmp_path / "x") == 4
    assert suggest(tmp_path / "nowhere", "--target", drive, "--out", tmp_path / "x") == 4
    (drive / "f2.png").write_bytes(b"no picture")
    assert suggest(model, "--target", drive, "--out", tmp_path / "x") == 4
    assert not (tmp_path / "x").exists()
    assert suggest(model, "--target", drive, "-n", 2, "--out", tmp_path / "x", "--on_bad", "skip") == 6
    assert len(table(tmp_path / "x")) == 5
    assert "data.source" not in capsys.readouterr().err


def test_the_layout_of_cvat(model: Path, drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, out = tmp_path / "plain", tmp_path / "cvat"
    more = ("--target", drive, "-n", 2, "--target_ignore_bottom", "0.25")
    assert suggest(model, *more, "--out", plain) == 0
    assert suggest(model, *more, "--format", "cvat", "--out", out) == 0
    names = sorted(path.stem for path in (plain / "images").iterdir())
    with zipfile.ZipFile(out / "upload.zip") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    folders = ("SegmentationClass", "SegmentationObject")
    listed = {"labelmap.txt", "ImageSets/Segmentation/default.txt"}
    assert set(parts) == listed | {f"{folder}/{name}.png" for folder in folders for name in names}
    assert sorted(parts["ImageSets/Segmentation/default.txt"].decode().split()) == names
    rows = [line.split(":") for line in parts["labelmap.txt"].decode().splitlines() if not line.startswith("#")]
    assert [row[0] for row in rows] == ["background", *PLAIN.names]
    colors = [tuple(map(int, row[1].split(","))) for row in rows]
    assert colors[0] == (0, 0, 0)
    assert len(set(colors)) == 6
    for name in names:
        labels = read_label(plain / "labels" / f"{name}.png")
        painted = read_label(out / "SegmentationClass" / f"{name}.png")
        assert [tuple(pixel) for pixel in painted[::9, ::9].reshape(-1, 3)] == [
            (0, 0, 0) if label == 255 else colors[label + 1] for label in labels[::9, ::9].ravel()
        ]
        objects = read_label(out / "SegmentationObject" / f"{name}.png")
        voc = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
        assert [tuple(pixel) for pixel in objects[::9, ::9].reshape(-1, 3)] == [
            (0, 0, 0) if label == 255 else voc[label + 1] for label in labels[::9, ::9].ravel()
        ]
    assert [entry["name"] for entry in json.loads((out / "labels.json").read_text(encoding="utf-8"))] == list("abcde")
    images, space = as_source(out)
    assert space.names == PLAIN.names
    for sample in images:
        assert np.array_equal(sample.labels, read_label(plain / "labels" / f"{Path(sample.file).stem}.png"))
    odd = tmp_path / "odd.safetensors"
    save_model(odd, small_network(), ModelInfo(label_space=SPACE, height=48, width=64))
    assert suggest(odd, *more, "--format", "cvat", "--out", tmp_path / "odd") == 2
    assert "'wall: grey' cannot stand in CVAT's labelmap.txt" in capsys.readouterr().err
    assert not (tmp_path / "odd").exists()


@pytest.mark.parametrize("label_colors", [False, True])
def test_classes_are_written_as_they_are_read(tmp_path: Path, label_colors: bool) -> None:
    space = with_distinct_colors(SPACE) if label_colors else SPACE
    assert len({*space.colors, (0, 0, 0)}) == 6 or not label_colors
    (tmp_path / "classes.yaml").write_text(classes_text(space, label_colors=label_colors), encoding="utf-8")
    found = load_classes(tmp_path / "classes.yaml")
    assert found.space == space
    raw = np.array([[*space.colors, (0, 0, 0)]] if label_colors else [[0, 1, 2, 3, 4, 255]], dtype=np.uint8)
    assert found.id_map.apply(raw).tolist() == [[0, 1, 2, 3, 4, 255]]


@pytest.mark.parametrize("prefix", ["network.", "method.teacher.network."])
def test_the_other_network_of_a_run_is_found(tmp_path: Path, prefix: str) -> None:
    one, other = small_network(0), small_network(1)
    save_model(tmp_path / MODEL_FILE, one, ModelInfo(label_space=PLAIN))
    assert other_network(tmp_path / MODEL_FILE, one) is None
    tensors = {f"{prefix}{name}": value.contiguous() for name, value in other.state_dict().items()}
    save_tensors(tmp_path / "state.safetensors", {**tensors, "optimizer.x": torch.ones(1)}, {"digest": BLANK})
    found = other_network(tmp_path / MODEL_FILE, one)
    assert found is not None
    assert all(torch.equal(found.state_dict()[name], value) for name, value in other.state_dict().items())
    save_tensors(tmp_path / "state.safetensors", {"optimizer.x": torch.ones(1)}, {"digest": BLANK})
    assert other_network(tmp_path / MODEL_FILE, one) is None
