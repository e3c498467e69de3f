"""Runs `report`: shows runs side by side on one page that opens from disk."""

from lsr_train.analysis.options import report_options

__all__ = ["HELP", "main"]

HELP = """\
usage: python -m lsr_train report [NAME=]RUN… [--data DIR --layout LAYOUT] [OPTIONS]

Shows runs side by side in one HTML file that opens from disk and loads nothing from elsewhere:
curves, configurations, hardware and versions, and with labelled images scores, figures and the
worst frames. RUN is a run folder, or a folder that `compare` wrote.

Options (defaults in brackets):
  --data DIR                a labelled data set, for scores, figures and the worst frames
  --layout LAYOUT           how it is arranged: folder, gta5, synthia, cityscapes, camvid,
                            toytown-camera … [folder]
  --split NAME              a split of it, such as val; without, everything
  --limit N                 only the first so many images; 0 means all [0]
  --label_space S           the classes: a name, a YAML file, or the checkpoint's own [auto]
  --worst N                 how many of the worst frames of the last run are shown [6]
  --out FILE                the page [report.html]
  --overwrite               replace it
  --on_bad WHAT             stop at unusable files, or skip them [stop]
  --device DEVICE           auto, cpu, cuda or cuda:N [auto]
  --precision P             auto, fp32, bf16 or fp16 [fp32]

Examples:
  python -m lsr_train report runs/source runs/adapted
  python -m lsr_train report before=runs/source after=runs/adapted --layout toytown-camera

More: --help all shows every option.
"""


def main(argv: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    options = report_options(argv)
    from lsr_train.report.report import report

    return report(options)
