"""Runs a command by its name, or shows its help; nothing heavy is imported before the command runs."""

import importlib
import logging
import sys

from lsr_infer.errors import DeviceError, UsageError, stderr_handler
from lsr_train.config.renamed import current_argv

__all__ = ["COMMANDS", "run"]

COMMANDS = {
    "pretrain": "train on labelled images: the source stage, or the supervised bound",
    "adapt": "adapt a network to unlabelled footage, from labelled images or a source checkpoint",
    "distill": "teach a small student what an adapted network predicts on the footage",
    "compare": "train and score every method of a table, and write the table",
    "ablate": "leave parts of a method out, sweep its fields, or search them without labels",
    "analyze": "draw the paper's figures of one network or several",
    "report": "show runs side by side on one page that opens from disk",
    "evaluate": "score a checkpoint or an exported file on labelled images",
}
"""Commands, each a module of this folder, and what they do."""

_TAKE_FIELDS = ("compare", "ablate")
"""Commands that pass fields on to training commands, whose help has the sections."""

USAGE = """usage: python -m lsr_train COMMAND [OPTIONS]

Adapts a road-scene segmentation network from a labelled simulator to your own unlabelled footage.

Commands:
{commands}

`python -m lsr_train COMMAND --help` shows the options that people use, `--help all` every option of a command.
Exit codes: 0 ok, 1 internal, 2 usage, 3 device or extra missing, 4 input or output place unusable, 5 quality gate,
6 partial, 130 interrupted
"""


def _usage() -> str:
    return USAGE.format(commands="\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items()))


def _help_topic(argv: list[str]) -> str | None:
    """Return the word behind `--help`, "" where there is none, None where no help is asked for."""
    asked = next((position for position, word in enumerate(argv) if word in ("-h", "--help")), None)
    if asked is None:
        return None
    return next((word for word in argv[asked + 1 : asked + 2] if not word.startswith("-")), "")


def run(argv: list[str]) -> int | None:
    """Find a command and hand it the rest.

    Args:
        argv: the command's name, and its options.

    Returns:
        What the command returns: its exit code, None meaning 0.

    Raises:
        LsrError: with the exit code of what went wrong.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage(), end="", file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    name, *rest = argv
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"there is no command {name!r}.{hint} Commands: {', '.join(COMMANDS)}.")
    logging.basicConfig(level=logging.INFO, handlers=[stderr_handler()])
    logging.getLogger("lsr_train").setLevel(logging.INFO)
    for noisy in ("accelerate", "matplotlib", "torch", "jsonargparse"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        topic = _help_topic(rest)
        if topic not in (None, "", "all") and name in _TAKE_FIELDS:
            name = "adapt"
        command = importlib.import_module(f"lsr_train.commands.{name}")
        if topic == "":
            print(command.HELP, end="")  # noqa: T201 - the result of --help
            return 0
        code: int | None = command.main(["--help", topic] if topic else current_argv(name, rest))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("lsr_train", "lsr_infer"):
            raise
        raise DeviceError(
            f"{error.name} is not installed in this Python ({sys.prefix}). Install it with pip install '.[train]', or "
            "use the environment that has it: source .venv/bin/activate."
        ) from error
    return code
