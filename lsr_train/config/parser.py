"""Reads command lines with jsonargparse; whatever is wrong is one line with the nearest known name.

jsonargparse suggests no near name by itself and spreads an error over several lines. Flags and the keys of YAML files
are therefore checked here first, against what the parser knows.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import (  # type: ignore[attr-defined]  # ActionConfigFile is documented, but not in its __all__
    ActionConfigFile,
    ArgumentError,
    ArgumentParser,
    Namespace,
)

from lsr_infer.errors import InputError, UsageError
from lsr_train.config.renamed import current_document

__all__ = ["check_keys", "known_flags", "nearest", "parse", "read_document", "unknown_option"]

_WRONG_VALUE = re.compile(
    r'Parser key "(?P<key>[^"]+)":\s+Expected a (?:<class \'(?P<type>\w+)\'>|(?P<other>.+?))\. Got value: (?P<value>.*)'
)
_LITERAL = re.compile(r"typing\.Literal\[(?P<names>.+)\]")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that a mistyped one most likely meant.

    Args:
        name: what was written, such as `optim.lrr`, or `lr` without its section.
        known: full names; the last part of a dotted one counts half as much again as the whole.

    Returns:
        The nearest name, or None where none is near.
    """

    def score(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, name, candidate).ratio()
        last = difflib.SequenceMatcher(None, name.rpartition(".")[2], candidate.rpartition(".")[2]).ratio()
        return whole + last / 2

    best = max(sorted(known), key=score, default=None)
    return best if best is not None and score(best) >= 0.8 else None


def _hint(name: str, known: Iterable[str], dashes: str = "") -> str:
    near = nearest(name, known)
    return f" Did you mean {dashes}{near}?" if near else ""


def known_flags(parser: ArgumentParser) -> set[str]:
    """Return every long flag without its dashes."""
    flags = [flag for action in parser._actions for flag in action.option_strings]
    return {flag.removeprefix("--") for flag in flags if flag.startswith("--")}


def _known_keys(parser: ArgumentParser) -> set[str]:
    """Return every key that a YAML file of this parser may hold: what is no config file and no help itself."""
    special = [action for action in parser._actions if isinstance(action, ActionConfigFile) or action.dest == "help"]
    flags = known_flags(parser) - {flag.removeprefix("--") for action in special for flag in action.option_strings}
    return flags - {"print_config"}


def _check_flags(parser: ArgumentParser, argv: list[str], short: Collection[str]) -> None:
    """Raise for the first long flag that the parser does not know; a short one is the likelier to be meant."""
    known = known_flags(parser)
    for word in argv:
        if word == "--":
            return
        name = word.removeprefix("--").partition("=")[0]
        if word.startswith("--") and name not in known and name.removesuffix("+") not in known:
            raise unknown_option(name, known | set(short), parser.prog)


def unknown_option(name: str, known: Iterable[str], program: str) -> UsageError:
    """Return the error for an option that is not there, with the nearest one."""
    return UsageError(
        f"there is no option --{name}.{_hint(name, known, '--')} `{program} --help all` lists all of them."
    )


def check_keys(document: Any, known: Collection[str], where: str) -> None:
    """Check that a YAML document is a tree of known keys.

    Args:
        document: what a YAML reader returned.
        known: full names such as `optim.lr`; one that others go on from, such as `optim`, is a section.
        where: the file, for messages.

    Raises:
        UsageError: it is no mapping, a section holds a plain value, or a key is unknown; the message has the nearest
            known name.
    """
    sections = {key[: match.start()] for key in known for match in re.finditer(r"\.", key)}
    leaves = set(known) - sections

    def walk(value: Any, prefix: str) -> None:
        if not isinstance(value, Mapping):
            what = f"{prefix} holds {str(value)[:60]!r}" if prefix else "this is no mapping"
            raise UsageError(f"{where}: {what}; keys and values are needed there, such as {sorted(leaves)[0]}.")
        for key, below in value.items():
            name = f"{prefix}.{key}" if prefix else str(key)
            if name in sections:
                walk(below, name)
            elif name not in leaves:
                raise UsageError(f"{where}: there is no field {name}.{_hint(name, leaves | sections)}")

    walk(document, "")


def read_document(path: Path) -> Any:
    """Read a YAML file of a configuration, its old names translated.

    Raises:
        InputError: it cannot be read, or is no YAML.
        UsageError: an old name in it cannot be translated.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InputError(f"{path}: cannot be read ({reason}). Name a YAML file.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: this is no plain YAML ({' '.join(str(error).split())[:200]}).") from error
    return current_document(document, str(path))


def _with_checked_files(parser: ArgumentParser, argv: list[str]) -> list[str]:
    """Check every configuration file that is named on the command line, and put its text, without old names, there."""
    flags = [
        flag for action in parser._actions if isinstance(action, ActionConfigFile) for flag in action.option_strings
    ]
    checked: list[str] = []
    rest = iter(argv)
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag not in flags or not (equals or (value := next(rest, ""))):
            checked.append(word)
            continue
        document = read_document(Path(value))
        check_keys(document, _known_keys(parser), value)
        checked.append(f"{flag}={yaml.safe_dump(document, sort_keys=False)}")
    return checked


def _one_line(message: str) -> str:
    """Return an error of jsonargparse in one line, without Python's spelling of types."""
    match = _WRONG_VALUE.search(message)
    if match is None:
        return " ".join(message.split())
    wanted = match["type"] or match["other"]
    literal = _LITERAL.search(wanted)
    if literal:
        wanted = "one of " + literal["names"].replace("'", "")
    names = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text", "tuple": "a list"}
    wanted = names.get(wanted, wanted)
    return f"{match['key']} is {match['value'].strip()!r}; {wanted} is needed. Set --{match['key']}."


def _help_on(parser: ArgumentParser, topic: str) -> str:
    """Return the help on all options, or on those of a section and the sections below it.

    Raises:
        UsageError: there is no such section.
    """
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
        raise UsageError(f"--help knows no section {topic!r}.{_hint(topic, groups)}{sections} --help all shows all.")
    blocks = [block for name in names for block in text.split("\n\n") if block.startswith(f"{name}: ")]
    return "\n\n".join(blocks).rstrip() + "\n"


def parse(parser: ArgumentParser, argv: list[str], short: Collection[str] = ()) -> Namespace:
    """Read a command line.

    Args:
        parser: made with `allow_abbrev=False, exit_on_error=False`.
        argv: what follows the command's name; `--help TOPIC` shows a section of the options, or all.
        short: options that the parser does not see, since they stand for others, to be named to who mistypes them.

    Returns:
        What `parser.parse_args` returns.

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
    _check_flags(parser, argv, short)
    argv = _with_checked_files(parser, argv)
    try:
        return parser.parse_args(argv)
    except ArgumentError as error:
        raise UsageError(_one_line(error.message)) from error
