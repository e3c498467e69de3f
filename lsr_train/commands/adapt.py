"""`adapt`: from a source checkpoint and unlabelled footage to an adapted network."""

from lsr_train.commands.training import train_command

__all__ = ["main"]


def main(arguments: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    return train_command("adapt", arguments, default_recipe="my_footage")
