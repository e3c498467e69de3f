"""`compare`: every method of a table, from one source stage. Here is only what the command line means; no torch."""

from dataclasses import dataclass

from lsr_train.commands.table_options import TableOptions, read_options

__all__ = ["CompareOptions", "main"]


@dataclass(frozen=True, kw_only=True)
class CompareOptions(TableOptions):
    """What is compared; the rest as any table.

    Args:
        methods: rows by name, with commas; empty means all. FILE.py:CLASS adds a method of your own.

    Raises:
        UsageError: a value is not allowed.
    """

    methods: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The rows that are asked for; empty means all."""
        return tuple(name.strip() for name in self.methods.split(",") if name.strip())


def main(arguments: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    options, words = read_options("compare", arguments, CompareOptions)
    from lsr_train.commands.comparing import compare

    return compare(options, words)
