"""Runs the commands: `python -m lsr_train COMMAND …`."""

import os
import sys

from lsr_infer.errors import exit_status
from lsr_train.commands.dispatch import run


def main() -> None:
    """Entry point of `python -m lsr_train`."""
    # Threads that spin while they wait take the cores from the loader's processes: 16 steps of Toytown on two busy
    # cores took 29 s of processor time against 12. OpenMP reads this when torch is loaded, so it is set here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(exit_status(lambda: run(sys.argv[1:]), needs="train"))


if __name__ == "__main__":
    main()
