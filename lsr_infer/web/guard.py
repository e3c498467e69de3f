"""What stands before every request: who asks, from where, for what, and how much is sent.

Plain ASGI around the whole application, Gradio's part included. Of Gradio's own addresses only those the page needs are
let through; its cache in particular, which anyone who knows an address could read, is not.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from lsr_infer.web.limits import file_size
from lsr_infer.web.passwords import Password
from lsr_infer.web.sessions import FullError, Session, Sessions

__all__ = ["Guard"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_READ = (
    "/assets/", "/static/", "/svelte/", "/lsr/", "/gradio_api/info", "/gradio_api/startup-events",
    "/gradio_api/heartbeat/", "/gradio_api/queue/data", "/gradio_api/call/", "/gradio_api/theme.css",
)  # fmt: skip
_READ_EXACTLY = ("/", "/config", "/config/", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt",
                 "/gradio_api/app_id")  # fmt: skip
"""The last is asked for by a page of Gradio's that has lost its server."""
_WRITE = ("/lsr/", "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/call/", "/gradio_api/cancel",
          "/gradio_api/reset")  # fmt: skip
_HEALTH = "/lsr/health"
"""What a container's supervisor asks, which knows no password."""
_UPLOADS = ("/lsr/uploads", "/gradio_api/upload")
_CALLS = ("/gradio_api/queue/join", "/gradio_api/call/")
_OTHER_BODIES = 8 << 20
"""Most bytes of a request that is no upload: a camera's frame."""
_CALL_BYTES = 1 << 20
_BODY_SECONDS = 30.0
"""How long a body may send nothing, or stay behind its least rate."""
_BODY_RATE = 4000
"""Bytes a second that a body brings at the least, as a whole."""
_SLOW = 408, "What was sent came too slowly, or not to its end. Send it again."
_MOST_CHECKS = 8
"""Passwords that may wait to be checked."""
_MOST_HASHES = 10_000
_FORM_BYTES = 64 << 10
"""What a form adds to the file in it."""

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self' blob: data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""Whatever a script or a style would like: nothing is fetched from another host."""
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-resource-policy": b"same-origin",
}


class Guard:
    """The outermost application.

    Args:
        app: what is guarded.
        sessions: who is known.
        cookie: name of the cookie that holds a session's secret.
        upload_bytes: most bytes of an uploaded file.
        hosts: names under which the page may be asked for, without port; empty allows any.
        password: asked for where there is one.
    """

    def __init__(
        self,
        app: App,
        sessions: Sessions,
        *,
        cookie: str,
        upload_bytes: int,
        hosts: Collection[str] = (),
        password: Password | None = None,
    ) -> None:
        self._app = app
        self._sessions = sessions
        self._cookie = cookie
        self._upload_bytes = upload_bytes
        self._hosts = frozenset(hosts)
        self._password = password
        self._admitted: bytes | None = None
        self._checking = 0
        self._checker = ThreadPoolExecutor(1, "password")  # guessing must not take the threads of uploads
        self._stopping = asyncio.Event()
        self._hashes: OrderedDict[str, str] = OrderedDict()

    def stop(self) -> None:
        """End the answers that would go on for ever, such as a page's heartbeat, as if their readers had left."""
        self._stopping.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let it through."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers) or await self._stranger(scope["path"], headers)
        if refusal is not None:
            if refusal[0] == 413:
                await _drain(self._counted(scope, receive, 2), 2 * self._most(scope["path"]))
            await _refuse(send, *refusal)
            return
        session = self._sessions.get(_cookie(headers.get(b"cookie", ""), self._cookie))
        new = session is None and scope["path"] == "/" and scope["method"] == "GET"
        if new:
            try:
                session = self._sessions.open(cookie=True)
            except FullError as error:
                await _refuse(send, 503, str(error), {})
                return
        scope["lsr_session"] = session
        if not self._may_listen(scope, session):
            await _refuse(send, 404, "There is nothing here, or it is not yours.", {})
            return
        key = session.key if new and session is not None else None
        receive = self._counted(scope, receive)
        if scope["method"] == "POST" and scope["path"].startswith(_CALLS):
            body = await _body(receive)
            if body is None:
                status, text = scope.get("lsr_cut", _SLOW)
                await _refuse(send, status, text, {})
                return
            if not self._harmless(body):
                await _refuse(send, 400, "Send the file itself. Addresses and places on the server are not taken.", {})
                return
            self._claim(body, session)
            receive = _again(body, receive)
        answer = _Answer(send, None if key is None else f"{self._cookie}={key}; Path=/; HttpOnly; SameSite=Lax")
        await self._app(scope, receive, answer)
        if self._stopping.is_set():
            await answer.end()

    def _refusal(self, scope: Scope, headers: dict[bytes, str]) -> tuple[int, str, dict[bytes, bytes]] | None:
        """Return status, sentence and headers of a refusal, None for a request that may go on."""
        host = headers.get(b"host", "")
        if self._hosts and _without_port(host) not in self._hosts:
            return 400, "This page answers under another name. Use the address it printed when it was started.", {}
        if not _known(scope["path"], scope["method"]):
            return 404, "There is nothing here.", {}
        origin = headers.get(b"origin")
        if scope["method"] == "POST" and origin is not None and origin.partition("://")[2] != host:
            return 403, "Another page asks this one to do something. Use the page itself.", {}
        length = headers.get(b"content-length", "")
        if length.isdecimal() and int(length) > self._most(scope["path"]):
            return 413, self._too_large(), {}
        return None

    def _too_large(self) -> str:
        return f"At most {file_size(self._upload_bytes)} are taken. Cut the file, or reduce it."

    async def _stranger(self, path: str, headers: dict[bytes, str]) -> tuple[int, str, dict[bytes, bytes]] | None:
        """Return the refusal of a request that does not bring the right name and password."""
        if self._password is None or path == _HEALTH:
            return None
        authorization = headers.get(b"authorization", "")
        digest = hashlib.sha256(authorization.encode("utf-8")).digest()
        if self._admitted is not None and hmac.compare_digest(digest, self._admitted):
            return None
        if authorization:
            if self._checking >= _MOST_CHECKS:
                return 429, "Too many passwords are being tried. Try again in a minute.", {b"retry-after": b"60"}
            self._checking += 1
            try:
                loop = asyncio.get_running_loop()
                right = await loop.run_in_executor(self._checker, self._admits, self._password, authorization)
            finally:
                self._checking -= 1
            if right:
                self._admitted = digest  # the password's own hash takes 40 ms, too long for each of a page's files
                return None
        return 401, "Name and password are needed.", {b"www-authenticate": b'Basic realm="lsr", charset="UTF-8"'}

    @staticmethod
    def _admits(expected: Password, authorization: str) -> bool:
        """Whether a request brings the right name and password."""
        kind, _, encoded = authorization.partition(" ")
        if kind.lower() != "basic":
            return False
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        return expected.matches(user, password)

    def _most(self, path: str) -> int:
        if path in _UPLOADS:
            return self._upload_bytes + _FORM_BYTES
        return _CALL_BYTES if path.startswith(_CALLS) else _OTHER_BODIES

    def _harmless(self, body: bytes) -> bool:
        """Whether a call names no file but uploads: Gradio would fetch an address, or copy a file that it may read."""
        try:
            found = [json.loads(body)]
        except (ValueError, RecursionError):
            return False
        while found:
            value = found.pop()
            if isinstance(value, list):
                found += value
            elif isinstance(value, dict):
                found += value.values()
                if "path" in value and not self._is_upload(value["path"]):
                    return False
        return True

    def _is_upload(self, path: object) -> bool:
        return isinstance(path, str) and "\0" not in path and self._sessions.owning(Path(path)) is not None

    def _claim(self, body: bytes, session: Session | None) -> None:
        """Remember whose a stream of events is: the hash in a call is chosen by the page's script."""
        called = json.loads(body)
        hashed = called.get("session_hash") if isinstance(called, dict) else None
        if isinstance(hashed, str):
            self._hashes.setdefault(hashed, "" if session is None else session.key)
            while len(self._hashes) > _MOST_HASHES:
                self._hashes.popitem(last=False)

    def _may_listen(self, scope: Scope, session: Session | None) -> bool:
        """Whether a stream of events is the session's that asks for it."""
        if scope["path"] != "/gradio_api/queue/data":
            return True
        hashed = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
        owner = self._hashes.get(hashed)
        return owner is None or owner == ("" if session is None else session.key)

    def _counted(self, scope: Scope, receive: Receive, times: int = 1) -> Receive:
        """Cut a body off that is longer than it may be, whatever its header says, or that does not go on.

        Only what the reader waits for the sender counts as time, not what is done in between. Status and sentence of
        the refusal are left in the scope as `lsr_cut`.
        """
        most, seen, whole, waited = times * self._most(scope["path"]), 0, False, 0.0

        async def counted() -> Message:
            nonlocal seen, whole, waited
            left, begin = _BODY_SECONDS + seen / _BODY_RATE - waited, time.monotonic()
            try:
                message = await asyncio.wait_for(self._next(receive), None if whole else min(left, _BODY_SECONDS))
            except TimeoutError:
                scope["lsr_cut"] = _SLOW
                return {"type": "http.disconnect"}
            finally:
                waited += time.monotonic() - begin
            whole = not message.get("more_body")
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > most:
                    scope["lsr_cut"] = 413, self._too_large()
                    return {"type": "http.disconnect"}
            return message

        return counted

    async def _next(self, receive: Receive) -> Message:
        """Return what comes next; that the reader has left, once the server is being stopped."""
        coming = asyncio.ensure_future(receive())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((coming, stopping), return_when=asyncio.FIRST_COMPLETED)
            return coming.result() if coming.done() else {"type": "http.disconnect"}
        finally:
            coming.cancel()
            stopping.cancel()


class _Answer:
    """An answer on its way out; it is given our headers.

    Args:
        send: takes its parts.
        cookie: of a session that has just begun.
    """

    def __init__(self, send: Send, cookie: str | None) -> None:
        self._send = send
        self._cookie = cookie
        self._open = False

    async def __call__(self, message: Message) -> None:
        """Send one part."""
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message["headers"] if name.lower() not in _HEADERS]
            message["headers"] = [*kept, *_HEADERS.items()]
            if self._cookie is not None:
                message["headers"].append((b"set-cookie", self._cookie.encode("ascii")))
            self._open = True
        elif message["type"] == "http.response.body":
            self._open = bool(message.get("more_body"))
        await self._send(message)

    async def end(self) -> None:
        """End it where the application has left it open."""
        if self._open:
            await self({"type": "http.response.body", "body": b"", "more_body": False})


def _known(path: str, method: str) -> bool:
    """Whether an address is one the page needs."""
    if method in ("GET", "HEAD"):
        return path in _READ_EXACTLY or path.startswith(_READ)
    return method == "POST" and path.startswith(_WRITE)


def _cookie(header: str, name: str) -> str | None:
    """Return a cookie's value."""
    for pair in header.split(";"):  # the standard library gives up at the first odd cookie of somebody else
        found, _, value = pair.strip().partition("=")
        if found == name:
            return value
    return None


def _without_port(host: str) -> str:
    """Return the name in a Host header."""
    name, _, port = host.rpartition(":")
    return name if name and port.isdecimal() else host


async def _body(receive: Receive) -> bytes | None:
    """Return a whole body, None where it was cut off."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Give a body that has been read once more, then whatever follows."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _drain(receive: Receive, most: int) -> None:
    """Take in what is being sent, within limits: a browser reads no answer before it has sent everything."""
    seen = 0
    while seen <= most:
        message = await receive()
        seen += len(message.get("body", b""))
        if not message.get("more_body"):
            return


async def _refuse(send: Send, status: int, text: str, headers: dict[bytes, bytes]) -> None:
    body = json.dumps({"error": text}).encode()
    fields = {b"content-type": b"application/json", b"content-length": str(len(body)).encode(), **_HEADERS, **headers}
    await send({"type": "http.response.start", "status": status, "headers": list(fields.items())})
    await send({"type": "http.response.body", "body": body})
