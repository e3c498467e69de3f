"""Parses command lines: a help of one screen with more by section, and mistakes that name the nearest option."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lsr_infer.errors import UsageError
from lsr_infer.io.stores import is_url

__all__ = ["ArgumentParser", "StrictParser", "add_network_options", "disk_path", "named", "parse_size"]


class StrictParser(argparse.ArgumentParser):
    """argparse that raises `UsageError` on a mistake: an unknown option first, with the nearest one there is."""

    _given: Sequence[str] = ()

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]  # noqa: D102 - argparse's own
        self._given = sys.argv[1:] if args is None else args
        return super().parse_known_args(self._given, namespace)

    def error(self, message: str) -> NoReturn:  # noqa: D102 - argparse's own
        from difflib import get_close_matches

        options = [word.partition("=")[0] for word in self._given if re.match(r"--[\w-]+", word)]
        unknown = next((option for option in options if option not in self._option_string_actions), "")
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if unknown:
            message = message if "unrecognized" in message else f"unrecognized arguments: {unknown}"
            near = get_close_matches(unknown, self._option_string_actions, n=1)
        else:
            near = get_close_matches(choice[1], choice[2].replace("'", "").split(", "), n=1) if choice else []
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"{message.rstrip('.')}.{hint} See {self.prog} --help.")


class ArgumentParser(StrictParser):
    """A parser that takes no abbreviations and shows its help in sections.

    Lines of the description, of whole examples and of notes (exit codes, where more is written) are short enough for a
    screen.
    """

    def __init__(
        self, prog: str, usage: str, description: str, *, examples: tuple[str, ...] = (), notes: str = ""
    ) -> None:
        super().__init__(prog, f"{prog} {usage}", description, allow_abbrev=False, add_help=False)
        self._examples, self._notes = examples, notes
        self._common: list[argparse.Action] = []
        self._sections: dict[str, list[argparse.Action]] = {}

    def section(self, name: str) -> Callable[..., None]:
        """Return `add_argument` for a section of the help; `common=True` puts an option on the first screen too."""
        actions = self._sections.setdefault(name, [])

        def add(*names: str, common: bool = False, **options: Any) -> None:
            actions.append(self.add_argument(*names, **options))
            if common:
                self._common.append(actions[-1])

        return add

    def format_help(self, section: str = "") -> str:
        """Return the help: the first screen, one section, or `all`."""
        formatter = _Formatter(self.prog, max_help_position=28)
        whole = section in ("", "all")
        if whole:
            formatter.add_usage(self.usage, [], [])
            formatter.add_text(self.description)
        parts = self._sections if section else {"options": [*self._common, *self._help_option()]}
        for name, actions in parts.items():
            if whole or section == name:
                formatter.start_section(name)
                formatter.add_arguments(actions)
                formatter.end_section()
        if whole:
            formatter.add_text("\n  ".join(("examples:", *self._examples)))
            formatter.add_text(self._notes)
        if not section and len(self._common) < sum(map(len, self._sections.values())):
            formatter.add_text(f"More options: --help all, or --help {', --help '.join(self._sections)}.")
        return formatter.format_help()

    def _help_option(self) -> list[argparse.Action]:
        """Return the option that shows help, added last so that it stands last."""
        if "--help" not in self._option_string_actions:
            text = "show this, more options, or all"
            self.add_argument("-h", "--help", action=_Help, nargs="?", const="", default=argparse.SUPPRESS,
                              metavar="SECTION", help=text)  # fmt: skip
        return [self._option_string_actions["--help"]]

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]  # noqa: D102 - argparse's own
        self._help_option()
        args = sys.argv[1:] if args is None else args
        if any(word == "" or re.fullmatch(r"--[\w-]+=", word) for word in args):
            raise UsageError(
                f"a name is empty among the arguments of {self.prog}. Was a variable of the shell not set?"
            )
        return super().parse_known_args(args, namespace)  # type: ignore[no-untyped-call]  # argparse's own

    def show_help(self, section: str) -> NoReturn:
        """Print a part of the help and end the command."""
        if section not in ("", "all", *self._sections):
            raise UsageError(f"--help {section}: there is no such section; known: {', '.join(self._sections)}, all.")
        print(self.format_help(section), end="")  # noqa: T201 - what was asked for
        self.exit()


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Write `-o, --output DIR` instead of `-o DIR, --output DIR`."""
        if not action.option_strings:
            return super()._format_action_invocation(action)
        names = ", ".join(action.option_strings)
        return f"{names} {self._format_args(action, action.dest.upper())}".rstrip()


class _Help(argparse.Action):
    def __call__(self, parser: Any, _namespace: Any, values: Any, _option: Any = None) -> None:
        parser.show_help(values)


def add_network_options(add: Callable[..., None]) -> None:
    """Add the options that say on what a model runs, and how."""
    add("--size", metavar="WxH", common=True, help="frames enter the network at this size (the model's own)")
    add("--device", default="auto", metavar="NAME", common=True, help="auto, cpu or cuda:N (auto)")
    add("--backend", metavar="NAME", help="what runs the model: onnxruntime, openvino, ... (by the file's ending)")
    add("--threads", type=int, default=0, metavar="N", help="CPU threads of the network (0: one for each physical "
        "core the process may use)")  # fmt: skip
    add("--precision", metavar="NAME", help="bf16 on OpenVINO, tf32 on CUDA (the file's own)")
    add("--allow-unverified", action="store_true", help="run an engine whose parity has not been checked yet")


def named(text: str) -> Path | str:
    """Return what names a file or folder: a path, or the address of a store or http server as it is."""
    return text if is_url(text) else Path(text)


def disk_path(text: str) -> Path:
    """Return the path of what is written to a disk; an address is refused."""
    if is_url(text):
        raise argparse.ArgumentTypeError(
            "is an address, and this command writes to disks alone. Name a path, and copy it"
        )
    return Path(text)


def parse_size(text: str) -> tuple[int, int]:
    """Read `1024x512`, width x height, as (height, width)."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None or not (int(match[1]) and int(match[2])):
        raise UsageError(f"the size is {text!r}; write it as width x height, such as 1024x512.")
    return int(match[2]), int(match[1])
