"""Turns the command line of a training command into a checked `Config`, and says where its run goes."""

import argparse
import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import (  # type: ignore[attr-defined]  # ActionConfigFile is documented, but not in its __all__
    ActionConfigFile,
    ArgumentParser,
    Namespace,
)

from lsr_infer.errors import InputError, UsageError
from lsr_train.config.fields import fields_of
from lsr_train.config.methods import METHOD_SPECS, command_of
from lsr_train.config.parser import known_flags, parse, read_document
from lsr_train.config.recipes import check_whole, recipe_path, to_yaml
from lsr_train.config.renamed import current_document
from lsr_train.config.run import Config

__all__ = [
    "DEFAULT_RECIPES",
    "SHORT_NAMES",
    "Request",
    "config_from_text",
    "parse_duration",
    "resolve",
    "run_options",
    "training_request",
]

_SOURCE_STAGE = "--source_stage."
SHORT_NAMES = {
    "--source": "--data.source.root",
    "--target": "--data.target.root",
    "--student": "--network.backbone",
    "--width": "--network.width",
}

_UNITS = {"s": 1, "m": 60, "h": 3600}

DEFAULT_RECIPES = {"adapt": "selftraining", "distill": "my_footage_distill"}
"""The recipe of a command where none is named; without one, the defaults of `Config`."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a training command was asked for.

    Args:
        config: the resolved configuration.
        out: the run folder to make; None when resuming.
        resume: the run folder to continue; None for a new run.
        print_config: whether only to show the configuration.
        budget: seconds for the whole command; None leaves lengths as they are configured.
        flags: dotted names of the fields that the command line sets, by themselves or with their section.
        stated: these and those of the recipe that it names.
        source_stage: what it sets of the source stage alone, as a command line of `pretrain`.
    """

    config: Config
    out: Path | None
    resume: Path | None
    print_config: bool
    budget: float | None = None
    flags: frozenset[str] = frozenset()
    stated: frozenset[str] = frozenset()
    source_stage: tuple[str, ...] = ()


def parse_duration(text: str) -> float:
    """Read `90s`, `30m` or `2h` as seconds.

    Raises:
        UsageError: it is no such text, or 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = float(match[1]) * _UNITS[match[2]] if match is not None else 0.0
    if not seconds:
        raise UsageError(f"--budget is {text!r}; write a time such as 90s, 30m or 2h.")
    return seconds


def _parser(program: str) -> ArgumentParser:
    short = ", ".join(f"{name} for {long}" for name, long in SHORT_NAMES.items())
    parser = ArgumentParser(
        prog=f"python -m lsr_train {program}", allow_abbrev=False, exit_on_error=False, epilog=f"Short names: {short}."
    )
    parser.add_argument("--recipe", action=ActionConfigFile, help="a recipe by name, or a YAML file")
    parser.add_argument("--out", type=str, default="", help="the run folder to make (default: runs/RECIPE)")
    parser.add_argument("--resume", type=str, default="", help="continue this run folder as it is configured")
    if program == "adapt":
        parser.add_argument("--budget", type=str, default="", help="time for both stages, such as 90s, 30m or 2h")
    parser.add_argument("--show_config", action="store_true", help=argparse.SUPPRESS)  # --print_config
    parser.add_class_arguments(Config, as_group=False)
    return parser


def _expand(argv: list[str]) -> list[str]:
    """Replace short names and `--print_config`, and bring the recipe to the front as a path."""
    expanded: list[str] = []
    recipes: list[str] = []
    rest = iter(argv)
    for option in rest:
        word, equals, value = option.partition("=")
        if word == "--recipe":
            value = value if equals else next(rest, "")
            if not value:
                raise UsageError("--recipe needs a name or a YAML file.")
            if recipes:
                raise UsageError("--recipe is given twice. Copy one of them, and put the other's fields in.")
            recipes = ["--recipe", str(recipe_path(value))]
            continue
        long = {"--print_config": "--show_config", **SHORT_NAMES}.get(word, word)
        if long != word and any(other.partition("=")[0] == long for other in argv):
            raise UsageError(f"{word} and {long} are the same. Take one of them.")
        word = long
        expanded.append(f"{word}={value}" if equals else word)
    return recipes + expanded


def _without_source_stage(argv: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Take the options of the source stage out; they come back as a command line of `pretrain`.

    Raises:
        UsageError: one of them has no value.
    """
    kept: list[str] = []
    taken: list[str] = []
    rest = iter(argv)
    for word in rest:
        if not word.startswith(_SOURCE_STAGE):
            kept.append(word)
            continue
        name, equals, value = word.removeprefix(_SOURCE_STAGE).partition("=")
        if not equals:
            value = next(rest, "--")
            if value.startswith("--"):
                raise UsageError(f"{word} needs a value.")
        taken += [f"--{name}", value]
    return kept, tuple(taken)


def _set_by(expanded: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the dotted names that flags set (a section: all below it), and those that the recipe in front sets."""
    options = {word[2:].partition("=")[0] for word in expanded if word.startswith("--")}
    flags = frozenset(
        options | {name for name, _ in fields_of(Config()) if any(name.startswith(f"{option}.") for option in options)}
    )
    if expanded[:1] != ["--recipe"]:
        return flags, frozenset()

    return flags, frozenset(_flat(read_document(Path(expanded[1])) or {}))


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a recipe by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def run_options() -> set[str]:
    """Return the options of training commands without dashes: fields, sections and short names."""
    return known_flags(_parser("pretrain")) | {name.removeprefix("--") for name in SHORT_NAMES}


def _cut_default_crop(namespace: Namespace, flags: frozenset[str]) -> None:
    """Cut a crop that only the default recipe states to the images, whose sizes the command line may state."""
    if flags & {"augment.crop_height", "augment.crop_width"}:
        return
    scale = namespace["augment.scale_min"]
    for side in ("height", "width"):
        images = (namespace[f"data.source.{side}"], namespace[f"data.target.{side}"])
        crop = f"augment.crop_{side}"
        namespace[crop] = min(namespace[crop], *(max(0, int(image * scale)) for image in images))


def _config(namespace: Namespace) -> Config:
    """Build the tree; this runs every check."""
    values = {item.name: getattr(namespace, item.name) for item in dataclasses.fields(Config)}
    return Config(**values)


def config_from_text(text: str, where: str, *, lenient: bool = False) -> Config:
    """Read a `config.yaml` back, also one of an earlier version.

    Args:
        text: YAML of the whole tree.
        where: the file, for messages.
        lenient: whether fields that are gone may have had any value, as where a run is shown and not resumed.

    Raises:
        InputError: it is no YAML, breaks off, or a field is unknown or not allowed.
    """
    try:
        document = yaml.safe_load(text)
        if not isinstance(document, dict) or "method" not in document:
            raise InputError(f"{where}: this is no configuration of a run (no method in it).")
        check_whole(text, document, where)
        document = current_document(document, "", of_a_run=True, lenient=lenient)
        parser = ArgumentParser(allow_abbrev=False, exit_on_error=False)
        parser.add_class_arguments(Config, as_group=False)
        return _config(parser.instantiate(parser.parse_object(document)))
    except InputError:
        raise
    except UsageError as error:
        raise InputError(f"{where}: {error}") from error
    except Exception as error:
        raise InputError(f"{where}: this is no configuration of a run ({' '.join(str(error).split())}).") from error


def resolve(program: str, argv: list[str], default_recipe: str | None) -> Request:
    """Turn a command line into a request.

    Args:
        program: the command's name, for messages.
        argv: what follows it.
        default_recipe: the recipe used where none is named; None means the defaults of `Config`.

    Raises:
        UsageError: an unknown flag, key, recipe or value.
        InputError: the run to resume is not there.
    """
    source_stage: tuple[str, ...] = ()
    if program == "adapt":
        argv, source_stage = _without_source_stage(argv)
    expanded = _expand(argv)
    recipe = Path(expanded[1]).stem if expanded[:1] == ["--recipe"] else default_recipe
    own = expanded
    parser = _parser(program)
    if expanded[:1] != ["--recipe"] and default_recipe is not None:
        if {"-h", "--help"} & set(expanded):
            parser.set_defaults(_flat(read_document(recipe_path(default_recipe))))
        expanded = ["--recipe", str(recipe_path(default_recipe)), *expanded]
    namespace = parse(parser, expanded, [name.removeprefix("--") for name in SHORT_NAMES])
    if namespace.resume:
        options = [word.partition("=")[0] for word in (*argv, *source_stage) if word.startswith("-")]
        if options != ["--resume"]:
            raise UsageError("--resume continues a run as its config.yaml says; give it no other option.")
        path = Path(namespace.resume)
        file = path / "config.yaml"
        if not file.is_file():
            raise InputError(f"{path}: no run to resume (no config.yaml in it). Start one with --out.")
        config = config_from_text(file.read_text(encoding="utf-8"), str(file))
        return Request(config=config, out=None, resume=path, print_config=False)
    flags, in_recipe = _set_by(own)
    if default_recipe is not None and own[:1] != ["--recipe"]:
        _cut_default_crop(namespace, flags)
    config = _config(parser.instantiate(namespace))
    out = Path(namespace.out) if namespace.out else Path("runs") / (recipe or config.method)
    budget = getattr(namespace, "budget", "")
    return Request(
        config=config,
        out=out,
        resume=None,
        print_config=namespace.show_config,
        budget=parse_duration(budget) if budget else None,
        flags=flags,
        stated=flags | in_recipe,
        source_stage=source_stage,
    )


def training_request(program: str, argv: list[str], default_recipe: str | None = None) -> Request | None:
    """Turn the command line of a training command into a request that is checked; loads no torch.

    Args:
        program: `pretrain`, `adapt` or `distill`.
        argv: what follows it.
        default_recipe: used where none is named; None takes that of `DEFAULT_RECIPES`.

    Returns:
        The request; None where only the configuration was to be shown, which is done.

    Raises:
        UsageError: an unknown word, a value that is not allowed, or something that is missing.
        InputError: the run to resume is not there.
    """
    request = resolve(program, argv, default_recipe or DEFAULT_RECIPES.get(program))
    config = request.config
    if request.print_config:
        print(to_yaml(config), end="")  # noqa: T201 - the result of --print_config
        return None
    other = command_of(config.method)
    if program != other:
        methods = ", ".join(name for name, spec in METHOD_SPECS.items() if spec.command == program)
        raise UsageError(f"{program} runs {methods}; {config.method} is run by {other}. Set --method, or use {other}.")
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
