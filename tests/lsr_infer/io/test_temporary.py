"""What a killed process left beside results is swept, and what a living one writes is not."""

import fcntl
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lsr_infer.errors import InputError
from lsr_infer.io import files
from lsr_infer.io.files import AtomicOutputs, check_output_folder, whole_file, whole_folder, write_text
from lsr_infer.io.temporary import HeldPath, discard, exchange, sweep

TEXTS = re.compile(r"[a-z]+\.txt")


def killed_in(work: Callable[[], object]) -> None:
    """Do something in a process that is killed in the middle of it, at the call of `die`."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


def die(*words: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def begin_and_die(folder: Path) -> None:
    with AtomicOutputs() as outputs:
        outputs.file(folder / "a.txt", overwrite=True).write_text("half", encoding="utf-8")
        outputs.file(folder / ("long" * 30 + ".tar.gz"), overwrite=True)
        (outputs.folder(folder / "masks", overwrite=True, own=TEXTS) / "b.txt").write_text("half", encoding="utf-8")
        die()


def test_what_a_kill_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in ("result.txt", ".hidden", ".a.part", ".a.0123456789abcdef.partial", ".notes.old"):
        write_text(tmp_path / name, "mine")
    before = names(tmp_path)
    killed_in(lambda: begin_and_die(tmp_path))
    assert len(names(tmp_path)) == len(before) + 3
    check_output_folder(tmp_path)
    assert names(tmp_path) == before


def test_what_a_living_process_holds_is_not_swept(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a.txt", overwrite=True) as file, AtomicOutputs() as outputs:
        folder = outputs.folder(tmp_path / "masks", overwrite=True, own=TEXTS)
        child = os.fork()  # another process, which has none of these descriptors
        if child == 0:
            os.closerange(3, 4096)
            sweep(tmp_path)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert file.is_file()
        assert folder.is_dir()
        file.write_text("whole", encoding="utf-8")
    assert names(tmp_path) == ["a.txt", "masks"]


def test_a_name_that_is_swept_before_it_is_locked_gives_way_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, seen = HeldPath(tmp_path / "a.txt", ".txt"), []
    lock = fcntl.flock

    def make(path: Path) -> None:
        path.write_bytes(b"")
        seen.append(path)
        if len(seen) == 1:
            path.unlink()  # as another process's `sweep` in this instant

    def late(descriptor: int, how: int) -> None:
        if len(seen) == 2:
            seen[1].unlink()  # or in this one
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    held.create(make)
    monkeypatch.undo()
    assert held.path == seen[2]
    sweep(tmp_path)
    assert held.path.is_file()
    held.clear()
    assert not names(tmp_path)


def replace_and_die(path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    rename = Path.rename

    def rename_and_die(self: Path, target: Path) -> Path:
        result = rename(self, target)
        return die() if step == "between the renames" else result

    def last_step(folder: Path) -> None:
        if folder == path.parent:
            die()

    if step != "exchanged":
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
        monkeypatch.setattr(Path, "rename", rename_and_die)
    monkeypatch.setattr(files, "sync_folder", last_step)
    with whole_folder(path, overwrite=True, own=TEXTS) as temporary:
        write_text_plainly(temporary / "new.txt")


def write_text_plainly(path: Path) -> None:
    path.write_text("new", encoding="utf-8")


@pytest.mark.parametrize(
    ("step", "there"), [("exchanged", "new.txt"), ("between the renames", "old.txt"), ("in its place", "new.txt")]
)
def test_a_folder_is_there_whole_wherever_the_kill_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, there: str
) -> None:
    path = tmp_path / "before_after"
    path.mkdir()
    write_text_plainly(path / "old.txt")
    killed_in(lambda: replace_and_die(path, monkeypatch, step))
    assert len(names(tmp_path)) == 2
    sweep(tmp_path)
    assert names(tmp_path) == ["before_after"]
    assert names(path) == [there]


def test_a_folder_that_0_1_0_had_moved_aside_is_put_back(tmp_path: Path) -> None:
    aside = tmp_path / ".masks.0123456789abcdef.part.old"
    aside.mkdir()
    write_text_plainly(aside / "old.txt")
    write_text(tmp_path / ".notes.0123456789abcdef.part.old", "half of a file called notes.old")
    sweep(tmp_path)
    assert names(tmp_path) == ["masks"]
    assert names(tmp_path / "masks") == ["old.txt"]


def test_names_are_exchanged_in_one_step(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.write_text("a file", encoding="utf-8")
    if not exchange(one, other):
        pytest.skip("this file system cannot exchange names")
    assert one.is_file()
    assert other.is_dir()
    with pytest.raises(FileNotFoundError):
        exchange(one, tmp_path / "nowhere")


def test_a_folder_is_discarded_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "seed-1"
    folder.mkdir()
    write_text_plainly(folder / "config.yaml")
    monkeypatch.setattr("lsr_infer.io.temporary.shutil.rmtree", die)
    killed_in(lambda: discard(folder))
    monkeypatch.undo()
    assert not folder.exists()
    sweep(tmp_path)
    assert not names(tmp_path)


@pytest.mark.parametrize("locks", [True, False])
def test_a_folder_that_is_being_discarded_may_be_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    folder = tmp_path / "seed-1"
    (folder / "a").mkdir(parents=True)
    os.utime(folder, (0, 0))
    remove, left = shutil.rmtree, []

    def refuse(descriptor: int, how: int) -> None:
        raise OSError(37, "No locks available")

    def meanwhile(path: Path) -> None:
        monkeypatch.setattr("lsr_infer.io.temporary.shutil.rmtree", remove)
        sweep(tmp_path)  # as another command
        left.extend(names(tmp_path))
        remove(path)

    if not locks:
        monkeypatch.setattr("lsr_infer.io.temporary.fcntl.flock", refuse)
    monkeypatch.setattr("lsr_infer.io.temporary.shutil.rmtree", meanwhile)
    discard(folder)
    assert len(left) == locks
    assert not names(tmp_path)


def test_a_place_without_locks_is_swept_of_what_has_not_changed_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("lsr_infer.io.temporary.fcntl.flock", refuse)
    write_text(tmp_path / "a.txt", "written all the same")
    (tmp_path / ".b.0123456789abcdef.part.txt").write_text("somebody's", encoding="utf-8")
    (tmp_path / ".c.0123456789abcdef.part").mkdir()
    begun = time.time()
    for ago, left in ((-9e9, 2), (86000, 2), (87000, 0)):
        for path in tmp_path.glob(".*"):
            os.utime(path, (begun - ago, begun - ago))
        sweep(tmp_path)
        assert len(names(tmp_path)) == left + 1
    with pytest.raises(InputError, match="the folder does not exist"):
        write_text(tmp_path / "nowhere/a.txt", "x")


def write_and_sweep(folder: Path, number: int) -> None:
    """Write files and folders while others sweep the same place."""
    for turn in range(40):
        sweep(folder)
        write_text(folder / f"{number}.txt", str(turn))
        write_text(folder / "shared.txt", f"{number} {turn}")
        with whole_folder(folder / f"masks-{number}", overwrite=True, own=TEXTS) as temporary:
            sweep(folder)
            write_text(temporary / "a.txt", str(turn))


def test_many_that_write_and_sweep_one_folder_lose_nothing(tmp_path: Path) -> None:
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                write_and_sweep(tmp_path, number)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert names(tmp_path) == sorted([*(f"{n}.txt" for n in range(4)), *(f"masks-{n}" for n in range(4)), "shared.txt"])
    assert {(tmp_path / f"masks-{n}/a.txt").read_text(encoding="utf-8") for n in range(4)} == {"39"}
