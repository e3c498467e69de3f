"""Places that may not be looked at are one line and exit code 4, in a process that the rights of files bind."""

import os
from pathlib import Path

import pytest

from lsr_infer.errors import InputError
from lsr_infer.io.files import file_status, is_file, is_folder
from tests.lsr_infer.io.test_sources import picture
from tests.lsr_infer.onnxfile import colour_model
from tests.lsr_infer.unprivileged import unprivileged


def test_what_is_there_and_what_cannot_be_known(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    found = file_status(tmp_path / "file")
    assert found is not None
    assert found.st_size == 0
    assert file_status(tmp_path) is not None
    os.mkfifo(tmp_path / "pipe")
    kinds = {name: (is_file(tmp_path / name), is_folder(tmp_path / name)) for name in ("file", ".", "pipe", "dangling")}
    assert kinds == {"file": (True, False), ".": (False, True), "pipe": (False, False), "dangling": (False, False)}
    for name in ("absent", "absent/deeper", "file/deeper", "dangling"):
        assert file_status(tmp_path / name) is None
    for name, said in (("a" * 300, "the name is too long"), ("loop", "[Ss]ymbolic links")):
        with pytest.raises(InputError, match=said):
            file_status(tmp_path / name)


def test_a_word_longer_than_a_name_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir()
    with unprivileged(tmp_path / "locked") as command:
        for words in (("x" * 300, "-o", tmp_path / "out"), ("info", "x" * 300), ("bench", "x" * 300)):
            done = command(*words)
            assert (done.returncode, len(done.stderr.splitlines())) == (4, 1), done.stderr
            assert "the name is too long" in done.stderr


@pytest.mark.parametrize("kind", ["source", "model", "side by side", "info", "bench", "serve", "mask", "output"])
def test_a_folder_that_may_not_be_entered_is_one_line(model: Path, tmp_path: Path, kind: str) -> None:
    locked = tmp_path / "locked"
    source, inside = picture(tmp_path / "a.png"), picture(locked / "b.png")
    other = colour_model(locked / "other.onnx")
    locked.chmod(0)
    words: dict[str, tuple[str | Path, ...]] = {
        "source": (inside, "-m", model, "-o", tmp_path / "out"),
        "model": (source, "-m", other, "-o", tmp_path / "out"),
        "side by side": (source, "-m", model, "-o", tmp_path / "out", "--side-by-side", other),
        "info": ("info", other),
        "bench": ("bench", other),
        "serve": ("serve-config", other, "-o", tmp_path / "out"),
        "mask": (source, "-m", model, "-o", tmp_path / "out", "--ignore-mask", inside),
        "output": (source, "-m", model, "-o", locked / "deeper" / "out"),
    }
    with unprivileged(locked) as command:
        done = command(*words[kind])
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    assert "permission denied" in done.stderr.splitlines()[-1].lower()
    assert str(locked) in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_looked_through_is_not_replaced(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r" / "m"
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").touch()
    folder.chmod(0)
    with unprivileged(folder) as command:
        done = command("serve-config", model, "-o", tmp_path / "r", "--name", "m", "--overwrite")
    assert done.returncode == 4, done.stderr
    assert "m: cannot be written, permission denied" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["config.pbtxt"]
