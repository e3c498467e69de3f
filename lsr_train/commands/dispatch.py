"""Finds a command by its name and calls it. Nothing heavy is imported before a command runs."""

import importlib
import logging
import sys

from lsr_infer.errors import DeviceError, UsageError, stderr_handler
from lsr_train.config.renamed import current_argv

__all__ = ["COMMANDS", "run"]

COMMANDS = {
    "pretrain": ("lsr_train.commands.pretrain", "train on labelled images: the source stage, or the supervised bound"),
    "adapt": ("lsr_train.commands.adapt", "adapt a source checkpoint to unlabelled footage"),
    "distill": ("lsr_train.commands.distill", "teach a small student what an adapted network knows of the footage"),
    "compare": ("lsr_train.commands.compare", "train and score every method of a table, and write the table"),
    "ablate": (
        "lsr_train.commands.ablate",
        "leave parts of a method out, sweep its fields, or search them without labels",
    ),
    "analyze": ("lsr_train.commands.analyze", "draw the paper's figures of one network or several"),
    "report": ("lsr_train.commands.report", "show runs side by side on one page that opens from disk"),
    "evaluate": ("lsr_train.commands.evaluate", "score a checkpoint on labelled images"),
}

USAGE = """usage: python -m lsr_train COMMAND [--recipe NAME_OR_FILE] [--section.field VALUE]…

Adapt a road-scene segmentation network from a labelled simulator to your own unlabelled footage.

commands:
{commands}

`python -m lsr_train COMMAND --help` lists its options; `--print_config` shows the resolved configuration.
exit codes: 0 ok, 1 internal, 2 usage, 3 device or extra missing, 4 input or output place unusable, 5 quality gate,
6 partial, 130 interrupted
"""


def _usage() -> str:
    return USAGE.format(commands="\n".join(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()))


def run(arguments: list[str]) -> int | None:
    """Find a command and hand it the rest.

    Args:
        arguments: the command's name, and its words.

    Returns:
        What the command returns: its exit code, None meaning 0.

    Raises:
        LsrError: with the exit code of what went wrong.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(), end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    name = arguments[0]
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
        code: int | None = importlib.import_module(COMMANDS[name][0]).main(current_argv(name, arguments[1:]))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("lsr_train", "lsr_infer"):
            raise
        raise DeviceError(
            f"{error.name} is not installed in this Python ({sys.prefix}). Install it with pip install '.[train]', or "
            "use the environment that has it: source .venv/bin/activate."
        ) from error
    return code
