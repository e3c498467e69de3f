"""Tests README and docs: code runs, links lead somewhere, examples are shown as they are."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

from lsr_infer.segmenter import Segmentation
from lsr_train.config.recipes import recipe_names
from lsr_train.data.classes_file import load_classes
from tests.documents import EXAMPLES, NOTEBOOK, PAGES, README, REPOSITORY
from tests.lsr_train.training_runs import losses, run_here, words

OTHERS = [REPOSITORY / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "export/README.md")]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in [README, *PAGES])


def test_the_classes_of_the_documents_are_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(classes:.*?)```", TEXT, flags=re.DOTALL)
    (tmp_path / "classes.yaml").write_text(text, encoding="utf-8")
    classes = load_classes(tmp_path / "classes.yaml")
    assert classes.space.names == ("road", "car")
    assert classes.id_map.apply(np.array([[0, 1, 14, 23, 24]], dtype=np.uint8)).tolist() == [[255, 0, 1, 255, 0]]


def test_every_recipe_is_in_the_table_of_recipes() -> None:
    table = TEXT.partition("| recipe | what it is |")[2].partition("\n\n")[0]
    patterns = re.findall(r"`([a-z0-9_*]+)`", table)
    named = {name for name in recipe_names() for pattern in patterns if fnmatch(name, pattern)}
    assert named == set(recipe_names())


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_shown_as_it_is(example: Path) -> None:
    page = (REPOSITORY / "docs" / "methods.md").read_text(encoding="utf-8")
    assert f"```python\n{example.read_text(encoding='utf-8')}```" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_something(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").split()) > (60 if page.parent.name != "api" else 10)


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and Python-Markdown make them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[ ]", "-", re.sub(r"[^\w\- ]", "", heading.lower()).strip()) for heading in headings}


def links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [
        link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith(("http://", "https://", "mailto:"))
    ]


@pytest.mark.parametrize("page", [README, *PAGES, *OTHERS], ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


def defined_names(path: Path) -> set[str]:
    """Return the functions and classes of a module, methods as `Class.method`."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return names


def test_from_paper_to_code_names_what_is_there() -> None:
    page = (REPOSITORY / "docs" / "paper_to_code.md").read_text(encoding="utf-8")
    rows = re.findall(r"`((?:lsr_train|lsr_infer|export|tests)/[\w/]+\.py)`((?: · `[\w.]+`)*)", page)
    assert len(rows) > 20
    for file, names in rows:
        assert (REPOSITORY / file).is_file(), file
        assert set(re.findall(r"`([\w.]+)`", names)) <= defined_names(REPOSITORY / file), file
    for number in range(1, 10):
        assert f"Eq. {number} " in page or f"Eq. {number})" in page
    for figure in range(1, 8):
        assert f"Fig. {figure}" in page


def test_the_foreign_loop_runs() -> None:
    done = subprocess.run(
        [sys.executable, "examples/foreign_loop.py"], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"loss \d+\.\d+\n", done.stdout)


def test_the_method_of_ones_own_trains(tmp_path: Path) -> None:
    assert run_here("pretrain", words("toytown_source", tmp_path / "source", "--train.steps", "2")) == 0
    own = ["--method", f"{EXAMPLES / 'my_method.py'}:Mine", "--init", str(tmp_path / "source"), "--train.steps", "2"]
    none = [f"--weights.{name}=0" for name in ("cluster", "perpendicularity", "norm")]
    assert run_here("adapt", words("toytown_lsr", tmp_path / "run", *own, *none)) == 0
    assert {"cross_entropy", "certainty"} <= set(losses(tmp_path / "run")[0])


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert all("%%time\n" in cell["source"] for cell in code[:-1])


@pytest.mark.slow(reason="trains and adapts: 5 minutes on two free cores")
def test_the_notebook_goes_the_whole_way(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=3600, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    shown = {kind for output in outputs for kind in output.get("data", {})}
    record_property("minutes", text.splitlines()[-1])
    out = tmp_path / "quickstart_notebook"
    before, after = (json.loads((out / f"{name}.json").read_text("utf-8"))["miou"] for name in ("before", "after"))
    assert after > before
    assert "verdict: better" in text
    assert text.count("Wall time") >= len([cell for cell in notebook.cells if cell.cell_type == "code"]) - 1
    assert {"image/png", "text/html"} <= shown
    assert text.count("parity with the checkpoint on") == 3
    files = ("source.onnx", "adapted.onnx", "adapted_int8.onnx", "video/drive_overlay.mp4")
    beside = ("video/drive_side_by_side.mp4", "road/udacity_highway_side_by_side.mp4")
    assert all((out / name).stat().st_size > 1000 for name in (*files, *beside))


def test_the_three_lines_of_the_readme_run() -> None:
    (block,) = re.findall(r"```python\n(from lsr_infer.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, object] = {"frame": np.zeros((60, 80, 3), np.uint8)}
    exec(block.replace("adapted.onnx", str(REPOSITORY / "lsr_infer/models/toytown.onnx")), names)
    result = names["result"]
    assert isinstance(result, Segmentation)
    assert result.classes.shape == result.confidence.shape == (60, 80)
    assert result.overlay(np.zeros((60, 80, 3), np.uint8)).shape == (60, 80, 3)
    assert result.label_space.num_classes == 19


@pytest.mark.slow(reason="builds the whole site: half a minute")
def test_the_site_is_built_strictly_and_asks_no_other_host(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES)
    for page in pages:
        loaded = re.findall(
            r"<(?:script|link|img)[^>]*(?:src|href)=\"(https?://[^\"]*)", page.read_text(encoding="utf-8")
        )
        assert loaded == [], page


SHIPPED_YAML = [
    path for kind in ("recipes", "comparisons") for path in (REPOSITORY / "lsr_train" / kind).glob("*.yaml")
]


@pytest.mark.parametrize("path", sorted(SHIPPED_YAML), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_recipe_or_comparison_names_the_readme(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "readme" not in text.lower()
    for page in re.findall(r"\bdocs/[\w/]+\.\w+", text):
        assert (REPOSITORY / page).is_file(), page
