"""What the training commands share: the command line is understood and checked before torch is imported."""

from lsr_infer.errors import UsageError
from lsr_train.config.command_line import Request, resolve
from lsr_train.config.recipes import to_yaml
from lsr_train.config.run import COMMAND_METHODS, is_foreign

__all__ = ["train_command", "understand"]


def train_command(program: str, arguments: list[str], *, default_recipe: str | None) -> int | None:
    """Run a training command of one stage.

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
    request = understand(program, arguments, default_recipe=default_recipe)
    if request is None:
        return 0
    from lsr_train.engine.train import train  # torch comes in here, after every usage error has been said

    return train(request)


def understand(program: str, arguments: list[str], *, default_recipe: str | None) -> Request | None:
    """Turn the words of a training command into a request that is checked; loads no torch.

    Args: as `train_command`.

    Returns:
        The request; None where only the configuration was to be shown, which is done.

    Raises:
        UsageError: an unknown word, a value that is not allowed, or something that is missing.
        InputError: the run to resume is not there.
    """
    request = resolve(program, arguments, default_recipe)
    config = request.config
    if request.print_config:
        print(to_yaml(config), end="")  # noqa: T201 - the result of --print_config
        return None
    methods = COMMAND_METHODS[program]
    if config.method not in methods and not (program == "adapt" and is_foreign(config.method)):
        other = next((name for name, theirs in COMMAND_METHODS.items() if config.method in theirs), "adapt")
        raise UsageError(
            f"{program} runs {', '.join(methods)}; {config.method} is run by {other}. Set --method, or use {other}."
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
    return request
