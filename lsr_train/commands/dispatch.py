"""Runs a command by its name, or shows its help; nothing heavy is imported before the command runs."""

import importlib.util
import logging
import re
import sys
import time
from collections.abc import Callable

from lsr_infer.errors import UsageError, stderr_handler
from lsr_train.commands.help_texts import HELP
from lsr_train.commands.option_names import with_own_names
from lsr_train.config.renamed import current_argv

__all__ = ["COMMANDS", "expand_distill", "run"]

USAGE = """usage: python -m lsr_train COMMAND [OPTIONS]

Adapts a road-scene segmentation network from a labelled simulator to your own unlabelled footage.

Commands:
{commands}

`python -m lsr_train COMMAND --help` shows the options that people use, `--help all` every option of a command.
Exit codes: 0 ok, 1 internal, 2 usage, 3 device or extra missing, 4 input or output place unusable, 5 quality gate,
6 partial, 130 interrupted
"""

_TAKE_FIELDS = ("compare", "ablate")
"""Commands that pass fields on to training commands, whose help has the sections."""


def _train(program: str, argv: list[str]) -> int | None:
    from lsr_train.config.command_line import training_request

    request = training_request(program, argv)
    if request is None:
        return 0
    from lsr_train.engine.train import train  # torch comes in here, after every usage error

    return train(request)


def pretrain(argv: list[str]) -> int | None:
    """Train on labelled images: the source stage, or the supervised bound."""
    return _train("pretrain", argv)


def adapt(argv: list[str]) -> int | None:
    """Adapt a network to unlabelled footage, from labelled images or a source checkpoint."""
    started = time.monotonic()  # a budget counts from here
    from lsr_train.autopilot.choices import source_stage, stages_wanted
    from lsr_train.config.command_line import training_request

    request = training_request("adapt", argv)
    if request is None:
        return 0
    if request.resume is not None:
        from lsr_train.runs.folder import STAGES_FILE

        if (request.resume / STAGES_FILE).is_file():
            from lsr_train.autopilot.two_stages import resume_stages

            return resume_stages(request.resume)
    if stages_wanted(request):
        if request.or_resume or request.copy_to:
            raise UsageError(
                "--or_resume and --copy_to are of one training. Set --init to the source stage's run folder."
            )
        source = source_stage(request)
        from lsr_train.autopilot.two_stages import adapt_from_scratch

        return adapt_from_scratch(request, source, started)
    from lsr_train.engine.train import train

    return train(request)


def distill(argv: list[str]) -> int | None:
    """Teach a small student what an adapted network predicts on the footage."""
    return _train("distill", expand_distill(argv))


def expand_distill(argv: list[str]) -> list[str]:
    """Replace the teacher in front and `--size WxH` by the fields they stand for.

    Raises:
        UsageError: the size is not written as width x height.
    """
    expanded: list[str] = []
    rest = iter(argv)
    for position, word in enumerate(rest):
        option, equals, value = word.partition("=")
        if position == 0 and not word.startswith("-"):
            expanded.append(f"--distill.teacher={word}")
        elif option != "--size":
            expanded.append(word)
        else:
            value = value if equals else next(rest, "")
            match = re.fullmatch(r"(\d+)x(\d+)", value)
            if match is None:
                raise UsageError(f"--size is {value!r}; write the student's input as width x height, such as 320x240.")
            for domain in ("source", "target"):
                expanded += [f"--data.{domain}.width={int(match[1])}", f"--data.{domain}.height={int(match[2])}"]
    return expanded


def compare(argv: list[str]) -> int | None:
    """Train and score every method of a table, and write the table."""
    from lsr_train.comparison.options import CompareOptions, read_options

    options, arguments = read_options("compare", argv, CompareOptions)
    from lsr_train.comparison import tables

    return tables.compare(options, arguments)


def ablate(argv: list[str]) -> int | None:
    """Leave parts of a method out, sweep its fields, or search them without labels."""
    from lsr_train.comparison.options import AblateOptions, read_options

    options, arguments = read_options("ablate", argv, AblateOptions)
    from lsr_train.comparison import tables

    return tables.ablate(options, arguments)


@with_own_names()
def analyze(argv: list[str]) -> int | None:
    """Draw the paper's figures of one network or several."""
    from lsr_train.analysis.options import analyze_options

    options = analyze_options(argv)
    from lsr_train.analysis import analyze

    return analyze.analyze(options)


@with_own_names()
def report(argv: list[str]) -> int | None:
    """Show runs side by side on one page that opens from disk."""
    from lsr_train.analysis.options import report_options

    options = report_options(argv)
    from lsr_train.report import report

    return report.report(options)


@with_own_names()
def evaluate(argv: list[str]) -> int | None:
    """Score a checkpoint or an exported file on labelled images."""
    from lsr_train.evaluation.options import evaluate_options

    options = evaluate_options(argv)
    from lsr_train.evaluation import evaluate

    return evaluate.evaluate(options)


@with_own_names()
def suggest(argv: list[str]) -> int | None:
    """Pick the frames most worth labelling, and write them with pre-filled labels."""
    from lsr_train.suggestion.options import suggest_options

    options = suggest_options(argv)
    from lsr_train.suggestion import suggest as suggestion

    return suggestion.suggest(options)


COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "pretrain": pretrain, "adapt": adapt, "distill": distill, "compare": compare, "ablate": ablate, "analyze": analyze,
    "report": report, "evaluate": evaluate, "suggest": suggest,
}  # fmt: skip
"""Commands, in the order of the help; the docstring of each is its line there."""


def _help_topic(argv: list[str]) -> str | None:
    """Return the word behind `--help`, "" where there is none, None where no help is asked for."""
    asked = next((position for position, word in enumerate(argv) if word in ("-h", "--help")), None)
    if asked is None:
        return None
    return next((word for word in argv[asked + 1 : asked + 2] if not word.startswith("-")), "")


def run(argv: list[str]) -> int | None:
    """Find a command by its name, hand it the rest, and return its exit code, None meaning 0; raises `LsrError`."""
    if argv[:1] == ["--version"]:
        from importlib import metadata

        print(f"lsr_train {metadata.version('lsr-road')}")  # noqa: T201 - what was asked for
        return 0
    if not argv and importlib.util.find_spec("torch") is None:  # the runtime alone: no command would run
        raise ModuleNotFoundError("torch", name="torch")
    if not argv or argv[0] in ("-h", "--help", "help"):
        lines = {name: (command.__doc__ or "").rstrip(".") for name, command in COMMANDS.items()}
        table = "\n".join(f"  {name:<10} {text[:1].lower()}{text[1:]}" for name, text in lines.items())
        print(USAGE.format(commands=table), end="", file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    name, *rest = argv
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"there is no command {name!r}.{hint} Commands: {', '.join(COMMANDS)}.")
    logging.basicConfig(level=logging.INFO, handlers=[stderr_handler()])
    logging.getLogger("lsr_train").setLevel(logging.INFO)
    for noisy in ("accelerate", "matplotlib", "torch", "jsonargparse"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    topic = _help_topic(rest)
    if topic == "":
        print(HELP[name], end="")  # noqa: T201 - the result of --help
        return 0
    command = COMMANDS["adapt" if topic not in (None, "all") and name in _TAKE_FIELDS else name]
    return command(["--help", topic] if topic else current_argv(name, rest))
