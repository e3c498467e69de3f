"""The help of every command is one screen, true, and there without torch."""

import dataclasses
import re
import subprocess
import sys

import pytest

from lsr_infer.errors import UsageError
from lsr_train.analysis.options import AnalyzeOptions, ReportOptions
from lsr_train.commands import dispatch
from lsr_train.commands.help_texts import HELP
from lsr_train.comparison.options import AblateOptions, CompareOptions
from lsr_train.config.command_line import DEFAULT_RECIPES, SHORT_NAMES, resolve, run_options
from lsr_train.config.fields import field_of
from lsr_train.evaluation.options import EvaluateOptions
from lsr_train.suggestion.options import SuggestOptions
from tests.lsr_train.training_runs import REPOSITORY

TRAINING = ("pretrain", "adapt", "distill")
OPTIONS = {
    "compare": CompareOptions, "ablate": AblateOptions, "analyze": AnalyzeOptions, "report": ReportOptions,
    "evaluate": EvaluateOptions, "suggest": SuggestOptions,
}  # fmt: skip
COMMANDS = tuple(dispatch.COMMANDS)
WITHOUT_LITERAL = {
    ("compare", "methods"): "all",
    ("compare", "data"): "those of --target",
    ("ablate", "data"): "those of --target",
}
"""Command and option whose default is empty -> what the help says that means."""


def shown(command: str, capsys: pytest.CaptureFixture[str], *topic: str) -> str:
    """Return what a command prints for --help."""
    if topic:
        with pytest.raises(SystemExit, match=r"^0$"):
            dispatch.run([command, "--help", *topic])
    else:
        assert dispatch.run([command, "--help"]) == 0
    return capsys.readouterr().out


def known(command: str) -> set[str]:
    """Return the options that a command takes, without dashes."""
    own = {item.name for item in dataclasses.fields(OPTIONS[command])} if command in OPTIONS else set()
    training = run_options() | {"print_config"} | {"distill": {"size"}, "adapt": {"budget"}}.get(command, set())
    return own | (training if command in (*TRAINING, "compare", "ablate") else set())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_is_one_screen(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(command, capsys).splitlines()
    assert len(lines) <= 40
    assert max(len(line) for line in lines) <= 100
    assert lines[0].startswith(f"usage: python -m lsr_train {command} ")
    assert sum(line.startswith("  python -m lsr_train") for line in lines) == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_the_help_is_there(command: str) -> None:
    text = re.sub(r"--(source_stage|target_only)\.", "--", HELP[command])
    named = set(re.findall(r"--([a-z][\w.]*)", text)) - {"help"}
    assert len(named) >= 10
    assert named <= known(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_defaults_of_the_help_are_true(command: str) -> None:
    text = re.sub(r"\n {8,}", " ", HELP[command])
    stated = re.findall(r"^  --([\w.]+) .*\[([^\[\]]+)\]$", text, flags=re.MULTILINE)
    assert len(stated) >= 3
    for name, value in stated:
        if command in TRAINING:
            assert value == training_default(command, name), name
        else:
            assert value == WITHOUT_LITERAL.get((command, name), str(default_of(OPTIONS[command], name))), name


def test_defaults_that_the_help_describes_are_empty() -> None:
    assert {default_of(OPTIONS[command], name) for command, name in WITHOUT_LITERAL} == {""}


def default_of(kind: type, name: str) -> object:
    (item,) = [item for item in dataclasses.fields(kind) if item.name == name]
    return item.default


def training_default(command: str, name: str) -> str:
    recipe = DEFAULT_RECIPES.get(command)
    if name in ("out", "recipe"):
        return {"out": f"runs/{recipe or 'RECIPE'}", "recipe": str(recipe)}[name]
    config = resolve(command, [], recipe).config
    if name == "size":
        return f"{config.data.source.width}x{config.data.source.height}"
    return str(field_of(config, SHORT_NAMES.get(f"--{name}", name).removeprefix("--")))


@pytest.mark.parametrize("command", [*TRAINING, "compare", "ablate"])
def test_help_shows_a_section(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(command, capsys, "optim")
    assert "--optim.lr_multipliers.head" in text
    assert "--train.steps" not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_all(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(command, capsys, "all")
    own = known(command) if command in TRAINING else {item.name for item in dataclasses.fields(OPTIONS[command])}
    hidden = {"show_config", "size", "models", "model", "figures", "formats", "over_training", "json", "pictures"}
    short = {name.removeprefix("--") for name in SHORT_NAMES}
    assert {name for name in own - hidden - short if f"--{name}" not in text} == set()


def test_help_of_the_default_recipe_has_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert "default: 4000" in " ".join(shown("adapt", capsys, "train").split())


def test_an_unknown_section_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"no section 'optm'\. Did you mean optim\?"):
        dispatch.run(["adapt", "--help", "optm"])
    with pytest.raises(UsageError, match=r"--help all"):
        dispatch.run(["evaluate", "--help", "optim"])


@pytest.mark.parametrize(
    ("command", "mistyped", "meant"),
    [
        ("adapt", "--sorce", "--source"), ("adapt", "--targt", "--target"), ("adapt", "--budgt", "--budget"),
        ("adapt", "--methd", "--method"), ("distill", "--studnt", "--student"), ("distill", "--widht", "--width"),
        ("pretrain", "--sorce", "--source"), ("pretrain", "--step", "--train.steps"),
        ("compare", "--sorce", "--source"),
        ("compare", "--methds", "--methods"), ("compare", "--devces", "--devices"), ("ablate", "--serch", "--search"),
        ("analyze", "--figres", "--figures"), ("report", "--wrst", "--worst"), ("evaluate", "--layot", "--layout"),
        ("suggest", "--formt", "--format"),
    ],
)  # fmt: skip
def test_a_mistyped_option_gets_the_right_one(command: str, mistyped: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"Did you mean {re.escape(meant)}\\?") as caught:
        dispatch.run([command, mistyped, "x"])
    assert f"lsr_train {command} --help all" in str(caught.value)


def test_all_help_is_there_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import lsr_train.config.run, lsr_train.config.recipes\n"
        "from lsr_train.commands.dispatch import COMMANDS, run\n"
        "assert run(['--help']) == 0\n"
        "for name in COMMANDS:\n"
        "    assert run([name, '--help']) == 0\n"
        "    try: run([name, '--help', 'all'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"python -m lsr_train {name}" in done.stdout for name in COMMANDS)
