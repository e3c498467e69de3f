"""The models a page offers: those the package ships and those of a folder, each looked at before it can be chosen."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lsr_infer.backends.model_file import read_model_file
from lsr_infer.errors import InputError, LsrError, UsageError
from lsr_infer.manifest import Manifest
from lsr_infer.web.lanes import BusyError
from lsr_infer.web.requests import ModelChoice

__all__ = ["Catalogue", "Entry", "shipped_models"]

logger = logging.getLogger(__name__)

_SUFFIXES = (".onnx", ".engine")
_SOURCE_ONLY = "source-only"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model file as the page lists it.

    Args:
        key: how the page calls it: the file's name.
        path: the file.
        title: its name for people.
        shipped: it comes with the package.
        size: in bytes.
        manifest: what it says about itself, None where it could not be read.
        device: what it runs on, "" until it was opened.
        backend: what runs it, likewise.
        precision: what it computes in, likewise.
        problem: why it cannot be chosen, "" where it can.
        passing: the problem is not the file's and will go by itself.
    """

    key: str
    path: Path
    title: str
    shipped: bool
    size: int = 0
    manifest: Manifest | None = None
    device: str = ""
    backend: str = ""
    precision: str = ""
    problem: str = ""
    passing: bool = False


Opened = Callable[[ModelChoice], dict[str, str]]
"""Opens a model in a worker process; returns its `device`, `backend` and `precision`, or raises an `LsrError`."""


def shipped_models() -> tuple[Path, ...]:
    """Return the networks that come with the package, before and after adaptation."""
    folder = Path(__file__).resolve().parents[1] / "models"
    paths = (folder / f"toytown_{name}.onnx" for name in ("source", "adapted"))
    return tuple(path for path in paths if path.is_file())


class Catalogue:
    """The models on offer. Any thread may use it.

    Args:
        folder: of the user's models; None offers the shipped ones alone.
        options: how models are opened; its path and title stand for nothing.
        opened: opens a model where a crash does no harm.

    Raises:
        UsageError: there is no such folder.
    """

    def __init__(self, folder: Path | None, options: ModelChoice, opened: Opened) -> None:
        if folder is not None and not folder.is_dir():
            raise UsageError(f"--models {folder}: there is no such folder. Name one that holds exported models.")
        self._folder = folder
        self._options = options
        self._opened = opened
        self._looking = threading.Lock()
        self._known: dict[tuple[Path, int, int], Entry] = {}
        self._entries: tuple[Entry, ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What `refresh` found last: the folder's models by name, then the shipped ones."""
        return self._entries

    def refresh(self) -> tuple[Entry, ...]:
        """Look at the folder again; files that are known and unchanged are not opened again."""
        if not self._looking.acquire(blocking=False):
            return self._entries  # somebody else looks already, and opening a large model takes a while
        try:
            paths = sorted(path for path in self._own_files())
            names = {path.name for path in paths}
            entries = [self._entry(path, path.name, shipped=False) for path in paths]
            for path in shipped_models():
                key = path.name if path.name not in names else f"shipped/{path.name}"
                entries.append(self._entry(path, key, shipped=True))
            self._entries = tuple(entries)
            return self._entries
        finally:
            self._looking.release()

    def choice(self, key: str) -> ModelChoice:
        """Return how to open a model.

        Raises:
            InputError: it is not on offer, or cannot be opened.
        """
        entry = next((one for one in self._entries if one.key == key), None)
        if entry is None:
            raise InputError("This model is no longer in the folder. Choose another one.")
        if entry.problem:
            raise InputError(f"This model cannot be used. {entry.problem}")
        return self._choice(entry)

    def good(self) -> tuple[Entry, ...]:
        """Return the models that can be chosen."""
        return tuple(entry for entry in self._entries if not entry.problem)

    def defaults(self) -> tuple[str | None, str | None]:
        """Return the models chosen at the beginning, as (before, after): the user's own where there are any."""
        good = self.good()
        own = [entry for entry in good if not entry.shipped] or list(good)
        after = next((entry for entry in own if _method(entry) != _SOURCE_ONLY), own[0] if own else None)
        if after is None:
            return None, None
        before = next((entry for entry in own if _method(entry) == _SOURCE_ONLY and _same_classes(entry, after)), None)
        return (None if before is None or before is after else before.key), after.key

    def _own_files(self) -> Sequence[Path]:
        if self._folder is None:
            return []
        try:
            return [path for path in self._folder.iterdir() if path.suffix.lower() in _SUFFIXES]
        except OSError:
            return []

    def _entry(self, path: Path, key: str, *, shipped: bool) -> Entry:
        try:
            status = path.stat()
            known = (path, status.st_mtime_ns, status.st_size)
        except OSError as error:
            problem = f"{path.name}: cannot be read ({error.strerror})."
            return Entry(key=key, path=path, title=path.stem, shipped=shipped, problem=problem)
        if known not in self._known:
            entry = Entry(key=key, path=path, title=_title(path, shipped=shipped), shipped=shipped, size=status.st_size)
            looked = self._looked_at(entry)
            if looked.passing:
                return replace(looked, key=key)
            self._known[known] = looked
        return replace(self._known[known], key=key)

    def _looked_at(self, entry: Entry) -> Entry:
        """Read what a file says about itself, then open it once."""
        try:
            entry = replace(entry, manifest=read_model_file(entry.path).manifest)
            facts = self._opened(self._choice(entry))
            return replace(entry, device=facts["device"], backend=facts["backend"], precision=facts["precision"])
        except LsrError as error:
            logger.warning("a model cannot be used: %s", error)
            text = str(error).replace(str(entry.path), entry.path.name)  # what the page says names no folder
            passing = isinstance(error, BusyError)
            return replace(entry, problem=text, passing=passing)

    def _choice(self, entry: Entry) -> ModelChoice:
        return replace(self._options, path=entry.path, title=entry.title)


def _title(path: Path, *, shipped: bool) -> str:
    if not shipped:
        return path.stem
    return "source-only (Toytown)" if path.stem.endswith("source") else "adapted (Toytown)"


def _method(entry: Entry) -> str:
    return "" if entry.manifest is None else entry.manifest.method


def _same_classes(one: Entry, other: Entry) -> bool:
    """Whether two models tell the same classes apart."""
    if one.manifest is None or other.manifest is None:
        return False
    return one.manifest.label_space.names == other.manifest.label_space.names
