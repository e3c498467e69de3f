"""`ablate`: leaves parts of a method out, sweeps its fields, or searches them without labels."""

from lsr_train.comparison.options import AblateOptions, read_options

__all__ = ["main"]


def main(arguments: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    options, words = read_options("ablate", arguments, AblateOptions)
    from lsr_train.comparison.tables import ablate

    return ablate(options, words)
