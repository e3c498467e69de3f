"""`pretrain`: supervised training on labelled images."""

from lsr_train.commands.training import train_command

__all__ = ["main"]


def main(arguments: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    return train_command("pretrain", arguments, default_recipe=None)
