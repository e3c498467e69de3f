"""The clips that sources name, and the names of their results."""

import os
from pathlib import Path

import pytest

from lsr_infer.archive.clips import Clip, ClipList
from lsr_infer.errors import InputError, UsageError


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(*sources: str | Path, without: Path | None = None) -> list[str]:
    return [clip.name for clip in ClipList([str(source) for source in sources], without=without)]


def test_a_clip_is_called_as_it_lies_below_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drives = tree(tmp_path / "drives", "b/2.MP4", "a.mkv", "b/1.mp4", "notes.txt", ".hidden/3.mp4")
    found = ClipList([str(drives)])
    assert [clip.name for clip in found] == ["drives/a.mkv", "drives/b/1.mp4", "drives/b/2.MP4"]
    assert found.left_out == 1
    assert next(iter(found)) == Clip(str(drives / "a.mkv"), "drives/a.mkv")
    assert names(drives / "a.mkv") == ["a.mkv"]
    assert names(f"{drives}/b/*.mp4") == ["b/1.mp4"]
    assert names(f"{drives}/**/*.mp4") == ["drives/b/1.mp4"]
    monkeypatch.chdir(drives)
    assert names(".") == names(drives)


def test_lines_of_a_list_are_clips_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drives = tree(tmp_path / "drives", "a.mp4", "b.bin")
    clips = tmp_path / "clips.txt"
    clips.write_text(f"{drives}/a.mp4\n\n{drives}/b.bin\n{drives}/../drives/a.mp4\n", encoding="utf-8")
    below = str(drives).lstrip("/")
    assert names(f"@{clips}") == [f"clips/{below}/a.mp4", f"clips/{below}/b.bin"]


def test_no_line_of_a_list_is_lost(tmp_path: Path) -> None:
    clips = tmp_path / "clips.txt"
    clips.write_text("s3://b/date=01/a.mp4\ns3://b/date=02/a.mp4\ns3://b/date=01/a.mp4\n", encoding="utf-8")
    assert names(f"@{clips}") == ["clips/b/date=01/a.mp4", "clips/b/date=02/a.mp4"]
    for pair in ("https://h/get?clip=1\nhttps://h/get?clip=2\n", "https://h/d=1/a.mp4\nhttps://h/d=2/a.mp4\n"):
        clips.write_text(pair, encoding="utf-8")
        with pytest.raises(UsageError, match="two of its lines would both have their results in clips/h/") as met:
            names(f"@{clips}")
        assert "=" not in str(met.value)
    clips.write_text("s3://me:word@b/a.mp4\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"s3://b/a\.mp4: credentials are not read from an address"):
        names(f"@{clips}")


def test_no_name_leads_out_of_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "in/a/b.mp4", "c.mp4")
    (tmp_path / "clips.txt").write_text("https://h/../../../x.mp4\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "in")
    for source in ("@../clips.txt", "https://h/..", "*/../../*.mp4"):
        with pytest.raises(UsageError, match=r"its path has `\.\.` in it"):
            names(source)


def test_messages_name_sources_without_secrets() -> None:
    with pytest.raises(UsageError, match=r"https://h/a\.mp4 and https://g/a\.mp4 would both") as met:
        names("https://h/a.mp4?sig=key", "https://me:word@g/a.mp4")
    assert "key" not in str(met.value)


def test_two_sources_never_share_a_folder_of_results(tmp_path: Path) -> None:
    tree(tmp_path, "front/drives/a.mp4", "rear/drives/a.mp4")
    with pytest.raises(UsageError, match="would both have their results in drives/"):
        names(tmp_path / "front/drives", tmp_path / "rear/drives")
    assert names(tmp_path / "front", tmp_path / "rear") == ["front/drives/a.mp4", "rear/drives/a.mp4"]
    assert names(tmp_path / "front", tmp_path / "front") == ["front/drives/a.mp4"]


def test_results_are_no_clips(tmp_path: Path) -> None:
    tree(tmp_path, "a.mp4", "results/drives/a.mp4/a_overlay.mp4")
    assert names(tmp_path, without=tmp_path / "results") == [f"{tmp_path.name}/a.mp4"]
    assert names(f"{tmp_path}/**/*.mp4", without=tmp_path / "results") == [f"{tmp_path.name}/a.mp4"]
    tree(tmp_path, f"{tmp_path.name}/a.mp4/a_overlay.mp4")
    assert names(f"{tmp_path}/**/*.mp4", without=tmp_path)[0] == f"{tmp_path.name}/a.mp4"
    tree(tmp_path, "around/drives/b.mp4")
    assert names(f"{tmp_path}/around/drives/*.mp4", without=tmp_path) == ["drives/b.mp4"]


@pytest.mark.parametrize(
    ("source", "reason"), [("none", "does not exist"), ("*.mp4", "no file fits"), ("@none", "exist")]
)
def test_a_source_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=reason):
        names(source)


def test_names_that_are_no_text_are_clips_too(tmp_path: Path) -> None:
    try:
        tree(tmp_path / "drives", os.fsdecode(b"\xff.mp4"))
    except OSError:
        pytest.skip("this file system takes no such name")
    assert names(tmp_path / "drives") == ["drives/\udcff.mp4"]
