"""The command `lsr-infer`: which of its parts is meant, signals, and the exit code.

Nothing heavy is imported before the command line is understood, so `--help` answers at once.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from lsr_infer.errors import exit_status, stderr_handler

__all__ = ["main"]

_SOURCES = "segment"
_PARTS = {"info": "info", "bench": "bench", "serve-config": "serve_config"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, handlers=[stderr_handler()])
    command, rest = _command(words)
    return exit_status(lambda: command(rest))


def _command(words: list[str]) -> tuple[Callable[[Sequence[str]], int | None], list[str]]:
    """Return the part that is meant and its words; a first word that is none of the parts is a source."""
    module = _PARTS.get(words[0], _SOURCES) if words else _SOURCES
    main: Callable[[Sequence[str]], int | None] = import_module(f"lsr_infer.commands.{module}").main
    return main, words if module == _SOURCES else words[1:]
