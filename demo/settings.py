"""Holds what the demo accepts and which models it offers.

Every limit refuses with a sentence. A model is read and opened once, in a worker process, before it can be chosen.
"""

import asyncio
import hashlib
import hmac
import secrets
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import lsr_infer
from lsr_infer import InputError, LsrError, Manifest, UsageError

__all__ = [
    "SHIPPED",
    "Catalogue",
    "Entry",
    "Limits",
    "ModelChoice",
    "file_size",
    "hash_password",
    "read_password",
    "sides",
]

SHIPPED = Path(lsr_infer.__file__).parent / "models"
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
        client_queue: requests of one address that may wait or run, less than --queue; without it a quarter of that.
        job_seconds: how long one video may compute.
        picture_seconds: how long one picture may compute.
        job_bytes: memory of a process that computes.
        session_seconds: age at which uploads and results are deleted.
        free_bytes: of the disk that must stay free.
    """

    upload_bytes: int = 256 << 20
    pixels: int = 1 << 25
    seconds: float = 600.0
    frames: int = 20_000
    shown_width: int = 1280
    jobs: int = 1
    queue: int = 40
    client_queue: int | None = None
    job_seconds: float = 1800.0
    picture_seconds: float = 60.0
    job_bytes: int = 6 << 30
    session_seconds: float = 3600.0
    free_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"--{field.name.replace('_', '-')} is {value}; allowed: finite numbers above 0.")
        if self.client_queue is not None and self.client_queue >= self.queue:
            both = f"--client-queue is {self.client_queue} and --queue {self.queue}"
            raise UsageError(f"{both}; allowed: less than --queue, so that one address cannot fill it.")

    @property
    def of_one_address(self) -> int:
        """Requests of one address that may wait or run, at least 1."""
        return self.client_queue or max(1, self.queue // 4)

    def check_bytes(self, name: str, size: int) -> None:
        """Raise `InputError` unless a file of this size is accepted."""
        if size > self.upload_bytes:
            most = file_size(self.upload_bytes)
            raise InputError(f"{name} has {file_size(size)}; at most {most} are accepted. Shorten or reduce it.")

    def check_room(self, folder: Path) -> None:
        """Raise `InputError` unless the disk of a folder has room for more files."""
        if shutil.disk_usage(folder).free < self.free_bytes:
            raise InputError("The server has no room for files at the moment. Try again later.")

    def check_pixels(self, name: str, height: int, width: int) -> None:
        """Raise `InputError` unless pictures of this size are decoded."""
        if height * width > self.pixels:
            most = f"{self.pixels / 1e6:.0f} million"
            raise InputError(f"{name} has {width} x {height} pixels; at most {most} are decoded. Reduce it.")

    def check_length(self, name: str, seconds: float | None, frames: int | None) -> None:
        """Raise `InputError` unless a video of this length is accepted; None means that the file does not tell."""
        if seconds is not None and seconds > self.seconds:
            raise InputError(f"{name} lasts {seconds:.0f} s; at most {self.seconds:g} s are accepted. Shorten it.")
        if frames is not None and frames > self.frames:
            raise InputError(f"{name} has {frames} frames; at most {self.frames} are accepted. Shorten it.")


def file_size(size: int) -> str:
    """Return a number of bytes in KiB or MiB."""
    value, unit = (size / 2**10, "KiB") if size < 2**20 else (size / 2**20, "MiB")
    return f"{value:.{0 if value >= 10 else 1}f} {unit}"


def hash_password(password: str, salt: bytes | None = None) -> str:
    """Return the line of a password file (scrypt)."""
    salt = secrets.token_bytes(16) if salt is None else salt
    return f"scrypt${salt.hex()}${hashlib.scrypt(password.encode(), salt=salt, **_SCRYPT_COST).hex()}"


def read_password(option: str) -> Callable[[str, str], bool]:
    """Return a check of name and password for `USER:FILE`, where the file holds a line of `hash_password`."""
    user, _, name = option.partition(":")
    if not user or not name:
        raise UsageError("--auth is USER:FILE, a name and a file that holds what --hash-password printed.")
    try:
        line = Path(name).read_text(encoding="utf-8").strip()
        kind, salt = line.split("$")[0], bytes.fromhex(line.split("$")[1])
    except OSError as error:
        raise UsageError(f"--auth: {name} cannot be read. Make it with --hash-password.") from error
    except (ValueError, IndexError):
        kind = ""
    if kind != "scrypt":
        raise UsageError(f"--auth: {name} holds no line of --hash-password, and never a password itself.")

    def matches(given: str, password: str) -> bool:
        right = hmac.compare_digest(line.encode(), hash_password(password, salt).encode())
        return hmac.compare_digest(user.encode(), given.encode()) and right

    return matches


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A model and how it is opened: arguments of `lsr_infer.Segmenter`, and the name that the page shows."""

    path: Path = Path()
    title: str = ""
    device: str = "auto"
    backend: str | None = None
    precision: str | None = None
    threads: int = 0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model as the page lists it; without a Manifest where the file could not be read."""

    key: str
    choice: ModelChoice
    shipped: bool
    size: int = 0
    manifest: Manifest | None = None
    runs_on: str = ""
    problem: str = ""  # why it cannot be used, if so

    @property
    def source_only(self) -> bool:
        """Whether the network was not adapted."""
        return self.manifest is not None and self.manifest.method == "source-only"


def sides(models: int) -> tuple[str, ...]:
    """Return what the results of one model, or of two, are called."""
    return ("before", "after")[-models:]


Opener = Callable[[ModelChoice], Awaitable[dict[str, Any]]]
"""Opens a model in a worker process; returns its `manifest` and `runs_on`, or raises an `LsrError`."""


class Catalogue:
    """The models on offer, `entries`: those of a folder where there is one, then those that come with the package."""

    def __init__(self, folder: Path | None, options: ModelChoice, opener: Opener) -> None:
        if folder is not None and not folder.is_dir():
            raise UsageError(f"--models {folder}: there is no such folder. Name one that holds exported models.")
        self.entries: list[Entry] = []
        self._folder, self._options, self._opener = folder, options, opener
        self._known: dict[tuple[Path, int, int], Entry] = {}
        self._refreshing = asyncio.Lock()

    async def refresh(self) -> list[Entry]:
        """List the models again; files that are known and unchanged are not opened again."""
        async with self._refreshing:
            own = [] if self._folder is None else sorted(self._folder.glob("*"))
            own = [path for path in own if path.suffix.lower() in (".onnx", ".engine")]
            names = {path.name for path in own}
            entries = [await self._entry(path, path.name, path.stem, shipped=False) for path in own]
            for path in sorted(SHIPPED.glob("*.onnx")):  # source-only first
                key = path.name if path.name not in names else f"shipped/{path.name}"
                domain, _, source = path.stem.partition("-")
                title = f"{'source-only' if source else 'adapted'} ({domain.capitalize()})"
                entries.append(await self._entry(path, key, title, shipped=True))
            self.entries = entries
        return entries

    def usable(self) -> list[Entry]:
        """Return the models that can be chosen."""
        return [entry for entry in self.entries if not entry.problem]

    def entry(self, key: str) -> Entry:
        """Return a model that can be used."""
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
        after = next((entry for entry in own if not entry.source_only), own[0] if own else None)
        if after is None or after.manifest is None:
            return "", ""
        names = after.manifest.label_space.names
        same = [one for one in own if one.manifest is not None and one.manifest.label_space.names == names]
        before = next((one.key for one in same if one.source_only and one is not after), "")
        return before, after.key

    async def _entry(self, path: Path, key: str, title: str, *, shipped: bool) -> Entry:
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
