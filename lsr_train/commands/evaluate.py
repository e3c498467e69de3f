"""`evaluate`: scores a checkpoint or an exported file on labelled images."""

from lsr_train.evaluation.options import evaluate_options

__all__ = ["main"]


def main(arguments: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    options = evaluate_options(arguments)
    from lsr_train.evaluation.evaluate import score

    return score(options)
