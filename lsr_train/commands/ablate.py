"""`ablate`: leaves parts of a method out, sweeps its fields, or searches them without labels."""

from lsr_train.comparison.options import AblateOptions, read_options

__all__ = ["main"]


def main(argv: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    options, arguments = read_options("ablate", argv, AblateOptions)
    from lsr_train.comparison.tables import ablate

    return ablate(options, arguments)
