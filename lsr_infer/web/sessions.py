"""Who sees which files: a session is whoever presents its secret, and its files go when it ends.

Every upload and every result lies in the folder of one session under a name nobody can guess, and is handed out by
token, never by path. Knows no web framework and no models.
"""

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lsr_infer.errors import InputError, UsageError
from lsr_infer.web.limits import Limits

__all__ = ["KEY_HEADER", "FullError", "Result", "Session", "Sessions", "Upload", "clean_name"]

KEY_HEADER = "x-session-key"
"""By which a program that keeps no cookies shows whose results it fetches."""
_SECRET_BYTES = 32
_GRACE_SECONDS = 60.0
"""How long a session outlives its last page; loading a page again closes it first."""
_PROGRAM_SECONDS = 120.0
"""How long an upload of a program waits for the call that it is meant for."""
_NAME_BYTES = 100


class FullError(UsageError):
    """There is no room for more, whoever asks."""


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
        self._ended = False
        self._uploads: dict[str, Upload] = {}
        self._results: dict[str, Result] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost with it: no page is open, and it has no files."""
        return not (self._tabs or self._uploads or self._results)

    @property
    def has_results(self) -> bool:
        """Whether somebody may still come for a result."""
        return bool(self._results)

    @property
    def ended(self) -> bool:
        """Whether it takes nothing more."""
        return self._ended

    def end(self) -> None:
        """Take no more files, and remove those that are there."""
        with self._lock:
            self._ended = True
            self._uploads.clear()
            self._results.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

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

        Raises:
            InputError: the session has ended.
            OSError: there is no room.
        """
        token = secrets.token_urlsafe(_SECRET_BYTES)
        clean = clean_name(name)
        upload = Upload(token=token, name=clean, path=self.folder / "uploads" / token / clean)
        with self._lock:
            self._make(upload.path.parent)
            self._uploads[token] = upload
        return upload

    def _make(self, folder: Path) -> None:
        """Make a folder unless the session has ended meanwhile."""
        if self._ended:
            raise InputError("This page is no longer known to the server. Load it again.")
        self.folder.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(parents=True)

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
        """Make an empty folder for what a job will write.

        Raises:
            InputError: the session has ended.
            OSError: there is no room.
        """
        name = secrets.token_urlsafe(16)
        result = Result(id=name, folder=self.folder / "results" / name)
        with self._lock:
            self._make(result.folder)
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

    def make_room(self, most: int, *, keep: Collection[str]) -> None:
        """Remove the oldest results, then the oldest uploads, until the session's files are within a limit.

        Args:
            most: bytes that may be left.
            keep: tokens and names of those that are in use.

        Raises:
            FullError: those alone are more.
        """
        while self._bytes() > most:
            with self._lock:
                results = [name for name in self._results if name not in keep]
                uploads = [token for token in self._uploads if token not in keep]
            if results:
                self.drop_result(results[0])
            elif uploads:
                self.drop_upload(uploads[0])
            else:
                raise FullError("Your files take all the room one visitor has here. Wait for your jobs, or cancel one.")

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
        root: a folder that is theirs alone.
        limits: how many there may be, and when they end.
        clock: seconds, for tests.
        busy: whether a session has jobs under way, which keep it alive.
        on_end: told each session that has ended, so that its jobs can be stopped.
    """

    def __init__(
        self,
        root: Path,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        busy: Callable[[Session], bool] = lambda session: False,
        on_end: Callable[[Session], None] = lambda session: None,
    ) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._limits = limits
        self._clock = clock
        self._busy = busy
        self._on_end = on_end
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._by_folder: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, *, cookie: bool) -> Session:
        """Begin a session under a new secret; its folder is made with its first file.

        Raises:
            FullError: there are as many as there may be, and each is in use.
        """
        with self._lock:
            kind = [one for one in self._sessions.values() if one.cookie == cookie]
            if len(kind) >= self._limits.sessions:
                idle = min((one for one in kind if one.idle), key=lambda one: one.seen, default=None)
                if idle is None:
                    raise FullError("Too many visitors are here at the moment. Try again in a few minutes.")
                self._forget(idle)
                idle.end()  # a request that holds it still must not leave a folder behind
            key = secrets.token_urlsafe(_SECRET_BYTES)
            folder = self.root / secrets.token_hex(8)  # the secret must not be readable from a list of folders
            session = Session(key, folder, cookie=cookie, seen=self._clock())
            self._sessions[key] = self._by_folder[folder.name] = session
        return session

    def get(self, key: str | None) -> Session | None:
        """Return the session of a secret, which has now been seen; None where there is none."""
        if not key:
            return None
        with self._lock:
            session = self._sessions.get(key)
            if session is not None:
                session.seen = self._clock()
                session.left = None if session.left is None else session.seen  # it is not gone after all
        return session

    def owning(self, path: Path) -> tuple[Session, Upload] | None:
        """Return whose upload a path is, as programs name what they have just sent; its secret is part of the path."""
        try:
            folder, _, token, name = path.relative_to(self.root).parts
        except ValueError:
            return None
        session = self._by_folder.get(folder)
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
        """End every session that no page shows any more, or that nobody has used for too long; jobs keep one alive."""
        now = self._clock()
        with self._lock:
            over = [one for one in self._sessions.values() if self._is_over(one, now)]
        for session in over:
            if not self._busy(session):
                self.end(session)

    def _is_over(self, session: Session, now: float) -> bool:
        if session.left is not None and now - session.left > _GRACE_SECONDS:
            return True
        patience = self._limits.session_seconds
        if not session.cookie and not session.has_results:
            patience = min(patience, _PROGRAM_SECONDS)
        return now - session.seen > patience

    def end(self, session: Session) -> None:
        """End a session: its jobs stop, its files go."""
        with self._lock:
            self._forget(session)
        session.end()
        self._on_end(session)

    def _forget(self, session: Session) -> None:
        self._sessions.pop(session.key, None)
        self._by_folder.pop(session.folder.name, None)

    def end_all(self) -> None:
        """End every session, and remove their common folder."""
        for session in list(self._sessions.values()):
            self.end(session)
        shutil.rmtree(self.root, ignore_errors=True)


def clean_name(name: str) -> str:
    """Return the last part of a name with only characters that are harmless in files, headers and pages."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(character if character.isalnum() or character in "-_. " else "_" for character in last)
    stem = kept.strip(" .").encode("utf-8")[-_NAME_BYTES:].decode("utf-8", "ignore").strip(" .")
    return stem or "upload"
