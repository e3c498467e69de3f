"""`distill`: from a finished network to a small one that has learnt its opinion of the same footage."""

import re

from lsr_infer.errors import UsageError
from lsr_train.commands.training import train_command

__all__ = ["main"]

_SIZE = re.compile(r"(\d+)x(\d+)")


def main(arguments: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    return train_command("distill", expand(arguments), default_recipe="my_footage_distill")


def expand(arguments: list[str]) -> list[str]:
    """Replace the teacher in front and `--size WxH` by the fields they stand for.

    Raises:
        UsageError: the size is not written as width x height.
    """
    words = list(arguments)
    expanded: list[str] = []
    if words and not words[0].startswith("-"):
        expanded.append(f"--distill.teacher={words.pop(0)}")
    while words:
        word, equals, value = words.pop(0).partition("=")
        if word != "--size":
            expanded.append(word + equals + value)
            continue
        if not equals:
            value = words.pop(0) if words else ""
        match = _SIZE.fullmatch(value)
        if match is None:
            raise UsageError(f"--size is {value!r}; write the student's input as width x height, such as 320x240.")
        width, height = (int(part) for part in match.groups())
        for domain in ("source", "target"):
            expanded += [f"--data.{domain}.width={width}", f"--data.{domain}.height={height}"]
    return expanded
