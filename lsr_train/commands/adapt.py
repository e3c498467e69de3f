"""Runs `adapt`: from labelled images, or a source checkpoint, and unlabelled footage to an adapted network."""

from lsr_train.autopilot.choices import STAGES_FILE, source_stage, stages_wanted
from lsr_train.config.command_line import training_request

__all__ = ["HELP", "main"]

HELP = """\
usage: python -m lsr_train adapt --source DIR --target DIR|GLOB|VIDEO [--SECTION.FIELD VALUE]…
       python -m lsr_train adapt --resume RUN

Adapts a network to unlabelled footage. Without --init it trains the source stage first, beside
--out, or takes one that is there and matches; what neither the command line nor a named recipe
sets is chosen for the footage, the memory and the device, and noted in the run folder.

Options (defaults in brackets; a recipe may set others):
  --source DIR              labelled images of a simulator: images/, labels/ and classes.yaml
  --target DIR|GLOB|VIDEO   footage of the camera that the network is for; no label of it is read
  --budget TIME             time for both stages, such as 90s, 30m or 2h
  --out RUN                 the run folder to make [runs/selftraining]
  --resume RUN              continue an interrupted run
  --init RUN|FILE           adapt this checkpoint instead of training a source stage
  --recipe NAME|FILE        settings by name, such as gta5_cityscapes_lsr, or a YAML file
                            [selftraining]
  --method NAME             lsr-st, lsr-em, lsr, self-training, minent … or FILE.py:CLASS [lsr-st]
  --data.source.layout L    how --source is arranged: folder, gta5, synthia, cityscapes, camvid …
                            [folder]
  --network.backbone NAME   resnet18, resnet34, resnet50 or resnet101 [resnet50]
  --train.steps N           length of the adaptation [4000]
  --data.batch_size N       images of each domain in a step [4]
  --data.on_bad WHAT        stop at unusable files, or skip them [stop]
  --train.device DEVICE     auto, cpu, cuda or cuda:N [auto]
  --source_stage.SECTION.FIELD VALUE
                            what only the source stage has, such as --source_stage.train.steps
                            9000
  --print_config            show the whole resolved configuration, and do nothing else

Examples:
  python -m lsr_train adapt --source SIMULATOR --target CLIP.mp4 --budget 2h
  python -m lsr_train adapt --recipe toytown_lsr_em --init runs/source --out runs/adapted

More: --help all shows every option, --help SECTION one of network, data, augment, optim, train,
selection, log, self_training, weights, …
"""


def main(argv: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    request = training_request("adapt", argv)
    if request is None:
        return 0
    if request.resume is not None and (request.resume / STAGES_FILE).is_file():
        from lsr_train.autopilot.two_stages import resume_stages

        return resume_stages(request.resume)
    if stages_wanted(request):
        source = source_stage(request)  # every usage error is raised before torch comes in
        from lsr_train.autopilot.two_stages import adapt_from_scratch

        return adapt_from_scratch(request, source)
    from lsr_train.engine.train import train

    return train(request)
