"""Tries damaged files of one kind, each in a process of its own that is forked from one that has everything imported.

python -m tests.fuzz png --count 2000 --seed 1 --keep /tmp/odd

Prints one JSON document: how many were tried, how they ended, and what was wrong with which. `judged` counts those that
were accepted and of which can be told whether something was lost; `silent` is null where others alone were accepted.
"""

import argparse
import contextlib
import faulthandler
import gc
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.kinds import KINDS, Kind
from tests.fuzz.mutations import mutants

__all__ = ["forked", "fuzz", "main"]

_SECONDS = 60.0
_MEMORY = 12 << 30


@dataclass(frozen=True)
class Ending:
    """How a process ended: exit code, None where it was killed; what it observed, and what it said."""

    code: int | None
    signal: int
    observed: Any
    text: str


def forked(work: Callable[[], tuple[int, Any]], folder: Path, seconds: float = _SECONDS) -> Ending:
    """Do something in a forked process within a time; it returns an exit code and what can be observed of its work."""
    said, result = folder / "said", folder / "result"
    result.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            faulthandler.enable(2)
            code, observed = work()
            result.write_text(json.dumps(observed), encoding="utf-8")
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:  # noqa: BLE001 - whatever it is, it is a crash
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        finally:
            os._exit(code)
    status, end = None, time.monotonic() + seconds
    pause = 0.001
    while status is None and time.monotonic() < end:
        done, found = os.waitpid(pid, os.WNOHANG)
        status = found if done else None
        if status is None:
            time.sleep(pause)
            pause = min(0.02, pause * 1.5)
    killed = status is None
    if killed:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    assert status is not None
    observed = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else None
    text = said.read_text(encoding="utf-8", errors="replace") if said.is_file() else ""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return Ending(None if killed else os.waitstatus_to_exitcode(status), number, observed, text)


def wrong(kind: Kind, part: str, data: bytes, ending: Ending, whole: Ending) -> str | None:
    """Say what is wrong with how a damaged file ended: crash, hang, exit or silent; empty where nothing is.

    None means that a file was accepted of which cannot be told whether something was lost.
    """
    if ending.code is None:
        return "hang"
    if ending.signal or ending.code == 1 or "Traceback" in ending.text:
        return "crash"
    if ending.code not in kind.codes:
        return "exit"
    excuse = kind.excuse(part, data)
    if ending.code or (excuse and excuse in ending.text):
        return ""
    is_silent = kind.silent(part, whole.observed, ending.observed)
    return None if is_silent is None else "silent" if is_silent else ""


def _tried(kind: Kind, part: str, data: bytes) -> Ending:
    return forked(lambda: kind.work(part, data), kind.folder)


def _damaged(kind: Kind, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield damaged parts in turn, as many in all, and texts in other layouts."""
    each = -(-count // len(kind.parts))
    for place, (part, whole) in enumerate(kind.parts.items()):
        for data in mutants(whole, each, seed * 1000 + place, kind.words):
            if data != whole:
                yield part, data
        for data in kind.relaid(whole):
            yield part, data


def fuzz(name: str, count: int, seed: int, keep: Path | None = None) -> dict[str, Any]:
    """Try damaged files of a kind; those with which something is wrong are kept."""
    counts: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    odd = []
    judged = 0
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kind = KINDS[name](folder)
        ready = forked(lambda: (kind.prepare() or 0, None), folder)
        kind.load()
        used = forked(lambda: (kind.work(*next(iter(kind.parts.items())))[0], [*sys.modules]), folder)
        for module in used.observed or ():
            with contextlib.suppress(ImportError):  # each process would spend seconds on it
                importlib.import_module(module)
        gc.freeze()  # nor is it looked through in each
        whole = {part: _tried(kind, part, data) for part, data in kind.parts.items()}
        for part, ending in whole.items():
            if ready.code or ending.code:
                raise SystemExit(f"the whole {name} {part} ends with {ending.code}: {ready.text} {ending.text}")
        for number, (part, data) in enumerate(_damaged(kind, count, seed)):
            ending = _tried(kind, part, data)
            codes[str(ending.code)] += 1
            why = wrong(kind, part, data, ending, whole[part])
            judged += why in ("", "silent") and ending.code == 0
            if why:
                counts[why] += 1
                said = ending.text[-800:]
                odd.append({"number": number, "part": part, "why": why, "code": ending.code, "said": said})
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{name}_{seed}_{number}_{why}").write_bytes(data)
    wrongs: dict[str, int | None] = {why: counts[why] for why in ("crash", "hang", "silent", "exit")}
    if codes["0"] and not judged:
        wrongs["silent"] = None
    seconds = round(time.monotonic() - start, 1)
    return {
        "kind": name,
        "tried": sum(codes.values()),
        "seconds": seconds,
        **wrongs,
        "judged": judged,
        "codes": dict(codes),
        "odd": odd,
    }


def main() -> int:
    """Run the command line; returns 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    document = fuzz(options.kind, options.count, options.seed, options.keep)
    print(json.dumps(document, indent=1))  # noqa: T201 - the result
    if document["silent"] is None:
        print(f"{options.kind}: what is lost in silence: not measured", file=sys.stderr)  # noqa: T201
    return 1 if document["odd"] else 0


if __name__ == "__main__":
    sys.exit(main())
