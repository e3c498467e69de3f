"""Connections that bring no request in time, or no body at a fair rate, on a real server."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

uvicorn = pytest.importorskip("uvicorn", reason="the extra demo is not installed")

from starlette.responses import FileResponse  # noqa: E402 - it comes with uvicorn

from lsr_infer.web import connections, guard, server  # noqa: E402 - they need uvicorn
from lsr_infer.web.limits import Limits  # noqa: E402
from lsr_infer.web.sessions import Sessions  # noqa: E402

HEAD = b"GET / HTTP/1.1\r\nHost: here\r\n"
Visit = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def slow_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["method"] == "GET":
        await asyncio.sleep(3 * connections.HEAD_SECONDS)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def reading_app(scope: Any, receive: Any, send: Any) -> None:
    message = {"more_body": True}
    while message.get("more_body"):
        message = await receive()
    status = 204 if message["type"] == "http.request" else scope["lsr_cut"][0]
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body"})


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Connect to a server whose patience is a fifth of a second."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(guard, "_BODY_SECONDS", 0.2)

    async def run(visit: Visit, guarded: Any) -> None:
        app = slow_app
        if guarded is not None:
            app = guard.Guard(guarded, Sessions(tmp_path, Limits()), cookie="c", upload_bytes=1 << 20)
        config = uvicorn.Config(
            app, port=0, http=connections.PunctualProtocol, lifespan="off", log_level="error", ws="none"
        )
        page = uvicorn.Server(config)
        serving = asyncio.create_task(page.serve())
        while not page.started:
            await asyncio.sleep(0.01)
        port = page.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.wait_for(visit(reader, writer), 20)
        writer.close()
        page.should_exit = True
        await serving

    return lambda visit, guarded=None: asyncio.run(run(visit, guarded))


@pytest.mark.parametrize("sent", [b"", b"GET / HT", HEAD + b"X-More: "])
def test_a_head_that_does_not_end_is_not_waited_for(served: Callable[[Visit], None], sent: bytes) -> None:
    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        assert await reader.read() == b""

    served(visit)


def test_bytes_that_trickle_in_win_no_time(served: Callable[[Visit], None]) -> None:
    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        closed = asyncio.create_task(reader.read())
        sent = 0
        while not closed.done():
            writer.write(b"X-More: 1\r\n")
            sent += 1
            await asyncio.sleep(0.02)
        assert closed.result() == b""
        assert sent > 3

    served(visit)


def test_an_answer_may_take_longer_than_a_head(served: Callable[[Visit], None]) -> None:
    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):  # the second time on a connection that was kept open
            begin = time.monotonic()
            writer.write(HEAD + b"\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
            assert time.monotonic() - begin > connections.HEAD_SECONDS
        writer.write(b"GET / HT")
        assert await reader.read() == b""

    served(visit)


def test_a_body_that_nobody_reads_may_be_sent_to_its_end(served: Callable[[Visit], None]) -> None:
    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 30\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")  # refused before it was sent
        for _ in range(30):
            writer.write(b"x")
            await asyncio.sleep(connections.HEAD_SECONDS / 10)
        writer.write(HEAD + b"\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")

    served(visit)


@pytest.mark.parametrize(
    ("patience", "size", "every", "status"),
    [
        (0.2, 4, 0.02, b"408"),  # 200 bytes a second
        (0.2, 0, 0.02, b"408"),
        (2.0, 500, 0.05, b"204"),  # fast enough, though it takes longer than a body may be silent
        (0.2, 1000, 0.4, b"408"),  # silent for too long, though fast enough by and large
    ],
)
def test_a_body_has_to_come_at_a_fair_rate(
    served: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    patience: float,
    size: int,
    every: float,
    status: bytes,
) -> None:
    monkeypatch.setattr(guard, "_BODY_SECONDS", patience)

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /lsr/uploads HTTP/1.1\r\nHost: here\r\nContent-Length: 30000\r\n\r\n")
        answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        sent = 0
        while not answer.done() and sent < 30_000:
            writer.write(b"x" * size)
            sent += size
            await asyncio.sleep(every)
        assert (await answer).startswith(b"HTTP/1.1 " + status)
        assert (sent == 30_000) == (status == b"204")

    served(visit, reading_app)


def test_the_server_s_own_time_is_not_the_sender_s(served: Callable[..., None], tmp_path: Path) -> None:
    """An answer that was long in coming is sent whole; Starlette asks for the end of the request as it begins."""
    file = tmp_path / "file"
    file.write_bytes(bytes(100_000))

    async def slow_file(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.7)
        await FileResponse(file)(scope, receive, send)

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /lsr/results/1 HTTP/1.1\r\nHost: here\r\n\r\n")
        assert b"content-length: 100000" in (await reader.readuntil(b"\r\n\r\n")).lower()
        assert await reader.readexactly(100_000) == file.read_bytes()

    served(visit, slow_file)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such limit")
def test_an_answer_that_nobody_reads_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_UNREAD_SECONDS", 1)
    with server.bound("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            connection.settimeout(60)  # of this process; the system's own limit comes first
            with pytest.raises(OSError, match="Connection timed out"):
                connection.sendall(bytes(1 << 26))
