"""Files and folders appear whole or not at all."""

import errno
from pathlib import Path

import pytest

from lsr_infer.errors import InputError
from lsr_infer.files import whole_file, whole_folder, write_json, write_text


def test_a_file_appears_only_when_the_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as temporary:
        temporary.write_text(f"half {1 // 0}", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_about_another_file_is_not_the_places(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a.txt"):
        (tmp_path / "elsewhere/b.txt").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="disk is full"), whole_file(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "results"
    for text in ("old", "new"):
        with whole_folder(path) as temporary:
            write_text(temporary / "a.txt", text)
    assert (path / "a.txt").read_text(encoding="utf-8") == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["results"]


def test_the_old_folder_comes_back_when_its_place_cannot_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results"
    with whole_folder(path) as temporary:
        write_text(temporary / "a.txt", "old")
    rename, calls = Path.rename, []

    def failing(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(InputError, match="cannot be written"), whole_folder(path):
        pass
    monkeypatch.undo()
    assert (path / "a.txt").read_text(encoding="utf-8") == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["results"]


def test_a_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the folder does not exist"):
        write_text(tmp_path / "nowhere" / "a.txt", "x")
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())
