"""`adapt`: from labelled images and unlabelled footage, or a source checkpoint and footage, to an adapted network."""

from lsr_train.autopilot.choices import STAGES_FILE, source_stage, stages_wanted
from lsr_train.commands.training import understand

__all__ = ["main"]


def main(arguments: list[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    request = understand("adapt", arguments, default_recipe="selftraining")
    if request is None:
        return 0
    if request.resume is not None and (request.resume / STAGES_FILE).is_file():
        from lsr_train.autopilot.two_stages import resume_stages

        return resume_stages(request.resume)
    if stages_wanted(request):
        source = source_stage(request)  # every usage error is said before torch comes in
        from lsr_train.autopilot.two_stages import adapt_from_scratch

        return adapt_from_scratch(request, source)
    from lsr_train.engine.train import train

    return train(request)
