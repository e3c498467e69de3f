"""The models on offer: what is listed, what can be chosen, and why not."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from lsr_infer.errors import DeviceError, InputError, UsageError
from lsr_infer.web.models import Catalogue, shipped_models
from lsr_infer.web.requests import ModelChoice
from lsr_infer.web.tables import comparison_table, model_table

OPTIONS = ModelChoice(path=Path(), title="", device="cpu")


def opened(choice: ModelChoice) -> dict[str, str]:
    if choice.path.stem == "unlucky":
        raise DeviceError(f"{choice.path}: needs TensorRT")
    return {"device": "cpu", "backend": "onnxruntime", "precision": "int8"}


def catalogue(folder: Path | None) -> Catalogue:
    found = Catalogue(folder, OPTIONS, opened)
    found.refresh()
    return found


def test_without_a_folder_the_shipped_ones_are_there_and_small() -> None:
    found = catalogue(None)
    assert [entry.key for entry in found.good()] == ["toytown_source.onnx", "toytown_adapted.onnx"]
    assert all(path.stat().st_size < 3_000_000 for path in shipped_models())
    assert found.defaults() == ("toytown_source.onnx", "toytown_adapted.onnx")
    assert found.choice("toytown_adapted.onnx").device == "cpu"


def test_a_folders_models_come_first_and_bad_ones_say_why(tmp_path: Path) -> None:
    source, adapted = shipped_models()
    shutil.copy(source, tmp_path / "before.onnx")
    shutil.copy(adapted, tmp_path / "after.onnx")
    shutil.copy(adapted, tmp_path / "unlucky.onnx")
    (tmp_path / "broken.onnx").write_bytes(adapted.read_bytes()[:1000])
    (tmp_path / "notes.txt").write_text("no model", encoding="utf-8")
    found = catalogue(tmp_path)
    problems = {entry.key: entry.problem for entry in found.entries}
    assert list(problems)[:4] == ["after.onnx", "before.onnx", "broken.onnx", "unlucky.onnx"]
    assert not problems["after.onnx"]
    assert problems["broken.onnx"].startswith("broken.onnx: is no ONNX file")
    assert problems["unlucky.onnx"] == "unlucky.onnx: needs TensorRT"
    assert str(tmp_path) not in "".join(problems.values())
    assert found.defaults() == ("before.onnx", "after.onnx")
    for key in ("broken.onnx", "unlucky.onnx"):
        with pytest.raises(InputError, match="cannot be used"):
            found.choice(key)
    with pytest.raises(InputError, match="no longer in the folder"):
        found.choice("notes.txt")


def test_a_name_like_a_shipped_one_is_told_apart(tmp_path: Path) -> None:
    shutil.copy(shipped_models()[1], tmp_path / "toytown_adapted.onnx")
    found = catalogue(tmp_path)
    assert [entry.key for entry in found.entries] == [
        "toytown_adapted.onnx", "toytown_source.onnx", "shipped/toytown_adapted.onnx",
    ]  # fmt: skip
    assert found.choice("toytown_adapted.onnx").path.parent == tmp_path
    assert found.choice("shipped/toytown_adapted.onnx").path == shipped_models()[1]


def test_a_model_is_opened_again_only_where_its_file_changed(tmp_path: Path) -> None:
    count: list[Any] = []

    def counted(choice: ModelChoice) -> dict[str, str]:
        count.append(choice.path)
        return opened(choice)

    model = tmp_path / "mine.onnx"
    shutil.copy(shipped_models()[0], model)
    found = Catalogue(tmp_path, OPTIONS, counted)
    found.refresh()
    found.refresh()
    assert count.count(model) == 1
    shutil.copy(shipped_models()[1], model)
    found.refresh()
    assert count.count(model) == 2
    model.unlink()
    assert model.name not in [entry.key for entry in found.refresh()]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        Catalogue(tmp_path / "nowhere", OPTIONS, opened)


def test_tables_escape_what_files_say(tmp_path: Path) -> None:
    (tmp_path / "<img src=x>.onnx").write_bytes(b"no model")
    found = catalogue(tmp_path)
    html = model_table(found.entries)
    assert "<img" not in html
    assert "&lt;img" in html
    assert "Cannot be chosen.</strong> &lt;img src=x&gt;.onnx: is no ONNX file" in html
    both = comparison_table(found.good())
    assert both.count('<th scope="col">') == 2
    assert "99.43 % of the pixels" in both
    assert comparison_table([]) == ""
