"""Who may import whom, and that nothing heavy is loaded on the way."""

import ast
import os
import statistics
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
LAYERS = {
    "lsr_infer": (
        "text", "errors", "labelspace", "system", "io", "shipped", "video", "manifest", "render", "parity", "tensorrt",
        "backends", "segmenter", "pipeline", "archive", "commands", "cli",
    ),
    "lsr_train": (
        "randomness", "distributed", "device", "metrics", "latent", "losses", "network", "adversarial", "selftraining",
        "config", "toytown", "data", "methods", "runs", "evaluation", "engine", "comparison", "analysis",
        "suggestion", "exporting", "autopilot", "report", "commands", "__main__",
    ),
}  # fmt: skip
"""The rooms of a package from the ground up: a module imports its own room and those before it."""

FORBIDDEN = {
    "lsr_infer": ("lsr_train", "export", "demo", "torch", "accelerate", "safetensors", "jsonargparse"),
    "demo": ("lsr_train", "export", "torch"),
    "export": ("export", "demo"),
    "lsr_train.methods": ("lsr_train.toytown",),
    "lsr_train.config": ("torch", *(f"lsr_train.{room}" for room in ("losses", "latent", "network", "selftraining"))),
    "lsr_train": ("export", "demo"),
}


def room(module: str) -> str:
    """Return the folder below the package that a module lies in, or its own name where it lies in none."""
    return ".".join(module.split(".")[:2])


def upward(module: str, path: Path) -> list[str]:
    """Return what a module imports from rooms above its own."""
    package = module.partition(".")[0]
    if module == package:
        return []
    ranks = {f"{package}.{name}": rank for rank, name in enumerate(LAYERS[package])}
    found = (name for name in imports(path) if name in modules() and name != package)
    return sorted(name for name in found if room(name) in ranks and ranks[room(name)] > ranks[room(module)])


@cache
def modules() -> dict[str, Path]:
    """Return every module of the project by dotted name."""
    found = {}
    for top in ("lsr_infer", "lsr_train", "export", "demo"):
        for path in (REPOSITORY / top).rglob("*.py"):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(path: Path) -> set[str]:
    """Return the dotted names a module imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def below(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def against_the_arrows(module: str, path: Path) -> list[str]:
    """Return what the file of a module imports although its place forbids it."""
    forbidden = {item for place, items in FORBIDDEN.items() if below(module, place) for item in items}
    return sorted(name for name in imports(path) if any(below(name, item) for item in forbidden))


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_module_imports_only_along_the_arrows(module: str) -> None:
    assert against_the_arrows(module, modules()[module]) == []


@pytest.mark.parametrize(
    "module", sorted(name for name in modules() if name.partition(".")[0] in LAYERS and "." in name)
)
def test_no_arrow_runs_back_up(module: str) -> None:
    assert upward(module, modules()[module]) == []


@pytest.mark.parametrize("package", sorted(LAYERS))
def test_every_room_has_its_place(package: str) -> None:
    rooms = {room(name) for name in modules() if name.startswith(f"{package}.")}
    assert rooms == {f"{package}.{name}" for name in LAYERS[package]}


def test_no_imports_form_a_circle() -> None:
    graph = {
        name: {
            other
            for other in imports(path)
            if other in modules() and other != name and not name.startswith(f"{other}.")
        }
        for name, path in modules().items()
    }
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_every_place_with_a_rule_is_there() -> None:
    assert not {place for place in FORBIDDEN if not any(below(module, place) for module in modules())}


def test_onnxruntime_is_imported_in_one_place_which_keeps_it_quiet(tmp_path: Path) -> None:
    importers = {
        name
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import) and any(below(alias.name, "onnxruntime") for alias in node.names)
    }
    assert importers == {"lsr_infer.system.process"}
    code = "import numpy; from lsr_infer import Segmenter; Segmenter()(numpy.zeros((64, 64, 3), numpy.uint8))"
    own = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, env=os.environ | own, timeout=60)
    assert not list(tmp_path.iterdir()), "ONNX Runtime keeps what it would report"


def test_no_method_imports_another() -> None:
    shared = {f"lsr_train.methods.{name}" for name in ("method", "latent_terms")}
    methods = {name for name in modules() if name.startswith("lsr_train.methods.")} - shared
    assert len(methods) >= 3
    for method in methods:
        assert not (imports(modules()[method]) & (methods - {method})), method


def test_the_arrows_catch_a_wrong_import(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text("def f():\n    from lsr_train.methods import METHODS\n    import torch\n", encoding="utf-8")
    assert against_the_arrows("demo.app", file) == ["lsr_train.methods", "lsr_train.methods.METHODS", "torch"]
    assert against_the_arrows("lsr_infer.video.reader", file) == [
        "lsr_train.methods",
        "lsr_train.methods.METHODS",
        "torch",
    ]
    assert upward("lsr_train.losses.pixel", file) == ["lsr_train.methods"]
    assert upward("lsr_train.commands.dispatch", file) == []


def test_only_the_engine_calls_backward() -> None:
    callers = {
        name
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "backward"
    }
    assert callers == {"lsr_train.engine.loop"}


@pytest.mark.parametrize("module", sorted(name for name in modules() if name.startswith("lsr_infer")))
def test_the_runtime_starts_without_torch(module: str) -> None:
    code = f"import sys; sys.modules['torch'] = None; import {module}; assert 'onnxruntime' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, timeout=60)


SAME_MEANING = {
    "__main__": "what `python -m` runs",
    "options": "the options of a command, beside its work",
    "parser": "the parser of command lines of a package",
    "oce": "the method, and its losses",
    "archive": "footage in pieces: the command, and its work",
    "commands": "what a command line calls, of each package",
    "tensorrt": "the engines of TensorRT: how they are built, and the backend that runs them",
    "data": "where images and labels come from: the fields of a configuration, and what reads them",
    "adversarial": "alignment against a discriminator: the method, and its critics",
    "report": "the page about runs: the folder, and its entry",
    "toytown": "the rendered town, and its frames",
    "spec": "what a network or a comparison consists of, as plain data",
}
"""Names that several modules share, since they mean one thing by them."""

SAME_PUBLIC_NAME = {
    "logger": "the log of a module",
    "main": "the body of a command",
    "run": "runs what a command line says",
    "build_parser": "the parser of a command line",
    "read_options": "the options of a command line",
    "Options": "stands for the options of a command",
    "FORMAT": "the version of a file's format",
    **dict.fromkeys(
        ("ablate", "analyze", "compare", "evaluate", "report", "suggest"), "a command, and the function it calls"
    ),
    "Domain": "where images come from: one of the two, or a rendered one",
}
"""Public names that several modules define, since they mean one thing by them."""

NOT_A_SENTENCE = ("what", "how", "which", "whether", "where")


def functions() -> list[tuple[str, int, int]]:
    """Return every function with its line, and its lines of code: no docstring, no blank line, no comment."""
    found = []
    for module, path in modules().items():
        text = path.read_text(encoding="utf-8")
        lines = [line.strip() for line in text.splitlines()]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                documented = ast.get_docstring(node) is not None
                first = node.body[0].end_lineno + 1 if documented else node.body[0].lineno  # type: ignore[operator]
                body = lines[node.lineno - 1 : node.body[0].lineno - 1] + lines[first - 1 : node.end_lineno]
                code = sum(bool(line) and not line.startswith("#") for line in body)
                found.append((f"{module}:{node.lineno} {node.name}", node.lineno, code))
    return found


def test_no_two_modules_share_a_name_with_different_meanings() -> None:
    names: dict[str, list[str]] = {}
    for module in modules():
        names.setdefault(module.rpartition(".")[2], []).append(module)
    assert {name: where for name, where in names.items() if len(where) > 1 and name not in SAME_MEANING} == {}


def public_names(path: Path) -> set[str]:
    """Return the public classes, functions and constants that a module defines."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_no_public_name_has_two_meanings() -> None:
    names: dict[str, list[str]] = {}
    for module, path in modules().items():
        for name in public_names(path):
            names.setdefault(name, []).append(module)
    assert {name: where for name, where in names.items() if len(where) > 1 and name not in SAME_PUBLIC_NAME} == {}


def test_no_folder_is_a_crowd() -> None:
    sizes: dict[str, int] = {}
    for path in modules().values():
        folder = str(path.parent.relative_to(REPOSITORY))
        sizes[folder] = sizes.get(folder, 0) + 1
    limits = {"lsr_train": 8, "lsr_infer": 8}
    assert {folder: size for folder, size in sizes.items() if size > limits.get(folder, 14)} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    lengths = {name: code for name, _, code in functions()}
    assert {name: code for name, code in lengths.items() if code > 70} == {}
    assert statistics.median(lengths.values()) <= 10


def test_every_module_begins_with_a_sentence_that_says_what_it_does() -> None:
    odd = {}
    for module, path in modules().items():
        documented = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first = documented.partition("\n\n")[0]
        if not first.endswith(".") or first.split()[0].lower().strip("`") in NOT_A_SENTENCE:
            odd[module] = first[:80]
    assert odd == {}
