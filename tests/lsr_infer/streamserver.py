"""Real HTTP and RTSP servers on 127.0.0.1 that send MPEG-TS as a camera does: endlessly, at its own pace."""

import contextlib
import http.server
import io
import itertools
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

FPS = 25


def transport_stream(frames: int = 2 * FPS, size: tuple[int, int] = (48, 64), first: int = 0) -> bytes:
    """Encode frames whose brightness rises by two levels each; stamps begin at the frame number `first`."""
    target = io.BytesIO()
    with av.open(target, "w", format="mpegts") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"preset": "ultrafast", "tune": "zerolatency", "g": "5"}
        )
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for n in range(frames):
            picture = av.VideoFrame.from_ndarray(np.full((*size, 3), 40 + 2 * n % 200, np.uint8), format="bgr24")
            picture.pts = first + n
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return target.getvalue()


class StreamServer:
    """Sends `data` again and again.

    Args:
        data: what is sent.
        rate: bytes a second, None for as fast as the reader takes them.
        port: where it listens, 0 for a free port.
        whole: send it once, as a server of files does, parts of it where they are asked for.
        until: so many bytes of the file are sent, and no parts; then the connection breaks.

    Attributes:
        stall: while set, connections stay open and nothing is sent; with `until`, nothing behind it.
        connections: how many there have been.
        asked: paths that were asked for.
    """

    def __init__(
        self,
        data: bytes,
        rate: float | None = None,
        port: int = 0,
        *,
        whole: bool = False,
        until: int | None = None,
    ) -> None:
        self.stall = threading.Event()
        self.gone = threading.Event()
        self.connections = 0
        self.asked: list[str] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.connections += 1
                server.asked.append(self.path)
                with contextlib.suppress(OSError):
                    if until is not None:
                        server.send_some(self, data, until)
                        return
                    if whole:
                        server.send_file(self, data)
                        return
                    self.send_response(200)
                    self.send_header("Content-Type", "video/mp2t")
                    self.end_headers()
                    server.send(self, data, rate)

            def log_message(self, *words: object) -> None:
                pass

        class Listener(http.server.ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            allow_reuse_address = True

            def handle_error(self, *words: object) -> None:
                pass

        self._listener = Listener(("127.0.0.1", port), Handler)
        self.port = self._listener.server_port
        self.address = f"http://127.0.0.1:{self.port}/road"
        threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def send(self, handler: http.server.BaseHTTPRequestHandler, data: bytes, rate: float | None) -> None:
        piece = 188 * 7
        while not self.gone.is_set():
            for start in range(0, len(data), piece):
                while self.stall.is_set() and not self.gone.is_set():
                    time.sleep(0.02)
                if self.gone.is_set():
                    return
                handler.wfile.write(data[start : start + piece])
                if rate is not None:
                    time.sleep(piece / rate)

    def send_some(self, handler: http.server.BaseHTTPRequestHandler, data: bytes, until: int) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:until])
        while self.stall.is_set() and not self.gone.is_set():
            time.sleep(0.02)

    @staticmethod
    def send_file(handler: http.server.BaseHTTPRequestHandler, data: bytes) -> None:
        asked = handler.headers.get("Range", "bytes=0-")
        start, _, end = asked.removeprefix("bytes=").partition("-")
        part = data[int(start) : int(end) + 1 if end else None]
        handler.send_response(206)
        handler.send_header("Accept-Ranges", "bytes")
        handler.send_header("Content-Length", str(len(part)))
        handler.send_header("Content-Range", f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(part)

    def kill(self) -> None:
        """Close the port and every connection."""
        self.gone.set()
        self._listener.shutdown()
        self._listener.server_close()


@contextlib.contextmanager
def serving(
    data: bytes, rate: float | None = None, *, whole: bool = False, until: int | None = None
) -> Iterator[StreamServer]:
    server = StreamServer(data, rate, whole=whole, until=until)
    try:
        yield server
    finally:
        if not server.gone.is_set():
            server.kill()


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def rtsp_serving(data: bytes, rate: float) -> Iterator[str]:
    """A real RTSP server on 127.0.0.1 that sends MPEG-TS in RTP over the connection, endlessly; yields its address."""
    head = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=road\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
    sdp = f"{head}m=video 0 RTP/AVP 33\r\na=control:track\r\n"
    answers = {
        "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n\r\n",
        "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n{sdp}",
        "SETUP": "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n",
    }
    gone = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                while method := self._answer():
                    if method == "PLAY":
                        self._play()

        def _answer(self) -> str:
            lines = [line.decode().strip() for line in itertools.takewhile(bytes.strip, self.rfile)]
            if not lines:
                return ""
            method = lines[0].split()[0]
            number = next(line for line in lines if line.lower().startswith("cseq:"))
            rest = answers.get(method, "Session: 1\r\n\r\n")
            self.wfile.write(f"RTSP/1.0 200 OK\r\n{number}\r\n{rest}".encode())
            return method

        def _play(self) -> None:
            piece = 188 * 7
            starts = itertools.cycle(range(0, len(data), piece))
            for number in itertools.takewhile(lambda _: not gone.is_set(), itertools.count()):
                start = next(starts)
                packet = struct.pack("!BBHII", 0x80, 33, number % 65536, number * 90, 1) + data[start : start + piece]
                self.wfile.write(struct.pack("!BBH", ord("$"), 0, len(packet)) + packet)
                time.sleep(piece / rate)

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Listener(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield f"rtsp://127.0.0.1:{listener.server_address[1]}/road"
        finally:
            gone.set()
            listener.shutdown()
