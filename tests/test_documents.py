"""Tests README and docs: commands are understood by the programs they name, code runs, links lead somewhere."""

import ast
import os
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

from lsr_infer.commands.archive import read_request
from lsr_infer.commands.segment import read_options
from lsr_infer.errors import InputError
from lsr_infer.segmenter import Segmentation
from lsr_train.analysis.options import analyze_options, report_options
from lsr_train.commands.dispatch import expand_distill
from lsr_train.comparison.options import AblateOptions, CompareOptions
from lsr_train.comparison.options import read_options as table_options
from lsr_train.config.command_line import resolve
from lsr_train.config.recipes import recipe_names
from lsr_train.data.classes_file import load_classes
from lsr_train.suggestion.options import suggest_options
from tests.lsr_train.training_runs import losses, run_here, words

REPOSITORY = Path(__file__).resolve().parents[1]
WITH_US = os.environ | {"PYTHONPATH": str(REPOSITORY)}
README = REPOSITORY / "README.md"
PAGES = sorted((REPOSITORY / "docs").rglob("*.md"))
OTHERS = [REPOSITORY / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "export/README.md")]
EXAMPLES = REPOSITORY / "examples"
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in [README, *PAGES])


def shell_lines() -> list[str]:
    """Return every command of the shell blocks of README and docs, and of the README's table."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    table = re.findall(r"^\| [^|]* \| `([^`]*)` \|", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return sorted({line for line in [*lines, *table] if line})


def commands(program: str) -> list[str]:
    return [line for line in shell_lines() if line.startswith(program)]


TRAINING_COMMANDS = [
    line for name in ("pretrain", "adapt", "distill") for line in commands(f"python -m lsr_train {name}")
]


@pytest.mark.parametrize("line", TRAINING_COMMANDS)
def test_training_commands_are_understood(line: str) -> None:
    command, *arguments = shlex.split(line)[3:]
    if command == "distill":
        arguments = expand_distill(arguments)
    if "--resume" in arguments:
        with pytest.raises(InputError, match="no run to resume"):
            resolve(command, arguments, None)
        return
    request = resolve(command, arguments, {"adapt": "selftraining", "distill": "my_footage_distill"}.get(command))
    assert request.out is not None or request.resume is not None


@pytest.mark.parametrize("line", commands("python -m lsr_train suggest"))
def test_suggestions_are_understood(line: str) -> None:
    assert suggest_options(shlex.split(line)[4:]).out


@pytest.mark.parametrize("target", sorted({line.split()[1] for line in commands("make ")}))
def test_make_knows_its_targets(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [*commands("python -m lsr_train evaluate"), *commands("python export/to_")])
def test_options_of_other_commands_exist(line: str) -> None:
    words = shlex.split(line.replace("…", ""))
    program = words[1:4] if words[1] == "-m" else words[1:2]
    more = ["all"] if program[0].startswith("export/") else []
    done = subprocess.run(
        [sys.executable, *program, "--help", *more], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for word in words[len(program) + 1 :]:
        if word.startswith("-"):
            assert re.search(rf"(^|[\s,|\[]){re.escape(word)}\b", done.stdout), f"{word} is not in --help"


PARTS = ("info", "bench", "serve-config")
ON_A_CLUSTER = "archive"


@pytest.mark.parametrize("line", commands(f"lsr-infer {ON_A_CLUSTER}"))
def test_archive_commands_are_understood(line: str) -> None:
    assert read_request(shlex.split(line)[2:]).options.sources


@pytest.mark.parametrize(
    "line", [line for line in commands("lsr-infer") if line.split()[1] not in (*PARTS, ON_A_CLUSTER)]
)
def test_lsr_infer_commands_are_understood(line: str) -> None:
    assert read_options(shlex.split(line)[1:]).sources


@pytest.mark.parametrize("part", PARTS)
def test_each_part_of_lsr_infer_runs_as_shown(part: str, tmp_path: Path) -> None:
    line = next(line for line in commands("lsr-infer") if line.split()[1] == part)
    words = shlex.split(line)[1:]
    shipped = REPOSITORY / "lsr_infer/models/toytown.onnx"
    words = [str(shipped) if word.endswith(".onnx") else word for word in words]
    words += ["--frames", "3"] if part == "bench" else []
    command = [sys.executable, "-c", "import sys; from lsr_infer.cli import main; sys.exit(main())", *words]
    done = subprocess.run(command, cwd=tmp_path, env=WITH_US, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


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


def test_the_notebook_runs(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "the notebook is kept without outputs"
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert any("of the pixels differ" in str(cell.get("outputs", "")) for cell in notebook.cells)


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


READERS = {
    "compare": lambda words: table_options("compare", words, CompareOptions),
    "ablate": lambda words: table_options("ablate", words, AblateOptions),
    "analyze": analyze_options,
    "report": report_options,
}


@pytest.mark.parametrize("line", [line for name in READERS for line in commands(f"python -m lsr_train {name}")])
def test_commands_of_tables_and_figures_are_understood(line: str) -> None:
    """A line that ends in … leaves out more options of the same kind, and is read without it."""
    command, *arguments = shlex.split(line.removesuffix("…"))[3:]
    READERS[command](arguments)


@pytest.mark.parametrize("name", READERS)
def test_each_command_of_tables_and_figures_is_shown(name: str) -> None:
    assert commands(f"python -m lsr_train {name}")
