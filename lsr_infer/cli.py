"""Runs the command `lsr-infer`: finds the command that is meant, and returns the exit code.

Nothing heavy is imported before the command line is understood, so `--help` answers at once.
"""

import logging
import os
import sys
import threading
from collections.abc import Sequence
from importlib import import_module

from lsr_infer.errors import UsageError, exit_status, stderr_handler

__all__ = ["main"]

_READERS = ("prefetch", "live ", "camera ")
"""Names of the threads that read sources."""
_COMMANDS = {"info": "info", "bench": "bench", "serve-config": "serve_config", "archive": "archive"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    code = exit_status(lambda: _run(argv), argv=argv)
    if arguments is None and any(thread.name.startswith(_READERS) for thread in threading.enumerate()):
        # A source that fell silent still holds its reader inside libav, under which Python's own end would free the
        # container: seen as a segmentation fault. Everything is written and closed by now.
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    return code


def _run(argv: list[str]) -> None:
    """Run the command that the first argument names; one that is no command is a source."""
    logging.basicConfig(level=logging.INFO, handlers=[stderr_handler()])
    first, *rest = argv or [""]
    if first == "--version":
        if rest:
            raise UsageError(f"--version stands alone, here is {rest[0]!r} too.")
        from importlib import metadata

        print(f"lsr-infer {metadata.version('lsr-road')}")  # noqa: T201 - what was asked for
    elif first in _COMMANDS:
        import_module(f"lsr_infer.commands.{_COMMANDS[first]}").main(rest)
    else:
        from difflib import get_close_matches

        near = get_close_matches(first, _COMMANDS, n=1, cutoff=0.75)
        if near and not os.path.lexists(first):
            raise UsageError(f"there is no command or file {first!r}. Did you mean {near[0]}? See lsr-infer --help.")
        import_module("lsr_infer.commands.segment").main(argv)
