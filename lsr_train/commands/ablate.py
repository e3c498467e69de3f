"""`ablate`: one row with parts left out, over the values of fields, or searched. No torch here."""

from dataclasses import dataclass

from lsr_infer.errors import UsageError
from lsr_train.commands.table_options import TableOptions, read_options

__all__ = ["AblateOptions", "main"]


@dataclass(frozen=True, kw_only=True)
class AblateOptions(TableOptions):
    """Which row is varied, and how; the rest as any table.

    Without `sweep` and `search`, each of its terms is left out in turn, and feature labels by plain subsampling take
    the place of the histogram's (Fig. 3a).

    Args:
        row: row of the comparison, or a method of your own as FILE.py:CLASS.
        sweep: FIELD=VALUE,VALUE,... trains the row with each; several flags make every combination.
        search: FIELD=LOW..HIGH searches values that raise the label-free signal (selection.signal); no label is read.
            Behind it :log or :linear; without, it is log where both are above 0 and tenfold apart.
        trials: how many points a search has, the row's own values first.

    Raises:
        UsageError: a value is not allowed.
    """

    row: str = "lsr-em"
    sweep: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    trials: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sweep and self.search:
            raise UsageError("--sweep and --search are two commands. Leave one out.")
        if not 1 <= self.trials <= 100_000:
            raise UsageError(f"trials is {self.trials}; allowed: 1 to 100000. Set --trials.")
        for name, value in (("data", self.data), ("supervised", self.supervised)):
            if self.search and value:
                raise UsageError(f"--{name} is about labels, and a search reads none. Leave it out.")


def main(arguments: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    options, words = read_options("ablate", arguments, AblateOptions)
    from lsr_train.commands.ablating import ablate

    return ablate(options, words)
