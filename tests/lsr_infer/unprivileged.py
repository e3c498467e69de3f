"""Commands run by somebody whom the rights of files bind, which they do not bind root."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = "import sys; from lsr_infer.cli import main; sys.exit(main())"
Command = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def unprivileged(*locked: Path, script: str | None = None) -> Iterator[Command]:
    """Give what runs `lsr-infer` in a process of its own, or skip; at the end the locked folders may be cleared away.

    Root keeps its name, so that it still reaches the folders of the tests, and gives up the right to read everything.

    Args:
        locked: folders without rights.
        script: of the checkout, to run instead of `lsr-infer`.
    """
    words: list[str] = []
    if os.geteuid() == 0:
        words = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
        if shutil.which("setpriv") is None or subprocess.run([*words, "true"], check=False).returncode:
            pytest.skip("root cannot give up its rights here: setpriv is missing or not allowed")

    def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*words, sys.executable, *(["-c", RUN] if script is None else [script]), *map(str, arguments)],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    try:
        yield command
    finally:
        for folder in locked:
            folder.chmod(0o755)
