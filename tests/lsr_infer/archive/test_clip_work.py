"""One unit of an archive: done once, done anew where it must be, set aside after three failures."""

import json
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lsr_infer.archive import clip_work
from lsr_infer.archive.clip_work import ArchiveJob, ClipWorker, Unit, WorkerHost, new_job
from lsr_infer.archive.ledger import MOST_TRIES, ClipRecord, Ledger
from lsr_infer.archive.places import result_place
from lsr_infer.cli import main
from lsr_infer.errors import DeviceError, UsageError
from lsr_infer.pipeline.options import SegmentOptions, Selection
from tests.lsr_infer.onnxfile import level_model
from tests.lsr_infer.streamserver import transport_stream
from tests.lsr_infer.video.test_writer import clip_with_sound


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return Unit(place=str(clip_with_sound(tmp_path / "drive.mp4")), name="drives/drive.mp4")


def job(model: Path, place: Path, run: str = "first", *, retry: bool = False, **options: Any) -> ArchiveJob:
    chosen = SegmentOptions(sources=(), output=place, model=model, threads=1, **options)
    return new_job(chosen, run=run, range_seconds=float("inf"), retry=retry)


def results(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and ".archive" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_clip_gets_what_lsr_infer_makes_of_it(model: Path, tmp_path: Path, unit: Unit) -> None:
    record = ClipWorker(job(model, tmp_path / "out", save=frozenset({"overlay", "mask"}))).work(unit)
    assert (record.status, record.frames, record.width, record.height) == ("done", 30, 64, 48)
    assert sum(record.shares.values()) == pytest.approx(1, abs=1e-5)
    alone = [unit.place, "--model", model, "--output", tmp_path / "alone", "--save", "overlay,mask,json"]
    assert main([str(word) for word in [*alone, "--threads", "1"]]) == 0
    assert results(tmp_path / "out" / unit.name) == results(tmp_path / "alone")
    assert not list((tmp_path / "out").rglob("*.part*"))


def test_only_a_stored_clip_that_can_be_cut_is_fetched_to_be_cut(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(clip_work, "clip_stamp", lambda place: asked.append(place) or "")
    monkeypatch.setattr(clip_work, "clip_file", lambda _place: nullcontext(clip_with_sound(tmp_path / "fetched.mp4")))
    worker = ClipWorker(replace(job(model, tmp_path / "out"), range_seconds=1.0))
    units = [Unit(place=f"https://host/{name}?sig=a.mp4", name=name) for name in ("a.MP4", "b.mkv", "c.avi")]
    assert [len(worker.cut(unit)) for unit in units] == [3, 1, 1]
    assert asked == [units[0].place]


def test_a_signed_model_is_named_without_its_signature(
    model: Path, tmp_path: Path, unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = job(model, tmp_path / "out")
    own = replace(own, options=replace(own.options, model="https://host/m.onnx?sig=key"))  # type: ignore[arg-type]
    monkeypatch.setattr(clip_work, "_digest", lambda _place: "another")
    with pytest.raises(DeviceError, match=r"host/m\.onnx: is another file") as met:
        ClipWorker(own).work(unit)
    assert "key" not in str(met.value)


def test_what_is_done_stays_done_until_its_content_changes(model: Path, tmp_path: Path, unit: Unit) -> None:
    first = ClipWorker(job(model, tmp_path / "out")).work(unit)
    again = ClipWorker(job(model, tmp_path / "out", "second"))
    again._opened = None  # type: ignore[method-assign, assignment]  # no model is needed to know that
    assert again.work(unit) == first
    os.utime(unit.place, (1, 1))
    touched = again.work(unit)
    assert touched == msgspec.structs.replace(first, stamp=touched.stamp)
    clip_with_sound(Path(unit.place), codec="mp3")
    assert ClipWorker(job(model, tmp_path / "out", "third")).work(unit).run == "third"


@pytest.mark.parametrize("change", [{"alpha": 0.4}, {"save": frozenset({"mask"})}, {"selection": Selection(every=2)}])
def test_other_options_are_other_results(model: Path, tmp_path: Path, unit: Unit, change: dict[str, Any]) -> None:
    ClipWorker(job(model, tmp_path / "out")).work(unit)
    assert ClipWorker(job(model, tmp_path / "out", "second", **change)).work(unit).run == "second"


def test_results_that_were_removed_are_made_again(model: Path, tmp_path: Path, unit: Unit) -> None:
    place = result_place(str(tmp_path / "out"))
    ClipWorker(job(model, tmp_path / "out")).work(unit)
    place.remove(unit.name)
    assert ClipWorker(job(model, tmp_path / "out", "second")).work(unit).run == "second"
    assert place.holds(unit.name)


def test_another_model_under_the_same_name_is_another_recipe(model: Path, tmp_path: Path, unit: Unit) -> None:
    first = job(model, tmp_path / "out")
    ClipWorker(first).work(unit)
    level_model(model)
    with pytest.raises(DeviceError, match="is another file on"):
        ClipWorker(first).work(msgspec.structs.replace(unit, name="drives/other.mp4"))
    assert ClipWorker(job(model, tmp_path / "out", "second")).work(unit).run == "second"


def test_a_clip_that_fails_three_times_is_set_aside_with_its_reason(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    unit = Unit(place=str(broken), name="broken.mp4")
    worker = ClipWorker(job(model, tmp_path / "out"))
    assert [worker.work(unit).status for _ in range(MOST_TRIES)] == ["failed", "failed", "aside"]
    aside = worker.work(unit)
    assert "cannot be read as video" in str(aside.reason)
    assert not results(tmp_path / "out")
    assert ClipWorker(job(model, tmp_path / "out", "second")).work(unit) == aside
    retried = ClipWorker(job(model, tmp_path / "out", "third", retry=True))
    assert retried.work(unit).status == "failed"
    clip_with_sound(broken)
    assert retried.work(unit).status == "done"


def lost_try(own: ArchiveJob, unit: Unit, node: str) -> ClipRecord:
    """What stands in the ledger while a clip is being worked on, and after a kill."""
    return ClipRecord(
        name=unit.name, source=unit.place, recipe=own.recipe, run=own.run, status="started", node=node
    )  # fmt: skip


def test_a_clip_that_ends_its_process_three_times_is_set_aside(model: Path, tmp_path: Path, unit: Unit) -> None:
    own, ledger = job(model, tmp_path / "out"), Ledger(result_place(str(tmp_path / "out")))
    started = ClipRecord(
        name=unit.name, source=unit.place, recipe=own.recipe, run=own.run, status="started", node="here"
    )
    ledger.write(started)
    for left in range(1, MOST_TRIES):
        tries = ClipWorker(own, WorkerHost("here"))._failed_tries(ledger.read(unit.name))
        assert len(tries) == left
        ledger.write(msgspec.structs.replace(started, tries=tries))
    record = ClipWorker(own, WorkerHost("here")).work(unit)
    assert record.status == "aside"
    assert "the process that worked on it ended on here" in str(record.reason)


def test_a_lost_node_is_no_fault_of_the_clip(model: Path, tmp_path: Path, unit: Unit) -> None:
    own, ledger = job(model, tmp_path / "out"), Ledger(result_place(str(tmp_path / "out")))
    started = ClipRecord(
        name=unit.name, source=unit.place, recipe=own.recipe, run=own.run, status="started", node="gone"
    )
    ledger.write(started)
    record = ClipWorker(own, WorkerHost("here", lambda name: name == "here")).work(unit)
    assert (record.status, record.tries) == ("done", ())


def test_a_clip_that_breaks_off_keeps_its_good_frames(model: Path, tmp_path: Path) -> None:
    data = transport_stream()
    cut = tmp_path / "cut.ts"
    cut.write_bytes(data[: 2 * len(data) // 3 // 188 * 188 - 100])
    record = ClipWorker(job(model, tmp_path / "out")).work(Unit(place=str(cut), name="cut.ts"))
    assert record.status == "partial"
    assert record.frames > 0
    assert record.reason is not None


def test_a_folder_with_what_is_no_result_is_kept(model: Path, tmp_path: Path, unit: Unit) -> None:
    own = tmp_path / "out" / unit.name / "my notes.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine", encoding="utf-8")
    record = ClipWorker(job(model, tmp_path / "out")).work(unit)
    assert "my notes.txt" in str(record.reason)
    assert own.read_text(encoding="utf-8") == "mine"


def test_a_clip_that_changes_meanwhile_is_not_recorded_as_done(model: Path, tmp_path: Path, unit: Unit) -> None:
    worker = ClipWorker(job(model, tmp_path / "out"))
    segmented = worker._segmented

    def touching(*arguments: Any) -> ClipRecord:
        os.utime(unit.place, (2, 2))
        return segmented(*arguments)

    worker._segmented = touching  # type: ignore[method-assign]
    assert "changed while it was read" in str(worker.work(unit).reason)


def test_what_is_wrong_with_the_command_is_no_fault_of_a_clip(model: Path, tmp_path: Path, unit: Unit) -> None:
    own = job(model, tmp_path / "out")
    with pytest.raises(UsageError):
        ClipWorker(replace(own, options=replace(own.options, backend="none"))).work(unit)
    known = Ledger(result_place(own.place)).read(unit.name)
    assert known is not None
    assert not known.ended
    assert not known.tries


def test_a_damaged_record_is_made_again(model: Path, tmp_path: Path, unit: Unit) -> None:
    ClipWorker(job(model, tmp_path / "out")).work(unit)
    (record,) = (tmp_path / "out/.archive/records").rglob("*.json")
    record.write_bytes(record.read_bytes()[:50])
    assert ClipWorker(job(model, tmp_path / "out", "second")).work(unit).run == "second"
    assert json.loads(record.read_bytes())["status"] == "done"


def test_a_record_takes_names_that_are_no_text(tmp_path: Path) -> None:
    ledger = Ledger(result_place(str(tmp_path)))
    record = ClipRecord(name="drives/\udcff.mp4", source="/\udcff.mp4", recipe="", run="", status="done")
    ledger.write(record)
    assert ledger.read(record.name) == record
