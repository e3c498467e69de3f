"""uvicorn as the page needs it: connections that bring no request in time are closed, and it stops only once.

Needs the extra `demo`, for uvicorn and h11 come with Gradio. Knows nothing of what is asked for.
"""

import asyncio
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["PunctualProtocol", "SteadyServer"]

HEAD_SECONDS = 15.0
"""How long the head of a request may take, from the connection or from its first byte on one that is kept open."""


class PunctualProtocol(H11Protocol):
    """uvicorn's HTTP/1.1; how long a body may be silent is the business of `lsr_infer.web.guard`."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what comes."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._unset()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Set the deadline where a head is awaited; lift it once there is one, however long the rest takes."""
        if self.conn.their_state is not h11.IDLE:
            self._unset()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _unset(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class SteadyServer(uvicorn.Server):
    """Stops as the first signal says; at a second one uvicorn would drop what it is doing, with a traceback."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop, unless that is under way."""
        if not self.should_exit:
            super().handle_exit(sig, frame)
