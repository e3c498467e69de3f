"""Archives whose clips and results lie in a store: as those in folders."""

from pathlib import Path

import msgspec
import pytest

from lsr_infer.archive.clip_work import ClipWorker, Unit, new_job
from lsr_infer.archive.clips import Clip, ClipList
from lsr_infer.archive.places import result_place
from lsr_infer.errors import InputError
from lsr_infer.io.store_cache import fetch_folder
from lsr_infer.io.stores import listing, put_whole
from lsr_infer.pipeline.options import SegmentOptions
from tests.lsr_infer.video.test_writer import clip_with_sound


def test_clips_and_results_of_a_store(place: str, model: Path, tmp_path: Path) -> None:
    put_whole(clip_with_sound(tmp_path / "a.mp4"), f"{place}/drives/front/a.mp4")
    put_whole(model, f"{place}/drives/model.onnx")
    found = ClipList([f"{place}/drives"], without=f"{place}/drives/results")
    (clip,) = found
    assert clip == Clip(f"{place}/drives/front/a.mp4", "drives/front/a.mp4")
    assert found.left_out == 1
    assert [clip.name for clip in ClipList([f"{place}/drives/*/*.mp4"])] == ["drives/front/a.mp4"]
    options = SegmentOptions(sources=(), output=f"{place}/drives/results", model=model, threads=1)
    unit = Unit(place=clip.place, name=clip.name)
    worker = ClipWorker(new_job(options, run="first", range_seconds=1.5, retry=False))
    result_place(f"{place}/drives/results").prepare()
    parts = worker.cut(unit)
    assert [worker.work(part).status for part in parts] == ["done"] * 2
    assert worker.join(parts[0]).status == "done"
    worker.clear(parts[0])
    again = ClipWorker(new_job(options, run="second", range_seconds=1.5, retry=False))
    assert again.cut(unit) == [unit]
    assert again.work(unit).run == "first"
    results = fetch_folder(f"{place}/drives/results/drives/front/a.mp4")
    assert {path.name for path in results.iterdir()} == {"a_overlay.mp4", "a_classes.jsonl"}
    with pytest.raises(InputError, match="holds no file"):
        next(listing(f"{place}/drives/results/.archive/ranges"))
    assert len(list(found)) == 1
    put_whole(clip_with_sound(tmp_path / "b.mp4", codec="mp3"), clip.place)
    assert again.work(unit).run == "second"
    assert again.work(msgspec.structs.replace(unit, place=f"{place}/none.mp4", name="none.mp4")).status == "failed"
