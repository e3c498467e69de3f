"""Reads command lines with jsonargparse, and turns those of training commands into a checked `Config`.

jsonargparse suggests no near name by itself and spreads an error over several lines. Flags and the keys of recipes are
therefore checked here first, against what the parser knows, and whatever is wrong is one line.
"""

import argparse
import logging
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from itertools import zip_longest
from math import inf
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser, Namespace  # type: ignore[attr-defined]

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.addresses import label
from lsr_infer.io.stores import has_secret, is_store, is_url
from lsr_train.config.data import MoreSourceConfig, check_named
from lsr_train.config.fields import fields_of, hint
from lsr_train.config.method_values import fitted
from lsr_train.config.recipes import (
    build,
    check_keys,
    flat,
    read_config,
    read_document,
    recipe_path,
    to_yaml,
)
from lsr_train.config.run import METHOD_SPECS, Config, command_of

__all__ = [
    "DEFAULT_RECIPES", "SHORT_NAMES", "Request", "parse", "parse_duration", "resolve", "run_options",
    "training_request", "unknown_option",
]  # fmt: skip

logger = logging.getLogger(__name__)

SHORT_NAMES = {
    "--source": "--data.source.root",
    "--target": "--data.target.root",
    "--labelled": "--data.labelled.root",
    "--student": "--network.backbone",
    "--width": "--network.width",
}

DEFAULT_RECIPES = {"adapt": "selftraining", "distill": "my_footage_distill"}
"""The recipe of a command where none is named; without one, the defaults of `Config`."""

_SOURCE_STAGE = "--source_stage."
_UNITS = {"s": 1, "m": 60, "h": 3600}
_WRONG_VALUE = re.compile(
    r'Parser key "(?P<key>[^"]+)":\s+Expected a (?:<class \'(?P<type>\w+)\'>|(?P<other>.+?))\. Got value: (?P<value>.*)'
)
_LITERAL = re.compile(r"typing\.Literal\[(?P<names>.+)\]")
_TYPES = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text", "tuple": "a list"}


# -- any command ----------------------------------------------------------------------------------------------------


def parse(parser: ArgumentParser, argv: list[str], short: Collection[str] = ()) -> Namespace:
    """Read a command line.

    Args:
        parser: made with `allow_abbrev=False, exit_on_error=False`.
        argv: what follows the command's name; `--help TOPIC` shows a section of the options, or all.
        short: options that the parser does not see, since they stand for others, to be named to who mistypes them.

    Raises:
        UsageError: an unknown flag, word or YAML key (with the nearest known name), a missing or wrong value.
        InputError: a configuration file cannot be read or is no YAML.
        SystemExit: 0 after `--help`.
    """
    asked = next((position for position, word in enumerate(argv) if word in ("-h", "--help")), None)
    if asked is not None:
        topic = next((word for word in argv[asked + 1 :][:1] if not word.startswith("-")), "all")
        print(_help_on(parser, topic), end="")  # noqa: T201 - the result of --help
        raise SystemExit(0)
    known = _known_flags(parser)
    for word in argv[: argv.index("--")] if "--" in argv else argv:
        name = word.removeprefix("--").partition("=")[0]
        if word.startswith("--") and name not in known and name.removesuffix("+") not in known:
            raise unknown_option(name, known | set(short), parser.prog)
    argv = _with_checked_files(parser, argv)
    try:
        namespace = parser.parse_args(argv)
    except ArgumentError as error:
        raise UsageError(_one_line(error.message, parser, known | set(short))) from error
    for name in ("out", "resume", "overlay_dir"):
        if is_url(namespace.get(name)):
            raise UsageError(
                f"--{name} is an address, and this command writes to disks alone. Name a folder or file, and copy "
                "it to the store once it is done."
            )
    return namespace


def unknown_option(name: str, known: Iterable[str], program: str) -> UsageError:
    """Return the error for an option that is not there, with the nearest one."""
    return UsageError(
        f"there is no option --{name}.{hint(name, known, '--')} `{program} --help all` lists all of them."
    )


def _known_flags(parser: ArgumentParser) -> set[str]:
    """Return every long flag without its dashes, but for jsonargparse's own about classes."""
    flags = [flag for action in parser._actions for flag in action.option_strings]
    return {flag.removeprefix("--") for flag in flags if flag.startswith("--") and not flag.endswith(".help")}


def _with_checked_files(parser: ArgumentParser, argv: list[str]) -> list[str]:
    """Check every configuration file that is named on the command line, and put its text, without old names, there."""
    files = {f"--{action.dest}" for action in parser._actions if isinstance(action, ActionConfigFile)}
    keys = {flag for flag in _known_flags(parser) if f"--{flag}" not in {*files, "--help", "--print_config"}}
    checked: list[str] = []
    rest = iter(argv)
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag not in files or not (equals or (value := next(rest, ""))):
            checked.append(word)
            continue
        document = read_document(Path(value))
        check_keys(document, keys, value)
        checked.append(f"{flag}={yaml.safe_dump(document, sort_keys=False)}")
    return checked


def _one_line(message: str, parser: ArgumentParser, known: Iterable[str]) -> str:
    """Return an error of jsonargparse in one line, without Python's spelling of types, and with what to do."""
    if stray := re.search(r"unrecognized arguments: (.+)", message):
        word = stray[1].split()[0]
        if word.startswith("-"):
            near = hint(word.strip("-"), known, "--")
            return f"there is no option {word}.{near} `{parser.prog} --help all` lists all of them."
        return (
            f"{stray[1]!r} belongs to no option. Write an option's name before each value, such as --out FOLDER, and "
            f"quotes around a value with a space in it. See {parser.prog} --help."
        )
    if unknown := re.search(r"MoreSourceConfig':\s+Option '(.+?)' is not accepted", message):
        near = hint(unknown[1], _SOURCE_FIELDS)
        return f"data.more_sources: there is no field {unknown[1]}.{near} Fields: {', '.join(_SOURCE_FIELDS)}."
    if missing := re.search(r"argument (?:-\w, )?(--[\w.]+): expected one argument", message):
        shorter = [f" ({short})" for short, long in SHORT_NAMES.items() if long == missing[1]]
        return f"{missing[1]}{''.join(shorter)} needs a value after it."
    match = _WRONG_VALUE.search(message)
    if match is None:
        return " ".join(message.split())
    wanted, near = match["type"] or match["other"], ""
    if literal := _LITERAL.search(wanted):
        names = literal["names"].replace("'", "")
        wanted, near = f"one of {names}", hint(match["value"].strip(), names.split(", "))
    wanted = _TYPES.get(wanted, wanted)
    if wanted == "a list":
        near = f" Write '[{match['value'].strip()}]'."
    key = f"data.source.{match['key']}" if match["key"] in _SOURCE_FIELDS else match["key"]
    return f"{key} is {match['value'].strip()!r}; {wanted} is needed.{near} Set --{key}."


def _help_on(parser: ArgumentParser, topic: str) -> str:
    """Return the help on all options, or on those of a section and the sections below it."""
    groups: dict[str, Any] = parser.groups or {}
    for name, group in groups.items():
        group.title = f"{name}: {group.title}"
    parser.usage = "%(prog)s [OPTIONS]"
    text = str(parser.format_help())
    if topic == "all":
        return text
    names = [name for name in groups if name == topic or name.startswith(f"{topic}.")]
    if not names:
        sections = f" Sections: {', '.join(groups)}." if groups else ""
        raise UsageError(f"--help knows no section {topic!r}.{hint(topic, groups)}{sections} --help all shows all.")
    blocks = [block for name in names for block in text.split("\n\n") if block.startswith(f"{name}: ")]
    return "\n\n".join(blocks).rstrip() + "\n"


# -- training commands ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a training command was asked for.

    Args:
        config: the resolved configuration.
        out: the run folder to make; None when resuming.
        resume: the run folder to continue; None for a new run.
        or_resume: whether to continue the run at `out` where it is there, as its config.yaml says.
        copy_to: address in a store that gets a copy of each finished checkpoint; empty means none.
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
    or_resume: bool = False
    copy_to: str = ""


def parse_duration(text: str) -> float:
    """Read `90s`, `30m` or `2h` as seconds; raises `UsageError` where it is no such text, or 0."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
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
    parser.add_argument("--copy_to", type=str, default="", help="address in a store for a copy of each checkpoint")
    parser.add_argument("--or_resume", action="store_true", help="continue the run at --out where it is there")
    if program == "adapt":
        parser.add_argument("--budget", type=str, default="", help="time for both stages, such as 90s, 30m or 2h")
    parser.add_argument("--show_config", action="store_true", help=argparse.SUPPRESS)  # --print_config
    parser.add_class_arguments(Config, as_group=False)
    for action in parser._actions:
        if any(flag.endswith(".help") for flag in action.option_strings):
            action.help = argparse.SUPPRESS  # of the classes in lists, whose fields are those of data.source
    return parser


def run_options() -> set[str]:
    """Return the options of training commands without dashes: fields, sections and short names."""
    return _known_flags(_parser("pretrain")) | {name.removeprefix("--") for name in SHORT_NAMES}


_SOURCE_FIELDS = {item.name: item.type for item in fields(MoreSourceConfig)}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def _weighted(text: str) -> dict[str, Any]:
    """Read `FOLDER` or `FOLDER:WEIGHT`; what is there as a whole is a folder, whatever follows its colons."""
    root, colon, tail = text.rpartition(":")
    if not (colon and root and _NUMBER.fullmatch(tail)) or os.path.exists(text):
        return {"root": text}
    return {"root": root, "weight": float(tail)}


def _several_sources(argv: list[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """Take the `--source`s after the first out, each with the `--data.source` options behind it.

    Returns what is left, in which the first `--source` and `--labelled` are written as fields, and the fields of each
    further source.
    """
    kept: list[str] = []
    more: list[dict[str, Any]] = []
    first = True
    options = [word.partition("=")[0] for word in argv]
    same = (("--source", "--data.source.root", 0), ("--source", "--data.more_sources", 1))
    for short, own, times in (*same, ("--labelled", "--data.labelled.root", 0)):
        if options.count(short) > times and own in options:
            raise UsageError(f"{short} and {own} are the same. Take one of them.")
    if options.count("--labelled") > 1:
        raise UsageError("--labelled is given twice. Put the labelled frames of the target into one folder.")
    rest = iter(argv)
    for word in rest:
        option, equals, value = word.partition("=")
        field = option.removeprefix("--data.source.")
        if option not in ("--source", "--labelled") and (field == option or not more):
            kept.append(word)
            continue
        if not equals and (value := next(rest, "--")).startswith("--"):
            raise UsageError(f"{option} needs a value after it.")
        if option == "--labelled":
            kept += [f"--data.labelled.{name}={item}" for name, item in _weighted(value).items()]
        elif option != "--source":
            if field not in _SOURCE_FIELDS:
                raise UsageError(f"there is no option {option}.{hint(field, _SOURCE_FIELDS, '--data.source.')}")
            more[-1][field] = yaml.safe_load(value) if _SOURCE_FIELDS[field] in (int, float) else value
        elif first:
            kept += [f"--data.source.{name}={item}" for name, item in _weighted(value).items()]
            first = False
        else:
            more.append(_weighted(value))
    return kept, more


def _more_sources(document: Any, more: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a recipe's further sources, over which lie, one by one, those that the command line names."""
    data = document.get("data") if isinstance(document, dict) else None
    found = (data.get("more_sources") or []) if isinstance(data, dict) else []
    known = [item if isinstance(item, dict) else {} for item in (found if isinstance(found, list) else [])]
    nothing: dict[str, Any] = {}
    return [{**of_recipe, **given} for of_recipe, given in zip_longest(known, more, fillvalue=nothing)]


def _stated_of(more: list[dict[str, Any]]) -> set[str]:
    """Return the fields that are stated of further sources, such as `data.more_sources.0.split`."""
    return {f"data.more_sources.{index}.{name}" for index, item in enumerate(more) for name in item}


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
        expanded.append(f"{long}={value}" if equals else long)
    return recipes + expanded


def _without_source_stage(argv: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Take the options of the source stage out; they come back as a command line of `pretrain`."""
    kept: list[str] = []
    taken: list[str] = []
    rest = iter(argv)
    for word in rest:
        if not word.startswith(_SOURCE_STAGE):
            kept.append(word)
            continue
        name, equals, value = word.removeprefix(_SOURCE_STAGE).partition("=")
        if not equals and (value := next(rest, "--")).startswith("--"):
            raise UsageError(f"{word} needs a value.")
        taken += [f"--{name}", value]
    return kept, tuple(taken)


def _set_by(argv: list[str]) -> frozenset[str]:
    """Return the dotted names that flags set; a section sets what its value holds."""
    names: set[str] = set()
    for position, word in enumerate(argv):
        option, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            continue
        names.add(option)
        below = [name for name, _ in fields_of(Config()) if name.startswith(f"{option}.")]
        if below:
            try:
                held = flat(
                    yaml.safe_load(value if equals else "".join(argv[position + 1 : position + 2])), f"{option}."
                )
            except (yaml.YAMLError, AttributeError):
                continue  # the parser reports it
            names.update(name for name in below if name in held)
    return frozenset(names)


def _cut_default_crop(namespace: Namespace, more: list[dict[str, Any]], flags: frozenset[str]) -> None:
    """Cut a crop that only the default recipe states to the images, whose sizes the command line may state."""
    if flags & {"augment.crop_height", "augment.crop_width"}:
        return
    scale = namespace["augment.scale_min"]
    for side in ("height", "width"):
        further = (int(source[side]) for source in more if source.get(side))
        images = (namespace[f"data.source.{side}"], namespace[f"data.target.{side}"], *further)
        crop = f"augment.crop_{side}"
        namespace[crop] = min(namespace[crop], *(max(0, int(image * scale)) for image in images))


def _take_method(namespace: Namespace, recipe: str, document: dict[str, Any], flags: frozenset[str]) -> None:
    """Fit what a recipe's document says to the method that the command line names, and log how."""
    defaults = dict(fields_of(Config()))
    changes = fitted({name: namespace[name] for name in defaults}, flat(document), flags)
    if not changes:
        return
    for name, value in changes.items():
        namespace[name] = value
    taken = [f"{name} {value}" for name, value in changes.items() if value != defaults[name]]
    fallen = [name for name, value in changes.items() if value == defaults[name]]
    parts = (("takes", taken), ("leaves out its", fallen))
    how = " and ".join(f"{verb} {', '.join(names)}" for verb, names in parts if names)
    logger.info("method %s with the recipe %s: %s", namespace.method, recipe, how)


def _resumed(folder: Path, argv: list[str]) -> Request:
    """Return the request to continue a run; raises unless that is the only option."""
    if [word.partition("=")[0] for word in argv if word.startswith("-")] != ["--resume"]:
        raise UsageError("--resume continues a run as its config.yaml says; give it no other option.")
    file = folder / "config.yaml"
    if not file.is_file():
        raise InputError(f"{folder}: no run to resume (no config.yaml in it). Start one with --out.")
    config = read_config(file)
    return Request(config=config, out=None, resume=folder, print_config=False)


def resolve(program: str, argv: list[str], default_recipe: str | None) -> Request:
    """Turn what follows a command's name into a request.

    Where `argv` names no recipe, `default_recipe` is used; None means the defaults of `Config`.

    Raises:
        UsageError: an unknown flag, key, recipe or value.
        InputError: the run to resume is not there.
    """
    kept, source_stage = _without_source_stage(argv) if program == "adapt" else (argv, ())
    kept, more = _several_sources(kept)
    expanded = _expand(kept)
    named = expanded[:1] == ["--recipe"]
    recipe = Path(expanded[1]).stem if named else default_recipe
    flags = _set_by(expanded)
    parser = _parser(program)
    if not named and default_recipe is not None:
        if {"-h", "--help"} & set(expanded):
            parser.set_defaults(flat(read_document(recipe_path(default_recipe))))
        expanded = ["--recipe", str(recipe_path(default_recipe)), *expanded]
    document: dict[str, Any] = {}
    if expanded[:1] == ["--recipe"]:
        document = read_document(Path(expanded[1]), logging.DEBUG)  # the parser tells of old names
    further = _more_sources(document, more)
    if more:
        text = yaml.safe_dump(further, default_style='"', width=inf)  # quoted, for texts that look like numbers
        expanded.append(f"--data.more_sources={text}")
        flags |= {"data.more_sources"}
    namespace = parse(parser, expanded, [name.removeprefix("--") for name in SHORT_NAMES])
    if namespace.resume:
        return _resumed(Path(namespace.resume), argv)
    if not named and default_recipe is not None:
        _cut_default_crop(namespace, further, flags)
    if expanded[:1] == ["--recipe"]:
        _take_method(namespace, recipe or "", document, flags)
    config = build(parser, namespace)
    _refuse_secrets(config)
    budget = getattr(namespace, "budget", "")
    return Request(
        config=config,
        out=Path(namespace.out) if namespace.out else Path("runs") / (recipe or config.method),
        resume=None,
        print_config=namespace.show_config,
        budget=parse_duration(budget) if budget else None,
        flags=flags,
        stated=flags.union(flat(document) if named else (), _stated_of(further)),
        source_stage=source_stage,
        or_resume=namespace.or_resume,
        copy_to=_store(namespace.copy_to),
    )


def _store(address: str) -> str:
    """Return the address of a store, or nothing, as it was given; `UsageError` where it is none."""
    if address and not is_store(address):
        raise UsageError(f"--copy_to is {label(address)!r}; an address such as s3://BUCKET/RUN is needed.")
    return address


def _refuse_secrets(config: Config) -> None:
    """Raise where an address carries what would stand in config.yaml for all to read."""
    more = {f"data.more_sources.{index}.root": source.root for index, source in enumerate(config.data.more_sources)}
    for name, value in {**dict(fields_of(config)), **more}.items():
        if is_url(value) and has_secret(value):
            raise UsageError(
                f"{name} carries a password or a signature, which config.yaml would keep. Set the credentials as the "
                "store's own tools have them (for http in ~/.netrc), and leave them out of the address."
            )


def training_request(program: str, argv: list[str], default_recipe: str | None = None) -> Request | None:
    """Turn the command line of `pretrain`, `adapt` or `distill` into a request that is checked; loads no torch.

    Where `argv` names no recipe, `default_recipe` is used; None takes that of `DEFAULT_RECIPES`.

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
    if request.resume is None:
        check_named(config.data)
    what = config.needs_target()
    if what is not None and not config.data.target.given:
        raise UsageError(f"{what} needs unlabelled target frames. Set --data.target.root (or --target).")
    return request
