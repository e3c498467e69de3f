"""`report`: shows runs side by side on one page that opens from disk."""

from lsr_train.report.options import report_options

__all__ = ["main"]


def main(arguments: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    options = report_options(arguments)
    from lsr_train.report.build import report

    return report(options)
