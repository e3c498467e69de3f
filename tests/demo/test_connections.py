"""Connections that bring no request in time, on a real server."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

uvicorn = pytest.importorskip("uvicorn", reason="the extra demo is not installed")

from lsr_infer.web import connections  # noqa: E402 - it needs uvicorn

HEAD = b"GET / HTTP/1.1\r\nHost: here\r\n"
Visit = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def slow_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["method"] == "GET":
        await asyncio.sleep(3 * connections.HEAD_SECONDS)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[[Visit], None]:
    """Connect to a server whose patience is a fifth of a second."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)

    async def run(visit: Visit) -> None:
        config = uvicorn.Config(
            slow_app, port=0, http=connections.PunctualProtocol, lifespan="off", log_level="error", ws="none"
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.wait_for(visit(reader, writer), 20)
        writer.close()
        server.should_exit = True
        await serving

    return lambda visit: asyncio.run(run(visit))


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
