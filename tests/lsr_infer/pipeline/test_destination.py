"""`lsr-infer` whose sources, models and results lie in a store."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from lsr_infer.cli import main
from lsr_infer.io.store_cache import fetch, fetch_folder
from lsr_infer.io.stores import listing, put_whole, stored
from lsr_infer.pipeline.timing import shipped_clip
from tests.object_store import FaultyProxy


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


def names(url: str) -> list[str]:
    return sorted(found.url.removeprefix(f"{url}/") for found in listing(url))


@pytest.fixture
def drive(place: str, tmp_path: Path) -> Path:
    """A clip, a picture and a file of another kind, here and in the folder `drive` of the store."""
    here = tmp_path / "drive"
    (here / "day").mkdir(parents=True)
    shipped_clip(tmp_path, 3).rename(here / "day" / "a clip.mp4")
    cv2.imwrite(str(here / "still.png"), np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    (here / "notes.txt").write_text("none")
    for path in here.rglob("*.*"):
        put_whole(path, f"{place}/drive/{path.relative_to(here).as_posix()}")
    return here


def test_results_in_a_store_are_those_in_a_folder(
    place: str, drive: Path, model: Path, tmp_path: Path, proxy: FaultyProxy, capsys: pytest.CaptureFixture[str]
) -> None:
    put_whole(model, f"{place}/model.onnx")
    kinds = ("--save", "overlay,mask,json", "--size", "64x48")
    assert run(drive, "--model", model, "--output", tmp_path / "out", *kinds) == 0
    capsys.readouterr()
    proxy.rate = 0.1
    words = (f"{place}/drive", "--model", f"{place}/model.onnx", "--output", f"{place}/out/", *kinds, "--json")
    assert run(*words) == 0
    document = json.loads(capsys.readouterr().out)
    here = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {*names(f"{place}/out")} == here
    there = fetch_folder(f"{place}/out")
    for name in here:
        if name.endswith(".mp4"):
            assert (there / name).stat().st_size == (tmp_path / "out" / name).stat().st_size
        elif not name.endswith(".jsonl"):  # which names its source
            assert (there / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert document["left_out"] == 1
    assert {source["source"] for source in document["sources"]} == {
        f"{place}/drive/day/a clip.mp4",
        f"{place}/drive/still.png",
    }
    assert f"{place}/out/day/a clip_overlay.mp4" in document["sources"][0]["outputs"]
    assert run(*words[:5], "--size", "64x48") == 2
    assert f"{place}/out/day/a clip_overlay.mp4 already exists" in capsys.readouterr().err
    mask = f"{place}/out/day/a clip_mask"
    put_whole(model, f"{mask}/000009.png")
    put_whole(model, f"{mask}/mine.txt")
    assert run(*words, "--overwrite") == 0
    assert names(mask) == ["000000.png", "000001.png", "000002.png", "mine.txt"]


def test_a_broken_file_is_named_by_its_address_and_results_are_passed_over(
    place: str,
    drive: Path,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    put_whole(drive / "notes.txt", f"{place}/drive/broken.mp4")
    put_whole(drive / "still.png", f"{place}/drive/out/old.png")
    words = ("--model", model, "--size", "64x48", "--output", f"{place}/drive/out")
    assert run(f"{place}/drive", *words) == 6
    text = caplog.text
    assert f"failed: {place}/drive/broken.mp4" in text
    assert "taken for earlier results" in text
    assert stored(f"{place}/drive/out/still_overlay.jpg")
    assert run(f"{place}/drive/*.png", *words) == 2
    assert run(f"{place}/nothing", *words) == 4
    assert "there is no such file or folder" in capsys.readouterr().err


def test_an_engine_comes_with_its_manifest(place: str, tmp_path: Path) -> None:
    from lsr_infer.shipped import model_path

    for name in ("a.engine", "a.engine.json", "b.engine"):
        (tmp_path / name).write_text(name)
        put_whole(tmp_path / name, f"{place}/models/{name}")
    path = model_path(f"{place}/models/a.engine")
    assert path.read_text() == "a.engine"
    assert sorted(item.name for item in path.parent.iterdir()) == ["a.engine", "a.engine.json"]
    assert fetch(f"{place}/models/b.engine").read_text() == "b.engine"


def test_http_takes_no_results(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, "--output", "https://me:passw0rd@host/out") == 2
    assert "host/out: http servers are only read" in capsys.readouterr().err
