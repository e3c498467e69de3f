"""`compare`: trains and scores every method of a table, from one source stage."""

from lsr_train.comparison.options import CompareOptions, read_options

__all__ = ["main"]


def main(argv: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    options, arguments = read_options("compare", argv, CompareOptions)
    from lsr_train.comparison.tables import compare

    return compare(options, arguments)
