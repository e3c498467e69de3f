"""Runs commands of `lsr_train` for another process, and never outlives it.

The first line of stdin is a JSON list of commands, each a list of strings. They run one after the other, until one
fails; its exit code is this process's. stdin stays open as long as the parent lives: at its end, this process ends at
once, since a run that nobody waits for would hold its folder against the one who resumes it.
"""

import json
import logging
import os
import sys

from lsr_infer.errors import exit_status, stderr_handler
from lsr_infer.system.process import STDIN, watch_parent

PARTIAL = 6
"""Exit code of a command that left unusable files out; the next command follows all the same."""


def main() -> None:
    """Run the commands that stdin names."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with open(STDIN, "rb", buffering=0, closefd=False) as stdin:  # no buffer: the rest is for `watch_parent`
        commands = json.loads(stdin.readline())
    watch_parent()
    from lsr_train.commands.dispatch import run

    logging.basicConfig(level=logging.INFO, handlers=[stderr_handler()])
    worst = 0
    for argv in commands:
        code = exit_status(lambda argv=argv: run(argv), needs="train", argv=argv)  # type: ignore[misc]  # bound at once
        if code not in (0, PARTIAL):
            sys.exit(code)
        worst = max(worst, code)
    sys.exit(worst)


if __name__ == "__main__":
    main()
