"""What a search finds, and that it says what it did not look at: links, pipes, locked folders, the place of results."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.cli import main
from lsr_infer.errors import InputError
from lsr_infer.io.sources import find_sources
from tests.lsr_infer.unprivileged import unprivileged


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((40, 60, 3), 90, np.uint8))
    return path


def named(folder: Path) -> list[str]:
    return [str(source.name) for source in find_sources([str(folder)]).sources]


def test_hidden_names_are_not_looked_for_but_may_be_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / ".b.png")
    picture(tmp_path / ".cache" / "c.png")
    assert named(tmp_path) == ["a"]
    assert named(tmp_path / ".cache") == ["c"]
    assert len(find_sources([str(tmp_path / ".b.png")]).sources) == 1


def test_folders_behind_links_are_searched_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    picture(data / "b" / "own.png")
    picture(tmp_path / "far" / "deep" / "far.png")
    (data / "a").symlink_to("b")  # what lies here by itself keeps its own name
    (data / "link").symlink_to(tmp_path / "far")
    (data / "again").symlink_to(tmp_path / "far" / "deep")
    (data / "b" / "circle").symlink_to("..")
    (tmp_path / "far" / "back").symlink_to(data)
    (tmp_path / "top").symlink_to(data)
    assert named(data) == ["again/far", "b/own"]
    assert named(tmp_path / "top") == ["again/far", "b/own"]
    (data / "again").unlink()
    assert named(data) == ["b/own", "link/deep/far"]


def test_a_link_that_leads_nowhere_fails_and_is_counted(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    picture(data / "a.png")
    for name in ("x.png", "y.mp4", "z.gif", "notes.txt"):
        (data / name).symlink_to("nowhere")
    (data / "loop.png").symlink_to("loop.png")
    assert run(data, "-m", model, "-o", tmp_path / "out", "--json") == 6
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert (document["found"], document["done"], document["failed"], document["left_out"]) == (5, 1, 4, 1)
    for name in ("x.png", "y.mp4", "z.gif", "loop.png"):
        assert f"failed: {data / name}: " in caplog.text
    assert "Traceback" not in captured.err


def test_pipes_and_sockets_are_left_out_of_folders_and_refused_by_name(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    picture(data / "a.png")
    for name in ("pipe.png", "pipe.gif", "pipe.mp4"):
        os.mkfifo(data / name)
    found = find_sources([str(data)])
    assert [source.label for source in found.sources] == [str(data / "a.png")]
    assert [path.name for path in found.left_out] == ["pipe.gif", "pipe.mp4", "pipe.png"]
    for name in ("pipe.png", "pipe.gif", "pipe.mp4"):  # each would be waited for without an end
        assert run(data / name, "-m", model, "-o", tmp_path / "out") == 4
        assert str(data / name) in capsys.readouterr().err.splitlines()[-1]
    mask = ("--ignore-mask", data / "pipe.png")
    assert run(data / "a.png", "-m", model, "-o", tmp_path / "out", *mask) == 4
    assert "is a pipe or a device" in capsys.readouterr().err


def test_pictures_in_the_place_of_the_results_are_counted(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    for name in ("z.png", "train/a.jpg", "train/deep/b.png"):
        picture(data / name)
    (data / "train" / "shares.jsonl").touch()
    (tmp_path / "link").symlink_to(data / "train")
    for out in (data / "train", tmp_path / "link"):
        assert run(data, "-m", model, "-o", out, "--save", "mask", "--overwrite", "--json") == 0
        document = json.loads(capsys.readouterr().out)
        again = out == tmp_path / "link"  # its own result of the first run is there as well
        assert (document["found"], document["passed_over"], document["left_out"]) == (1, 2 + again, 0)
        assert f"{2 + again} images and videos in {out} are taken for earlier results" in caplog.text
    (data / "z.png").unlink()
    assert run(data, "-m", model, "-o", data / "train") == 4
    assert "3 images and videos in" in capsys.readouterr().err
    assert run(data / "train", "-m", model, "-o", tmp_path / "out", "--json") == 0
    assert json.loads(capsys.readouterr().out)["passed_over"] == 0


def test_a_folder_that_cannot_be_searched_is_said(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    picture(data / "a.png")
    picture(data / "locked" / "b.png")
    (data / "locked").chmod(0)
    with unprivileged(data / "locked") as command:
        done = command(data, "-m", model, "-o", tmp_path / "out", "--json")
        assert done.returncode == 6, done.stderr
        document = json.loads(done.stdout)
        assert (document["found"], document["done"], document["unsearched"]) == (1, 1, 1)
        assert f"failed: {data / 'locked'}: cannot be searched (Permission denied)." in done.stderr
        assert "1 of 1 sources done, 0 partly, 0 failed, 1 folders not searched; 1 frames" in done.stderr
        (data / "a.png").unlink()
        done = command(data, "-m", model, "-o", tmp_path / "out")
        assert done.returncode == 4
        assert "locked: cannot be searched" in done.stderr.splitlines()[-1]


def test_files_that_may_be_seen_and_not_opened_fail_each(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    picture(data / "a.png")
    for name in ("b.png", "c.mp4", "d.gif"):
        picture(data / "listed" / "x.png").rename(data / "listed" / name)
    (data / "listed").chmod(0o444)  # its names may be read, and nothing behind them
    with unprivileged(data / "listed") as command:
        done = command(data, "-m", model, "-o", tmp_path / "out", "--json")
        assert done.returncode == 6, done.stderr
        document = json.loads(done.stdout)
        assert (document["done"], document["failed"]) == (1, 3)
        assert "Traceback" not in done.stderr


def test_a_pattern_may_be_longer_than_a_name(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    pattern = f"[{'a' * 300}].png"
    assert [source.label for source in find_sources([str(tmp_path / pattern)]).sources] == [str(tmp_path / "a.png")]
    with pytest.raises(InputError, match="the name is too long"):
        find_sources([str(tmp_path / ("a" * 300))])
