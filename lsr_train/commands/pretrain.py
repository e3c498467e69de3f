"""Runs `pretrain`: supervised training on labelled images."""

from lsr_train.config.command_line import training_request

__all__ = ["HELP", "main"]

HELP = """\
usage: python -m lsr_train pretrain --recipe NAME|FILE [--source DIR] [--SECTION.FIELD VALUE]…
       python -m lsr_train pretrain --resume RUN

Trains on labelled images: the source stage that `adapt --init` starts from, or, with method
target-only, the supervised bound on the target. A run folder holds its configuration, log and
checkpoints.

Options (defaults in brackets; a recipe may set others):
  --recipe NAME|FILE        settings by name, such as my_footage_source or toytown_source, or a
                            YAML file
  --source DIR              the labelled folder: images/, labels/ and classes.yaml; Toytown needs
                            none
  --data.source.layout L    how it is arranged: folder, gta5, synthia, cityscapes, camvid,
                            toytown-game … [folder]
  --target DIR|GLOB|VIDEO   unlabelled footage, to take colours or batch-norm statistics from
  --out RUN                 the run folder to make [runs/RECIPE]
  --resume RUN              continue an interrupted run
  --init RUN|FILE           start from a checkpoint instead of network.weights
  --network.backbone NAME   resnet18, resnet34, resnet50 or resnet101 [resnet101]
  --network.weights W       imagenet (fetched once), none, or a file [imagenet]
  --train.steps N           length [1000]
  --data.batch_size N       images in a step [1]
  --optim.lr RATE           base learning rate [0.00025]
  --train.device DEVICE     auto, cpu, cuda or cuda:N [auto]
  --seed N                  of everything random [0]
  --print_config            show the whole resolved configuration, and do nothing else

Examples:
  python -m lsr_train pretrain --recipe toytown_source --out runs/source
  python -m lsr_train pretrain --recipe my_footage_source --source SIMULATOR --out runs/source

More: --help all shows every option, --help SECTION one of network, data, augment, optim, train,
selection, log, and the sections of single methods, such as weights.
"""


def main(argv: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    request = training_request("pretrain", argv)
    if request is None:
        return 0
    from lsr_train.engine.train import train  # torch comes in here, after every usage error

    return train(request)
