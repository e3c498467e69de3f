"""Holds what the demo accepts and which models it offers.

Every limit refuses with a sentence. A model is read and opened once, in a worker process, before it can be chosen.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import lsr_infer
from lsr_infer import InputError, LsrError, Manifest, UsageError

__all__ = ["RESULTS", "Catalogue", "Entry", "Limits", "ModelChoice", "file_size", "hash_password", "read_password"]

RESULTS = "results"
"""Folder of Gradio's cache in which results are written."""

_SHIPPED = Path(lsr_infer.__file__).parent / "models"
_SCRYPT_COST = {"n": 1 << 14, "r": 8, "p": 1}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Everything that one visitor may ask for.

    Args:
        upload_bytes: of one uploaded file.
        pixels: of one decoded picture or video frame.
        seconds: length of a video.
        frames: of a video.
        shown_width: columns of each half of the resulting video; wider frames are reduced before they are segmented.
        jobs: videos that are computed at the same time.
        queue: requests of all visitors that may wait.
        job_seconds: how long one video may compute.
        picture_seconds: how long one picture may compute.
        job_bytes: memory of a process that computes.
        session_seconds: age at which uploads and results are deleted.
        free_bytes: of the disk that must stay free.

    Raises:
        UsageError: a value is not above 0.
    """

    upload_bytes: int = 256 << 20
    pixels: int = 1 << 25
    seconds: float = 600.0
    frames: int = 20_000
    shown_width: int = 1280
    jobs: int = 1
    queue: int = 40
    job_seconds: float = 1800.0
    picture_seconds: float = 60.0
    job_bytes: int = 6 << 30
    session_seconds: float = 3600.0
    free_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < float("inf"):
                raise UsageError(f"--{field.name.replace('_', '-')} is {value}; allowed: finite numbers above 0.")

    def check_bytes(self, name: str, count: int) -> None:
        """Raise `InputError` unless a file of this size is accepted."""
        if count > self.upload_bytes:
            raise InputError(
                f"{name} has {file_size(count)}; at most {file_size(self.upload_bytes)} are accepted. Shorten or "
                "reduce it."
            )

    def check_pixels(self, name: str, height: int, width: int) -> None:
        """Raise `InputError` unless pictures of this size are decoded."""
        if height * width > self.pixels:
            raise InputError(
                f"{name} has {width} x {height} pixels; at most {self.pixels / 1e6:.0f} million are decoded. Reduce it."
            )

    def check_length(self, name: str, seconds: float | None, frames: int | None) -> None:
        """Raise `InputError` unless a video of this length is accepted; None means that the file does not tell."""
        if seconds is not None and seconds > self.seconds:
            raise InputError(f"{name} lasts {seconds:.0f} s; at most {self.seconds:g} s are accepted. Shorten it.")
        if frames is not None and frames > self.frames:
            raise InputError(f"{name} has {frames} frames; at most {self.frames} are accepted. Shorten it.")


def file_size(count: int) -> str:
    """Return a number of bytes in kB or MB."""
    value, unit = (count / 1e3, "kB") if count < 1e6 else (count / 1e6, "MB")
    return f"{value:.{0 if value >= 10 else 1}f} {unit}"


def hash_password(password: str) -> str:
    """Return the line of a password file (scrypt)."""
    salt = secrets.token_bytes(16)
    return f"scrypt${salt.hex()}${hashlib.scrypt(password.encode(), salt=salt, **_SCRYPT_COST).hex()}"


def read_password(option: str) -> Callable[[str, str], bool]:
    """Return a check of name and password for `USER:FILE`, where the file holds a line of `hash_password`.

    Raises:
        UsageError: the option has another form, or the file is missing or holds something else.
    """
    user, _, name = option.partition(":")
    if not user or not name:
        raise UsageError("--auth is USER:FILE, a name and a file that holds what --hash-password printed.")
    try:
        kind, salt, digest = Path(name).read_text(encoding="utf-8").strip().split("$")
        wanted, salt_bytes = bytes.fromhex(digest), bytes.fromhex(salt)
    except OSError as error:
        raise UsageError(f"--auth: {name} cannot be read. Make it with --hash-password.") from error
    except ValueError as error:
        raise UsageError(f"--auth: {name} holds no line of --hash-password, and never a password itself.") from error
    if kind != "scrypt":
        raise UsageError(f"--auth: {name} is of the kind {kind}; known: scrypt. Make it with --hash-password.")

    def matches(given: str, password: str) -> bool:
        found = hashlib.scrypt(password.encode(), salt=salt_bytes, **_SCRYPT_COST)
        return hmac.compare_digest(wanted, found) and hmac.compare_digest(user.encode(), given.encode())

    return matches


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A model and how it is opened.

    Args:
        path: its file.
        title: its name on the page.
        device: `auto`, `cpu` or `cuda:N`.
        backend: name of a backend; None chooses by the file's ending.
        precision: arithmetic; None keeps the file's own.
        threads: CPU threads; 0 uses one for each physical core.
    """

    path: Path = Path()
    title: str = ""
    device: str = "auto"
    backend: str | None = None
    precision: str | None = None
    threads: int = 0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model as the page lists it.

    Args:
        key: unique name, that of the file.
        choice: how it is opened.
        shipped: it comes with the package.
        size: in bytes.
        manifest: what the file says about itself, None where it could not be read.
        runs_on: device, backend and precision, once it was opened.
        problem: why it cannot be used, "" where it can.
    """

    key: str
    choice: ModelChoice
    shipped: bool
    size: int = 0
    manifest: Manifest | None = None
    runs_on: str = ""
    problem: str = ""

    @property
    def demonstration(self) -> bool:
        """Whether the network is made to be tried rather than used: it says so, or it is one of the package's."""
        use = "" if self.manifest is None else self.manifest.intended_use.lower()
        return "demonstration" in use or self.choice.path.stem.startswith("toytown_")


Opener = Callable[[ModelChoice], Awaitable[dict[str, Any]]]
"""Opens a model in a worker process; returns its `manifest` and `runs_on`, or raises an `LsrError`."""


class Catalogue:
    """The models on offer: those of a folder, then those that come with the package.

    Args:
        folder: of the user's models; None offers the shipped ones alone.
        options: how models are opened.
        opener: opens a model where a crash does no harm.

    Attributes:
        entries: what `refresh` found last.

    Raises:
        UsageError: there is no such folder.
    """

    def __init__(self, folder: Path | None, options: ModelChoice, opener: Opener) -> None:
        if folder is not None and not folder.is_dir():
            raise UsageError(f"--models {folder}: there is no such folder. Name one that holds exported models.")
        self.entries: tuple[Entry, ...] = ()
        self._folder = folder
        self._options = options
        self._opener = opener
        self._known: dict[tuple[Path, int, int], Entry] = {}
        self._refreshing = asyncio.Lock()

    async def refresh(self) -> tuple[Entry, ...]:
        """List the models again; files that are known and unchanged are not opened again."""
        async with self._refreshing:
            own = []
            if self._folder is not None and self._folder.is_dir():
                own = sorted(path for path in self._folder.iterdir() if path.suffix.lower() in (".onnx", ".engine"))
            names = {path.name for path in own}
            entries = [await self._entry(path, path.name, shipped=False) for path in own]
            for path in sorted(_SHIPPED.glob("*.onnx"), reverse=True):  # source-only first
                key = path.name if path.name not in names else f"shipped/{path.name}"
                entries.append(await self._entry(path, key, shipped=True))
            self.entries = tuple(entries)
        return self.entries

    def usable(self) -> list[Entry]:
        """Return the models that can be chosen."""
        return [entry for entry in self.entries if not entry.problem]

    def entry(self, key: str) -> Entry:
        """Return a model that can be used.

        Raises:
            InputError: it is not on offer, or cannot be opened.
        """
        found = next((entry for entry in self.entries if entry.key == key), None)
        if found is None:
            raise InputError(f"The model {key} is not in the folder. Choose another one.")
        if found.problem:
            raise InputError(f"This model cannot be used. {found.problem}")
        return found

    def defaults(self) -> tuple[str, str]:
        """Return the keys chosen at the start, as (before, after): the user's own models where there are any."""
        usable = self.usable()
        own = [entry for entry in usable if not entry.shipped] or usable
        after = next((entry for entry in own if _method(entry) != "source-only"), own[0] if own else None)
        if after is None:
            return "", ""
        before = [entry for entry in own if _method(entry) == "source-only" and _classes(entry) == _classes(after)]
        return before[0].key if before and before[0] is not after else "", after.key

    async def _entry(self, path: Path, key: str, *, shipped: bool) -> Entry:
        title = path.stem
        if shipped:
            domain, _, method = title.partition("_")
            title = f"{'source-only' if method == 'source' else method.replace('_', ' ')} ({domain.capitalize()})"
        entry = Entry(key=key, choice=replace(self._options, path=path, title=title), shipped=shipped)
        try:
            status = path.stat()
        except OSError as error:
            return replace(entry, problem=f"{path.name} cannot be read ({error.strerror}).")
        version = (path, status.st_mtime_ns, status.st_size)
        if version not in self._known:
            try:
                facts = await self._opener(entry.choice)
            except LsrError as error:
                facts = {"problem": str(error)}
            self._known[version] = replace(entry, size=status.st_size, **facts)
        return replace(self._known[version], key=key)


def _method(entry: Entry) -> str:
    return "" if entry.manifest is None else entry.manifest.method


def _classes(entry: Entry) -> tuple[str, ...]:
    return () if entry.manifest is None else tuple(entry.manifest.label_space.names)
