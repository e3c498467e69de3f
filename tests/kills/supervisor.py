"""Runs work in a forked process and ends it by SIGKILL right before a chosen one of its file-system calls.

A seccomp filter hands every call that changes files to this process before it is made, those of native libraries, of
threads and of child processes too. The filter reaches whatever the process starts, and nothing else.
"""

import ctypes
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

__all__ = ["Ended", "available", "run"]

# Numbers of x86-64's system calls.
_WRITES = (1, 18, 20, 296, 328, 77, 74, 75, 285, 91)  # write, pwrite, writev…, ftruncate, fsync, fallocate, fchmod
_OTHERS = (
    76,
    82,
    83,
    84,
    85,
    86,
    87,
    88,
    90,
    258,
    263,
    264,
    265,
    266,
    268,
    316,
    326,
    437,
)  # truncate, rename, mkdir, rmdir, creat, link, unlink, symlink, chmod, and what ends in -at; copy_file_range, openat2
_OPENS = {2: 1, 257: 2}  # open and openat, and which argument has the flags
_ARCHITECTURE = 0xC000003E
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
_SECCOMP, _SET_FILTER, _NEW_LISTENER = 317, 1, 8
_NO_NEW_PRIVILEGES, _SUBREAPER = 38, 36


class Ended(NamedTuple):
    """How the process ended: its exit code, or minus the signal; and how many calls were asked for."""

    code: int
    calls: int


def available() -> bool:
    """Whether this system has what is needed."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    action = ctypes.c_uint32(_ASK)
    return ctypes.CDLL(None).syscall(_SECCOMP, 2, 0, ctypes.byref(action)) == 0


def run(work: Callable[[], int], log: Path, *, kill_at: int = 0, kill_all: bool = False, seconds: float = 300) -> Ended:
    """Do `work` in a fork, whose exit code it returns, and wait for it and all that it started.

    Args:
        work: what is done.
        log: takes stdout and stderr.
        kill_at: number of the call before which is killed; 0 for none.
        kill_all: kill the forked process, not the one that makes the call, whose descendant it may be.
        seconds: after which everything is killed, which is a failure (`TimeoutError`).
    """
    others = _children()
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    here, there = socket.socketpair()
    child = os.fork()
    if child == 0:
        _be_the_child(work, log, there)
    there.close()
    with here:
        _, descriptors, _, _ = socket.recv_fds(here, 1, 1)
    try:
        calls = _attend(descriptors[0], child, kill_at, kill_all, seconds)
    finally:
        os.close(descriptors[0])
    _, status = os.waitpid(child, 0)
    while left_behind := _children() - others:
        for process in left_behind:
            with suppress(ChildProcessError):
                os.waitpid(process, 0)
    return Ended(os.waitstatus_to_exitcode(status), calls)


def _children() -> set[int]:
    """Return the processes that this one has started, or that have become its own."""
    return {process.pid for process in psutil.Process().children()}


def _be_the_child(work: Callable[[], int], log: Path, there: socket.socket) -> None:
    code = 1
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        listener = _install()
        socket.send_fds(there, [b"x"], [listener])
        os.close(listener)
        there.close()
        code = work()
    except BaseException:  # noqa: BLE001 - goes into the log
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _filter() -> bytes:
    """Return the program: ask about calls that change files, but for what is written to stdout and stderr."""
    lines: list[tuple[int, int | None, int | None, int]] = []  # code, lines to jump over if true, if false, constant
    asks = [(number, None, 0) for number in _OTHERS]
    blocks = [*asks, *((number, 16, 3) for number in _WRITES), *((n, 16 + 8 * at, 0o3101) for n, at in _OPENS.items())]
    lines += [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _ARCHITECTURE), (_RETURN, 0, 0, _ALLOW)]
    for number, argument, constant in blocks:
        lines.append((_LOAD, 0, 0, 0))
        if argument is None:
            lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ASK)]
        elif number in _WRITES:  # the descriptor: 0x35 is "at least"
            lines += [(_EQUAL, 0, 3, number), (_LOAD, 0, 0, argument), (0x35, 0, 1, constant), (_RETURN, 0, 0, _ASK)]
        else:
            lines += [(_EQUAL, 0, 3, number), (_LOAD, 0, 0, argument), (_ANY_BIT, 0, 1, constant)]
            lines += [(_RETURN, 0, 0, _ASK)]
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def _install() -> int:
    """Put this process, and all it will start, under the filter; return the descriptor that is asked."""
    program = _filter()
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    listener = libc.syscall(_SECCOMP, _SET_FILTER, _NEW_LISTENER, ctypes.create_string_buffer(header))
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(listener)


def _attend(listener: int, child: int, kill_at: int, kill_all: bool, seconds: float) -> int:
    """Answer every call until all processes under the filter have ended; return how many were asked for."""
    calls = 0
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    while True:
        events = waiting.poll(seconds * 1000)
        if not events:
            os.kill(child, signal.SIGKILL)
            raise TimeoutError(f"no call and no end within {seconds} s")
        if not events[0][1] & select.POLLIN:
            return calls  # hung up: nobody is under the filter any more
        notice = bytearray(80)
        try:
            fcntl.ioctl(listener, _RECEIVE, notice)
        except (FileNotFoundError, InterruptedError):
            continue  # who asked has been killed
        identity, caller, _, number = struct.unpack_from("QIIi", notice)
        (descriptor,) = struct.unpack_from("Q", notice, 32)
        if number not in _WRITES or _is_file(caller, descriptor):
            calls += 1
            if calls == kill_at:
                caller = _process_of(caller)
                os.kill(child if kill_all else caller, signal.SIGKILL)
                if caller == child or not kill_all:
                    continue  # answered, it might still make the call
        with suppress(FileNotFoundError):
            fcntl.ioctl(listener, _ANSWER, struct.pack("QqiI", identity, 0, 0, 1))


def _process_of(thread: int) -> int:
    status = Path(f"/proc/{thread}/status").read_text(encoding="utf-8")
    return int(status.partition("Tgid:")[2].split()[0])


def _is_file(process: int, descriptor: int) -> bool:
    try:
        place = os.readlink(f"/proc/{process}/fd/{descriptor}")
    except OSError:
        return False
    return place.startswith("/") and not place.startswith(("/dev/", "/proc/"))
