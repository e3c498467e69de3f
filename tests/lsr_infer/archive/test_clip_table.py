"""The table and the summary of an archive."""

import json
from pathlib import Path

import pytest

from lsr_infer.archive.clip_table import ClipTable
from lsr_infer.archive.ledger import ClipRecord
from lsr_infer.archive.places import result_place


def record(number: int, **changes: object) -> ClipRecord:
    values: dict[str, object] = {
        "name": f"drives/{number}.mp4", "source": f"/drives/{number}.mp4", "recipe": "r", "run": "this",
        "status": "done", "frames": 10, "seconds": 2.0, "node": "here",
        "shares": {"road": 0.9, "traffic light": number / 1000},
    }  # fmt: skip
    return ClipRecord(**values | changes)  # type: ignore[arg-type]


def test_a_query_finds_clips_by_their_classes(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with ClipTable(result_place(str(tmp_path)), ["road", "traffic light"], "this") as table:
        for number in range(2500):
            table.add(record(number))
    found = parquet.read_table(tmp_path / "summary.parquet", filters=[("share_traffic_light", ">", 2.4)])
    assert found.column("clip").to_pylist() == [f"/drives/{number}.mp4" for number in range(2401, 2500)]


def test_the_summary_counts_what_was_done_where(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with ClipTable(result_place(str(tmp_path)), ["road", "traffic light"], "this") as table:
        for found in (
            record(1),
            record(2, run="before"),
            record(3, status="aside", reason="broken", frames=0, shares={}),
        ):
            table.worked(found)
            table.add(found)
    summary = table.summary(model="model.onnx")
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert {name: summary[name] for name in ("clips", "done", "aside", "kept", "frames", "model")} == {
        "clips": 3, "done": 2, "aside": 1, "kept": 1, "frames": 20, "model": "model.onnx",
    }  # fmt: skip
    assert summary["nodes"]["here"]["frames"] == 10
    assert summary["shares"] == {"road": 0.9, "traffic light": 0.0015}
    assert summary["reasons"] == [{"clip": "/drives/3.mp4", "status": "aside", "reason": "broken"}]


def test_an_interrupted_run_leaves_the_former_table(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "summary.parquet").write_bytes(b"former")
    with pytest.raises(KeyboardInterrupt), ClipTable(result_place(str(tmp_path)), ["road"], "this"):
        raise KeyboardInterrupt
    assert (tmp_path / "summary.parquet").read_bytes() == b"former"
