"""Defines the options of `report`. No torch here."""

import dataclasses
from dataclasses import dataclass

from jsonargparse import ArgumentParser

from lsr_infer.errors import UsageError
from lsr_train.analysis.options import AnalyzeOptions
from lsr_train.config.command_line import parse

__all__ = ["ReportOptions", "report_options"]

_NOT_HERE = ("models", "figures", "formats", "over_training", "json", "pictures")


@dataclass(frozen=True, kw_only=True)
class ReportOptions(AnalyzeOptions):
    """Which runs are shown side by side, and the labelled frames that their networks are run on.

    Args:
        data: folder of a labelled data set, for scores, figures and the worst frames. Without it, and without a Toytown
            layout, the page shows what the runs logged. Labels are read for the page alone.
        worst: how many of the frames on which the last run is worst are shown.
        out: the HTML file.
        overwrite: replace it.

    Raises:
        UsageError: a value is not allowed.
    """

    worst: int = 6
    out: str = "report.html"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.worst <= 50:
            raise UsageError(f"worst is {self.worst}; allowed: 0 to 50. Set --worst.")

    @property
    def usage(self) -> str:
        """The message where no run is named."""
        return "no run is named. Usage: report [NAME=]RUN… [--data FOLDER --layout LAYOUT] --out report.html."

    @property
    def uses_labels(self) -> bool:
        """Whether networks are run on labelled frames."""
        return bool(self.data) or self.layout.startswith("toytown")


def report_options(argv: list[str]) -> ReportOptions:
    """Read a command line.

    Raises:
        UsageError: an argument or a value is not allowed.
    """
    parser = ArgumentParser(prog="python -m lsr_train report", allow_abbrev=False, exit_on_error=False)
    parser.add_argument("models", nargs="*", default=[], help="[NAME=]RUN: run folders, and folders of `compare`")
    parser.add_class_arguments(ReportOptions, as_group=False, skip={*_NOT_HERE, "overwrite"})
    parser.add_argument("--overwrite", action="store_true", help="replace the page")
    namespace = parse(parser, argv)
    names = [item.name for item in dataclasses.fields(ReportOptions) if item.name not in _NOT_HERE]
    return ReportOptions(models=tuple(namespace.models), **{name: getattr(namespace, name) for name in names})
