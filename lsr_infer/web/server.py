"""From options to a page that answers: the port, the folder of files, the applications around one another.

Needs the extra `demo`, for starlette and uvicorn come with Gradio; the page itself is a function that is handed in.
"""

import asyncio
import contextlib
import errno
import fcntl
import ipaddress
import logging
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lsr_infer.errors import DeviceError, UsageError
from lsr_infer.web.guard import Guard
from lsr_infer.web.limits import Limits
from lsr_infer.web.passwords import Password
from lsr_infer.web.requests import ModelChoice
from lsr_infer.web.service import Service

__all__ = ["ServerOptions", "bound", "is_loopback", "own_folder", "serve"]

logger = logging.getLogger(__name__)

_PREFIX = "lsr-demo-"
_LOCK = "lock"
_SWEEP_SECONDS = 15.0
_LOOK_SECONDS = 0.05
_MOST_CONNECTIONS = 1000
_UNREAD_SECONDS = 600
"""How long an answer may lie unread (ours): browsers read no further while a clip is paused. A clip that is paused for
longer goes on by a request for the rest, one that still grows from its beginning."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How the page is served.

    Args:
        models: folder of the user's models, None for the shipped ones alone.
        host: address it listens at.
        port: port it listens at; 0 takes a free one.
        password: asked for where there is one.
        hosts: names under which the page may be asked for; empty takes those of this machine, or any beyond it.
        public: opens a public address that leads to a port here, and returns it; None opens none.
        model_options: how models are opened; path and title stand for nothing.
        limits: what is taken.
    """

    models: Path | None = None
    host: str = "127.0.0.1"
    port: int = 7860
    password: Password | None = None
    hosts: tuple[str, ...] = ()
    public: Callable[[int], str] | None = None
    model_options: ModelChoice = field(default_factory=lambda: ModelChoice(path=Path(), title=""))
    limits: Limits = field(default_factory=Limits)


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def bound(host: str, port: int) -> socket.socket:
    """Take a port, before anything slow is done.

    Raises:
        UsageError: it is taken, or cannot be taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; each connection takes it over
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _UNREAD_SECONDS)
    try:
        taken.bind((host, port))
        taken.listen()
    except (OSError, OverflowError) as error:
        taken.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} is taken by another program. Choose one with --port.") from error
        raise UsageError(
            f"cannot listen at {host}, port {port} ({error}). Choose others with --host and --port."
        ) from error
    return taken


@contextmanager
def own_folder() -> Iterator[Path]:
    """Give a folder for the files of all sessions, which goes at the end; also goes what a killed server has left.

    Raises:
        DeviceError: there is no place for temporary files.
    """
    try:
        root = Path(tempfile.mkdtemp(prefix=_PREFIX))
    except OSError as error:
        raise DeviceError(f"there is no place for temporary files ({error.strerror}). Set TMPDIR.") from error
    with (root / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_orphans(root)
        try:
            yield root
        finally:
            shutil.rmtree(root, ignore_errors=True)


def _remove_orphans(own: Path) -> None:
    """Remove the folders of servers that are no longer running: nobody holds their locks."""
    for folder in own.parent.glob(f"{_PREFIX}*"):
        if folder == own:
            continue
        with contextlib.suppress(OSError), (folder / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


PageOf = Callable[[Service, str], Any]
"""Builds the application of the page from the service and the address at which it answers."""


def serve(options: ServerOptions, listening: socket.socket, root: Path, page_of: PageOf) -> None:
    """Serve the page until it is interrupted.

    Args:
        options: how.
        listening: from `bound`.
        root: from `own_folder`.
        page_of: mounts the page's own part; given a Starlette application's routes it returns an ASGI application.

    Raises:
        LsrError: the models' folder is not there, or no model can be used.
    """
    import uvicorn

    from lsr_infer.web.connections import PunctualProtocol, SteadyServer

    host, port = listening.getsockname()[:2]
    address = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else f'[{host}]' if ':' in host else host}:{port}"
    service = Service(root / "sessions", options.models, options.model_options, options.limits)
    try:
        entries = service.catalogue.refresh()
        if options.models is not None and all(entry.shipped for entry in entries):
            logger.warning("%s holds no model (.onnx, .engine); the shipped networks are offered", options.models)
        if not service.catalogue.good():
            problem = service.catalogue.entries[0].problem if service.catalogue.entries else "there is none."
            raise DeviceError(f"none of the models can be used; of the first: {problem}")
        guard = Guard(
            page_of(service, address),
            service.sessions,
            cookie=f"lsr_session_{port}",
            upload_bytes=options.limits.upload_bytes,
            hosts=_hosts(options),
            password=options.password,
        )
        if options.public is not None:
            logger.warning("everybody who knows %s can use this page", options.public(port))
        config = uvicorn.Config(
            guard,
            log_level="warning",
            lifespan="on",
            timeout_graceful_shutdown=2,
            http=PunctualProtocol,
            ws="none",
            limit_concurrency=_MOST_CONNECTIONS,
        )
        server = SteadyServer(config)
        asyncio.run(_served(server, listening, service, guard, address))
    finally:
        service.close()


def _hosts(options: ServerOptions) -> tuple[str, ...]:
    """Return the names under which the page may be asked for; others may be a stranger's that lead here."""
    if options.hosts:
        return (*options.hosts, *_LOOPBACK)  # a health check inside a container asks for 127.0.0.1
    if is_loopback(options.host) and options.public is None:
        return (options.host, *_LOOPBACK)
    return ()


async def _served(server: Any, listening: socket.socket, service: Service, guard: Guard, address: str) -> None:
    """Run the server and the sweeper beside it."""
    sweeper = asyncio.create_task(_sweep(service))
    watcher = asyncio.create_task(_watch(server, service, guard, address))
    try:
        await server.serve(sockets=[listening])
    finally:
        for task in (sweeper, watcher):
            task.cancel()


async def _watch(server: Any, service: Service, guard: Guard, address: str) -> None:
    """Say where the page is, once it answers; end what would go on for ever, once it is to stop."""
    while not server.started:
        await asyncio.sleep(_LOOK_SECONDS)
    logger.info("the page is at %s (Ctrl-C ends it)", address)
    while not server.should_exit:
        await asyncio.sleep(_LOOK_SECONDS)
    guard.stop()
    await asyncio.to_thread(service.stop)


async def _sweep(service: Service) -> None:
    """End sessions that are over, now and then."""
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        await asyncio.to_thread(service.sessions.sweep)
