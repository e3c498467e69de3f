"""A command-line parser whose mistakes are `UsageError`s that name the nearest flag."""

import argparse
import difflib
import re
from typing import NoReturn

from lsr_infer.errors import UsageError

__all__ = ["ArgumentParser"]


class ArgumentParser(argparse.ArgumentParser):
    """argparse that takes no abbreviations and raises instead of ending the process.

    Raises:
        UsageError: from `parse_args`, in one line: what is wrong, the nearest flag to an unknown one, where help is.
    """

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:  # noqa: D102 - argparse's own
        unknown = re.search(r"unrecognized arguments:.*?(--[\w-]+)", message)
        near = difflib.get_close_matches(unknown[1], self._option_string_actions, n=1) if unknown else []
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"{message.rstrip('.')}.{hint} See {self.prog} --help.")
