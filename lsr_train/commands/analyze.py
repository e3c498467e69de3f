"""`analyze`: draws the paper's figures of one network or several."""

from lsr_train.analysis.options import analyze_options

__all__ = ["main"]


def main(arguments: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    options = analyze_options(arguments)
    from lsr_train.analysis.analyze import analyze

    return analyze(options)
