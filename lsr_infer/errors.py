"""Defines the errors of all packages with their exit codes, and turns what ends a command into one.

A message says what happened, where, and what to do about it. Nothing here needs another library.
"""

import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import NoReturn, TextIO

from lsr_infer.text import printable

__all__ = [
    "DeviceError", "InputError", "LostPacketsError", "LsrError", "PartialResultError", "QualityGateError",
    "UnusableFilesError", "UsageError", "exit_status", "extra", "stderr_handler",
]  # fmt: skip


class LsrError(Exception):
    """Base of every error a user can act on."""

    exit_code = 1
    keeps_lines = False
    """Whether the message is a list whose lines are to be shown as they are; all others are shown in one line."""


class UsageError(LsrError, ValueError):
    """A flag, a field or a combination of them is not allowed, or an output already exists."""

    exit_code = 2


class DeviceError(LsrError):
    """The device, precision or extra that was asked for is not there."""

    exit_code = 3


class InputError(LsrError):
    """An input, a model or the output place is unusable."""

    exit_code = 4


class LostPacketsError(InputError):
    """A video was read to its end, past packets that cannot be decoded."""


class UnusableFilesError(InputError):
    """Files that cannot be used, all of them listed, a line each."""

    keeps_lines = True


class QualityGateError(LsrError):
    """A result was computed and is not good enough to be kept."""

    exit_code = 5


class PartialResultError(LsrError):
    """Some of the work is done and kept; the message counts what is missing."""

    exit_code = 6


_USER = re.compile(r"([A-Za-z][\w+.-]*:/+)\S*@")
"""User and password of an address, be it a malformed one or the value of another option."""
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*:/+")
_OPTION = re.compile(r"--[\w.-]+=|-\w=?")
"""What stands before a value in one word with it."""


def _message(text: str, argv: Sequence[str] = ()) -> str:
    """Return a message in one printable line, without the users and passwords of addresses.

    A word of the command line that leads to no file and has an @ behind a colon is taken for a mistyped address.
    """
    for word in sorted(argv, key=len, reverse=True):
        value = _OPTION.sub("", word)
        user = value.rpartition("@")[0]
        if ":" in user and not os.path.lexists(value):
            scheme = _SCHEME.match(user)
            for shown in (user, repr(user)[1:-1]):  # a path has one slash where the word may have several
                secret = "/+".join(map(re.escape, re.split("/+", shown[scheme.end() if scheme else 0 :])))
                text = re.sub(f"{secret}@", "", text)
    return printable(_USER.sub(r"\1", text))


class _Printable(logging.Formatter):
    """Writes each message in one printable line; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own
        return _message(super().formatMessage(record))


class _PastBars(logging.StreamHandler[TextIO]):
    """Writes a message above the bars of tqdm that are open on a terminal, not into them."""

    def emit(self, record: logging.LogRecord) -> None:
        bars = sys.modules.get("tqdm")
        with nullcontext() if bars is None else bars.tqdm.external_write_mode(self.stream):
            super().emit(record)


def stderr_handler() -> logging.Handler:
    """Return the log handler of a command: printable messages on stderr."""
    handler = _PastBars(sys.stderr)
    handler.setFormatter(_Printable("%(message)s"))
    return handler


def _open_stderr() -> None:
    """Give a process that was started without stderr (`2>&-`) one that goes nowhere.

    Otherwise the next file that is opened gets its descriptor, and with it what libraries write there.
    """
    if sys.stderr is not None:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != 2:
        os.dup2(nowhere, 2)
        os.close(nowhere)
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - stays open


_OF_ANALYSIS = ("matplotlib", "sklearn", "jinja2", "optuna")
"""Packages of the extra `analysis`, which commands of `lsr_train` import only where they draw or search."""


def extra(*names: str) -> str:
    """Return how to install one of these extras of the package, for the end of a message."""
    packages = " or ".join(f"lsr-road[{name}]" for name in names)
    return f"Install {packages} (in a checkout: pip install '.[{names[0]}]')."


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that unfinished files are removed; only on the main thread."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not on the main thread: the caller keeps its own handlers
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_status(command: Callable[[], int | None], *, needs: str = "", argv: Sequence[str] | None = None) -> int:
    """Run a command and translate how it ended into a process exit code.

    Args:
        command: the body of a `main`; its return value is the exit code, None meaning 0.
        needs: the extra that holds the packages the command imports; "" where the package itself does.
        argv: the command line, None for the process's own; of what it names and is no file, no password is shown.

    Returns:
        The command's own code; the code of an `LsrError`, after one line on stderr and one for each file it lists; 3
        where a package is not installed; 130 after Ctrl-C, SIGTERM or an interruption; 1 after any other exception,
        with its traceback; 141 where the reader of stdout has gone.
    """
    _open_stderr()
    try:
        with _terminated_as_interrupted():
            return command() or 0
    except LsrError as error:
        lines = str(error).split("\n") if error.keeps_lines else [" ".join(str(error).splitlines())]
        words = sys.argv[1:] if argv is None else argv
        text = "\n".join(_message(line, words) for line in lines)
        sys.stderr.write(f"error: {text}\n")  # at once, so that the lines of several processes stay whole
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return 130
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "lsr_train", "lsr_infer"):  # a fault of ours
            traceback.print_exc()
            return 1
        needs = "analysis" if package in _OF_ANALYSIS else needs
        advice = extra(needs) if needs else "Install it."
        sys.stderr.write(
            f"error: {package} is not installed in this Python ({sys.prefix}). {advice} Or use the environment that "
            "has it: source .venv/bin/activate.\n"
        )
        return DeviceError.exit_code
    except BrokenPipeError:
        return 128 + int(getattr(signal, "SIGPIPE", 13))
    except Exception:  # noqa: BLE001 - the outermost frame: whatever it is, it must end in a code and a traceback
        traceback.print_exc()
        return 1
