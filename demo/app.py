"""Serves a page that shows pictures and clips before and after adaptation.

python demo/app.py                       # the demonstration networks that come with the package
python demo/app.py --models exported/    # your own ONNX files and engines
"""

import argparse
import asyncio
import errno
import fcntl
import getpass
import importlib.util
import ipaddress
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lsr_infer import DeviceError, UsageError
from lsr_infer.errors import exit_status, extra, stderr_handler
from pool import Pool
from settings import RESULTS, Catalogue, Limits, ModelChoice, hash_password, read_password

__all__ = ["main", "run"]

logger = logging.getLogger("demo")

_PREFIX = "lsr-demo-"
_SWEEP_SECONDS = 30.0
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


@dataclass(frozen=True, kw_only=True)
class _Server:
    """How the page is served.

    Args:
        host: address it listens at.
        port: port it listens at.
        auth: check of name and password, None where anybody may come in.
        hosts: names under which the page may be asked for; empty allows any.
        share: also open a public address through Gradio's servers.
    """

    host: str
    port: int
    auth: Callable[[str, str], bool] | None
    hosts: tuple[str, ...]
    share: bool

    @property
    def address(self) -> str:
        """Where a browser on this machine finds the page."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo/app.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")  # a Gradio Space sets both
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    parser.add_argument("--models", type=Path, metavar="DIR", help="folder of exported models (.onnx, .engine)")
    parser.add_argument("--host", default=host, help="address to listen at; the default is this machine alone")
    parser.add_argument("--port", type=int, default=port, help="port to listen at; 0 takes a free one")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME",
                        help="the only names it may be asked for under")  # fmt: skip
    parser.add_argument("--share", action="store_true", help="also open a public address through Gradio's servers")
    parser.add_argument("--auth", metavar="USER:FILE", help="ask for a name and a password; see --hash-password")
    parser.add_argument("--hash-password", action="store_true", help="ask for a password, print the line for FILE, end")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--backend", help="onnxruntime, openvino, tensorrt or tensorrt-rtx; the file's ending decides")
    parser.add_argument("--precision", help="arithmetic, where the backend lets one choose")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of a network; 0: one a physical core")
    limits = parser.add_argument_group("limits, each refused with a sentence")
    meanings = dict(line.strip().split(": ", 1) for line in (Limits.__doc__ or "").splitlines() if ": " in line)
    for field in fields(Limits):
        kind = int if isinstance(field.default, int) else float
        limits.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default, metavar="N",
                            help=f"{meanings[field.name].rstrip('.')} ({field.default})")  # fmt: skip
    return parser


def run(arguments: Sequence[str]) -> None:
    """Serve the page until it is interrupted.

    Raises:
        LsrError: the page cannot be started.
    """
    options = vars(_parser().parse_args(arguments))
    if options["hash_password"]:
        password = getpass.getpass("Password: ")
        if getpass.getpass("Once more: ") != password:
            raise UsageError("the two passwords differ. Try again.")
        print(hash_password(password))  # noqa: T201 - the result
        return
    logging.basicConfig(level=logging.INFO, handlers=[stderr_handler()])
    for name in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    limits = Limits(**{field.name: options[field.name] for field in fields(Limits)})
    choice = ModelChoice(**{name: options[name] for name in ("device", "backend", "precision", "threads")})
    if importlib.util.find_spec("gradio") is None:
        raise DeviceError(f"the page needs Gradio, which is not installed. {extra('demo')}")
    server = _Server(
        host=options["host"],
        port=_free_port(options["host"], options["port"]),
        auth=None if options["auth"] is None else read_password(options["auth"]),
        hosts=_allowed_hosts(options["host"], options["allow_host"], share=options["share"]),
        share=options["share"],
    )
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background is not to be interrupted
        signal.signal(signal.SIGINT, _interrupt_once)
    with _cache_folder(limits.session_seconds) as root:
        # Gradio reads these when it is imported.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "GRADIO_TEMP_DIR": str(root)}
        pool = Pool(limits)
        catalogue = Catalogue(options["models"], choice, lambda one: pool.picture("open", choice=one))
        pool.start()
        try:
            _serve(server, pool, catalogue, limits, root)
        finally:
            pool.stop()


def _serve(server: _Server, pool: Pool, catalogue: Catalogue, limits: Limits, root: Path) -> None:
    """Open the models, build the page and serve it."""
    with ThreadPoolExecutor(1) as background:
        opening = background.submit(lambda: asyncio.run(catalogue.refresh()))
        import gradio  # noqa: F401 - takes seconds, in which the models are opened

        entries = opening.result()
    for entry in entries:
        if entry.problem:
            logger.warning("%s cannot be used: %s", entry.choice.path.name, entry.problem)
    if not catalogue.usable():
        raise DeviceError(f"none of the models can be used; the first: {entries[0].problem if entries else 'no file'}")
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from actions import Actions
    from page import build_page, theme

    middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=list(server.hosts))] if server.hosts else []
    page = build_page(Actions(pool, catalogue, limits, root), catalogue, limits)
    try:
        page.launch(
            server_name=server.host, server_port=server.port, auth=server.auth, share=server.share,
            max_file_size=limits.upload_bytes, prevent_thread_lock=True, quiet=True, show_error=True, ssr_mode=False,
            run_history=False, footer_links=["api"], pwa=False, mcp_server=False, enable_monitoring=False,
            theme=theme(), css_paths=Path(__file__).with_name("style.css"), app_kwargs={"middleware": middleware},
        )  # fmt: skip
        _announce(server, page.share_url)
        threading.Event().wait()
    except OSError as error:  # the port was taken meanwhile
        raise UsageError(f"cannot listen at {server.host}, port {server.port} ({error}). Choose another.") from error
    finally:
        page.close(verbose=False)


def _announce(server: _Server, public: str | None) -> None:
    """Log where the page is and who can use it."""
    if server.share and not public:
        raise DeviceError("--share: no public address could be opened. Start without it.")
    who = "WITHOUT a password" if server.auth is None else "with the password"
    if public:
        logger.warning("everybody who knows %s can use this page %s", public, who)
    if not _is_loopback(server.host):
        logger.warning("everybody who reaches %s, port %d can use this page %s", server.host, server.port, who)
    logger.info("the page is at %s (Ctrl-C ends it)", server.address)


def _is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _allowed_hosts(host: str, named: Sequence[str], *, share: bool) -> tuple[str, ...]:
    """Return the names under which the page may be asked for: other names may be a stranger's that lead here."""
    if named:
        return (*named, *_LOOPBACK)
    return (host, *_LOOPBACK) if _is_loopback(host) and not share else ()


def _free_port(host: str, port: int) -> int:
    """Return a port that can be listened at, before anything slow is done.

    Raises:
        UsageError: it is taken, or cannot be taken.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
            tried.listen()
        except (OSError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                raise UsageError(f"port {port} is taken by another program. Choose one with --port.") from error
            raise UsageError(f"cannot listen at {host}, port {port} ({error}). Choose others.") from error
        return int(tried.getsockname()[1])


@contextmanager
def _cache_folder(age: float) -> Iterator[Path]:
    """Give Gradio's cache, from which old results are deleted, and which goes at the end.

    Raises:
        DeviceError: there is no place for temporary files.
    """
    try:
        root = Path(tempfile.mkdtemp(prefix=_PREFIX))
    except OSError as error:
        raise DeviceError(f"there is no place for temporary files ({error.strerror}). Set TMPDIR.") from error
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for folder in root.parent.glob(f"{_PREFIX}*"):  # of servers that were killed: nobody holds their locks
            with suppress(OSError), (folder / "lock").open("r+") as other:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        (root / RESULTS).mkdir()
        threading.Thread(target=_sweep, args=(root, age), daemon=True).start()
        try:
            yield root
        finally:
            shutil.rmtree(root, ignore_errors=True)


def _sweep(root: Path, age: float) -> None:
    """Delete results once they are old enough; Gradio's `delete_cache` knows the uploads and what was handed out."""
    while root.is_dir():
        for folder in (root / RESULTS).glob("*"):
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > age:
                    shutil.rmtree(folder, ignore_errors=True)
        time.sleep(min(_SWEEP_SECONDS, age))


def _interrupt_once(number: int, frame: FrameType | None) -> NoReturn:
    """Obey the first Ctrl-C alone: a second one would interrupt the clearing up."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Run the command line."""
    return exit_status(lambda: run(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
