"""Archives on Ray: nothing is lost or done twice, whatever is killed; and the sentences where Ray is not there."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from lsr_infer.archive import cluster
from lsr_infer.archive.clip_work import ClipWorker, Unit, WorkerHost, new_job
from lsr_infer.archive.ledger import ClipRecord
from lsr_infer.cli import main
from lsr_infer.errors import InputError
from lsr_infer.io.files import OutputPathError
from lsr_infer.pipeline.options import SegmentOptions
from tests.kills.archive import COMMAND, ROOT, faults, make_clips, run_under_kills
from tests.lsr_infer.video.test_writer import clip_with_sound


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


def test_without_ray_a_sentence_names_the_extra(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    clip = clip_with_sound(tmp_path / "clip.mp4")
    assert run("archive", clip, "--model", model, "--output", tmp_path / "out") == 3
    assert "Install lsr-road[ray]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["none"], 4, "none: does not exist"),
        (["."], 4, "holds no video"),
        (["clip.mp4", "--model", "none.onnx"], 4, "none.onnx"),
        (["clip.mp4", "--workers", "-1"], 2, "--workers and --gpus-per-worker take 0 or more"),
        (["clip.mp4", "--range", "0"], 2, "--range is 0.0"),
        (["clip.mp4", "--save", "nothing"], 2, "--save is nothing"),
    ],
)
def test_mistakes_are_told_before_ray_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    if "clip.mp4" in words:
        clip_with_sound(tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    assert run("archive", *words, "--output", "out") == code
    assert said in capsys.readouterr().err


def test_rows_carry_several_units_and_what_was_made_of_each(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_host", WorkerHost)
    options = SegmentOptions(sources=(), output=tmp_path / "out", model=model, threads=1)
    job = new_job(options, run="run", range_seconds=float("inf"), retry=False)
    runner = cluster.RayRunner(job, cluster.WorkerPool())
    units = [Unit(place=f"{n}\udcff.mp4", name=f"{n}\udcff.mp4") for n in range(250)]
    lists = list(runner._write_lists(units))
    assert len(lists) == 3
    asked = {"cut": True, "together": 40}
    rows = [row for one in lists for row in cluster._read_lists({**asked, "lists": json.dumps([one])}, job)]
    assert len(rows) == 3 + 3 + 2
    assert len(cluster._read_lists({**asked, "lists": json.dumps(lists)}, job)) == 7
    worker = cluster._Worker(ClipWorker, job)
    ended = [pair for row in rows for pair in cluster._read_row(worker(row))]
    assert [unit for unit, _ in ended] == units
    assert all(record.name == unit.name and "does not exist" in str(record.reason) for unit, record in ended)


def test_a_signed_address_is_in_no_file_and_reaches_its_worker(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_host", WorkerHost)
    options = SegmentOptions(sources=(), output=tmp_path / "out", model=model)
    job = new_job(options, run="run", range_seconds=float("inf"), retry=False)
    places = ["a.mp4", "https://me:word@host/b.mp4?sig=key", "s3://clips/date=02/c.mp4"]
    units = [Unit(place=place, name=f"{n}.mp4") for n, place in enumerate(places)]
    (one,) = cluster.RayRunner(job, cluster.WorkerPool())._write_lists(units)
    written = (tmp_path / "out" / one["list"]).read_text(encoding="ascii")
    assert "word" not in written
    assert "sig" not in written
    assert "date=02" in written
    (row,) = cluster._read_lists({"lists": json.dumps([one]), "cut": False, "together": 3}, job)
    assert cluster._units(row["units"]) == units


def test_nothing_that_killed_runs_left_stays_at_the_end(model: Path, tmp_path: Path) -> None:
    options = SegmentOptions(sources=(), output=tmp_path / "out", model=model)
    job = new_job(options, run="run", range_seconds=float("inf"), retry=False)
    for name in (".archive/lists/killed/000000.json", ".archive/ranges/0123/000000.json", ".archive/records/kept"):
        (tmp_path / "out" / name).parent.mkdir(parents=True)
        (tmp_path / "out" / name).touch()
    cluster.RayRunner(job, cluster.WorkerPool()).clear()
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["kept"]


def test_what_no_worker_would_do_better_is_raised_as_it_was(model: Path, tmp_path: Path) -> None:
    def full(_: object) -> ClipRecord:
        raise OutputPathError("the disk is full")

    row = cluster._row(cluster._packed([Unit(place="a.mp4", name="a.mp4")]), full)
    with pytest.raises(InputError, match="the disk is full"):
        cluster._read_row(row)


@pytest.mark.slow
def test_nothing_is_lost_or_done_twice_under_kills(model: Path, tmp_path: Path) -> None:
    """Two nodes; a worker, a node and the driver are killed, and long clips are joined."""
    pytest.importorskip("ray")
    clips = make_clips(tmp_path / "clips", 12, frames=45)
    words = [str(clips), "--model", str(model), "--save", "overlay,json", "--threads", "1"]
    alone = [sys.executable, "-c", COMMAND, *words, "--output", str(tmp_path / "alone")]
    subprocess.run(alone, check=True, cwd=ROOT)
    archive = ["archive", *words, "--output", str(tmp_path / "out")]
    series = run_under_kills(archive, tmp_path / "out", clips=12, kills=3, draw=random.Random(1))
    assert series["exit"] == 0
    assert not any(faults(clips, tmp_path / "out", tmp_path / "alone").values())


@pytest.mark.slow
def test_an_archive_on_this_machine_goes_on_and_sets_aside(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    drives = tmp_path / "drives"
    drives.mkdir()
    clip_with_sound(drives / "good.mp4")
    (drives / "bad.mp4").write_bytes(b"no video")
    words = ["archive", str(drives), "--model", str(model), "--output", str(tmp_path / "out"), "--threads", "1"]
    command = [sys.executable, "-c", COMMAND, *words, "--range", "1", "--json"]
    for kept in (0, 1):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 6, done.stderr
        summary = json.loads(done.stdout)
        assert (summary["done"], summary["aside"], summary["frames"]) == (1, 1, 30)
        assert summary["kept"] == 2 * kept
        assert "bad.mp4: cannot be read as video" in done.stderr
    assert {path.name for path in (tmp_path / "out/drives/good.mp4").iterdir()} == {
        "good_overlay.mp4", "good_classes.jsonl",
    }  # fmt: skip
