"""What `compare` does once its command line is understood: read the comparison, choose its rows, make the table."""

from dataclasses import replace
from pathlib import Path

from lsr_train.comparison.options import CompareOptions, Words
from lsr_train.comparison.plan import chosen_rows, read_comparison
from lsr_train.comparison.tables import make_table

__all__ = ["compare"]


def compare(options: CompareOptions, words: Words) -> int:
    """Train and score what is not there yet, and write the table.

    Args:
        options: the command's own.
        words: those for the runs.

    Returns:
        0; 6 where a run failed or its folder is damaged or another's: it is named, and not in the table.

    Raises:
        LsrError: with the exit code of what went wrong.
    """
    comparison = read_comparison(options.recipe)
    if options.names:
        comparison = replace(comparison, rows=chosen_rows(comparison, options.names))
    return make_table(comparison, options, words, Path(options.out or f"runs/{comparison.name}"))
