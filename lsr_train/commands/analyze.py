"""Runs `analyze`: draws the paper's figures of one network or several."""

from lsr_train.analysis.options import analyze_options

__all__ = ["HELP", "main"]

HELP = """\
usage: python -m lsr_train analyze [NAME=]RUN|FILE… --data DIR --layout LAYOUT [OPTIONS]

Draws the figures of the paper, and more, of one network or several on labelled images: classes,
feature labels, norms and angles, t-SNE, pseudo-labels, reliability, borders, training curves and
gradients, with captions, and the numbers behind them in analysis.json. Labels are read for the
figures alone.

Options (defaults in brackets):
  --data DIR                the labelled data set; Toytown needs none
  --layout LAYOUT           how it is arranged: folder, gta5, synthia, cityscapes, camvid,
                            toytown-camera … [folder]
  --split NAME              a split of it, such as val; without, everything
  --frames N                only so many images, evenly spread; 0 means all [0]
  --figures A,B             only these: qualitative, downsampling, shares, norms, angles, tsne,
                            pseudo_labels, reliability, borders, curves, gradients [all]
  --formats A,B             of the files: pdf, svg, png [pdf,png]
  --pictures N              images in the qualitative figure [4]
  --over_training           evaluate every checkpoint that a run folder kept, too
  --out FOLDER              of the figures [figures]
  --overwrite               write into a folder that is not empty
  --json                    print the numbers as JSON
  --device DEVICE           auto, cpu, cuda or cuda:N [auto]
  --seed N                  of the sample and of t-SNE [0]

Examples:
  python -m lsr_train analyze runs/adapted --layout toytown-camera --split val --limit 60
  python -m lsr_train analyze before=runs/source after=runs/adapted --data DIR --split val

More: --help all shows every option.
"""


def main(argv: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    options = analyze_options(argv)
    from lsr_train.analysis.analyze import analyze

    return analyze(options)
