"""Damaged, hostile and mistaken inputs: each gets one clear line and its exit code, and nothing in it is run."""

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.lsr_train.training_runs import TINY, run_here, words

Damage = Callable[[Path], list[str]]
"""Damages the good data in a folder and returns further options."""

MARK = "hostile_code_ran"


class Hostile:
    """A pickle that writes a file when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {MARK}",)


def image(path: Path, height: int = 48, width: int = 96) -> None:
    generator = np.random.default_rng(len(str(path)))
    cv2.imwrite(str(path), generator.integers(0, 255, (height, width, 3), dtype=np.uint8))


def good_data(root: Path) -> None:
    """A labelled folder, unlabelled footage, and nothing wrong with either."""
    for folder in ("source/images", "source/labels", "target"):
        (root / folder).mkdir(parents=True)
    for index in range(3):
        image(root / f"source/images/{index}.png")
        cv2.imwrite(str(root / f"source/labels/{index}.png"), np.full((48, 96), index, np.uint8))
        image(root / f"target/{index}.jpg")


def cut(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def change(path: str, content: bytes) -> Damage:
    def apply(root: Path) -> list[str]:
        (root / path).write_bytes(content)
        return []

    return apply


def truncate(path: str, share: float = 0.5) -> Damage:
    def apply(root: Path) -> list[str]:
        cut(root / path, share)
        return []

    return apply


def remove(*paths: str) -> Damage:
    def apply(root: Path) -> list[str]:
        for path in paths:
            target = root / path
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        return []

    return apply


def empty(*folders: str) -> Damage:
    def apply(root: Path) -> list[str]:
        for folder in folders:
            for item in (root / folder).iterdir():
                item.unlink()
        return []

    return apply


def label(array: np.ndarray) -> Damage:
    def apply(root: Path) -> list[str]:
        cv2.imwrite(str(root / "source/labels/1.png"), array)
        return []

    return apply


def bigger_image(root: Path) -> list[str]:
    image(root / "source/images/1.png", 50, 96)
    return []


def dangling(path: str) -> Damage:
    def apply(root: Path) -> list[str]:
        (root / path).unlink()
        (root / path).symlink_to(root / "nowhere")
        return []

    return apply


def folder_instead(path: str) -> Damage:
    def apply(root: Path) -> list[str]:
        (root / path).unlink()
        (root / path).mkdir()
        return []

    return apply


def claims(height: int, width: int) -> bytes:
    """A PNG header that claims a size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    import zlib

    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def options(*more: str) -> Damage:
    return lambda root: [word.replace("{root}", str(root)) for word in more]


def text(name: str, content: str, *more: str) -> Damage:
    def apply(root: Path) -> list[str]:
        (root / name).write_text(content, encoding="utf-8")
        return [word.replace("{root}", str(root)) for word in more]

    return apply


def init(write: Callable[[Path], None], name: str = "model.safetensors") -> Damage:
    def apply(root: Path) -> list[str]:
        write(root / name)
        return ["--init", str(root / name)]

    return apply


def bad_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Hostile()))
        archive.writestr("archive/version", "3")


def classes(content: str) -> Damage:
    return text("source/classes.yaml", content, "--data.source.ids", "classes", "--label_space", "auto")


DATA = {
    "png cut": truncate("source/images/0.png"),
    "png cut near its end": truncate("source/images/0.png", 0.98),
    "png empty": change("source/images/0.png", b""),
    "png is text": change("source/images/0.png", b"no picture at all"),
    "png of only a header": change("source/images/0.png", claims(48, 96)),
    "png claims gigapixels": change("source/images/0.png", claims(200_000, 200_000)),
    "png of zero width": change("source/images/0.png", claims(48, 0)),
    "png is a folder": folder_instead("source/images/0.png"),
    "png is a dangling link": dangling("source/images/0.png"),
    "jpeg cut": truncate("target/0.jpg"),
    "jpeg cut near its end": truncate("target/0.jpg", 0.98),
    "jpeg empty": change("target/0.jpg", b""),
    "jpeg of zeros": change("target/0.jpg", bytes(4000)),
    "jpeg is html": change("target/0.jpg", b"<html>404</html>"),
    "jpeg is a dangling link": dangling("target/0.jpg"),
    "label missing": remove("source/labels/1.png"),
    "image missing": remove("source/images/1.png"),
    "label cut": truncate("source/labels/1.png"),
    "label empty": change("source/labels/1.png", b""),
    "label is text": change("source/labels/1.png", b"road"),
    "label id outside": label(np.full((48, 96), 77, np.uint8)),
    "label 16-bit id outside": label(np.full((48, 96), 4000, np.uint16)),
    "label in colours": label(np.full((48, 96, 3), 77, np.uint8)),
    "label of another size": label(np.zeros((24, 96), np.uint8)),
    "image of another size than its label": bigger_image,
    "no images": empty("source/images"),
    "no labels": empty("source/labels"),
    "no images folder": remove("source/images"),
    "no labels folder": remove("source/labels"),
    "no source folder": remove("source"),
    "no target folder": remove("target"),
    "target empty": empty("target"),
    "target glob without match": options("--target", "{root}/target/*.bmp"),
    "target video is text": text("clip.mp4", "not a film", "--target", "{root}/clip.mp4"),
    "target video is empty": text("clip.mp4", "", "--target", "{root}/clip.mp4"),
    "target of an unknown kind": text("clip.docx", "a letter", "--target", "{root}/clip.docx"),
    "target only text files": lambda root: [*empty("target")(root), *text("target/a.txt", "a")(root)],
    "source is a file": text("file", "x", "--source", "{root}/file"),
    "ignore mask missing": options("--data.ignore_mask", "{root}/mask.png"),
    "ignore mask is text": text("mask.png", "mask", "--data.ignore_mask", "{root}/mask.png"),
    "layout does not fit": options("--data.source.layout", "cityscapes"),
    "split that is not there": options("--data.source.split", "nowhere"),
    "classes.yaml is a list": classes("- road\n"),
    "classes.yaml is no yaml": classes("classes: [\n"),
    "classes.yaml names a class twice": classes(
        "classes:\n- {name: a, color: [0, 0, 0], ids: [0]}\n- {name: a, color: [1, 1, 1], ids: [1]}\n"
    ),
    "classes.yaml colour of four": classes("classes:\n- {name: a, color: [0, 0, 0, 0], ids: [0, 1, 2]}\n"),
    "classes.yaml colour out of range": classes("classes:\n- {name: a, color: [0, 0, 300], ids: [0, 1, 2]}\n"),
    "classes.yaml misses an id": classes("classes:\n- {name: a, color: [0, 0, 0], ids: [0]}\n"),
    "classes.yaml gives an id twice": classes(
        "classes:\n- {name: a, color: [0, 0, 0], ids: [0, 1]}\n- {name: b, color: [1, 1, 1], ids: [1, 2]}\n"
    ),
    "label space file missing": options("--label_space", "{root}/mine.yaml"),
    "checkpoint missing": options("--init", "{root}/nowhere"),
    "checkpoint empty": init(lambda path: path.write_bytes(b"")),
    "checkpoint is text": init(lambda path: path.write_text("weights", encoding="utf-8")),
    "checkpoint with a header of gigabytes": init(lambda path: path.write_bytes(struct.pack("<Q", 2**40) + b"{}")),
    "checkpoint with a broken header": init(lambda path: path.write_bytes(struct.pack("<Q", 4) + b"{{{{")),
    "checkpoint without metadata": init(lambda path: path.write_bytes(struct.pack("<Q", 2) + b"{}")),
    "pickle that runs code": init(lambda path: path.write_bytes(pickle.dumps(Hostile())), "model.pth"),
    "torch file that runs code": init(lambda path: torch.save({"state_dict": Hostile()}, path), "model.pth"),
    "zip that runs code": init(bad_zip, "model.pth"),
    "torch file of something else": init(lambda path: torch.save({"a": 1}, path), "model.pth"),
    "torch file with other keys": init(lambda path: torch.save({"w": torch.zeros(3)}, path), "model.pth"),
    "backbone weights missing": options("--network.weights", "{root}/nowhere.pth"),
    "backbone weights are text": text("w.pth", "weights", "--network.weights", "{root}/w.pth"),
}

CONFIGURATION: dict[str, tuple[int, str, str]] = {  # exit code, words of the message, the file
    "a list at the top": (2, "no mapping", "- 1\n"),
    "no yaml": (4, "no plain YAML", "a: [\n"),
    "binary": (4, "no plain YAML", "\x00\x01\x02"),
    "a tab": (4, "no plain YAML", "a:\n\t- 1\n"),
    "an unknown section": (2, "Did you mean optim?", "optimizer: {lr: 1.0}\n"),
    "an unknown key": (2, "Did you mean optim.lr?", "optim: {lrr: 1.0}\n"),
    "a number for a section": (2, "optim holds '3'", "optim: 3\n"),
    "a text for a number": (2, "optim.lr is 'fast'", "optim: {lr: fast}\n"),
    "a list for a number": (2, "optim.lr is '[1.0]'", "optim: {lr: [1.0]}\n"),
    "a number for a list": (2, "network.dilations is '6'; a list is needed. Write '[6]'", "network: {dilations: 6}\n"),
    "a text for a switch": (2, "train.channels_last is 'perhaps'", "train: {channels_last: perhaps}\n"),
    "a fraction for a count": (2, "train.steps is '2.5'", "train: {steps: 2.5}\n"),
    "nothing for a count": (2, "train.steps is None", "train: {steps: null}\n"),
    "not a number": (2, "optim.lr is nan", "optim: {lr: .nan}\n"),
    "infinity": (2, "optim.lr is inf", "optim: {lr: .inf}\n"),
    "a negative weight": (2, "weights.cluster is -1.0", "weights: {cluster: -1.0}\n"),
    "an unknown method": (2, "method is 'magic'", "method: magic\n"),
    "a tag that builds an object": (
        4,
        "no plain YAML",
        "method: !!python/object/apply:os.system ['touch hostile_code_ran']\n",
    ),
    "an alias bomb": (2, "no field a.", "a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nmethod: *c\n"),
}


def one_line(error: str) -> str:
    """Return the error line; fails on a traceback or on more than one error."""
    assert "Traceback" not in error, error
    lines = [line for line in error.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, error
    return lines[0]


def test_the_undamaged_data_train(tmp_path: Path) -> None:
    good_data(tmp_path)
    assert run_here("pretrain", options_for(tmp_path)) == 0


def options_for(root: Path, *more: str) -> list[str]:
    folders = ["--data.source.layout", "folder", "--data.source.split", "", "--source", f"{root}/source"]
    folders += ["--data.target.layout", "frames", "--data.target.split", "", "--target", f"{root}/target"]
    folders += ["--data.source.ids", "cityscapes-trainid", "--data.source.limit", "0", "--data.target.limit", "0"]
    return [*words("toytown_source", root / "run"), *folders, *more]


def contents(root: Path) -> dict[str, bytes | None]:
    """Return every path below a folder, with the bytes of files."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))
    }


def culprits(before: dict[str, bytes | None], after: dict[str, bytes | None], more: list[str]) -> set[str]:
    """Return what a message about the damage must name one of: a changed path's stem or folder, an option's value."""
    changed = {path for path in before.keys() | after.keys() if before.get(path, b"?") != after.get(path, b"?")}
    return {Path(path).stem for path in changed} | {Path(path).parent.name for path in changed} | set(more[1::2])


@pytest.mark.parametrize("name", DATA)
def test_damaged_data_are_exit_4_and_leave_no_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    good_data(tmp_path)
    before = contents(tmp_path)
    more = DATA[name](tmp_path)
    named = culprits(before, contents(tmp_path), more)
    code = run_here("pretrain", options_for(tmp_path, *more))
    error = capsys.readouterr().err
    line = one_line(error)
    assert code == 4, line
    said = error.replace(str(tmp_path), "")
    assert any(word.replace(str(tmp_path), "") in said for word in named if word), (named, error)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / MARK).exists()


def test_what_is_wrong_in_both_domains_is_one_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good_data(tmp_path)
    cut(tmp_path / "source/images/0.png")
    cv2.imwrite(str(tmp_path / "source/labels/2.png"), np.full((48, 96), 77, np.uint8))
    (tmp_path / "target/1.jpg").write_bytes(b"")
    assert run_here("pretrain", options_for(tmp_path, "--augment.lab_transfer", "0.5")) == 4
    error = capsys.readouterr().err
    assert all(name in error for name in ("source/images/0.png", "source/labels/2.png", "target/1.jpg")), error


@pytest.mark.parametrize("name", CONFIGURATION)
def test_damaged_configurations_say_what_is_wrong(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.yaml"
    expected, words_of_it, content = CONFIGURATION[name]
    file.write_text(content, encoding="utf-8")
    code = run_here("pretrain", ["--recipe", str(file), "--out", str(tmp_path / "run")])
    line = one_line(capsys.readouterr().err)
    assert code == expected, line
    assert words_of_it in line
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / MARK).exists()


RUN_DAMAGE = {
    "metrics.csv with a garbled row": (
        "metrics.csv", lambda path: path.write_text(path.read_text(encoding="utf-8") + "six,1.0\n", encoding="utf-8"),
    ),
    "config.yaml cut": ("config.yaml", lambda path: cut(path)),
    "config.yaml with an unknown field": ("config.yaml", lambda path: path.write_text("magic: 1\n", encoding="utf-8")),
    "state.json cut": ("checkpoints/step-6/state.json", lambda path: cut(path)),
    "state.json of a later format": (
        "checkpoints/step-6/state.json", lambda path: path.write_text(json.dumps({"format": 99}), encoding="utf-8"),
    ),
    "state.safetensors cut": ("checkpoints/step-6/state.safetensors", lambda path: cut(path)),
    "model.safetensors cut": ("checkpoints/step-6/model.safetensors", lambda path: cut(path)),
    "state.safetensors gone": ("checkpoints/step-6/state.safetensors", lambda path: path.unlink()),
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    assert run_here("pretrain", words("toytown_source", run)) == 0
    return run


@pytest.mark.parametrize("name", RUN_DAMAGE)
def test_a_damaged_run_cannot_be_resumed_and_says_why(
    name: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    file, damage = RUN_DAMAGE[name]
    damage(run / file)
    assert run_here("pretrain", ["--resume", str(run)]) == 4
    one_line(capsys.readouterr().err)


def test_skipping_bad_files_counts_them_and_ends_with_6(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good_data(tmp_path)
    cut(tmp_path / "source/images/0.png")
    assert run_here("pretrain", options_for(tmp_path, "--data.on_bad", "skip")) == 6
    assert (tmp_path / "run/checkpoints/step-6").is_dir()


def test_there_are_at_least_sixty() -> None:
    assert len(DATA) + len(CONFIGURATION) + len(RUN_DAMAGE) >= 60
    assert TINY
