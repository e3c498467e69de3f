"""Messages of `evaluate`, `analyze` and `report` name the options that they have, whoever words them."""

import ast
import logging
import re
from pathlib import Path

import pytest

from lsr_infer.errors import InputError
from lsr_train.commands.option_names import own_names, with_own_names
from tests.lsr_train.commands.test_help import known
from tests.lsr_train.training_runs import REPOSITORY

NOT_REACHED = {"loading", "folder", "state", "weight_files", "copies"}
"""Modules of training batches, of new runs and their copies in stores, and of downloads."""
OF_OTHERS = {"network.backbone", "network.width", "network.weights", "network.stem", "network.normalization"}
"""Of the starting weights of a training, which the commands that score do not load."""


OF_THE_TARGET = {"target", "target_layout"}
"""Of unlabelled frames, which `evaluate` alone takes."""


def texts(path: Path) -> list[str]:
    """Return every text of a module that is no docstring; parts of a composed one are joined."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(part.value if isinstance(part, ast.Constant) else "x" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "Args:" not in node.value:
            found.append(node.value)
    return found


@pytest.mark.parametrize("command", ["evaluate", "analyze", "report"])
def test_no_message_names_an_option_that_the_command_does_not_have(command: str) -> None:
    wrong = {}
    for room in ("data", "network", "runs", *(["evaluation"] if command == "evaluate" else [])):
        for path in sorted((REPOSITORY / "lsr_train" / room).glob("*.py")):
            named = {name for text in texts(path) for name in re.findall(r"--([a-z][\w.]*\w)", own_names(text))}
            missing = named - known(command) - OF_OTHERS - ({"help"} if command == "evaluate" else OF_THE_TARGET)
            if missing and path.stem not in NOT_REACHED:
                wrong[path.stem] = missing
    assert wrong == {}


@pytest.mark.parametrize(
    ("message", "own"),
    [
        ("Set --data.source.ids, or", "Set --ids, or"),
        (
            "layout folder needs a folder. Set --data.source.root (or --source).",
            "layout folder needs a folder. Set --data.",
        ),
        ("data.source.ids is x; allowed", "ids is x; allowed"),
        ("(--data.on_bad skip leaves them out)", "(--on_bad skip leaves them out)"),
        ("Set --data.target.root (or --target) to a video", "Set --target to a video"),
        ("set --data.target.layout frames", "set --target_layout frames"),
        ("Set --data.source.image_suffix _a --data.source.label_suffix _b", "Set --image_suffix _a --label_suffix _b"),
        ("/mnt/data.set/source/a.png: data.json", "/mnt/data.set/source/a.png: data.json"),
    ],
)
def test_names_of_a_training_become_those_of_the_command(message: str, own: str) -> None:
    assert own_names(message) == own


def test_errors_keep_their_kind_and_warnings_are_renamed_too(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("lsr_train.data.scan")

    @with_own_names()
    def command() -> None:
        logger.warning("%d files (--data.on_bad %s)", 3, "skip")
        raise InputError("Set --data.source.ids")

    with pytest.raises(InputError, match=r"^Set --ids$") as caught:
        command()
    assert caught.value.exit_code == 4
    logger.warning("--data.on_bad")
    assert [record.getMessage() for record in caplog.records] == ["3 files (--on_bad skip)", "--data.on_bad"]
