"""`adapt`: from a source checkpoint and unlabelled footage to an adapted network."""

from lsr_train.commands.training import train_command
from lsr_train.config import METHOD_NAMES, SUPERVISED_METHODS

__all__ = ["main"]


def main(arguments: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    methods = tuple(name for name in METHOD_NAMES if name not in SUPERVISED_METHODS)
    return train_command("adapt", arguments, methods=methods, default_recipe="my_footage")
