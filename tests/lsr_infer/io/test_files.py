"""Files and folders appear whole or not at all."""

import errno
import os
import re
import stat
from pathlib import Path

import pytest

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io import files
from lsr_infer.io.files import (
    AtomicOutputs,
    OutputPathError,
    output_path_error,
    refuse_existing,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)

TEXTS = re.compile(r"\d+\.txt|[a-z]\.txt")


def test_a_file_appears_only_when_the_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), whole_file(path, overwrite=True) as temporary:
        temporary.write_text(f"half {1 // 0}", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_about_another_file_is_not_the_places(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a.txt", overwrite=True):
        (tmp_path / "elsewhere/b.txt").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="disk is full"), whole_file(tmp_path / "a.txt", overwrite=True):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "results"
    for text in ("old", "new"):
        with whole_folder(path, overwrite=True, own=TEXTS) as temporary:
            write_text(temporary / "a.txt", text)
    assert (path / "a.txt").read_text(encoding="utf-8") == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["results"]


def test_the_old_folder_comes_back_when_its_place_cannot_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results"
    with whole_folder(path, overwrite=True, own=TEXTS) as temporary:
        write_text(temporary / "a.txt", "old")
    rename, calls = Path.rename, []

    def failing(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    monkeypatch.setattr(files, "exchange", lambda one, other: False)  # as on a file system that cannot
    with pytest.raises(InputError, match="cannot be written"), whole_folder(path, overwrite=True, own=TEXTS):
        pass
    monkeypatch.undo()
    assert (path / "a.txt").read_text(encoding="utf-8") == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["results"]


def test_a_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the folder does not exist"):
        write_text(tmp_path / "nowhere" / "a.txt", "x")
    (tmp_path / "b.json").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="appeared"):
        write_json(tmp_path / "b.json", {}, overwrite=False)
    assert (tmp_path / "b.json").read_text(encoding="utf-8") == "mine"
    (tmp_path / "b.json").unlink()
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def tree(folder: Path) -> dict[str, str]:
    """The files below a folder and what is in them."""
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()
    }


def write_while_another_does(path: Path) -> None:
    with whole_file(path, overwrite=False) as temporary:
        temporary.write_text("ours", encoding="utf-8")
        path.write_text("theirs", encoding="utf-8")


def fill_while_another_does(path: Path) -> None:
    with whole_folder(path, overwrite=False, own=TEXTS) as temporary:
        (temporary / "0.txt").write_text("ours", encoding="utf-8")
        path.mkdir()
        (path / "0.txt").write_text("theirs", encoding="utf-8")


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_what_appears_meanwhile_is_kept_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:  # as FAT and some network file systems

        def refuse(*paths: Path) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    with whole_file(tmp_path / "free.txt", overwrite=False) as temporary:
        temporary.write_text("ours", encoding="utf-8")
    with pytest.raises(UsageError, match=r"a\.txt appeared.*--overwrite"):
        write_while_another_does(tmp_path / "a.txt")
    with pytest.raises(UsageError, match="masks appeared"):
        fill_while_another_does(tmp_path / "masks")
    with whole_folder(tmp_path / "new", overwrite=False, own=TEXTS) as temporary:
        (temporary / "0.txt").write_text("ours", encoding="utf-8")
    assert tree(tmp_path) == {"free.txt": "ours", "a.txt": "theirs", "masks/0.txt": "theirs", "new/0.txt": "ours"}
    with whole_file(tmp_path / "a.txt", overwrite=True) as temporary:
        temporary.write_text("ours", encoding="utf-8")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "ours"


@pytest.mark.parametrize("name", ["thesis.tex", "deep/0.txt", ".hidden", "empty/"])
def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path: Path, name: str) -> None:
    path = tmp_path / "results"
    (path / "0.txt").parent.mkdir()
    (path / "0.txt").write_text("old", encoding="utf-8")

    def put() -> None:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).mkdir() if name.endswith("/") else (path / name).write_text("mine", encoding="utf-8")

    def begin() -> None:
        with whole_folder(path, overwrite=True, own=TEXTS):
            put()

    with pytest.raises(UsageError, match=r"not replaced even with --overwrite"):  # it appears during the work
        begin()
    with (
        pytest.raises(UsageError, match=rf"results holds {name.partition('/')[0]}"),
        whole_folder(path, overwrite=True, own=TEXTS),
    ):
        pytest.fail("the work was begun")
    assert (path / "0.txt").read_text(encoding="utf-8") == "old"
    assert (path / name).exists()
    assert [item.name for item in tmp_path.iterdir()] == ["results"]


def test_a_folder_behind_a_link_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "thesis.tex").touch()
    (tmp_path / "results").symlink_to("far")
    with whole_folder(tmp_path / "results", overwrite=True, own=TEXTS):
        pass
    assert not (tmp_path / "results").is_symlink()
    assert (tmp_path / "far" / "thesis.tex").exists()


def test_a_link_that_leads_nowhere_is_not_replaced(tmp_path: Path) -> None:
    link = tmp_path / "a.txt"
    link.symlink_to(tmp_path / "absent")
    with pytest.raises(UsageError, match="already exists"):
        refuse_existing(link, overwrite=False)
    with pytest.raises(UsageError, match="appeared"), whole_file(link, overwrite=False) as temporary:
        temporary.write_text("ours", encoding="utf-8")
    assert link.is_symlink()


def test_results_appear_together_or_not_at_all(tmp_path: Path) -> None:
    with AtomicOutputs() as results:
        results.file(tmp_path / "a.txt", overwrite=False).write_text("a", encoding="utf-8")
        (results.folder(tmp_path / "b", overwrite=False, own=TEXTS) / "0.txt").write_text("b", encoding="utf-8")
        assert not (tmp_path / "a.txt").exists()
    assert tree(tmp_path) == {"a.txt": "a", "b/0.txt": "b"}

    def fill(results: AtomicOutputs) -> None:
        results.file(tmp_path / "c.txt", overwrite=False).write_text("c", encoding="utf-8")
        results.file(tmp_path / "absent" / "d.txt", overwrite=False)

    with pytest.raises(InputError, match="nothing there changed"), AtomicOutputs() as results:
        fill(results)
    assert [path for path in tree(tmp_path) if path.startswith(("c", "."))] == []


def test_what_had_appeared_before_a_failure_is_said(tmp_path: Path) -> None:
    def write() -> None:
        with AtomicOutputs() as results:
            for name in ("a.txt", "b.txt"):
                results.file(tmp_path / name, overwrite=False).write_text("ours", encoding="utf-8")
            (tmp_path / "b.txt").write_text("theirs", encoding="utf-8")

    with pytest.raises(UsageError, match=r"b\.txt appeared.*; a\.txt had been written before\."):
        write()
    assert tree(tmp_path) == {"a.txt": "ours", "b.txt": "theirs"}


def test_only_what_is_wrong_with_every_name_is_the_places_fault(tmp_path: Path) -> None:
    errors = {number: output_path_error(tmp_path, OSError(number, "")) for number in errno.errorcode}
    assert {number for number, error in errors.items() if isinstance(error, OutputPathError)} == {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
    }


def test_a_name_that_is_too_long_is_known_before_the_work(tmp_path: Path) -> None:
    long = tmp_path / ("ä" * 128)
    for whole in (whole_file(long, overwrite=True), whole_folder(long, overwrite=True, own=TEXTS)):
        with pytest.raises(InputError, match="shorter name") as caught, whole:
            pytest.fail("the work was begun")
        assert not isinstance(caught.value, OutputPathError)
    assert list(tmp_path.iterdir()) == []


def test_new_files_have_the_rights_of_new_files_and_the_mask_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sets the mask of the process, were it for an instant, sets it for all its threads."""
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", lambda mask: pytest.fail("the mask of the process was set"))
            write_text(tmp_path / "a.txt", "x")
            with whole_folder(tmp_path / "b", overwrite=True, own=TEXTS):
                pass
            with whole_file(tmp_path / "c.txt", overwrite=True) as temporary:  # a writer that brings a file of its own
                (tmp_path / "other").touch(mode=0o600)
                (tmp_path / "other").rename(temporary)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"a.txt": 0o640, "b": 0o750, "c.txt": 0o640}
