"""Who sees which files: a session is whoever presents its secret, and its files go when it ends.

Every upload and every result lies in the folder of one session under a name nobody can guess, and is handed out by
token, never by path. Knows no web framework and no models.
"""

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lsr_infer.errors import InputError
from lsr_infer.web.limits import Limits

__all__ = ["Result", "Session", "Sessions", "Upload"]

logger = logging.getLogger(__name__)

_SECRET_BYTES = 32
_GRACE_SECONDS = 60.0
"""How long a session outlives its last page; loading a page again closes it first."""
_MOST_SESSIONS = 1000
"""Beyond so many, those seen longest ago end; a visitor who never comes back costs a folder and nothing else."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file that a session sent.

    Args:
        token: how the page calls it.
        name: what the user calls it, without folders.
        path: where it lies.
    """

    token: str
    name: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a job.

    Args:
        id: how the page calls it.
        folder: where its files lie.
        names: what each file is called when it is saved, by its name in the folder; no other file is handed out.
    """

    id: str
    folder: Path
    names: Mapping[str, str] = field(default_factory=dict)


class Session:
    """The files of one user.

    Args:
        key: its secret.
        folder: where they lie.
        cookie: the secret came in a cookie, so it is a browser; otherwise it is one upload of a program.
        seen: when it was last heard of, on the clock of `Sessions`.
    """

    def __init__(self, key: str, folder: Path, *, cookie: bool, seen: float) -> None:
        self.key = key
        self.folder = folder
        self.cookie = cookie
        self.seen = seen
        self.left: float | None = None
        self._tabs: set[str] = set()
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}
        self._results: dict[str, Result] = {}

    def enter(self, page: str) -> None:
        """Note that a page of the session is open."""
        with self._lock:
            self._tabs.add(page)
            self.left = None

    def leave(self, page: str, now: float) -> None:
        """Note that a page of the session was closed."""
        with self._lock:
            self._tabs.discard(page)
            if not self._tabs:
                self.left = now

    def new_upload(self, name: str) -> Upload:
        """Make room for a file; the caller writes it to `path`.

        Args:
            name: what the user calls it; folders and odd characters in it are dropped.
        """
        token = secrets.token_urlsafe(_SECRET_BYTES)
        folder = self.folder / "uploads" / token
        folder.mkdir(parents=True)
        clean = clean_name(name)
        upload = Upload(token=token, name=clean, path=folder / clean)
        with self._lock:
            self._uploads[token] = upload
        return upload

    def upload(self, token: str) -> Upload:
        """Return an upload.

        Raises:
            InputError: it is not there, or not this session's.
        """
        with self._lock:
            found = self._uploads.get(token)
        if found is None or not found.path.is_file():
            raise InputError("The uploaded file is no longer here; files are removed after a while. Send it again.")
        return found

    def drop_upload(self, token: str) -> None:
        """Remove an upload; one that is gone already is no error."""
        with self._lock:
            upload = self._uploads.pop(token, None)
        if upload is not None:
            shutil.rmtree(upload.path.parent, ignore_errors=True)

    def new_result(self) -> Result:
        """Make an empty folder for what a job will write."""
        name = secrets.token_urlsafe(16)
        folder = self.folder / "results" / name
        folder.mkdir(parents=True)
        result = Result(id=name, folder=folder)
        with self._lock:
            self._results[name] = result
        return result

    def publish(self, result: Result, names: Mapping[str, str]) -> None:
        """Let files of a result be handed out, under the names given."""
        with self._lock:
            if result.id in self._results:  # the session may have ended meanwhile
                self._results[result.id] = Result(id=result.id, folder=result.folder, names=dict(names))

    def result(self, name: str) -> Result | None:
        """Return a result of this session, None for any other."""
        with self._lock:
            return self._results.get(name)

    def drop_result(self, name: str) -> None:
        """Remove a result; one that is gone already is no error."""
        with self._lock:
            result = self._results.pop(name, None)
        if result is not None:
            shutil.rmtree(result.folder, ignore_errors=True)

    def make_room(self, limits: Limits) -> None:
        """Remove the oldest uploads and results until the session's files are within the limit."""
        while self._bytes() > limits.session_bytes:
            with self._lock:
                oldest = next(iter(self._results), None)
                first = next(iter(self._uploads), None) if oldest is None else None
            if oldest is not None:
                self.drop_result(oldest)
            elif first is not None:
                self.drop_upload(first)
            else:
                return

    def _bytes(self) -> int:
        """Return how much lies on the disk; what goes away meanwhile counts as nothing."""
        total = 0
        for path in self.folder.rglob("*"):
            try:
                total += path.lstat().st_size
            except OSError:
                continue
        return total


class Sessions:
    """All sessions of a running page.

    Args:
        root: an empty folder that is theirs alone.
        limits: when they end.
        clock: seconds, for tests.
        on_end: told each session that ends, before its files go, so that its jobs can be stopped.
    """

    def __init__(
        self,
        root: Path,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_end: Callable[[Session], None] = lambda session: None,
    ) -> None:
        self.root = root
        self._limits = limits
        self._clock = clock
        self._on_end = on_end
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, *, cookie: bool) -> Session:
        """Begin a session under a new secret, and end those that are over."""
        self.sweep()
        key = secrets.token_urlsafe(_SECRET_BYTES)
        folder = self.root / secrets.token_hex(8)  # the secret itself must not be readable from a list of folders
        folder.mkdir(mode=0o700, parents=True)
        session = Session(key, folder, cookie=cookie, seen=self._clock())
        with self._lock:
            self._sessions[key] = session
            surplus = sorted(self._sessions.values(), key=lambda one: one.seen)[: len(self._sessions) - _MOST_SESSIONS]
        for one in surplus:
            self.end(one)
        return session

    def get(self, key: str | None) -> Session | None:
        """Return the session of a secret, which has now been seen; None where there is none."""
        if not key:
            return None
        with self._lock:
            session = self._sessions.get(key)
            if session is not None:
                session.seen = self._clock()
        return session

    def owning(self, path: Path) -> tuple[Session, Upload] | None:
        """Return whose upload a path is, as programs name what they have just sent; its secret is part of the path."""
        try:
            folder, _, token, name = path.relative_to(self.root).parts
        except ValueError:
            return None
        with self._lock:
            session = next((one for one in self._sessions.values() if one.folder.name == folder), None)
        if session is None:
            return None
        try:
            upload = session.upload(token)
        except InputError:
            return None
        return (session, upload) if upload.path.name == name else None

    def leave(self, session: Session, page: str) -> None:
        """Note that a page was closed; with its last page a session ends a moment later."""
        session.leave(page, self._clock())

    def sweep(self) -> None:
        """End every session that no page shows any more, or that nobody has used for too long."""
        now = self._clock()
        with self._lock:
            over = [
                one
                for one in self._sessions.values()
                if now - one.seen > self._limits.session_seconds
                or (one.left is not None and now - one.left > _GRACE_SECONDS)
            ]
        for session in over:
            self.end(session)

    def end(self, session: Session) -> None:
        """End a session: its jobs stop, its files go."""
        with self._lock:
            self._sessions.pop(session.key, None)
        self._on_end(session)
        shutil.rmtree(session.folder, ignore_errors=True)

    def end_all(self) -> None:
        """End every session, and remove their common folder."""
        for session in list(self._sessions.values()):
            self.end(session)
        shutil.rmtree(self.root, ignore_errors=True)


def clean_name(name: str) -> str:
    """Return the last part of a name with only characters that are harmless in files, headers and pages."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(character if character.isalnum() or character in "-_. " else "_" for character in last)
    stem = kept.strip(" .")[-80:].strip(" .")
    return stem or "upload"
