"""Runs `ablate`: leaves parts of a method out, sweeps its fields, or searches them without labels."""

from lsr_train.comparison.options import AblateOptions, read_options

__all__ = ["HELP", "main"]

HELP = """\
usage: python -m lsr_train ablate --recipe NAME|FILE [--run METHOD] [--sweep … | --search …]

Varies one method of a comparison. Without --sweep and --search each of its terms is left out in
turn, and feature labels by plain subsampling take the place of the histogram's (Fig. 3a). A
search raises the label-free signal and reads no label. The same command continues where an
earlier one was interrupted.

Options (defaults in brackets):
  --recipe NAME|FILE        a comparison: toytown, streets_camvid, gta5_cityscapes,
                            synthia_cityscapes, or a YAML file
  --run METHOD              the method of it that is varied, or FILE.py:CLASS [lsr-em]
  --sweep FIELD=A,B,C       train with each value; several flags make every combination
  --search FIELD=LOW..HIGH  search values between; behind it :log or :linear
  --trials N                points of a search [20]
  --seeds N|A,B             how many seeds, or which [1]
  --out FOLDER              of the table and all of its runs
  --source DIR              the labelled folder; Toytown needs none
  --target DIR|GLOB|VIDEO   the unlabelled footage
  --data DIR                the labelled images that are scored [those of --target]
  --init FILE               start from this source checkpoint; {seed} stands for the seed
  --devices A,B             train at the same time on these, such as cuda:0,cuda:1 or cpu,cpu
                            [auto]
  --json                    print the table as JSON
  --SECTION.FIELD VALUE     data, network and train.device for all runs, anything else for those
                            that adapt

Examples:
  python -m lsr_train ablate --recipe toytown --run lsr --sweep weights.cluster=1e-5,1e-4
  python -m lsr_train ablate --recipe toytown --run minent --search weights.entropy=1e-4..1e-1

More: --help all shows every option of its own, --help SECTION the fields of one of network, data,
augment, optim, train, selection, log, weights, …
"""


def main(argv: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    options, arguments = read_options("ablate", argv, AblateOptions)
    from lsr_train.comparison.tables import ablate

    return ablate(options, arguments)
