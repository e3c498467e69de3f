"""A command-line parser whose mistakes are `UsageError`s that name the nearest flag."""

import argparse
import difflib
import re
import sys
from typing import NoReturn

from lsr_infer.errors import UsageError

__all__ = ["ArgumentParser", "parse_size"]


class ArgumentParser(argparse.ArgumentParser):
    """argparse that takes no abbreviations and raises instead of ending the process.

    Raises:
        UsageError: from `parse_args`, in one line: what is wrong, the nearest flag to an unknown one, where help is.
    """

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False)

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]  # noqa: D102 - argparse's own
        args = sys.argv[1:] if args is None else args
        if any(word == "" or re.fullmatch(r"--[\w-]+=", word) for word in args):
            raise UsageError(f"a name is empty among the words of {self.prog}. Was a variable of the shell not set?")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:  # noqa: D102 - argparse's own
        unknown = re.search(r"unrecognized arguments:.*?(--[\w-]+)", message)
        near = difflib.get_close_matches(unknown[1], self._option_string_actions, n=1) if unknown else []
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"{message.rstrip('.')}.{hint} See {self.prog} --help.")


def parse_size(text: str) -> tuple[int, int]:
    """Read `1024x512`, width x height, as (height, width).

    Raises:
        UsageError: it is no such text.
    """
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None or not (int(match[1]) and int(match[2])):
        raise UsageError(f"the size is {text!r}; write it as width x height, such as 1024x512.")
    return int(match[2]), int(match[1])
