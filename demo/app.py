"""Serves a page that shows pictures and clips before and after adaptation.

python demo/app.py                       # the networks that come with the package
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
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from lsr_infer import DeviceError, UsageError
from lsr_infer.commands.parser import StrictParser
from lsr_infer.errors import exit_status, extra, stderr_handler
from pool import WorkerProcess
from settings import Catalogue, Limits, ModelChoice, hash_password, read_password

__all__ = ["main", "run"]

logger = logging.getLogger("demo")

_PREFIX = "lsr-demo-"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


def _parser() -> argparse.ArgumentParser:
    parser = StrictParser(
        prog="demo/app.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")  # a Gradio Space sets both
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    add = parser.add_argument
    add("--models", type=Path, metavar="DIR", help="folder of exported models (.onnx, .engine)")
    add("--host", default=host, help="address to listen at; the default is this machine alone")
    add("--port", type=int, default=port, help="port to listen at; 0 takes a free one")
    add("--allow-host", action="append", default=[], metavar="NAME", help="the only names it may be asked for under")
    add("--share", action="store_true", help="also open a public address through Gradio's servers")
    add("--auth", metavar="USER:FILE", help="ask for a name and a password; see --hash-password")
    add("--hash-password", action="store_true", help="ask for a password, print the line for FILE, end")
    add("--device", default="auto", help="auto, cpu or cuda:N")
    add("--backend", help="onnxruntime, openvino, tensorrt or tensorrt-rtx; the file's ending decides")
    add("--precision", help="arithmetic, where the backend lets one choose")
    add("--threads", type=int, default=0, help="CPU threads of a network; 0: one a physical core")
    limits = parser.add_argument_group("limits, each refused with a sentence")
    meanings = dict(line.strip().split(": ", 1) for line in (Limits.__doc__ or "").splitlines() if ": " in line)
    for field in fields(Limits):
        name, default = f"--{field.name.replace('_', '-')}", field.default
        text = meanings[field.name].rstrip(".") + ("" if default is None else f" ({default})")
        kind = int if default is None else type(default)
        limits.add_argument(name, type=kind, default=default, metavar="N", help=text)
    return parser


def run(arguments: Sequence[str]) -> None:
    """Serve the page until it is interrupted."""
    options = vars(_parser().parse_args(arguments))
    if options["hash_password"]:
        password = getpass.getpass("Password: ")
        if getpass.getpass("Once more: ") != password:
            raise UsageError("the two passwords differ. Try again.")
        print(hash_password(password))  # noqa: T201 - the result
        return
    logging.basicConfig(level=logging.INFO, handlers=[stderr_handler()])
    logging.getLogger("httpx").setLevel(logging.WARNING)
    limits = Limits(**{field.name: options[field.name] for field in fields(Limits)})
    choice = ModelChoice(**{name: options[name] for name in ("device", "backend", "precision", "threads")})
    options["auth"] = None if options["auth"] is None else read_password(options["auth"])
    if importlib.util.find_spec("gradio") is None:
        raise DeviceError(f"the page needs Gradio, which is not installed. {extra('demo')}")
    options["port"] = _free_port(options["host"], options["port"])
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background is not to be interrupted
        signal.signal(signal.SIGINT, _interrupt_once)
    pictures = WorkerProcess(limits.picture_seconds, limits.job_bytes)
    videos = [WorkerProcess(limits.job_seconds, limits.job_bytes) for _ in range(limits.jobs)]
    catalogue = Catalogue(options["models"], choice, lambda one: pictures.run("open", choice=one))
    with _cache_folder() as root:
        # Gradio reads these when it is imported.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "GRADIO_TEMP_DIR": str(root)}
        try:
            for worker in (pictures, *videos):
                worker.start()
            _open_models(catalogue)
            from actions import Actions
            from page import build_page

            actions = Actions(pictures, videos, catalogue, limits, root)
            page, examples = build_page(actions, catalogue, limits), set(root.iterdir())

            def kept() -> set[Path]:
                return examples | page.folders_in_use() | actions.unfinished

            threading.Thread(target=_sweep, args=(root, kept, limits.session_seconds), daemon=True).start()
            _serve(page, limits, options)
        finally:
            for worker in (pictures, *videos):
                worker.stop()


def _open_models(catalogue: Catalogue) -> None:
    """Open all models while Gradio is imported, which takes seconds."""
    with ThreadPoolExecutor(1) as background:
        opening = background.submit(lambda: asyncio.run(catalogue.refresh()))
        import gradio  # noqa: F401

        entries = opening.result()
    for entry in entries:
        if entry.problem:
            logger.warning("%s cannot be used: %s", entry.choice.path.name, entry.problem)
    if not catalogue.usable():
        raise DeviceError("none of the models can be used. Export one with export/to_onnx.py.")


def _serve(page: Any, limits: Limits, options: dict[str, Any]) -> None:
    """Serve a page until it is interrupted."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from gate import Gate
    from page import theme

    host, port, hosts = options["host"], options["port"], _allowed_hosts(options)
    middleware = [Middleware(Gate, page=page, root=Path(page.GRADIO_CACHE), limits=limits)]
    middleware += [Middleware(TrustedHostMiddleware, allowed_hosts=hosts)] if hosts else []
    try:
        page.launch(
            server_name=host, server_port=port, auth=options["auth"], share=options["share"], prevent_thread_lock=True,
            max_file_size=limits.upload_bytes, quiet=True, show_error=True, ssr_mode=False, run_history=False,
            footer_links=["api"], pwa=False, mcp_server=False, enable_monitoring=False, theme=theme(),
            css_paths=Path(__file__).with_name("style.css"), app_kwargs={"middleware": middleware},
        )  # fmt: skip
        if options["share"] and not page.share_url:
            raise DeviceError("--share: no public address could be opened. Start without it.")
        who = "WITHOUT a password" if options["auth"] is None else "with the password"
        if page.share_url:
            logger.warning("everybody who knows %s can use this page %s", page.share_url, who)
        if not _is_loopback(host):
            logger.warning("everybody who reaches %s, port %d can use this page %s", host, port, who)
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        logger.info("the page is at http://%s:%d (Ctrl-C ends it)", shown, port)
        threading.Event().wait()
    except OSError as error:  # the port was taken meanwhile
        raise UsageError(f"cannot listen at {host}, port {port} ({error}). Choose another.") from error
    finally:
        page.close(verbose=False)


def _is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _allowed_hosts(options: dict[str, Any]) -> list[str]:
    """Return the host names that a request may carry: another site's name could be pointed at this machine."""
    if options["allow_host"]:
        return [*options["allow_host"], *_LOOPBACK]
    return [options["host"], *_LOOPBACK] if _is_loopback(options["host"]) and not options["share"] else []


def _free_port(host: str, port: int) -> int:
    """Return a port that can be listened at, before anything slow is done."""
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
def _cache_folder() -> Iterator[Path]:
    """Make the folder of Gradio's cache and delete it at the end, with those that killed pages have left."""
    try:
        root = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
    except OSError as error:
        raise DeviceError(f"there is no folder for temporary files ({error.strerror}). Set TMPDIR.") from error
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for folder in root.parent.glob(f"{_PREFIX}*"):  # of pages that were killed: their locks are free
            with suppress(OSError), (folder / "lock").open("r+") as other:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        try:
            yield root
        finally:
            shutil.rmtree(root, ignore_errors=True)


def _sweep(root: Path, kept: Callable[[], set[Path]], age: float) -> None:
    """Delete uploads and results once they are old and no request waits for them.

    Gradio's own `delete_cache` (observed with 6.31) ends for good where a file comes while it goes through its list.
    """
    while root.is_dir():
        for folder in set(root.iterdir()) - kept():
            with suppress(OSError):
                newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
                if time.time() - newest > age:
                    shutil.rmtree(folder, ignore_errors=True)
        time.sleep(min(30.0, age / 2))


def _interrupt_once(number: int, frame: FrameType | None) -> NoReturn:
    """Ignore every Ctrl-C after the first: it would interrupt the deletion of files."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Run the command line."""
    return exit_status(lambda: run(sys.argv[1:]), needs="demo")


if __name__ == "__main__":
    sys.exit(main())
