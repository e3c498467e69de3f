"""Runs `compare`: trains and scores every method of a table, from one source stage."""

from lsr_train.comparison.options import CompareOptions, read_options

__all__ = ["HELP", "main"]

HELP = """\
usage: python -m lsr_train compare --recipe NAME|FILE [--seeds N] [--SECTION.FIELD VALUE]…

Trains every method of a comparison from one source stage, scores all of them on the same labelled
images, and writes the table as Markdown, LaTeX, CSV and JSON. The same command continues where an
earlier one was interrupted, and skips what is done; several at once share the work.

Options (defaults in brackets):
  --recipe NAME|FILE        a comparison: toytown, streets_camvid, gta5_cityscapes,
                            synthia_cityscapes, or a YAML file
  --methods A,B             only these of its methods; FILE.py:CLASS adds one of your own [all]
  --seeds N|A,B             how many seeds, or which [1]
  --out FOLDER              of the table and all of its runs
  --source DIR              the labelled folder; Toytown needs none
  --target DIR|GLOB|VIDEO   the unlabelled footage
  --data DIR                the labelled images that are scored [those of --target]
  --init FILE               start from this source checkpoint; {seed} stands for the seed
  --supervised RESULT.json  of target-supervised training (evaluate --out), for mASR
  --devices A,B             train at the same time on these, such as cuda:0,cuda:1 or cpu,cpu
                            [auto]
  --json                    print the table as JSON
  --source_stage.SECTION.FIELD VALUE, --target_only.SECTION.FIELD VALUE
                            what only the source stage, or only the supervised bound, has
  --SECTION.FIELD VALUE     data, network and train.device for all runs, anything else for those
                            that adapt

Examples:
  python -m lsr_train compare --recipe toytown --out runs/table
  python -m lsr_train compare --recipe gta5_cityscapes --seeds 3 --source GTA5 --target CITYSCAPES

More: --help all shows every option of its own, --help SECTION the fields of one of network, data,
augment, optim, train, selection, log, weights, …
"""


def main(argv: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    options, arguments = read_options("compare", argv, CompareOptions)
    from lsr_train.comparison.tables import compare

    return compare(options, arguments)
