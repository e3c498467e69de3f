"""What the training commands share: the command line is understood and checked before torch is imported."""

from lsr_infer.errors import UsageError
from lsr_train.commands.configuration import resolve
from lsr_train.config import COMMAND_METHODS
from lsr_train.config_file import to_yaml

__all__ = ["train_command"]


def train_command(program: str, arguments: list[str], *, default_recipe: str | None) -> int | None:
    """Run a training command.

    Args:
        program: one of `COMMAND_METHODS`, which says what it runs.
        arguments: the words after it.
        default_recipe: used where the user names none.

    Returns:
        0 when finished, 130 when interrupted (after a checkpoint), 6 when finished without the files that
        `data.on_bad skip` left out.

    Raises:
        LsrError: with the exit code of what went wrong.
    """
    request = resolve(program, arguments, default_recipe)
    config = request.config
    if request.print_config:
        print(to_yaml(config), end="")  # noqa: T201 - the result of --print_config
        return 0
    methods = COMMAND_METHODS[program]
    if config.method not in methods:
        other = next(name for name, theirs in COMMAND_METHODS.items() if config.method in theirs)
        raise UsageError(
            f"{program} runs {', '.join(methods)}; {config.method} is run by {other}. Set --method, or use {other}."
        )
    if program == "adapt" and not config.init and request.resume is None:
        raise UsageError(
            "adapt starts from a source checkpoint. Make one with `python -m lsr_train pretrain --recipe …`, then pass "
            "--init RUN (or a .safetensors or .pth file)."
        )
    if program == "distill" and not config.distill.teacher:
        raise UsageError(
            "distill needs a teacher. Name a run folder, a checkpoint folder or a .safetensors file in front: "
            "`python -m lsr_train distill TEACHER …`."
        )
    if request.resume is None and not config.data.source.root and not config.data.source.layout.startswith("toytown"):
        raise UsageError("no labelled source is named. Set --data.source.root (or --source).")
    what = config.needs_target()
    if what is not None and not config.data.target.given:
        raise UsageError(f"{what} needs unlabelled target frames. Set --data.target.root (or --target).")
    from lsr_train.commands.running import train  # torch comes in here, after every usage error has been said

    return train(request)
